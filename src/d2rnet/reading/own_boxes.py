"""Boxes that a person draws, in place of the detector's or beside them.

Boxes are x, y, width, height in pixels of the original image, x and y of the upper left corner. Every complaint names where
the box was given.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from d2rnet.cxr.annotation.build import DECIMALS_PX
from d2rnet.cxr.annotation.predictions import PseudoBoxes
from d2rnet.cxr.boxes.geometry import clip_to_image, has_area, iou, xywh_to_xyxy
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.findings.classes import CATEGORY_IDS, suggest_category
from d2rnet.reading.content import View

OPTION = "--box"
TOLERANCE_PX = 1.0  # a box may stick out so far, and is cut at the edge


@dataclass(frozen=True)
class OwnBox:
    """A box that a person draws.

    Attributes:
        xywh: pixels of the original image.
        label: one of the 22 classes; "" leaves it to the detector.
        score: how sure, 0 to 1.
        image: which image of a study, from 0.
        place: where it was given, for complaints.
        image_hw: height and width of the image that it was drawn on, where they are known.
    """

    xywh: tuple[float, float, float, float]
    label: str = ""
    score: float = 1.0
    image: int = 0
    place: str = "box"
    image_hw: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without its image.

        Raises:
            DatasetError: no four finite numbers, no width or height, an unknown class, or a score outside [0, 1].
        """
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in self.xywh)
        if len(self.xywh) != 4 or not numbers or min(self.xywh[2:]) <= 0:
            raise DatasetError(
                f"{self.place}: got {list(self.xywh)!r:.100}; expected x, y, width, height in pixels of the original image, "
                "width and height above 0."
            )
        if self.label and self.label not in CATEGORY_IDS:
            raise DatasetError(f"{self.place}: class '{self.label:.80}'. {suggest_category(self.label)}")
        if not 0 <= self.score <= 1:
            raise DatasetError(f"{self.place}: got score {self.score}; expected 0 to 1.")

    def inside(self, view: View) -> tuple[float, float, float, float]:
        """Return left, top, right, bottom, cut at the edges of its image and rounded to 0.01 px.

        Args:
            view: its image.

        Raises:
            DatasetError: it lies outside by more than a pixel, has no area inside, or was drawn on an image of another size.
        """
        size = f"{view.path.name}, {view.width} x {view.height} px"
        if self.image_hw and self.image_hw != (view.height, view.width):
            raise DatasetError(
                f"{self.place}: got a box on an image of {self.image_hw[1]} x {self.image_hw[0]} px; expected {size}. Give "
                "boxes in pixels of the original image."
            )
        corners = xywh_to_xyxy([self.xywh])
        clipped = clip_to_image(corners, (view.height, view.width))
        rounded = clipped.round(DECIMALS_PX)
        if np.abs(corners - clipped).max() > TOLERANCE_PX or not has_area(rounded).all():
            x, y, width, height = self.xywh
            raise DatasetError(
                f"{self.place}: got x, y, width, height {x:g}, {y:g}, {width:g}, {height:g}; expected a box within {size}. "
                "Give pixels of the original image, from its upper left corner."
            )
        left, top, right, bottom = rounded[0].tolist()
        return left, top, right, bottom


def parse_box(text: str) -> OwnBox:
    """Read a box as the command line gives it: ``x,y,width,height`` or ``x,y,width,height=class``.

    Raises:
        DatasetError: something else, or an unknown class.
    """
    place = f"{OPTION} {text[:80]}"
    numbers, _, label = text.partition("=")
    try:
        x, y, width, height = map(float, numbers.split(","))
    except ValueError as error:
        raise DatasetError(
            f"{place}: expected x,y,width,height or x,y,width,height=class, numbers in pixels of the original image."
        ) from error
    return OwnBox((x, y, width, height), label.strip(), place=place)


def view_of(box: OwnBox, views: Sequence[View]) -> View:
    """Return the image of a box.

    Raises:
        DatasetError: there is no such image.
    """
    if not 0 <= box.image < len(views):
        raise DatasetError(f"{box.place}: got image {box.image}; expected 0 to {len(views) - 1}, the images that are read.")
    return views[box.image]


def with_own_boxes(detected: PseudoBoxes, own: PseudoBoxes, *, nms_iou: float) -> tuple[PseudoBoxes, list[bool]]:
    """Put a person's boxes among detected ones.

    Args:
        detected: original pixels.
        own: likewise.
        nms_iou: a detected box that overlaps one of a person's, of its image and class, by more, goes: both mean one lesion.

    Returns:
        All boxes, by image and falling score, a person's first among equals; whether each is a person's.
    """
    overlap = iou(detected.boxes_xyxy[:, None], own.boxes_xyxy[None])  # (N, M)
    same = (detected.rows[:, None] == own.rows) & (detected.category_ids[:, None] == own.category_ids)
    kept = detected.take(~(same & (overlap > nms_iou)).any(axis=1))
    both = PseudoBoxes(
        np.concatenate([own.rows, kept.rows]),
        np.concatenate([own.category_ids, kept.category_ids]),
        np.concatenate([own.scores, kept.scores]),
        np.concatenate([own.boxes_xyxy, kept.boxes_xyxy]),
    )
    order = np.lexsort((-both.scores, both.rows))
    return both.take(order), (order < len(own)).tolist()


def check_classes(boxes: Iterable[OwnBox]) -> None:
    """Refuse boxes without a class where no detector is at hand that could tell.

    Raises:
        ConfigError: names the first of them.
    """
    nameless = next((box for box in boxes if not box.label), None)
    if nameless is not None:
        raise ConfigError(
            f"{nameless.place}: got no class, and no detector is run that could tell; expected one, as in "
            f"{OPTION} x,y,width,height=ILD."
        )
