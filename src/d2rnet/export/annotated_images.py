"""The images of annotation.json one by one, each with its own pseudo boxes: what labelling tools know, who know no studies."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.report.annotation_file import SPLITS, Entry, load_annotation

ALL = "all"


@dataclass(frozen=True)
class ScoredBox:
    """A pseudo box: class, score from 0 to 1, ``xywh`` in original pixels."""

    label: str
    score: float
    xywh: tuple[float, float, float, float]


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of an entry.

    Attributes:
        entry: it belongs to.
        path: relative to the image root.
        height: original pixels.
        width: original pixels.
        boxes: its own, in the order of the entry.
    """

    entry: Entry
    path: str
    height: int
    width: int
    boxes: tuple[ScoredBox, ...]


def read_images(annotation: Path, split: str) -> list[AnnotatedImage]:
    """Return the images of a split of annotation.json, or of ``all``, in file order.

    Raises:
        ConfigError: there is no such split.
        DatasetError: annotation.json is not what its format says, or the split is empty.
    """
    if split not in (*SPLITS, ALL):
        raise ConfigError(f"--split {split[:80]}: expected {', '.join(SPLITS)} or {ALL}.")
    splits = load_annotation(annotation)
    chosen = [entry for name in SPLITS if split in (name, ALL) for entry in splits[name]]
    if not chosen:
        counts = ", ".join(f"{name} {len(entries)}" for name, entries in splits.items())
        raise DatasetError(f"{annotation}: split '{split}' holds no entry ({counts}). Name another one with --split.")
    return [image for entry in chosen for image in _images_of(entry)]


def _images_of(entry: Entry) -> Iterator[AnnotatedImage]:
    paths = entry["image_path"]
    heights = entry.get("heights", [entry["height"]])
    widths = entry.get("widths", [entry["width"]])
    places = entry.get("box_image", [0] * len(entry["boxes"]))
    for number, (path, height, width) in enumerate(zip(paths, heights, widths, strict=True)):
        rows = zip(places, entry["labels"], entry["scores"], entry["boxes"], strict=True)
        boxes = tuple(
            ScoredBox(label, score, (box[0], box[1], box[2], box[3])) for at, label, score, box in rows if at == number
        )
        yield AnnotatedImage(entry, path, height, width, boxes)
