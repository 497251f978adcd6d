"""All pages that people look at, in Chromium: axe-core, phones, tablets, 400 %, paper, no JavaScript; one browser for all."""

import re
from pathlib import Path
from typing import Any

import pytest
from headless_browser import SIZES, violations
from page_samples import COUNT, IMAGES, gallery_page, make_pages, reading_page

from d2rnet.reading.content import Box

GALLERIES = ("gallery", "compare", "ct gallery", "ct compare")
READINGS = ("reading", "ct reading")
ENTRIES = {"gallery": COUNT, "compare": 8, "ct gallery": 3, "ct compare": 3}
# Chips that something cuts off: an ancestor that hides what leaves it, or the window.
CUT_OFF = """() => [...document.querySelectorAll('.chip')].filter((chip) => {
  if (!chip.checkVisibility()) return false;
  const { left, right, top, bottom } = chip.getBoundingClientRect();
  for (let holder = chip.parentElement; holder; holder = holder.parentElement) {
    if (getComputedStyle(holder).overflowX === 'visible') continue;
    const room = holder.getBoundingClientRect();
    const down = holder.matches('.row') && (top < room.top - 1 || bottom > room.bottom + 1);
    if (left < room.left - 1 || right > room.right + 1 || down) return true;
  }
  return right > innerWidth;
}).map((chip) => chip.textContent)"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each page."""
    return make_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def open_page(open_file: Any, pages: dict[str, Path]) -> Any:
    """Open a page by its name and wait until it is drawn."""

    def opened(name: str, size: str = "desktop", **options: Any) -> Any:
        tab = open_file(pages[name], size, reduced_motion="reduce", **options)
        if not options.get("java_script_enabled", True):
            return tab
        if name in GALLERIES:
            tab.wait_for_function("view.record")
        elif name == "ct reading":
            tab.wait_for_selector("body.ready")
        return tab

    return opened


def keep_one_lit(tab: Any, name: str) -> None:
    """Light up a sentence, with what belongs to it, and dim the rest."""
    if name == "reading":
        tab.focus("li[data-boxes='0']")
    else:
        tab.locator("button[data-structure]" if name == "ct reading" else ".sentence").first.click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["gallery", "compare", "ct gallery", *READINGS])
def test_axe_finds_nothing(open_page: Any, name: str, size: str, scheme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (extra 'test')")
    tab = open_page(name, size, color_scheme=scheme)
    keep_one_lit(tab, name)
    assert violations(tab) == []


def test_axe_finds_nothing_in_help_list_and_an_empty_result(open_page: Any) -> None:
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed (extra 'test')")
    tab = open_page("compare", "phone")
    tab.click("#drawer")
    tab.click(".about summary")
    assert violations(tab) == []
    tab.keyboard.press("Escape")
    tab.keyboard.press("?")
    assert violations(tab) == []
    tab.keyboard.press("Escape")
    tab.evaluate("() => { filters.text = 'no such id'; relist(); }")
    assert tab.is_visible("#message") and violations(tab) == []


@pytest.mark.parametrize("name", [*GALLERIES, *READINGS])
def test_a_phone_scrolls_down_to_the_end_of_the_page_and_no_further(open_page: Any, name: str) -> None:
    tab = open_page(name, "phone")
    page = "document.documentElement"
    assert tab.evaluate(f"{page}.scrollWidth") <= SIZES["phone"][0]
    assert tab.evaluate(f"{page}.scrollHeight - Math.max(innerHeight, document.body.getBoundingClientRect().bottom)") <= 1
    last = tab.locator("#scores" if name in GALLERIES else ".facts")
    below = tab.evaluate(f"{page}.scrollHeight") - last.evaluate("node => node.getBoundingClientRect().bottom + scrollY")
    assert below < 100, "nothing but the bar of buttons and margins is below the last words"


@pytest.mark.parametrize("name", [*GALLERIES, *READINGS])
def test_at_400_per_cent_texts_reflow_and_can_be_brought_into_view(open_page: Any, name: str) -> None:
    tab = open_page(name, "zoomed")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 320
    words = tab.locator(".sentence, #sentences li, section li button").first
    words.evaluate("node => node.scrollIntoView()")
    seen = words.evaluate(
        "node => { const { left, top, right } = node.getBoundingClientRect();"
        "  return [left, right, node.contains(document.elementFromPoint(left + 9, top + 9))]; }"
    )
    assert seen[0] >= 0 and seen[1] <= 320 and seen[2], "the words are not behind a bar or beyond an edge"
    if name in GALLERIES:
        tab.click("#drawer")
        tab.locator(".row").first.click()  # it is brought into view; opening the list may draw its rows once more
        assert tab.inner_text("#place").startswith("1 of ")


@pytest.mark.parametrize("name", GALLERIES)
def test_chips_are_whole_on_a_tablet(open_page: Any, name: str) -> None:
    tab = open_page(name, "tablet")
    assert tab.evaluate(CUT_OFF) == []
    many = "Object.values(INDEX.errors).forEach((columns) => columns.forEach((column) => column.fill((1 << 18) - 1)))"
    tab.evaluate(f"() => {{ {many}; relist(); }}")
    assert "18 missed" in tab.locator(".row").first.inner_text() and tab.evaluate(CUT_OFF) == []


@pytest.mark.parametrize("name", GALLERIES)
def test_paper_has_the_listed_studies_one_under_the_other(open_page: Any, name: str) -> None:
    tab = open_page(name, color_scheme="dark")
    if name == "gallery":
        tab.uncheck("#pseudo")
        tab.check("#error-missed")
    listed = 3 if name == "gallery" else ENTRIES[name]
    assert not tab.locator(".printed").count()
    tab.emulate_media(media="print", color_scheme="dark")
    tab.wait_for_selector(".printed")
    assert tab.locator(".printed").count() == listed and not tab.is_visible("#layout")
    boxes = [article.bounding_box() for article in tab.locator(".printed").all()]
    ends = [0.0, *(box["y"] + box["height"] for box in boxes)]
    assert all(box["y"] >= end and box["x"] == boxes[0]["x"] for box, end in zip(boxes, ends, strict=False))
    height = tab.evaluate("document.documentElement.scrollHeight")
    assert ends[-1] <= height and tab.evaluate("getComputedStyle(document.body).overflowY") == "visible"
    assert tab.locator(".printed .sentence").count() >= 2 * listed
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    if name == "gallery":
        assert tab.locator(".printed .box:visible").count() == listed, "true boxes, for pseudo boxes are switched off"
    sheets = re.findall(rb"/Type /Page\b", tab.pdf(print_background=True))
    assert len(sheets) >= listed / 4
    tab.emulate_media(media="screen")
    tab.wait_for_selector("#layout")
    assert not tab.locator(".printed").count() and tab.evaluate("document.documentElement.dataset.theme") == "dark"


@pytest.mark.parametrize("name", READINGS)
def test_a_reading_on_paper_is_dark_on_white_picture_above_words(open_page: Any, name: str) -> None:
    tab = open_page(name, color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    picture, words = (tab.locator(place).bounding_box() for place in (".images", ".text"))
    assert picture["y"] + picture["height"] <= words["y"] and picture["x"] == words["x"]
    assert not tab.is_visible("input[type=range]")


@pytest.mark.parametrize("name", GALLERIES)
def test_without_javascript_a_plain_list_of_studies_and_texts(open_page: Any, name: str) -> None:
    tab = open_page(name, java_script_enabled=False)
    articles = tab.locator(".plain article")
    assert articles.count() == ENTRIES[name] and not tab.is_visible("#layout") and not tab.is_visible("#theme")
    answers = ["Run A", "Run B"] if "compare" in name else ["Generated"]
    assert articles.first.locator("h3").all_inner_texts() == ["Reference", *answers]
    tops = [article.bounding_box()["y"] for article in articles.all()]
    assert tops == sorted(set(tops)) and articles.last.is_visible()
    text = "Trachea is open." if "ct" in name else "there is a left pleural effusion ."
    assert text in articles.first.inner_text() and "need JavaScript" in tab.inner_text("body")


def test_without_javascript_a_reading_shows_sentences_and_boxes(open_page: Any) -> None:
    tab = open_page("reading", java_script_enabled=False)
    assert tab.is_visible("text=The heart is enlarged.") and tab.locator("svg .box rect").count() == 3


def test_with_javascript_the_plain_list_is_not_there(open_page: Any) -> None:
    tab = open_page("gallery")
    assert tab.locator(".plain").bounding_box()["height"] == 0 and tab.is_visible("#layout")


def unchanged_without(tab: Any, label: Any, other: str) -> bool:
    """Whether a label looks the same when another box is not there."""
    box = label.bounding_box()
    inside = {"x": box["x"] + 1, "y": box["y"] + 1, "width": box["width"] - 2, "height": box["height"] - 2}
    whole = tab.screenshot(clip=inside)
    tab.evaluate(f"""() => {{ document.querySelector("{other}").style.visibility = 'hidden'; }}""")
    return tab.screenshot(clip=inside) == whole


def test_no_line_runs_through_the_label_of_a_box(open_file: Any, tmp_path: Path) -> None:
    crossing = [[20.0, 60.0, 100.0, 100.0], [35.0, 20.0, 32.0, 100.0]]  # the edge of the second, through the first one's label
    tab = open_file(gallery_page(tmp_path / "gallery", boxes=crossing))
    tab.wait_for_function("view.record")
    assert unchanged_without(tab, tab.locator(".box[data-kind=pseudo][data-index='0'] .box-label"), ".box[data-index='1']")
    crossing = (Box(0, "Edema", 0.9, (200.0, 500.0, 400.0, 300.0)), Box(0, "ILD", 0.5, (212.0, 400.0, 300.0, 380.0)))
    tab = open_file(reading_page(tmp_path / "reading", boxes=crossing))
    assert unchanged_without(tab, tab.locator(".number[data-box='0'] text"), ".box[data-box='1'] rect")


def test_images_and_studies_are_counted_apart(open_page: Any) -> None:
    tab = open_page("gallery")
    assert tab.inner_text("#count") == f"{COUNT + IMAGES - 1} radiographs of {COUNT - 1} studies", "i1 is of the study of i0"
    tab.fill("#find", "si0")
    assert tab.inner_text("#count") == f"{IMAGES + 1} of {COUNT + IMAGES - 1} radiographs, 1 of {COUNT - 1} studies"
    tab.fill("#find", "no such id")
    assert tab.inner_text("#count") == f"0 of {COUNT + IMAGES - 1} radiographs, 0 of {COUNT - 1} studies"
    assert open_page("ct gallery").inner_text("#count") == "3 CT volumes of 3 studies"
    assert open_page("ct compare").inner_text("#count") == "3 reports of 3 studies", "without images texts are counted"
