"""What a reading is written as: text, JSON, picture, page, COCO; nothing of a header, nothing unescaped."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont
from pycocotools.coco import COCO
from radiograph_samples import SECRET, draw_chest
from reading_samples import FILES

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.cxr.boxes.evidence import BRACKETS
from d2rnet.figures.plots import class_colours
from d2rnet.files.documents import read_json
from d2rnet.reading.coco_export import CocoExport
from d2rnet.reading.content import NOTICE, Box, Sentence, View
from d2rnet.reading.cxr import Models
from d2rnet.reading.overlay import FAINT, INK, LEAST_PX, LONGEST_PX, draw_overlay, overlay_lines, wrap
from d2rnet.reading.radiograph_page import page_text
from d2rnet.reading.result import Reading, readable, stem_of

ORIGIN = {
    "models": {"detector": {"model_final.pth": "a" * 64}, "report_model": {"model.safetensors": "b" * 64}},
    "settings": {},
    "code": {"d2rnet": "0", "commit": None, "dirty": None},
    "device": "cpu: test",
}


def make_reading(path: Path, **changes: object) -> Reading:
    """A reading of one 1000 x 800 image with two boxes."""
    boxes = (
        Box(0, "Cardiomegaly", 0.91, (200.0, 500.0, 400.0, 300.0)),
        Box(0, "Nodule/Mass", 0.55, (100.5, 100.25, 80.0, 60.0)),
    )
    sentences = (Sentence("The heart is enlarged.", (0, 1), 0, (0,)), Sentence("No effusion.", (1,), 1))
    reading = Reading(
        "chest",
        (View(path, "PA", np.full((1000, 800), 90, np.uint8)),),
        boxes,
        sentences,
        "the heart is enlarged . no effusion .",
        -1.5,
        (),
        ORIGIN,
        0.25,
    )
    return replace(reading, **changes)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("the heart is enlarged .", "The heart is enlarged."),
        ("a nodule , 3.5 cm ( new ) .", "A nodule, 3.5 cm ( new)."),
        ("", ""),
    ],
)
def test_tokens_become_a_sentence(tokens: str, text: str) -> None:
    assert readable(tokens) == text


@pytest.mark.parametrize(
    ("file", "stem"),
    [("a/chest.dcm", "chest"), ("1.2.840.113", "1.2.840.113"), ("x.y.PNG", "x.y"), ("v.dicom", "v"), (".dcm", ".dcm")],
)
def test_stem_keeps_the_dots_of_an_identifier(file: str, stem: str) -> None:
    assert stem_of(Path(file)) == stem


def test_json_document(tmp_path: Path) -> None:
    document = make_reading(tmp_path / "chest.png").to_json()
    assert document["format"] == "d2rnet-reading-1" and document["notice"] == NOTICE
    assert document["findings"] == "The heart is enlarged. No effusion."
    assert document["images"] == [{"file": "chest.png", "height": 1000, "width": 800, "view": "PA"}]
    assert document["boxes"][1] == {
        "image": 0,
        "category_id": 16,
        "label": "Nodule/Mass",
        "score": 0.55,
        "bbox": [100.5, 100.25, 80.0, 60.0],
        "own": False,
        "shown": True,
    }
    assert document["own_boxes"] == []
    assert document["sentences"][0] == {
        "text": "The heart is enlarged.",
        "boxes": [0, 1],
        "attended": 0,
        "linked": [0],
    }
    assert document["models"] == ORIGIN["models"] and document["seconds"] == 0.25
    assert str(tmp_path) not in json.dumps(document), "folders are nobody's business"


def test_text_shows_findings_boxes_and_warnings(tmp_path: Path) -> None:
    text = make_reading(tmp_path / "chest.png", warnings=("odd view",)).to_text()
    for line in (
        "  chest.png: 800 x 1000 px, PA",
        "    The heart is enlarged. [1] (attended: 2)",
        "    No effusion.",  # it attends to a box, which is no evidence for a denial
        f"  {BRACKETS}",
        "     1 Cardiomegaly         0.91  200, 500, 400, 300",
        "  Warning: odd view",
    ):
        assert line in text.splitlines()
    assert text.index("Warning: odd view") < text.index("Findings:")
    empty = make_reading(tmp_path / "chest.png", boxes=(), sentences=())
    assert "  Boxes: none" in empty.to_text() and "(none written)" in empty.to_text()
    assert BRACKETS not in empty.to_text() and "attended, not proof" in BRACKETS


def test_brackets_are_evidence_or_absent(tmp_path: Path) -> None:
    """Of what is named; grey and called attended of another class; none behind what is denied, normal or names nothing."""
    sentences = (
        Sentence("The heart is enlarged.", (1, 0), 1, (0,)),
        Sentence("There is a pneumothorax.", (1,), 1),
        Sentence("No effusion.", (1,), 1),
        Sentence("The lungs are clear.", (0,), 0),
    )
    reading = make_reading(tmp_path / "chest.png", sentences=sentences)
    assert [sentence.attended_alone for sentence in reading.sentences] == [(1,), (1,), (), ()]
    shown = [line.strip() for line in reading.to_text().splitlines()]
    assert shown[3:8] == [
        "The heart is enlarged. [1] (attended: 2)",
        "There is a pneumothorax. (attended: 2)",
        "No effusion.",
        "The lungs are clear.",
        BRACKETS,
    ]
    page = page_text(reading)
    assert '<li tabindex="0" data-boxes="0" data-attended="1">The heart is enlarged. <small class="linked">[1]</small>' in page
    assert 'data-boxes="" data-attended="1">There is a pneumothorax. <small class="attended">attended: 2</small></li>' in page
    assert '<li tabindex="0" data-boxes="" data-attended="">No effusion.</li>' in page and BRACKETS in page
    assert '<li tabindex="0" data-boxes="" data-attended="">The lungs are clear.</li>' in page


def test_picture_says_what_is_linked_and_greys_what_is_attended(tmp_path: Path) -> None:
    lines = overlay_lines(make_reading(tmp_path / "chest.png"), 800, ImageFont.load_default(16))
    texts = {text.strip(): ink for text, ink, _ in lines}
    assert texts["The heart is enlarged. [1]"] == INK and texts["No effusion."] == INK
    assert texts["attended: 2"] == FAINT != INK
    said = " ".join(text for text, ink, _ in lines if ink == FAINT)
    assert BRACKETS in said
    plain = make_reading(tmp_path / "chest.png", sentences=(Sentence("No effusion.", (1,), 1),))
    assert "Attended" not in " ".join(text for text, _, _ in overlay_lines(plain, 800, ImageFont.load_default(16)))


def test_every_file_of_a_reading_is_documented_and_keeps_the_header_secret(
    repository: Path, finished_run: Path, loaded: Models, tmp_path: Path
) -> None:
    reading = loaded.read(finished_run / "images" / FILES["scan"])
    assert reading.images[0].view == "PA"
    files = reading.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scan.html", "scan.json", "scan.png"]
    export = CocoExport(tmp_path / "out" / "coco")
    export.add(reading)
    export.write()
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path.name
    page = (repository / "docs/reference/formats.md").read_text(encoding="utf-8")
    documented = {word for span in re.findall(r"`([^`\n]+)`", page) for word in re.findall(r"\w+", span)}
    document = read_json(files["json"])
    parts = [document, *document["images"], *document["boxes"], *document["sentences"], document["settings"]]
    assert set().union(*parts) <= documented


def test_picture_has_each_box_in_its_colour_at_its_place(tmp_path: Path) -> None:
    reading = make_reading(tmp_path / "chest.png")
    picture = np.asarray(draw_overlay(reading))
    assert picture.shape[1] == 800 and picture.shape[0] > 1000, "the legend lies below the image"
    colours = {label: tuple(bytes.fromhex(colour[1:])) for label, colour in class_colours().items()}
    for y, x, label in (
        (501, 400, "Cardiomegaly"),
        (798, 400, "Cardiomegaly"),
        (650, 201, "Cardiomegaly"),
        (650, 598, "Cardiomegaly"),
        (101, 150, "Nodule/Mass"),
        (130, 101, "Nodule/Mass"),
    ):
        assert tuple(picture[y, x]) == colours[label], (y, x)
    assert tuple(picture[650, 400]) == (90, 90, 90) and tuple(picture[900, 50]) == (90, 90, 90)


@pytest.mark.parametrize(("hw", "longest"), [((3000, 2400), LONGEST_PX), ((40, 60), LEAST_PX), ((900, 700), 900)])
def test_picture_is_bounded_and_never_tiny(tmp_path: Path, hw: tuple[int, int], longest: int) -> None:
    view = View(tmp_path / "any.png", "", draw_chest(hw, 1))
    corner = Box(0, "ILD", 0.5, (0.0, 0.0, hw[1] / 2, hw[0] / 2))
    base = make_reading(tmp_path / "chest.png")
    picture = np.asarray(draw_overlay(replace(base, images=(view,), boxes=(corner,))))
    scale = longest / max(hw)
    assert picture.shape[1] == round(hw[1] * scale)
    right = round(hw[1] / 2 * scale) - 2
    assert tuple(picture[round(hw[0] * scale / 4), right]) == tuple(bytes.fromhex(class_colours()["ILD"][1:]))


def test_views_of_a_study_lie_side_by_side_with_their_own_boxes(tmp_path: Path) -> None:
    base = make_reading(tmp_path / "chest.png")
    second = replace(base.boxes[0], image=1)
    picture = np.asarray(draw_overlay(replace(base, images=base.images * 2, boxes=(second,))))
    assert picture.shape[1] == 2 * 800 + 12
    assert tuple(picture[501, 400]) == (90, 90, 90)
    assert tuple(picture[501, 812 + 400]) == tuple(bytes.fromhex(class_colours()["Cardiomegaly"][1:]))


def test_page_escapes_everything_and_loads_nothing(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    reading = make_reading(tmp_path / "chest.png", name=evil, warnings=(evil,), sentences=(Sentence(evil, (1,), 1),), boxes=())
    text = page_text(reading)
    assert evil not in text and text.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;") == 4
    assert not re.search(r'(?:src|href)="(?!data:)', text) and "http:" not in text and "https:" not in text
    assert "default-src 'none'" in text and NOTICE in text


def test_page_places_boxes_in_original_pixels(tmp_path: Path) -> None:
    text = page_text(make_reading(tmp_path / "chest.png"))
    assert 'viewBox="0 0 800 1000"' in text
    assert '<rect x="100.5" y="100.25" width="80.0" height="60.0"/>' in text
    assert f'data-box="1" style="--colour: {class_colours()["Nodule/Mass"]}"' in text


def weak_reading(path: Path) -> Reading:
    """A sure heart, a weak one of no sentence, a weak effusion that one speaks of, a weak nodule that it looks at."""
    boxes = (
        Box(0, "Cardiomegaly", 0.91, (200.0, 500.0, 400.0, 300.0)),
        Box(0, "Cardiomegaly", 0.31, (210.0, 510.0, 300.0, 200.0)),
        Box(0, "Pleural effusion", 0.29, (20.0, 700.0, 150.0, 200.0)),
        Box(0, "Nodule/Mass", 0.22, (100.5, 100.25, 80.0, 60.0)),
        Box(0, "ILD", 0.21, (600.0, 100.0, 80.0, 60.0), own=True),
    )
    return make_reading(path, boxes=boxes, sentences=(Sentence("A right effusion.", (3,), 3, (2,)),), shown_score=0.5)


def test_weak_boxes_that_nothing_is_said_of_are_in_the_file_alone(tmp_path: Path) -> None:
    reading = weak_reading(tmp_path / "chest.png")
    assert reading.shown == (0, 2, 3, 4)
    assert [box["shown"] for box in reading.to_json()["boxes"]] == [True, False, True, True, True]
    text = reading.to_text()
    assert "     3 Pleural effusion     0.29" in text and "0.31" not in text
    assert "       1 more with a score below 0.50, of which no sentence speaks: in the JSON file" in text
    lines = [line for line, *_ in overlay_lines(reading, 800, ImageFont.load_default(16))]
    assert lines[:4] == ["1  Cardiomegaly  0.91", "3  Pleural effusion  0.29", "4  Nodule/Mass  0.22", "5  ILD  0.21, yours"]
    assert lines[4] == "1 more with a score below 0.50, of which no sentence speaks: in the JSON file"
    picture = np.asarray(draw_overlay(reading))
    assert tuple(picture[511, 400]) == (90, 90, 90) != tuple(picture[501, 400])
    sure = replace(reading, shown_score=0.0)
    assert "no sentence speaks" not in sure.to_text() + page_text(sure) and len(sure.shown) == 5


def test_the_page_shows_weak_boxes_when_asked(open_file: Callable[..., Any], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(page_text(weak_reading(tmp_path / "chest.png")), encoding="utf-8")
    tab = open_file(page, "desktop")
    for place in ("g.box", "g.number", "#boxes li"):
        key = "data-boxes" if place.endswith("li") else "data-box"
        visible = f"nodes => nodes.filter((n) => n.getClientRects().length).map((n) => n.getAttribute('{key}')).sort()"
        assert tab.locator(place).evaluate_all(visible) == ["0", "2", "3", "4"], place
    assert tab.inner_text("label").strip() == "1 more with a score below 0.50, of which no sentence speaks"
    tab.check("#weaker")
    assert tab.locator("g.box:visible").count() == tab.locator("#boxes li:visible").count() == 5
    assert tab.evaluate("document.getElementById('weaker').checked && (show(), document.body.className)") == "with-weaker"
    tab.uncheck("#weaker")
    assert tab.locator("g.box:visible").count() == 4


HOVER = """<script>
document.querySelector("#sentences li").dispatchEvent(new Event("mouseenter"));
const lit = (selector) => [...document.querySelectorAll(selector)].map((item) => item.dataset.box ?? item.dataset.boxes);
document.body.dataset.fromSentence = lit(".box.lit").join();
document.body.dataset.withSentence = lit("li.lit").join();
document.body.dataset.grey = lit(".box.seen").join();
document.querySelector("#sentences li").dispatchEvent(new Event("mouseleave"));
document.body.dataset.after = lit(".lit").length;
document.querySelector(".box[data-box='0']").dispatchEvent(new Event("mouseenter"));
document.body.dataset.fromBox = lit("li.lit").join();
</script>"""


def test_hovering_lights_up_both_ways_in_a_browser(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    page = tmp_path / "page.html"
    sentences = (
        Sentence("Cardiomegaly.", (0, 1), 0, (0,)),
        Sentence("Cardiomegaly and a nodule.", (0, 1), 0, (0, 1)),
    )
    text = page_text(make_reading(tmp_path / "chest.png", sentences=sentences))
    page.write_text(text.replace("</body>", f"{HOVER}</body>"), encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run([chromium, *arguments, page.as_uri()], capture_output=True, text=True, timeout=120)
    body = re.search(r"<body[^>]*>", done.stdout)
    assert body, done.stderr[-2000:]
    assert 'data-from-sentence="0"' in body[0] and 'data-after="0"' in body[0]
    assert 'data-grey="1"' in body[0], "what it attends to and does not name"
    assert 'data-with-sentence="0,0"' in body[0], "itself and the row of its box, no other sentence about that box"
    assert 'data-from-box="0,0 1,0"' in body[0], "the sentences about box 0 and its row in the list"


def test_coco_export_is_read_by_the_tools_of_the_field(tmp_path: Path, loaded: Models, finished_run: Path) -> None:
    export = CocoExport(tmp_path)
    readings = [loaded.read(finished_run / "images" / FILES[name]) for name in ("front", "scan")]
    readings.append(loaded.read_study([finished_run / "images" / FILES[name] for name in ("front", "second")], name="s1"))
    for reading in readings:
        export.add(reading)
    export.write()
    labels = load_coco(tmp_path / "labels.json")
    assert [image["file_name"] for image in labels["images"]] == [
        "front.png",
        "scan.png",
        "s1/1_front.png",
        "s1/2_second.png",
    ]
    for image in labels["images"]:
        assert Image.open(tmp_path / "data" / image["file_name"]).size == (image["width"], image["height"])
    truth = COCO(tmp_path / "labels.json")
    found = truth.loadRes(str(tmp_path / "results.json"))
    assert len(found.anns) == len(truth.anns) == sum(len(reading.boxes) for reading in readings)
    assert truth.anns[1]["bbox"] == list(readings[0].boxes[0].xywh)


@pytest.mark.parametrize("size", [14, 21, 34])
def test_lines_below_the_picture_fit_its_width(size):
    font = ImageFont.load_default(size)
    text = f"WWW MMM {NOTICE} {'W' * 200} end"
    lines = wrap(text, 500, font)
    assert " ".join(lines) == text
    assert [line for line in lines if font.getlength(line) > 500] == ["W" * 200]
