"""A box on its way through several documents: one name and one identifier in all of them, and its outline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, generate_uid

from d2rnet.cxr.boxes.geometry import clip_to_image, xywh_to_xyxy
from d2rnet.reading.content import Box
from d2rnet.reading.result import Reading

DRAWN = ", drawn by a person"


@dataclass(frozen=True)
class Tracked:
    """A box of a reading.

    Attributes:
        box: the box.
        name: its number in the reading, as page and picture show it, its class, and whether a person drew it.
        uid: new for each reading: another reading of the same image finds boxes of its own.
        outline: (5, 2) float64, closed polyline of (column, row) within the image, clockwise from the upper left corner: 0.0
            is the left edge of the first column and the upper edge of the first row.
    """

    box: Box
    name: str
    uid: UID
    outline: NDArray[np.float64]


def track(reading: Reading) -> Sequence[Tracked]:
    """Return the boxes of a reading that pictures show, in their order: a viewer has no switch for weak ones."""
    return [
        Tracked(box, f"{number} {box.label}{DRAWN if box.own else ''}", generate_uid(None), _outline(box, reading))
        for number, box in reading.numbered
    ]


def _outline(box: Box, reading: Reading) -> NDArray[np.float64]:
    view = reading.images[box.image]
    ((left, top, right, bottom),) = clip_to_image(xywh_to_xyxy([box.xywh]), (view.height, view.width))
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], dtype=np.float64)
