"""The page of a run: what is in it, that nothing from outside can act in it, and that it is written whole or not at all."""

import json
import re
from base64 import b64decode
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pages import FACTS, answer_of, entry_of, page_with, ramp, row_of, side_by_side
from PIL import Image
from scenes import confident_detector, picture, save_checkpoint

from explainer.command.reporting import command_of, sha256_of
from explainer.evaluate import run as run_evaluation
from explainer.explainer import explain_source, run
from explainer.files import results
from explainer.files.results import Page
from explainer.pictures import report
from explainer.pictures.report import Report, as_json, fitting, grey, short_names, without_password, words_of

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 & ' \""


class Scripts(HTMLParser):
    """The scripts of a page as a browser would see them: attributes and text."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[dict, str]] = []
        self.tags: Counter[str] = Counter()
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        self.inside = tag == "script"
        if self.inside:
            self.found.append((dict(attributes), ""))

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        if self.inside:
            attributes, before = self.found[-1]
            self.found[-1] = attributes, before + text


def text_of(path):
    return path.read_text(encoding="utf-8")


def blocks_of(path):
    """Return the data of a page by the identity of its element."""
    scripts = Scripts(text_of(path)).found
    return {attributes["id"]: json.loads(text) for attributes, text in scripts if "id" in attributes}


def decoded(url):
    return cv2.imdecode(np.frombuffer(b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)


def one_image(shown=None, entries=None, path="photos/one.jpg", **about):
    shown = ramp(40, 60) if shown is None else shown
    entries = [entry_of("dog", (3, 4, 30, 20), 0.9, ramp(20, 30))] if entries is None else entries
    rows = [row_of(entry) for entry in entries] or [{"method": "GradCAM", "note": "nothing was found"}]
    return path, answer_of(picture(40, 60), shown, entries, **about), rows


def test_an_image_has_its_photograph_its_map_and_the_map_of_each_detection(tmp_path):
    part = blocks_of(page_with(tmp_path, [one_image()]))["part-0"]
    assert decoded(part["photograph"]).shape == (40, 60, 3)
    (panel,) = part["panels"]
    assert (decoded(part["maps"][panel["whole"]["map"]]) == np.rint(ramp(40, 60) * 255)).all()
    assert (decoded(part["maps"][panel["own"][0]["map"]]) == np.rint(ramp(20, 30) * 255)).all()


def test_a_map_with_a_sign_has_128_for_zero():
    assert grey(np.float32([[-1, 0, 1]]), True).tolist() == [[1, 128, 255]]
    assert grey(np.float32([[0, 0.5, 1]]), False).tolist() == [[0, 128, 255]]


def test_an_empty_map_is_left_out_and_equal_ones_are_kept_once(tmp_path):
    same = ramp(20, 30)
    maps = (same, same, np.zeros((20, 30), np.float32))
    entries = [entry_of(name, (0, 0, 9, 9), 0.5, shown) for name, shown in zip("abc", maps, strict=True)]
    part = blocks_of(page_with(tmp_path, [one_image(np.zeros((40, 60), np.float32), entries)]))["part-0"]
    (panel,) = part["panels"]
    assert panel["whole"] is panel["own"][2] is None
    assert [entry["map"] for entry in panel["own"][:2]] == [0, 0]
    assert len(part["maps"]) == 1


def test_a_map_comes_with_the_tone_by_which_its_detection_is_seen(tmp_path):
    hot = np.zeros((20, 30), np.float32)
    hot[2, 2], hot[15:, 20:] = 1, 0.02
    entries = [entry_of(name, box, 0.5, hot) for name, box in (("a", (0, 0, 12, 12)), ("b", (40, 30, 60, 40)))]
    (panel,) = blocks_of(page_with(tmp_path, [one_image(None, entries)]))["part-0"]["panels"]
    curves = [np.frombuffer(b64decode(entry["curve"]), np.uint8) for entry in panel["own"]]
    assert [curve.size for curve in curves] == [256, 256]
    assert curves[1][5] >= 102 > curves[0][5], "the box on the faint part lifts it into sight"


def test_pictures_are_made_smaller_but_never_larger():
    assert fitting((3000, 4000), 1280) == (960, 1280)
    assert fitting((40, 60), 1280) == (40, 60)
    assert fitting((1, 9000), 320) == (1, 320)


def test_the_table_has_a_row_for_each_detection_which_knows_its_picture_and_its_box(tmp_path):
    data = blocks_of(page_with(tmp_path, [one_image(), one_image(path="photos/two.jpg")]))["data"]
    (table,) = data["tables"]
    columns = [column["name"] for column in table["columns"]]
    assert [row["at"] for row in table["rows"]] == [[0, 0, 0], [1, 0, 0]]
    first = dict(zip(columns, table["rows"][0]["cells"], strict=True))
    assert (first["image"], first["name"], first["confidence"], first["peak_in_box"]) == ("one.jpg", "dog", 0.9, True)
    assert table["rows"][0]["box"] == [3, 4, 30, 20]
    # Columns that no row fills are left out.
    assert not {"outcome", "model", "note"} & set(columns)


def test_an_image_without_detections_has_a_row_that_says_why(tmp_path):
    data = blocks_of(page_with(tmp_path, [one_image(entries=[])]))["data"]
    (row,) = data["tables"][0]["rows"]
    assert row["at"] == [0, 0, None]
    assert "nothing was found" in row["cells"]


def test_a_near_miss_is_counted_by_itself_and_marked_as_not_found(tmp_path):
    entry = entry_of("dog", (3, 4, 30, 20), 0.19, ramp(20, 30), "below threshold")
    blocks = blocks_of(
        page_with(tmp_path, [one_image(entries=[entry]), one_image(entries=[entry], path="photos/2.jpg")])
    )
    assert [row["found"] for row in blocks["data"]["tables"][0]["rows"]] == [False, False]
    assert "2 images, 2 below threshold ·" in text_of(tmp_path / "report.html")


def test_methods_stand_side_by_side_with_rows_of_their_own(tmp_path):
    entry = entry_of("dog", (3, 4, 30, 20), 0.9, ramp(20, 30))
    answers = [answer_of(picture(40, 60), ramp(40, 60), [entry], method) for method in ("GradCAM", "LayerCAM")]
    rows = [row_of(entry, "GradCAM"), row_of(entry, "LayerCAM")]
    blocks = blocks_of(page_with(tmp_path, [("one.jpg", side_by_side(*answers), rows)]))
    assert [panel["title"] for panel in blocks["data"]["images"][0]["panels"]] == ["GradCAM", "LayerCAM"]
    assert [row["at"] for row in blocks["data"]["tables"][0]["rows"]] == [[0, 0, 0], [0, 1, 0]]
    # Two methods found nothing more than one.
    assert "1 image, 1 detection ·" in text_of(tmp_path / "report.html")


def test_text_from_outside_stays_text(tmp_path):
    entry = entry_of(HOSTILE, (0, 0, 9, 9), 0.5, ramp(20, 30))
    answer = answer_of(picture(40, 60), ramp(40, 60), [entry], notes=(HOSTILE,))
    path = Path("photos") / HOSTILE.replace("/", "_")
    page = page_with(tmp_path, [(path, answer, [row_of(entry, note=HOSTILE)])], warnings=[HOSTILE], remarks=[HOSTILE])
    parsed, usual = Scripts(text_of(page)), Scripts(text_of(page_with(tmp_path, [one_image()])))
    assert parsed.tags["script"] == usual.tags["script"] == 3
    data = json.loads(next(text for attributes, text in parsed.found if attributes.get("id") == "data"))
    assert HOSTILE in data["tables"][0]["rows"][0]["cells"]
    assert "alert(1)" not in parsed.found[-1][1]
    assert "\u2028" not in "".join(text for _, text in parsed.found)


def test_a_name_that_is_no_text_can_be_written(tmp_path):
    page = page_with(tmp_path, [one_image(path="photos/\udcff.jpg")])
    assert blocks_of(page)["data"]["images"][0]["title"] == "\udcff.jpg"


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path):
    text = text_of(page_with(tmp_path, [one_image()]))
    assert "default-src &#39;none&#39;" in text
    assert not re.search(r"""(src|href)=["']?(https?:|//)|@import|url\(""", text)


def test_the_script_makes_no_markup_of_text():
    script = report.page_file("report.js")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", script)
    assert not any(tag in script + report.page_file("report.css") for tag in ("<!--", "</"))


def test_large_pictures_lie_beside_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PAGE_BYTES", 100)
    page = page_with(tmp_path, [one_image(), one_image()])
    assert blocks_of(page).keys() == {"data"}
    assert blocks_of(page)["data"]["beside"] == "report"
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["0.js", "1.js"]
    assert (tmp_path / "report/1.js").read_text(encoding="ascii").startswith('receive(1, {"photograph":"data:')
    # What an earlier run left there is not touched.
    assert blocks_of(page_with(tmp_path, [one_image()]))["data"]["beside"] == "report_2"


@pytest.mark.parametrize("most", [100, 2**20])
def test_nothing_is_left_of_a_page_that_could_not_be_completed(tmp_path, monkeypatch, most):
    monkeypatch.setattr(results, "PAGE_BYTES", most)
    (tmp_path / "report.html").write_text("an older one", encoding="utf-8")

    def half(parts, beside):
        yield "half"
        raise KeyboardInterrupt

    with Page(tmp_path) as page:
        page.add('"' + 200 * "x" + '"')
        with pytest.raises(KeyboardInterrupt):
            page.write(half)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert text_of(tmp_path / "report.html") == "an older one"


def test_there_is_an_end_to_how_many_images_a_page_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_IMAGES", 2)
    page = page_with(tmp_path, [one_image()] * 5)
    assert len(blocks_of(page)["data"]["images"]) == 2
    assert "3 more are in the table" in text_of(page)


def test_numbers_are_short_and_those_that_are_none_are_left_out():
    values = [np.float32(1 / 3), float("nan"), float("inf"), np.int64(3), np.True_, None, (0.5, float("nan"))]
    assert as_json(values) == [0.33333, None, None, 3, True, None, [0.5, None]]


def test_names_are_as_long_as_tells_them_apart():
    assert short_names([Path("a/b/1.jpg"), Path("a/c/1.jpg")]) == ["b/1.jpg", "c/1.jpg"]
    assert short_names([Path("a/b/1.jpg")]) == ["1.jpg"]


def test_no_password_of_a_stream_is_shown():
    assert without_password("--source rtsp://me:secret@camera/1") == "--source rtsp://***@camera/1"
    assert without_password("mail@example.org") == "mail@example.org"


def test_what_was_found_is_told_in_words():
    assert words_of(Counter(image=2, hit=1, miss=2, given=3)) == "2 images, 1 hit, 2 misses, 3 given boxes"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("weights") / "tiny.pt", confident_detector())


@pytest.fixture
def options(weights, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(picture(50, 70, seed)).save(folder / f"{seed}.png")
    common = {"weights": weights, "imgsz": 96, "conf_thres": 0.05, "project": str(tmp_path / "out"), "report": True}
    return common | {"source": str(folder)}


def test_the_command_writes_the_page_and_says_how_to_repeat_it(options, tmp_path, weights):
    run(**options, method=["GradCAM", "HiResCAM"], nosave=True)
    folder = tmp_path / "out/exp"
    assert {path.name for path in folder.iterdir()} == {"explanations.csv", "options.yaml", "report.html"}
    text, blocks = text_of(folder / "report.html"), blocks_of(folder / "report.html")
    assert [image["title"] for image in blocks["data"]["images"]] == ["0.png", "1.png", "2.png"]
    assert sha256_of(Path(weights)) in text
    assert "torch " in text
    rows = len((folder / "explanations.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert len(blocks["data"]["tables"][0]["rows"]) == rows
    assert "Incomplete" not in text


@pytest.mark.parametrize(
    ("changes", "panels"),
    [
        ({"method": "HiResCAM", "signed": True}, 1),
        ({"renormalize": True, "keep_only_topk": 20}, 1),
        ({"boxes": [(1, 2, 30, 40, "bee")]}, 1),
        ({"use_old_target_method": True}, 1),
        ({"layer": [4, 7], "each_layer": True, "method": ["GradCAM", "EigenCAM"]}, 4),
        ({"method": "DRISE", "masks": 4}, 1),
        ({"conf_thres": 0.999}, 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_whatever_is_asked_there_is_a_page(options, tmp_path, changes, panels):
    run(**options | changes, nosave=True)
    blocks = blocks_of(tmp_path / "out/exp/report.html")
    assert len(blocks["data"]["images"][0]["panels"]) == panels
    assert {panel["sign"] for panel in blocks["data"]["images"][0]["panels"]} == {"signed" in changes}
    for row in blocks["data"]["tables"][0]["rows"]:
        image, panel, index = row["at"]
        own = blocks[f"part-{image}"]["panels"][panel]["own"]
        assert (index is None and not own) or index < len(own)


def test_models_that_are_compared_have_a_picture_each(options, tmp_path, weights):
    other = save_checkpoint(tmp_path / "other.pt", confident_detector(1))
    run(**{name: value for name, value in options.items() if name != "weights"}, compare=[weights, other], nosave=True)
    data = blocks_of(tmp_path / "out/exp/report.html")["data"]
    assert [panel["title"] for panel in data["images"][0]["panels"]] == ["tiny.pt: GradCAM", "other.pt: GradCAM"]
    assert "model" in [column["name"] for column in data["tables"][0]["columns"]]


def test_without_the_option_there_is_no_page(options, tmp_path):
    run(**options | {"report": False})
    assert not (tmp_path / "out/exp/report.html").exists()


def test_a_run_that_is_interrupted_leaves_a_page_of_what_was_done(options, tmp_path, monkeypatch):
    from explainer.command import explaining
    from explainer.command.options import build_options

    frames, look_at = [], explaining.look_at

    def until_the_third(frame, job):
        frames.append(frame)
        if len(frames) == 3:
            raise KeyboardInterrupt
        return look_at(frame, job)

    monkeypatch.setattr(explaining, "look_at", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        explain_source(build_options(options))
    page = tmp_path / "out/exp/report.html"
    assert len(blocks_of(page)["data"]["images"]) == 2
    assert "the run was stopped before its end" in text_of(page)


def test_the_folder_beside_is_not_that_of_an_image_called_report(options, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PAGE_BYTES", 100)
    Image.fromarray(picture(50, 70)).save(tmp_path / "photos/report.png")
    run(**options, per_detection=True, max_det=1)
    folder = tmp_path / "out/exp"
    assert (folder / "report_2/sheet.jpg").exists()
    assert {path.suffix for path in (folder / "report").iterdir()} == {".js"}


def test_the_command_is_told_as_it_was_typed_or_called(options, monkeypatch):
    from explainer.command.options import build_options

    chosen = build_options(options | {"source": "my photos", "method": "LayerCAM"})
    assert "method='LayerCAM'" in command_of("explainer.py", chosen)
    monkeypatch.setattr("sys.argv", ["explainer/explainer.py", "--source", "my photos"])
    assert command_of("explainer.py", chosen) == "python explainer/explainer.py --source 'my photos'"
    monkeypatch.setattr("sys.argv", ["explainer/explainer.py", "--resume", "runs/explain/exp"])
    assert command_of("explainer.py", chosen).startswith("run(method='LayerCAM', ")


def test_an_evaluation_has_its_tables_and_pictures_on_a_page(options, tmp_path):
    common = {name: options[name] for name in ("weights", "imgsz", "conf_thres", "project", "report")}
    folder = run_evaluation(**common, data=options["source"], steps=2, max_det_per_image=1, method="GradCAM")
    blocks = blocks_of(folder / "report.html")
    tables = {table["title"]: table for table in blocks["data"]["tables"]}
    assert "Where does it lie?" in tables
    faithful = tables["Does the score follow the heatmap?"]
    assert [row["cells"][0] for row in faithful["rows"]].count("GradCAM") == 1
    mean, low, high = faithful["rows"][0]["cells"][3]
    assert low <= mean <= high
    pictures = [block["picture"][:15] for name, block in blocks.items() if name.startswith("part")]
    assert pictures[:3] == ["data:image/png;"] * 3
    assert pictures[3] == "data:image/jpeg"
    assert (folder / "curves.png").exists()
    assert "overall ↑: insertion less deletion" in text_of(folder / "report.html")


def test_a_report_of_no_image_at_all_is_none(tmp_path):
    with Page(tmp_path) as page:
        whole = Report(page, title="Explanations", about="", facts=FACTS)
        whole.add_table("A table", [report.Column("a", "a")], [["x"]])
        path, beside = whole.write()
    assert beside is None
    assert blocks_of(path)["data"]["tables"][0]["rows"] == [{"cells": ["x"]}]


def test_a_frame_of_a_video_is_called_after_its_number(tmp_path):
    _, answer, rows = one_image()
    with Page(tmp_path) as page:
        whole = Report(page, title="Explanations", about="", facts=FACTS)
        whole.add(SimpleNamespace(path=Path("clip.mp4"), number=7), answer, rows)
        path, _ = whole.write()
    assert blocks_of(path)["data"]["images"][0]["title"] == "clip.mp4, frame 7"


def test_a_finished_evaluation_gets_its_page_later(options):
    common = {name: options[name] for name in ("weights", "imgsz", "conf_thres", "project")}
    about = {"steps": 2, "max_det_per_image": 1, "method": "GradCAM", "nosave": True}
    folder = run_evaluation(**common, **about, data=options["source"])
    assert not (folder / "report.html").exists()
    assert run_evaluation(resume=str(folder), report=True) == folder
    assert blocks_of(folder / "report.html")["data"]["images"] == []
