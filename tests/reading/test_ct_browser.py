"""The page of a CT in real headless Chromium: planes, windows, cross, attention; no network, nothing in the console."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ct_reading_samples import GRID, PEAK, make_reading
from headless_browser import FURTHER_SIZES, SIZES, low_contrast

from d2rnet.reading.ct_content import CtSentence
from d2rnet.reading.ct_page import page_text
from d2rnet.reading.ct_view import VolumeView, levels_of

# What a canvas shows at a share of its width and height: red, green, blue.
PIXEL = """([plane, across, down]) => {
  const canvas = document.querySelector(`#${plane} canvas`);
  const place = [Math.floor(across * canvas.width), Math.floor(down * canvas.height)];
  return [...canvas.getContext("2d").getImageData(...place, 1, 1).data.slice(0, 3)];
}"""
SHAPE = (24, 32, 40)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn chest, its page alone in a folder of awkward name."""
    file = tmp_path_factory.mktemp("a reading #1") / "moved.html"
    file.write_text(page_text(make_reading()), encoding="utf-8")
    return file


@pytest.fixture
def open_page(open_file: Any) -> Any:
    """Open a page and wait until its volume is unpacked."""

    def opened(page: Path, size: str = "desktop", **options: Any) -> Any:
        tab = open_file(page, size, **options)
        tab.wait_for_selector("body.ready")
        return tab

    return opened


def slices(tab: Any) -> list[int]:
    """Slice of the axial, coronal and sagittal plane, from 1."""
    return [int(text.split(" / ")[0]) for text in tab.locator(".plane output").all_inner_texts()]


def pixel(tab: Any, plane: str, across: float, down: float) -> list[int]:
    return tab.evaluate(PIXEL, [plane, across, down])


def orange(tab: Any, plane: str, across: float, down: float) -> int:
    """How far a pixel is from grey."""
    red, _, blue = pixel(tab, plane, across, down)
    return red - blue


def marked_page(folder: Path) -> Path:
    """Fat with one corner of bone: at the head, in front, on the patient's right."""
    hu = np.full(SHAPE, -100, np.int16)
    hu[SHAPE[0] // 2 :, : SHAPE[1] // 2, : SHAPE[2] // 2] = 1300
    file = folder / "page.html"
    file.write_text(page_text(make_reading(volume_view=VolumeView(levels_of(hu), (3.0, 2.0, 2.0)))), encoding="utf-8")
    return file


def test_planes_lie_as_radiologists_hang_them(open_page: Any, tmp_path: Path) -> None:
    tab = open_page(marked_page(tmp_path))
    tab.keyboard.press("3")  # bone window: fat is dark grey, the corner white
    tab.evaluate("() => { moveTo(0, 20); moveTo(1, 5); moveTo(2, 5); draw(); }")
    for plane in ("axial", "coronal", "sagittal"):
        bright = [pixel(tab, plane, across, down)[0] > 200 for down in (0.1, 0.9) for across in (0.1, 0.9)]
        assert bright == [True, False, False, False], f"{plane}: right or front is left, front or head on top"
    marks = [tab.locator(f"#{plane} .side").all_inner_texts() for plane in ("axial", "coronal", "sagittal")]
    assert marks == [["R", "L", "A", "P"], ["R", "L", "H", "F"], ["A", "P", "H", "F"]]
    tab.evaluate("() => { moveTo(0, 3); draw(); }")
    assert pixel(tab, "axial", 0.1, 0.1)[0] < 100, "at the feet there is no bone"


def test_pictures_have_true_proportions(open_page: Any, tmp_path: Path) -> None:
    tab = open_page(marked_page(tmp_path))
    for plane, ratio in (("axial", 40 / 32), ("coronal", 80 / 72), ("sagittal", 64 / 72)):
        box = tab.locator(f"#{plane} .frame").bounding_box()
        assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.02), plane


@pytest.mark.parametrize(
    ("key", "share"), [("1", (-100 + 1350) / 1500), ("2", (-100 + 160) / 400), ("3", (-100 + 500) / 1800)]
)
def test_windows_by_key_and_button(open_page: Any, tmp_path: Path, key: str, share: float) -> None:
    tab = open_page(marked_page(tmp_path))
    tab.evaluate("() => { moveTo(0, 20); draw(); }")
    tab.keyboard.press(key)
    assert pixel(tab, "axial", 0.9, 0.9) == [pytest.approx(255 * share, abs=3)] * 3
    assert pixel(tab, "axial", 0.1, 0.1) == [255] * 3
    chosen = tab.locator('[data-window][aria-pressed="true"]')
    assert chosen.count() == 1 and chosen.get_attribute("aria-keyshortcuts") == key
    tab.click("[data-window=lung]")
    assert tab.get_attribute("[data-window=lung]", "aria-pressed") == "true"


def test_slider_wheel_and_arrow_keys_change_the_slice(open_page: Any, page: Path) -> None:
    tab = open_page(page)
    start = slices(tab)
    tab.locator("#axial .frame").hover()
    tab.mouse.wheel(0, -100)
    assert slices(tab) == [start[0] + 1, *start[1:]], "wheel up is to the head"
    tab.mouse.wheel(0, 100)
    tab.mouse.wheel(0, 100)
    assert slices(tab) == [start[0] - 1, *start[1:]]
    tab.focus("#coronal-slice")
    tab.keyboard.press("ArrowRight")
    assert slices(tab) == [start[0] - 1, start[1] + 1, start[2]]
    tab.fill("#sagittal-slice", "3")
    assert slices(tab)[2] == 3
    tab.focus("#sagittal-slice")
    for _ in range(5):
        tab.keyboard.press("ArrowLeft")
    assert slices(tab)[2] == 1, "the first slice is the end"
    tab.locator("#sagittal .frame").hover()
    tab.mouse.wheel(0, -100)
    assert slices(tab)[2] == 1
    assert tab.evaluate("scrollY") == 0, "the wheel over a plane does not scroll the page"


def test_a_click_in_a_plane_moves_the_other_two(open_page: Any, page: Path) -> None:
    tab = open_page(page)
    shape = tab.evaluate("SHAPE")
    before = slices(tab)
    box = tab.locator("#axial .frame").bounding_box()
    tab.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    assert slices(tab) == [before[0], int(0.75 * shape[1]) + 1, int(0.25 * shape[2]) + 1]
    box = tab.locator("#coronal .frame").bounding_box()
    tab.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.1 * box["height"])
    assert slices(tab)[0] == pytest.approx(0.9 * shape[0], abs=1.5), "near the top is near the head"
    assert tab.evaluate("document.activeElement.id") == "coronal-slice", "arrow keys go on from here"
    cross = tab.locator("#axial .line.down").bounding_box()
    frame = tab.locator("#axial .frame").bounding_box()
    assert (cross["x"] - frame["x"]) / frame["width"] == pytest.approx(0.5, abs=0.02)
    box = tab.locator("#axial .frame").bounding_box()
    tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.2 * box["height"])
    tab.mouse.up()
    assert slices(tab)[1:] == [int(0.2 * shape[1]) + 1, int(0.8 * shape[2]) + 1], "dragging takes the cross along"


def test_attention_follows_sentence_and_slices(open_page: Any, page: Path) -> None:
    tab = open_page(page)
    heart = 1
    peak = [(place + 0.5) / side for place, side in zip((PEAK[0], PEAK[1], heart), GRID, strict=True)]
    slice_of_peak = [int(share * side) for share, side in zip(peak, tab.evaluate("SHAPE"), strict=True)]
    tab.evaluate("place => { place.forEach((slice, axis) => moveTo(axis, slice)); draw(); }", slice_of_peak)
    assert orange(tab, "axial", peak[2], peak[1]) == 0
    tab.hover("button:text('The heart is enlarged.')")
    assert tab.inner_text("#attended") == "Attention for Heart mediastinum vessels, none to most: attended, not proof."
    for plane, across, down in (("axial", 2, 1), ("coronal", 2, 0), ("sagittal", 1, 0)):
        at = (peak[across], 1 - peak[0] if down == 0 else peak[down])
        assert orange(tab, plane, *at) > 60, plane
        assert orange(tab, plane, (at[0] + 0.5) % 1, (at[1] + 0.5) % 1) < 12, plane
    tab.evaluate("() => { moveTo(0, 2); draw(); }")
    assert orange(tab, "axial", peak[2], peak[1]) < 12, "far from the peak's slices there is little"
    tab.hover("h1")
    assert tab.inner_text("#attended") == "" and orange(tab, "coronal", peak[2], 1 - peak[0]) == 0


@pytest.mark.parametrize("size", [*SIZES, *FURTHER_SIZES])
def test_nothing_moves_when_a_legend_appears(open_page: Any, page: Path, size: str) -> None:
    tab = open_page(page, size)
    buttons = tab.locator("button[data-structure]").all()
    places = [button.bounding_box() for button in buttons]
    scrolled = tab.evaluate("document.documentElement.scrollHeight")
    for button in buttons:
        button.focus()
        assert "Attention for" in tab.inner_text("#attended")
        top = tab.evaluate("scrollY")
        now = [one.bounding_box() for one in buttons]
        assert [box["y"] + top for box in now] == pytest.approx([box["y"] for box in places]), tab.inner_text("#attended")
    assert tab.evaluate("document.documentElement.scrollHeight") == scrolled


def test_a_press_goes_to_the_most_attended_place_and_stays_until_escape(open_page: Any, page: Path) -> None:
    tab = open_page(page)
    shape = tab.evaluate("SHAPE")
    tab.focus("button:text('No lytic lesion')")
    tab.keyboard.press("Enter")
    bone = tab.evaluate("DATA.structures.indexOf('Bone')")
    expected = [
        int((place + 0.5) / side * voxels) + 1 for place, side, voxels in zip((*PEAK[:2], bone), GRID, shape, strict=True)
    ]
    assert slices(tab) == expected
    tab.hover("button:text('The heart is enlarged.')")
    assert "Bone" in tab.inner_text("#attended"), "what is kept stays"
    assert tab.get_attribute("button:text('No lytic lesion')", "aria-pressed") == "true"
    tab.keyboard.press("Escape")
    tab.hover("h1")
    assert tab.inner_text("#attended") == "" and tab.locator('button[data-structure][aria-pressed="true"]').count() == 0
    before = slices(tab)
    tab.click("h3 button:text('Others')")
    assert slices(tab) == before and "Others" in tab.inner_text("#attended"), "it attends to nothing: there is nowhere to go"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_legible_and_within_the_width(open_page: Any, page: Path, size: str, scheme: str) -> None:
    tab = open_page(page, size, color_scheme=scheme)
    tab.click("button:text('The heart is enlarged.')")
    tab.mouse.move(1, 1)
    assert low_contrast(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert tab.locator("#axial .frame").bounding_box()["width"] > 340
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert background > 200 if scheme == "light" else background < 50


def test_a_finger_points_and_scrolls(open_page: Any, page: Path) -> None:
    tab = open_page(page, "phone", has_touch=True, is_mobile=True)
    shape = tab.evaluate("SHAPE")
    box = tab.locator("#axial .frame").bounding_box()
    tab.touchscreen.tap(box["x"] + 0.25 * box["width"], box["y"] + 0.5 * box["height"])
    assert slices(tab)[2] == int(0.25 * shape[2]) + 1
    tab.tap("button:text('The heart is enlarged.')")
    assert "Heart" in tab.inner_text("#attended")


def test_every_control_has_a_name_and_tab_reaches_all(open_page: Any, page: Path) -> None:
    tab = open_page(page)
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('input, button')]"
        ".filter((c) => !(c.labels?.length || c.getAttribute('aria-label') || c.textContent.trim())).map((c) => c.id)"
    )
    assert unnamed == [] and tab.locator("main").count() == 1 and tab.locator("h1").count() == 1
    seen = []
    for _ in range(10):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate("document.activeElement.id || document.activeElement.textContent.split(' ')[0]"))
    assert seen[:7] == ["Lung", "Mediastinum", "Bone", "axial-slice", "coronal-slice", "sagittal-slice", "Trachea"]


def test_without_javascript_middle_slices_and_findings_are_seen(open_file: Any, page: Path) -> None:
    tab = open_file(page, java_script_enabled=False)
    assert tab.locator(".plane img").count() == 3 and tab.is_visible(".plane img >> nth=0")
    assert tab.is_visible("text=The heart is enlarged.") and tab.is_visible(
        "text=The middle slices in the lung window; the page needs JavaScript"
    )
    assert not tab.is_visible(".plane canvas >> nth=0") and not tab.is_visible(".scale")


def test_a_browser_that_cannot_unpack_says_so(browser: Any, page: Path) -> None:
    tab = browser.new_page()
    tab.add_init_script("delete window.DecompressionStream")
    tab.goto(page.as_uri())
    tab.wait_for_selector("text=This browser cannot unpack the volume")
    assert tab.is_visible(".plane img >> nth=0") and tab.is_visible("text=The heart is enlarged.")


def test_hostile_text_is_shown_not_run(open_page: Any, tmp_path: Path) -> None:
    hostile = "</script><script>window.hacked = 1</script> <img src=x onerror=\"window.hacked = 1\"> & 'quote'"
    file = tmp_path / "page.html"
    file.write_text(
        page_text(make_reading(sentences=(CtSentence(hostile, ("lung",)),), warnings=(hostile,))), encoding="utf-8"
    )
    tab = open_page(file)
    assert tab.evaluate("window.hacked") is None and hostile in tab.inner_text("section >> nth=2")
