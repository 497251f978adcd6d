"""A picture of a few studies as the page of a reading shows them: radiograph with pseudo and true boxes, texts below it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from d2rnet.cxr.boxes.evidence import bracketed, evidence_of, shown_boxes
from d2rnet.cxr.boxes.geometry import xywh_to_xyxy
from d2rnet.cxr.boxes.true_boxes import TrueBox
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import DatasetError
from d2rnet.figures.label_places import place_labels
from d2rnet.figures.plots import MM_PER_INCH, PAGE_MM, SMALL_POINTS, TEXT_POINTS, class_colours, figure, say_empty
from d2rnet.report.annotation_file import Entry

COLUMNS = 3
PICTURE_MM = 56.0  # height of a radiograph
TITLE_MM = 5.0  # above it
LINE_MM = 3.3  # of the text below
MARGIN_MM = 4.0  # of a panel's width, on both sides together
CHIP_POINTS = 13.0  # that a chip takes before its line
TEXT_WIDTH = 40  # characters of what stands in place of a picture
MOST_LINES = 11  # of one report; the end of a longer one is not shown
MOST_SIDE_PX = 640  # of the pictures
INK, FAINT = "#1c2126", "#59636e"  # as reading/assets/page.css


@dataclass(frozen=True)
class Line:
    """A line of text: its colour, and the number and colour of the chip before it."""

    text: str
    colour: str = INK
    chip: tuple[str, str] | None = None


@dataclass(frozen=True)
class Sample:
    """What is drawn of one entry.

    Attributes:
        entry: of annotation.json.
        reference: report of the study.
        generated: report of the model.
        sentences: of test.jsonl; empty where unknown.
        true_boxes: image number and box of each true lesion; None where the truth is not known.
        shown_score: least score of a box that is drawn whatever is written.
    """

    entry: Entry
    reference: str
    generated: str
    sentences: Sequence[dict[str, Any]]
    true_boxes: Sequence[tuple[int, TrueBox]] | None = None
    shown_score: float = 0.0

    @property
    def shown(self) -> list[int]:
        """Places of the boxes that are drawn and named."""
        evidence = [place for sentence in self.sentences for places in evidence_of(sentence, self.entry) for place in places]
        return shown_boxes(self.entry["scores"], evidence, self.shown_score)


def draw_samples(target: Path, samples: Sequence[Sample], image_root: Path) -> None:
    """Draw samples in rows of three, each radiograph above its texts; write ``target`` as SVG and PNG.

    Args:
        target: file to write, without suffix.
        samples: at least one.
        image_root: folder that ``image_path`` of an entry is relative to.

    Raises:
        DatasetError: a radiograph cannot be read.
    """
    rows = -(-len(samples) // COLUMNS)
    columns = min(COLUMNS, len(samples))
    texts = [_laid_out(sample) for sample in samples]
    rows_mm: list[float] = []
    for row in range(rows):
        longest = max(len(lines) for lines in texts[row * columns : (row + 1) * columns])
        rows_mm += [PICTURE_MM + TITLE_MM, LINE_MM * (longest + 1)]
    with figure(target, width_mm=PAGE_MM, rows_mm=rows_mm, columns=columns) as panels:
        for panel in panels:
            panel.set_axis_off()
        for number, sample in enumerate(samples):
            row, column = divmod(number, columns)
            _draw_radiograph(panels[2 * row * columns + column], sample, image_root)
            _write(panels[(2 * row + 1) * columns + column], texts[number])


def _draw_radiograph(panel: Axes, sample: Sample, image_root: Path) -> None:
    """Draw the first image of an entry with the boxes on it; the axes are in original pixels."""
    entry = sample.entry
    path = image_root / entry["image_path"][0]
    several = len(entry["image_path"]) > 1
    height, width = (entry["heights"][0], entry["widths"][0]) if several else (entry["height"], entry["width"])
    try:
        pixels = read_radiograph(path, max_side_px=MOST_SIDE_PX).pixels
    except (DatasetError, OSError) as error:
        say_empty(panel, textwrap.fill(f"cannot be shown: {error}", TEXT_WIDTH))
        return
    panel.imshow(pixels, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    for image, (label, corners) in sample.true_boxes or ():
        if image == 0:
            _outline(panel, corners, class_colours()[label], linestyle=(0, (3, 2)))
    _draw_boxes(panel, sample, (width, height))
    views = f", view 1 of {len(entry['image_path'])}" if several else ""
    panel.set_title(f"study {entry['study_id']}{views}", loc="left", weight="bold", color=INK)


def _outline(panel: Axes, corners: Sequence[float], colour: str, **style: Any) -> None:
    left, top, right, bottom = corners
    panel.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1.0, **style))


def _draw_boxes(panel: Axes, sample: Sample, size: tuple[float, float]) -> None:
    """Draw the boxes of the first image, then the number of each on a chip of its class colour."""
    entry = sample.entry
    on_image = entry.get("box_image", [0] * len(entry["boxes"]))
    numbers = [number for number in sample.shown if on_image[number] == 0]
    corners = xywh_to_xyxy([entry["boxes"][number] for number in numbers]).tolist()
    room_mm = (PAGE_MM / COLUMNS - MARGIN_MM, PICTURE_MM)
    pixels_per_point = max(size[0] / room_mm[0], size[1] / room_mm[1]) * MM_PER_INCH / 72
    letter = pixels_per_point * SMALL_POINTS
    sizes = [(letter * (0.6 + 0.65 * len(str(number + 1))), letter * 1.3) for number in numbers]
    places = place_labels(corners, sizes, size)
    colours = class_colours()
    for number, box in zip(numbers, corners, strict=True):
        _outline(panel, box, colours[entry["labels"][number]])
    for number, (left, top), (width, height) in zip(numbers, places, sizes, strict=True):
        panel.add_patch(Rectangle((left, top), width, height, facecolor=colours[entry["labels"][number]], linewidth=0))
        middle = (left + width / 2, top + height / 2)
        panel.text(*middle, str(number + 1), fontsize=SMALL_POINTS, ha="center", va="center_baseline")


def _laid_out(sample: Sample) -> list[Line]:
    """Return the lines below a radiograph, as the page of a reading has them: findings, reference, boxes."""
    sentences = [_with_boxes(sentence, sample.entry) for sentence in sample.sentences] or [sample.generated]
    dashed = "; dashed: true ones" if sample.true_boxes is not None else ""
    return [
        Line("Findings, generated", FAINT),
        *_shorten(sentences),
        Line("Reference", FAINT),
        *_shorten([sample.reference]),
        Line(f"Boxes of the detector{dashed}", FAINT),
        *(_named_boxes(sample) or [Line("none")]),
    ]


def _named_boxes(sample: Sample) -> list[Line]:
    """Class and score of each box that is drawn beside a chip of its colour with its number, and how many are not."""
    entry = sample.entry
    on_image = entry.get("box_image", [0] * len(entry["boxes"]))
    named = list(zip(entry["labels"], entry["scores"], on_image, strict=True))
    colours = class_colours()
    lines = [
        Line(f"{label} {score:.2f}" + (f" (view {image + 1})" if image else ""), chip=(str(number + 1), colours[label]))
        for number, (label, score, image) in ((number, named[number]) for number in sample.shown)
    ]
    weaker = len(named) - len(lines)
    return [*lines, Line(f"and {weaker} below {sample.shown_score:.2f}", FAINT)] if weaker else lines


def _with_boxes(sentence: dict[str, Any], entry: Entry) -> str:
    return f"{sentence['text']}{bracketed(*evidence_of(sentence, entry))}"


def _shorten(paragraphs: Sequence[str]) -> list[Line]:
    """Break paragraphs into lines of the panel's width; the end of a long text is not shown."""
    lines = [line for text in paragraphs for line in _wrap(text)]
    return [Line(text) for text in (lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], "(goes on)"])]


def _wrap(text: str) -> list[str]:
    room = (PAGE_MM / COLUMNS - MARGIN_MM) * 72 / MM_PER_INCH
    lines: list[str] = []
    for word in text.split():
        if lines and _points(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _points(text: str) -> float:
    """Width of a text of the figure's size, points."""
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=TEXT_POINTS), False)[0])


def _write(panel: Axes, lines: Sequence[Line]) -> None:
    """Write lines from the top of a panel, each as far below as it would be on paper."""
    panel.set(xlim=(0, PAGE_MM / COLUMNS - MARGIN_MM), autoscaley_on=False)
    words: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "annotation_clip": False,
        "va": "baseline",
    }
    step = LINE_MM * 72 / MM_PER_INCH
    for number, line in enumerate(lines, start=1):
        indent = 0.0
        if line.chip:
            name, colour = line.chip
            box = {"boxstyle": "round,pad=0.15", "facecolor": colour, "linewidth": 0}
            panel.annotate(name, (1.5, 1), (0, -step * number), ha="center", fontsize=SMALL_POINTS, bbox=box, **words)
            indent = CHIP_POINTS
        panel.annotate(
            line.text, (0, 1), (indent, -step * number), color=line.colour, fontsize=TEXT_POINTS, parse_math=False, **words
        )
