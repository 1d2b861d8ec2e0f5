"""Checkpoints changed at random, from a fixed seed: nothing but the declared error comes out, soon and within little memory.

FUZZ_SECONDS says for how long (20), FUZZ_SEED from where (0).
"""

import io
import os
import pickle
import random
import resource
import subprocess
import sys
import time
import zipfile
from copy import deepcopy
from pathlib import Path

import pytest
from tiny_detectors import tiny_detector, tiny_segmenter

from explainer.checkpoints.checkpoint import CheckpointError, load_model

SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
# What a process takes with torch, in bytes, and what one small file may take beside it; a file's time, in seconds.
ADDRESSES, MEMORY, LONGEST = 24 << 30, 2 << 30, 30
INTERESTING = (0, 1, 2, 127, 128, 255)
OPCODES = [value for name, value in vars(pickle).items() if name.isupper() and type(value) is bytes and len(value) == 1]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets a limit on the memory of a process as Linux does")


def saved(content, *, legacy: bool) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def seeds() -> list[bytes]:
    """Return small checkpoints that are whole, in both formats."""
    models = (
        {"model": deepcopy(tiny_detector()).half(), "ema": None, "epoch": 3, "opt": {"lr": 0.1}},
        {"model": tiny_segmenter()},
    )
    return [saved(each, legacy=legacy) for each in models for legacy in (False, True)]


def change_bytes(data: bytes, dice: random.Random) -> bytes:
    """Return data with a few bytes changed, opcodes put in, or a stretch cut out, repeated or moved."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        place, way = dice.randrange(len(changed) or 1), dice.randrange(6)
        length = dice.choice((1, 2, 8, 64))
        if way == 0:
            changed[place : place + 1] = bytes([dice.choice(INTERESTING)])
        elif way == 1:
            changed[place : place + 1] = bytes([dice.randrange(256)])
        elif way == 2:
            changed[place:place] = b"".join(dice.choices(OPCODES, k=length))
        elif way == 3:
            del changed[place : place + length]
        elif way == 4:
            changed[place:place] = changed[place : place + length] * dice.choice((1, 2, 1000))
        else:
            changed[place : place + 1] = dice.choice(OPCODES)
    return bytes(changed)


def change_members(data: bytes, dice: random.Random) -> bytes:
    """Return a zip archive with its pickle changed, and sometimes a member left out, doubled, cut or compressed."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as whole, zipfile.ZipFile(stream, "w") as changed:
        for name in whole.namelist():
            content, way = whole.read(name), dice.randrange(40)
            if name.endswith("data.pkl") and way > 4:
                content = change_bytes(content, dice)
            elif way == 0:
                continue
            elif way == 1:
                content = content[: dice.randrange(len(content) + 1)]
            elif way == 2 and name.rpartition("/")[2].isdigit():
                changed.writestr(name + "0", content)
            compression = zipfile.ZIP_DEFLATED if way == 3 else zipfile.ZIP_STORED
            changed.writestr(name, content, compression)
    return stream.getvalue()


def changed(data: bytes, dice: random.Random) -> bytes:
    is_zip = data.startswith(b"PK")
    return change_members(data, dice) if is_zip and dice.random() < 0.8 else change_bytes(data, dice)


def fuzz(folder: Path, seconds: float, seed: int) -> int:
    """Read changed checkpoints for so long; return how many. The last one stays in the folder, as last.pt."""
    dice, whole, path = random.Random(seed), seeds(), folder / "last.pt"
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    before, count = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path.write_bytes(changed(dice.choice(whole), dice))
        start, message = time.monotonic(), str(path)
        try:
            load_model(path, fuse=dice.random() < 0.5)
        except CheckpointError as error:
            message = str(error)
        assert message.startswith(str(path)), message
        assert message.isprintable(), message
        assert time.monotonic() - start < LONGEST, "took too long"
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < MEMORY, "took too much memory"
        count += 1
    return count


def test_nothing_but_the_declared_error_comes_out_of_a_changed_checkpoint(tmp_path):
    # In a process of its own, which may end badly, and whose memory is limited.
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    code = (
        f"import sys; sys.path[:0] = {places!r} + {sys.path!r}; import warnings; warnings.simplefilter('ignore'); "
        f"from pathlib import Path; import test_fuzz_checkpoints as fuzzing; "
        f"print(fuzzing.fuzz(Path({str(tmp_path)!r}), {SECONDS}, {SEED}))"
    )
    limit = SECONDS + 4 * LONGEST
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, f"{tmp_path / 'last.pt'}: {done.returncode} {done.stderr[-3000:]}"
    assert int(done.stdout.split()[-1]) > SECONDS
