"""Commands whose options are the fields of a dataclass: names, defaults and help are written once."""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, NoReturn

from explainer.errors import UsageError, printable
from utils.base.paths import FailedWriteError

# Whatever was asked for, there is no room for it.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SPELLINGS = {
    "imgsz": ("--imgsz", "--img", "--img-size"),
    # Spelled so in YOLOv5.
    **{name: (f"--{name}",) for name in ("upload_dataset", "bbox_interval", "artifact_alias")},
}


def option(default: Any, text: str, **argument: Any) -> Any:
    """Return a dataclass field with its help and further arguments for `add_argument`; a False one is a flag."""
    return field(default=default, metadata={"help": text, **argument})


class OneLineParser(argparse.ArgumentParser):
    """Answers a mistake with one line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help lists all options\n")


def build_parser(options: type, prog: str, description: str) -> argparse.ArgumentParser:
    """Return a parser with one argument per field of the dataclass `options`, made with `option`."""
    parser = OneLineParser(prog=prog, description=description)
    for each in fields(options):
        argument: dict[str, Any] = dict(each.metadata)
        if each.default is False and "nargs" not in argument:
            argument["action"] = "store_true"
        else:
            argument["default"] = each.default
            argument["help"] += f" (default: {each.default})".replace("%", "%%")
        parser.add_argument(*SPELLINGS.get(each.name, (flag(each.name),)), **argument)
    return parser


def flag(name: str) -> str:
    """Return the spelling of an option on the command line."""
    return f"--{name.replace('_', '-')}"


def exit_code(
    prog: str,
    prepare: Callable[[], Any],
    work: Callable[[Any], Any],
    *,
    is_partial: Callable[[Any], bool] = lambda result: False,
) -> int:
    """Do the work on what was prepared and return 0, or 2 for a user's mistake, 130 for Ctrl-C.

    Where something could not be written, or `is_partial` says of what the work returned that something was left out,
    return 1. A mistake is one line on stderr: a ValueError while preparing, a UsageError or another OSError at any time.
    A failed write is one line too.
    """
    try:
        try:
            job = prepare()
        except (ValueError, ModuleNotFoundError) as error:
            raise UsageError(str(error)) from error
        result = work(job)
    except (UsageError, OSError) as error:
        print(f"{prog}: {one_line(error)}", file=sys.stderr)
        return 1 if is_failed_write(error) else 2
    except KeyboardInterrupt:
        return 130
    return int(is_partial(result))


def is_failed_write(error: Exception) -> bool:
    """Return whether an error says that something could not be written, though nothing was wrong with it."""
    return isinstance(error, FailedWriteError) or (isinstance(error, OSError) and error.errno in NO_ROOM)


def one_line(error: BaseException) -> str:
    """Return what an error says, the system's own as `file: reason`."""
    is_system = isinstance(error, OSError) and error.filename and error.strerror
    text = f"{error.filename}: {error.strerror}" if is_system else str(error)
    return printable(" ".join(text.split()))
