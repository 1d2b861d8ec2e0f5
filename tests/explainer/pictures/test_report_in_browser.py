"""The page of a run in a real browser: what a click, a key and the pointer do, and what text from outside does not."""

import os
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pages import answer_of, entry_of, page_with, ramp, row_of, side_by_side
from scenes import picture

from explainer.files import results
from explainer.pictures.drawing import Style, colour_table, paint
from explainer.pictures.report import Report

pytest.importorskip("playwright", reason="needs playwright: pip install -r requirements-dev.txt")
from playwright.sync_api import expect, sync_playwright

ARGUMENTS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
HEIGHT, WIDTH = 48, 64
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)></script>"
PIXELS = "canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data)"


@pytest.fixture(scope="session")
def chromium():
    """Yield a browser; skip where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("needs chromium: apt-get install chromium, or set CHROMIUM to its path")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Open a page offline and return it; nothing may go wrong there or be asked of elsewhere."""
    contexts, troubles = [], []

    def call(path: Path, width: int = 1280, **context):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 800}, offline=True, **context))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: troubles.append(message.text))
        page.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: request.url.startswith(("data:", "file:")) or troubles.append(request.url))
        page.goto(path.as_uri())
        expect(page.locator("#image-0[data-loaded]")).to_be_attached()
        return page

    yield call
    for context in contexts:
        context.close()
    assert troubles == []


def dog_and_cat(number: int = 0, method: str = "GradCAM"):
    """Return an answer with two detections whose maps rise to the right and fall, and its rows."""
    dog = entry_of("dog", (4, 8, 24, 40), 0.9, ramp(HEIGHT, WIDTH)[:, ::-1], "hit")
    cat = entry_of("cat", (34, 8, 60, 44), 0.6 - number / 1000, ramp(HEIGHT, WIDTH), "false alarm")
    answer = answer_of(picture(HEIGHT, WIDTH, number), waves(), [dog, cat], method)
    return answer, [row_of(dog, method, energy_in_box=0.8), row_of(cat, method, energy_in_box=0.1 + number / 100)]


def waves() -> np.ndarray:
    """Return a map (h, w) that is different everywhere."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    values = 0.5 + 0.25 * np.sin(columns / 5) + 0.25 * np.cos(rows / 7)
    return (values / values.max()).astype(np.float32)


@pytest.fixture
def three(tmp_path):
    """Return the page of three images."""
    return page_with(tmp_path, [(f"{number}.jpg", *dog_and_cat(number)) for number in range(3)])


def pixels(page, number: int = 0, panel: int = 0) -> np.ndarray:
    """Return what a canvas shows, RGB (h, w, 3)."""
    values = page.locator(f"#image-{number} .stage canvas").nth(panel).evaluate(PIXELS)
    return np.uint8(values).reshape(HEIGHT, WIDTH, 4)[..., :3]


def first_cells(page) -> list[str]:
    """Return the first cells of the lines of the table."""
    return page.locator("#detections tbody th").all_inner_texts()


def set_slider(page, value: int) -> None:
    page.locator("#opacity").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", value
    )


def test_the_picture_is_the_photograph_under_the_colours_of_its_map(opened, three):
    page = opened(three)
    set_slider(page, 0)
    photograph = pixels(page).astype(float)
    assert np.abs(photograph - picture(HEIGHT, WIDTH)).mean() < 10
    set_slider(page, 100)
    dog, cat = dog_and_cat()[0].found[""]
    seen = paint(np.uint8(photograph), waves(), Style(alpha=1), boxes=[dog.xyxy, cat.xyxy])
    assert np.abs(pixels(page).astype(int) - seen).max() <= 4
    page.select_option("#tone", "linear")
    steps = np.rint(waves() * 255).astype(int)
    heat = (steps / 255)[..., None]
    opacity = heat * heat * (3 - 2 * heat)
    expected = photograph * (1 - opacity) + colour_table("plasma")[steps] * opacity
    assert np.abs(pixels(page) - expected).max() <= 3


def test_colours_tone_and_the_switch_change_the_pixels(opened, three):
    page = opened(three)
    seen = [pixels(page)]
    for select, value in (("#colours", "viridis"), ("#tone", "root")):
        page.select_option(select, value)
        seen.append(pixels(page))
    page.keyboard.press("h")
    seen.append(pixels(page))
    assert not page.locator("#heat").is_checked()
    page.locator("#heat").check()
    seen.append(pixels(page))
    assert all((one != other).any() for one, other in pairwise(seen))
    assert (seen[2] == seen[4]).all()


def test_the_page_opens_with_the_tone_of_the_run(opened, tmp_path):
    with results.Page(tmp_path) as book:
        run = Report(book, title="Explanations", about="", facts={}, style=Style(tone="root"))
        run.add(SimpleNamespace(path=Path("a.jpg"), number=0), *dog_and_cat())
        path = run.write()[0]
    page = opened(path)
    shown = pixels(page)
    assert page.locator("#tone").input_value() == "root"
    assert page.locator("#tone option").all_inner_texts() == ["root", "evidence", "linear"]
    page.select_option("#tone", "evidence")
    assert (pixels(page) != shown).any()
    page.select_option("#tone", "root")
    assert (pixels(page) == shown).all()


def test_a_click_on_a_box_shows_its_own_map_and_another_click_or_escape_that_of_all(opened, three):
    page = opened(three)
    figure, together = page.locator("#image-0 figure"), pixels(page)
    dog = page.get_by_role("button", name="hit: dog 0.90").first
    dog.click()
    expect(figure).to_have_attribute("data-map", "0")
    expect(dog).to_have_attribute("aria-pressed", "true")
    expect(figure).to_contain_text("80 % of the map in the box")
    assert (pixels(page) != together).any()
    dog.click()
    expect(figure).to_have_attribute("data-map", "all")
    assert (pixels(page) == together).all()
    dog.click()
    expect(figure).to_have_attribute("data-map", "0")
    page.keyboard.press("Escape")
    expect(figure).to_have_attribute("data-map", "all")


def test_the_value_under_the_pointer_is_that_of_the_array(opened, three):
    page = opened(three)
    stage = page.locator("#image-0 .stage")
    stage.scroll_into_view_if_needed()
    frame = stage.bounding_box()
    for x, y in ((0, 0), (20, 3), (63, 47), (31, 24)):
        page.mouse.move(
            frame["x"] + (x + 0.5) / WIDTH * frame["width"], frame["y"] + (y + 0.5) / HEIGHT * frame["height"]
        )
        value, _, place = page.locator("#image-0 .reading").inner_text().partition(" at ")
        assert place == f"{x}, {y}"
        assert float(value) == pytest.approx(waves()[y, x], abs=1 / 255)


def test_a_map_with_a_sign_is_read_with_it(opened, tmp_path):
    signed = ramp(HEIGHT, WIDTH, sign=True)
    dog = entry_of("dog", (4, 8, 24, 40), 0.9, signed, sign=True)
    answer = answer_of(picture(HEIGHT, WIDTH), signed, [dog], sign=True)
    page = opened(page_with(tmp_path, [("one.jpg", answer, [row_of(dog)])]))
    set_slider(page, 100)
    red, _, blue = np.moveaxis(pixels(page)[HEIGHT // 2].astype(int), -1, 0)
    assert blue[0] > red[0]
    assert red[-1] > blue[-1]
    expect(page.locator("#legend-low")).to_have_text("against")
    stage = page.locator("#image-0 .stage").bounding_box()
    page.mouse.move(stage["x"] + 2, stage["y"] + 2)
    expect(page.locator("#image-0 .reading")).to_have_text("-1.000 at 0, 0")


def test_methods_stand_side_by_side_and_show_the_same_detection(opened, tmp_path):
    (one, first), (other, second) = dog_and_cat(), dog_and_cat(method="LayerCAM")
    page = opened(page_with(tmp_path, [("one.jpg", side_by_side(one, other), first + second)]))
    figures = page.locator("#image-0 figure")
    expect(figures).to_have_count(2)
    left, right = (figures.nth(index).bounding_box() for index in range(2))
    assert left["y"] == right["y"]
    page.locator("#detections tbody tr").nth(3).click()
    for index in range(2):
        expect(figures.nth(index)).to_have_attribute("data-map", "1")
    left = figures.first.bounding_box()
    page.mouse.move(left["x"] + 9, left["y"] + 9)
    readings = page.locator("#image-0 .reading").all_inner_texts()
    assert readings[0] == readings[1] != ""


def test_a_column_sorts_up_and_down(opened, three):
    page = opened(three)
    page.get_by_role("button", name="energy in box").click()
    head = page.get_by_role("columnheader", name="energy in box")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert first_cells(page) == ["0.jpg", "1.jpg", "2.jpg", "2.jpg", "1.jpg", "0.jpg"]
    page.get_by_role("button", name="energy in box").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert first_cells(page)[:3] == ["0.jpg", "1.jpg", "2.jpg"]


def test_suspects_come_first_with_one_click_and_what_was_not_found_is_none(opened, tmp_path):
    answer, rows = dog_and_cat()
    missed = entry_of("cow", (1, 1, 9, 9), 0.01, waves(), "miss")
    answer.detections += (missed,)
    page = opened(page_with(tmp_path, [("one.jpg", answer, [*rows, row_of(missed, energy_in_box=0.01)])]))
    page.get_by_role("button", name="Suspects first").click()
    names = page.locator("#detections tbody tr td:nth-child(2)").all_inner_texts()
    assert names == ["cat", "dog", "cow"]


def test_the_filter_keeps_rows_and_their_images(opened, three):
    page = opened(three)
    count = page.locator(".count")
    expect(count).to_have_text("6 of 6 rows, in 3 of 3 images")
    page.keyboard.press("f")
    page.keyboard.type("1.jpg")
    expect(count).to_have_text("2 of 6 rows, in 1 of 3 images")
    expect(page.locator("article:visible")).to_have_count(1)
    page.get_by_label("Outcome").select_option("hit")
    expect(count).to_have_text("1 of 6 rows, in 1 of 3 images")
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Class").select_option("cat")
    page.get_by_label("Confidence from").fill("0.6")
    expect(count).to_have_text("1 of 6 rows, in 1 of 3 images")
    page.get_by_label("Confidence from").fill("0.99")
    expect(page.locator("#nothing")).to_be_visible()


def test_a_click_on_a_row_goes_to_its_image_and_shows_its_map(opened, three):
    page = opened(three)
    page.locator("#detections tbody tr").nth(5).click()
    article = page.locator("#image-2")
    expect(article).to_be_focused()
    expect(article.locator("figure")).to_have_attribute("data-map", "1")
    expect(page.locator("#detections tbody tr").nth(5)).to_have_attribute("aria-current", "true")


def test_the_arrows_go_from_image_to_image_but_not_while_text_is_typed(opened, three):
    page = opened(three)
    for number in (0, 1, 2, 2):
        page.keyboard.press("ArrowRight")
        if number < 2:
            expect(page.locator(f"#image-{number}")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#image-1")).to_be_focused()
    page.keyboard.press("f")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#filter")).to_be_focused()
    page.keyboard.type("h")
    assert page.locator("#heat").is_checked()


def test_the_keyboard_alone_is_enough(opened, three):
    page = opened(three)
    page.locator("#image-0 .box").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#image-0 figure")).to_have_attribute("data-map", "0")
    page.locator("#detections tbody button").nth(3).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#image-1 figure")).to_have_attribute("data-map", "1")


def test_hostile_names_are_shown_as_text_and_do_nothing(opened, tmp_path):
    entry = entry_of(HOSTILE, (4, 8, 24, 40), 0.9, waves())
    answer = answer_of(picture(HEIGHT, WIDTH), waves(), [entry], notes=(HOSTILE,))
    harmless = entry_of("dog", (4, 8, 24, 40), 0.9, waves())
    answers = [
        (HOSTILE.replace("/", "_"), answer, [row_of(entry, note=HOSTILE)]),
        ("two.jpg", answer_of(picture(HEIGHT, WIDTH), waves(), [harmless]), [row_of(harmless)]),
    ]
    page = opened(page_with(tmp_path, answers, warnings=[HOSTILE], remarks=[HOSTILE]))
    page.locator("#image-0 .box").click()
    expect(page.locator("#image-0 .tag")).to_contain_text(HOSTILE)
    expect(page.locator("#detections tbody tr").first).to_contain_text(HOSTILE)
    expect(page.locator("#image-0 h3")).to_have_text(HOSTILE.replace("/", "_"))
    page.get_by_label("Class").select_option(HOSTILE)
    expect(page.locator(".count")).to_have_text("1 of 2 rows, in 1 of 2 images")
    assert page.locator("img[src=x]").count() == 0
    # `opened` checks that nothing was asked for and that no dialog came up.


def test_it_prints_and_has_a_dark_side(opened, three, tmp_path):
    backgrounds = {}
    for scheme in ("light", "dark"):
        page = opened(three, color_scheme=scheme)
        backgrounds[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert backgrounds == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 24, 28)"}
    page.get_by_label("Theme").select_option("light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == backgrounds["light"]
    count = "document.body.dataset.printed = document.querySelectorAll('[data-loaded]').length"
    page.evaluate(f"() => {{ window.print = () => {{ {count}; }}; }}")
    page.get_by_role("button", name="Print").click()
    expect(page.locator("body")).to_have_attribute("data-printed", "3")
    page.pdf(path=tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    page.emulate_media(media="print")
    expect(page.locator(".toolbar")).to_be_hidden()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_the_side(opened, three, width):
    page = opened(three, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_everything_that_can_be_used_has_a_name(opened, three):
    page = opened(three)
    nameless = """[...document.querySelectorAll('button, select, input, canvas')].filter((each) =>
        !each.closest('[hidden]') && !each.textContent.trim() && !each.getAttribute('aria-label') &&
        !(each.labels && each.labels.length)).map((each) => each.outerHTML)"""
    assert page.evaluate(nameless) == []


@pytest.mark.parametrize("most", [2**30, 1000])
def test_two_hundred_images_open_and_only_those_near_are_decoded(opened, tmp_path, monkeypatch, most):
    monkeypatch.setattr(results, "PAGE_BYTES", most)
    page = opened(page_with(tmp_path, [(f"{number:03}.jpg", *dog_and_cat(number)) for number in range(200)]))
    expect(page.locator("article")).to_have_count(200)
    loaded = page.locator("article[data-loaded]")
    assert 0 < loaded.count() < 20
    expect(page.locator("#detections tbody tr")).to_have_count(100)
    page.get_by_role("button", name="Show 100 more of 300").click()
    page.locator("#detections tbody tr").nth(199).click()
    expect(page.locator("#image-99 figure")).to_have_attribute("data-map", "1")
    # What is far away by now is given back.
    expect(page.locator("#image-0[data-loaded]")).to_have_count(0)
    assert loaded.count() < 40


def test_a_page_whose_folder_is_missing_says_so(chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PAGE_BYTES", 1000)
    path = page_with(tmp_path, [("one.jpg", *dog_and_cat())])
    shutil.rmtree(tmp_path / "report")
    page = chromium.new_page()
    page.goto(path.as_uri())
    expect(page.locator("#image-0 .note")).to_contain_text("report/0.js")
    page.close()
