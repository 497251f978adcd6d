"""A picture of a few studies: radiograph with numbered pseudo boxes, their classes, generated and reference report."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from d2rnet.cxr.boxes.evidence import attended_alone, bracketed, linked_boxes
from d2rnet.cxr.boxes.geometry import xywh_to_xyxy
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.figures.label_places import place_labels
from d2rnet.figures.plots import class_colours, figure, say_empty
from d2rnet.report.annotation_file import Entry

COLUMNS = 3
PANEL_INCHES = (4.0, 3.6)
LINE_INCHES = 0.135  # of the text below
TEXT_WIDTH = 56  # characters per line
MOST_LINES = 11  # of one report; the end of a longer one is not shown
MOST_SIDE_PX = 640  # of the pictures
NUMBER_POINTS = 7.0  # font size of the numbers of boxes
PICTURE_INCHES = (3.7, 3.1)  # a panel less its margins and title


@dataclass(frozen=True)
class Sample:
    """What is drawn of one entry.

    Attributes:
        entry: of annotation.json.
        reference: report of the study.
        generated: report of the model.
        sentences: of test.jsonl; empty where unknown.
    """

    entry: Entry
    reference: str
    generated: str
    sentences: Sequence[dict[str, Any]]


def draw_samples(target: Path, samples: Sequence[Sample], image_root: Path) -> None:
    """Draw samples in rows of three, each radiograph above its two texts; write ``target`` as SVG and PNG.

    Args:
        target: file to write, without suffix.
        samples: at least one.
        image_root: folder that ``image_path`` of an entry is relative to.

    Raises:
        DatasetError: a radiograph cannot be read.
    """
    columns = min(COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    texts = [_texts(sample) for sample in samples]
    row_inches: list[float] = []
    for row in range(rows):
        lines = max(text.count("\n") for text in texts[row * columns : (row + 1) * columns])
        row_inches += [PANEL_INCHES[1], LINE_INCHES * (lines + 3)]
    with figure(target, rows=2 * rows, columns=columns, panel_inches=PANEL_INCHES, row_inches=row_inches) as panels:
        for panel in panels:
            panel.set_axis_off()
        for number, sample in enumerate(samples):
            row, column = divmod(number, columns)
            top = panels[2 * row * columns + column]
            _draw_radiograph(top, sample.entry, image_root)
            below = panels[(2 * row + 1) * columns + column]
            below.text(
                0, 1, texts[number], transform=below.transAxes, fontsize=7.5, va="top", family="monospace", parse_math=False
            )


def _draw_radiograph(panel: Axes, entry: Entry, image_root: Path) -> None:
    """Draw the first image of an entry with the boxes on it; the axes are in original pixels."""
    path = image_root / entry["image_path"][0]
    several = len(entry["image_path"]) > 1
    height, width = (entry["heights"][0], entry["widths"][0]) if several else (entry["height"], entry["width"])
    try:
        pixels = read_radiograph(path, max_side_px=MOST_SIDE_PX).pixels
    except (DatasetError, OSError) as error:
        say_empty(panel, textwrap.fill(f"cannot be shown: {error}", TEXT_WIDTH))
        return
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    _draw_boxes(panel, entry, (width, height))
    views = f", view 1 of {len(entry['image_path'])}" if several else ""
    panel.set_title(f"study {entry['study_id']}{views}", loc="left")


def _draw_boxes(panel: Axes, entry: Entry, size: tuple[float, float]) -> None:
    """Draw the boxes of the first image, each with its number on a chip of its class colour."""
    on_image = entry.get("box_image", [0] * len(entry["boxes"]))
    numbers = [number for number, image in enumerate(on_image) if image == 0]
    corners = xywh_to_xyxy([entry["boxes"][number] for number in numbers]).tolist()
    pixels_per_point = max(size[0] / PICTURE_INCHES[0], size[1] / PICTURE_INCHES[1]) / 72
    letter = pixels_per_point * NUMBER_POINTS
    sizes = [(letter * (0.5 + 0.65 * len(str(number + 1))), letter * 1.3) for number in numbers]
    places = place_labels(corners, sizes, size)
    colours = class_colours()
    for number, (left, top, right, bottom) in zip(numbers, corners, strict=True):
        edge = colours[entry["labels"][number]]
        panel.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=edge, linewidth=1.6))
    for number, (left, top), (width, height) in zip(numbers, places, sizes, strict=True):
        panel.add_patch(Rectangle((left, top), width, height, facecolor=colours[entry["labels"][number]], linewidth=0))
        panel.text(
            left + width / 2, top + height / 2, str(number + 1), fontsize=NUMBER_POINTS, ha="center", va="center_baseline"
        )


def _texts(sample: Sample) -> str:
    """Lay out boxes and both reports; numbers in brackets name the boxes of what a generated sentence names."""
    boxes = ", ".join(_named_boxes(sample.entry))
    sentences = [_with_boxes(sentence, sample.entry) for sentence in sample.sentences] or [sample.generated]
    parts = {"BOXES": [boxes or "none"], "GENERATED": sentences, "REFERENCE": [sample.reference]}
    return "\n\n".join("\n".join([title, *_shorten(texts)]) for title, texts in parts.items())


def _named_boxes(entry: Entry) -> list[str]:
    """Number, class and score of each box, held together by no-break spaces."""
    on_image = entry.get("box_image", [0] * len(entry["boxes"]))
    named = zip(entry["labels"], entry["scores"], on_image, strict=True)
    texts = [f"{label} {score:.2f}" + (f" (view {image + 1})" if image else "") for label, score, image in named]
    return [f"{number} {text}".replace(" ", "\N{NO-BREAK SPACE}") for number, text in enumerate(texts, start=1)]


def _with_boxes(sentence: dict[str, Any], entry: Entry) -> str:
    linked = linked_boxes(sentence, entry)
    return f"{sentence['text']}{bracketed(linked, attended_alone(sentence['text'], sentence['boxes'], linked))}"


def _shorten(paragraphs: Sequence[str]) -> list[str]:
    lines = [line for text in paragraphs for line in textwrap.wrap(text, TEXT_WIDTH, subsequent_indent="  ")]
    lines = [line.replace("\N{NO-BREAK SPACE}", " ") for line in lines]
    return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "(goes on)"]
