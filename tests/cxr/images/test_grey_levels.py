"""Grey levels: limits of training images, what lies outside of them, what is like them."""

from typing import Any

import numpy as np
import pytest

from d2rnet.cxr.images.grey_levels import (
    LEAST_IMAGES,
    MARGIN,
    GreyLevels,
    describe_grey_levels,
    reduce,
    statistics,
)
from d2rnet.errors import ConfigError


def chest(seed: int, hw: tuple[int, int] = (96, 80)) -> np.ndarray:
    """Two dark lungs of any place and width above a bright abdomen, (h, w) uint8."""
    left, right, top, width, grey = np.random.default_rng(seed).normal(
        (0.28, 0.72, 0.45, 0.14, 140), (0.02, 0.02, 0.03, 0.01, 10)
    )
    y, x = np.indices(hw) / np.array(hw)[:, None, None]
    lungs = sum(np.exp(-(((x - centre) / width) ** 2) - ((y - top) / 0.3) ** 2) for centre in (left, right))
    return np.clip(grey + 50 * y - 100 * lungs, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def levels() -> GreyLevels:
    """Of forty drawn chests."""
    described = describe_grey_levels([reduce(chest(seed)) for seed in range(40)])
    assert described is not None
    return described


def test_other_chests_are_like_it_whatever_their_size(levels: GreyLevels) -> None:
    unlike = [levels.unlike(chest(seed, hw)) for seed in range(100, 120) for hw in ((96, 80), (300, 310))]
    assert sum(map(bool, unlike)) <= 2


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        (np.rot90, "likeness"),
        (np.flipud, "likeness"),
        (lambda pixels: 255 - pixels, "likeness"),
        (np.zeros_like, "dark_share"),
        (lambda pixels: np.full_like(pixels, 255), "bright_share"),
        (lambda pixels: pixels // 2, "mean_grey"),
        (lambda pixels: pixels // 4 + 100, "contrast"),
        (lambda pixels: pixels[:, : pixels.shape[1] // 2], "symmetry"),
        (lambda pixels: np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8), "roughness"),
    ],
)
def test_what_is_unlike_is_named_with_its_value(levels: GreyLevels, change: Any, statistic: str) -> None:
    texts = levels.unlike(np.ascontiguousarray(change(chest(1))))
    assert any(text.startswith(f"{statistic} ") and ", expected at " in text for text in texts), texts


def test_statistics_of_pictures_that_are_known() -> None:
    halves = np.zeros((32, 32))
    halves[:, 16:] = 255
    assert statistics(halves, halves) == pytest.approx(
        {
            "likeness": 1,
            "mean_grey": 127.5,
            "contrast": 127.5,
            "dark_share": 0.5,
            "bright_share": 0.5,
            "symmetry": -1,
            "roughness": 1 / 31,  # one step of twice the contrast in 31 along rows, none along columns
        }
    )
    assert statistics(np.full((32, 32), 9.0), halves)["likeness"] == 0


def test_limits_are_widened_by_the_margin_and_no_more(levels: GreyLevels) -> None:
    low, high = levels.limits["mean_grey"]
    within, outside = (round(high + share * MARGIN * (high - low)) for share in (0.8, 1.4))
    expected = [
        any(text.startswith("mean_grey") for text in levels.unlike(np.full((50, 50), grey, np.uint8)))
        for grey in (within, outside)
    ]
    assert expected == [False, True]


def test_too_symmetric_or_too_like_is_not_unlike(levels: GreyLevels) -> None:
    mean = np.array(levels.mean_image, dtype=np.uint8)
    symmetric = (mean // 2 + mean[:, ::-1] // 2).astype(np.uint8)
    assert not [text for text in levels.unlike(symmetric) if text.startswith(("likeness", "symmetry"))]


def test_few_images_have_no_limits() -> None:
    small = [reduce(chest(seed)) for seed in range(LEAST_IMAGES)]
    assert describe_grey_levels(small[1:]) is None and describe_grey_levels(small) is not None


@pytest.mark.parametrize(
    "change", [{"mean_image": [[0] * 32]}, {"limits": {"likeness": [0, 1]}}, {"images": 3}, {"mean_image": [[256] * 32] * 32}]
)
def test_damaged_description_is_refused(levels: GreyLevels, change: dict[str, Any]) -> None:
    assert GreyLevels.read(levels.to_json()) == levels
    with pytest.raises(ConfigError):
        GreyLevels.read({**levels.to_json(), **change})
