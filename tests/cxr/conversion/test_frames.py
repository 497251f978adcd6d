"""Frames of boxes and files that do not go together."""

import pandas as pd
import pytest

from d2rnet.cxr.conversion.frames import check_frames
from d2rnet.files.problems import Problems


def found(stated: tuple[int, int], file: tuple[int, int], orientation: int = 1, *, boxed: bool = True) -> dict[str, int]:
    images = pd.DataFrame(
        {
            "source_id": ["a"], "file": ["a.jpg"], "source_height": stated[0], "source_width": stated[1],
            "file_height": file[0], "file_width": file[1], "exif_orientation": orientation,
        }
    )  # fmt: skip
    problems = Problems()
    check_frames(images, pd.Series([boxed]), problems)
    return problems.counts()


@pytest.mark.parametrize(
    ("stated", "file", "orientation", "expected"),
    [
        ((0, 0), (48, 40), 1, {}),
        ((0, 0), (48, 40), 6, {"turned_image": 1}),
        ((48, 40), (48, 40), 3, {"turned_image": 1}),  # same size, boxes turned by 180 degrees
        ((40, 48), (48, 40), 6, {"turned_image": 1}),  # one problem, not a swapped size besides
        ((40, 48), (48, 40), 1, {"swapped_size": 1}),
        ((400, 480), (48, 40), 1, {"swapped_size": 1}),  # of a reduced copy
        ((480, 400), (48, 40), 1, {}),
        ((48, 48), (48, 48), 1, {}),
        ((48, 47), (47, 48), 1, {"swapped_size": 1}),
        ((1000, 999), (999, 1000), 1, {}),  # as square as rounding can tell
        ((40, 48), (0, 0), 1, {}),  # unreadable: quarantined elsewhere
    ],
)  # fmt: skip
def test_frames(stated: tuple[int, int], file: tuple[int, int], orientation: int, expected: dict[str, int]) -> None:
    assert found(stated, file, orientation) == expected


def test_a_turned_image_without_a_box_is_no_problem() -> None:
    assert found((0, 0), (48, 40), 6, boxed=False) == {}
