"""Downloads: what is named is fetched whole or not at all, and nothing else is."""

import functools
import http.server
import threading
from pathlib import Path

import pytest

from utils.base import downloads
from utils.base.downloads import OFFICIAL_WEIGHTS, attempt_download, safe_download

CONTENT = bytes(range(256)) * 1000


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; addresses that end in `cut` announce more than they give."""

    def do_GET(self):
        if not self.path.endswith("cut"):
            return super().do_GET()
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        return self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def address(tmp_path_factory):
    """Address of a server on this machine with the files best.pt and empty.pt, and release v7.0 with yolov5n.pt."""
    folder = tmp_path_factory.mktemp("served")
    for name, content in {"best.pt": CONTENT, "empty.pt": b"", "v7.0/yolov5n.pt": CONTENT}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(downloads, "RELEASE_URL", "http://127.0.0.1:9/{repo}/{release}/{name}")
    return tmp_path


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_is_there_is_not_fetched(working_folder):
    (working_folder / "yolov5n.pt").write_bytes(b"mine")
    assert attempt_download("yolov5n.pt") == "yolov5n.pt"
    assert (working_folder / "yolov5n.pt").read_bytes() == b"mine"


def test_an_official_name_needs_no_suffix(working_folder):
    (working_folder / "yolov5n.pt").write_bytes(b"mine")
    assert attempt_download("yolov5n") == "yolov5n.pt"
    (working_folder / "yolov5n").write_bytes(b"a file of that very name")
    assert attempt_download("yolov5n") == "yolov5n"


def test_official_weights_are_fetched_to_the_place_that_is_named(address, working_folder, monkeypatch, capsys):
    monkeypatch.setattr(downloads, "RELEASE_URL", address + "/{release}/{name}")
    assert attempt_download(Path("weights/deep/yolov5n.pt")) == str(Path("weights/deep/yolov5n.pt"))
    assert (working_folder / "weights/deep/yolov5n.pt").read_bytes() == CONTENT
    assert files_in(working_folder / "weights/deep") == ["yolov5n.pt"]
    assert "250k/250k" in capsys.readouterr().err


def test_the_official_weights_are_those_of_every_size_and_kind():
    assert len(OFFICIAL_WEIGHTS) == 20
    assert {"yolov5n.pt", "yolov5x6.pt", "yolov5s-seg.pt", "yolov5m-cls.pt"} <= set(OFFICIAL_WEIGHTS)


@pytest.mark.parametrize("name", ["best.pt", "best", "yolov5s7.pt", "yolov5s7", "runs/yolov5q.pt"])
def test_a_name_that_is_not_official_is_not_fetched(name, working_folder):
    with pytest.raises(FileNotFoundError, match=r"does not exist.*yolov5n\.pt, yolov5s\.pt.*yolov5x-cls\.pt"):
        attempt_download(name)
    assert files_in(working_folder) == []


def test_an_address_is_fetched_once_to_its_own_name(address, working_folder):
    assert attempt_download(f"{address}/best.pt?token=1") == "best.pt"
    (working_folder / "best.pt").write_bytes(b"changed")
    attempt_download(f"{address}/best.pt")
    assert (working_folder / "best.pt").read_bytes() == b"changed"


def test_without_a_network_the_error_names_file_address_and_what_to_do(working_folder):
    with pytest.raises(OSError, match=r"yolov5s\.pt could not be downloaded from http://127") as caught:
        attempt_download("yolov5s.pt")
    assert "put the file there yourself" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert files_in(working_folder) == []


@pytest.mark.parametrize(
    ("page", "reason"),
    [("none.pt", "404"), ("cut", "ended after 256000 of 1000000 bytes"), ("empty.pt", "ended after 0 of 1 bytes")],
)
def test_a_failed_download_leaves_nothing_behind(page, reason, address, working_folder):
    with pytest.raises(OSError, match=reason):
        safe_download("weights.pt", f"{address}/{page}")
    assert files_in(working_folder) == []


def test_a_failed_download_keeps_the_file_that_was_there(address, working_folder):
    (working_folder / "weights.pt").write_bytes(b"old")
    with pytest.raises(OSError, match="404"):
        safe_download("weights.pt", f"{address}/none.pt")
    assert (working_folder / "weights.pt").read_bytes() == b"old"
