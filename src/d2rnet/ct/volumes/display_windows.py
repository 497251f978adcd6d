"""The windows in which radiologists look at a chest CT: which Hounsfield units become which grey."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class DisplayWindow(NamedTuple):
    """A window of Hounsfield units, black below and white above."""

    centre_hu: float
    width_hu: float


LUNG = DisplayWindow(-600.0, 1500.0)
MEDIASTINUM = DisplayWindow(40.0, 400.0)
BONE = DisplayWindow(400.0, 1800.0)
WINDOWS = {"lung": LUNG, "mediastinum": MEDIASTINUM, "bone": BONE}


def grey_levels(hu: np.ndarray, window: DisplayWindow) -> NDArray[np.uint8]:
    """Return what a window shows, 0 (black) to 255 (white).

    Args:
        hu: Hounsfield units of any shape.
        window: centre and width.
    """
    lowest = window.centre_hu - window.width_hu / 2
    return np.clip((hu - lowest) / window.width_hu * 255, 0, 255).astype(np.uint8)
