"""Windows that radiologists look at a chest CT in."""

import numpy as np
import pytest

from d2rnet.ct.volumes.display_windows import WINDOWS, DisplayWindow, grey_levels


@pytest.mark.parametrize(
    ("window", "hu", "grey"),
    [
        (DisplayWindow(-600.0, 1500.0), [-1350, -600, 150, 3000, -2000], [0, 127, 255, 255, 0]),
        (DisplayWindow(40.0, 400.0), [-160, 40, 240], [0, 127, 255]),
    ],
)
def test_window_maps_its_ends_to_black_and_white(window: DisplayWindow, hu: list[int], grey: list[int]) -> None:
    assert grey_levels(np.array(hu, np.int16), window).tolist() == grey


def test_names_in_the_order_of_the_buttons() -> None:
    assert list(WINDOWS) == ["lung", "mediastinum", "bone"]
