"""Class colours: one a class, told apart by eyes with and without red and green cones, legible under black text."""

import itertools

import numpy as np
import pytest

from d2rnet.figures.plots import class_colours
from d2rnet.findings.classes import CATEGORY_NAMES

XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
WHITE = np.array([0.95047, 1.0, 1.08883])
# linear RGB as seen by normal eyes, and without green or red cones: Machado et al., IEEE TVCG 2009, severity 1
EYES = {
    "normal": (np.eye(3), 20.0),
    "deuteranopia": (
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        12.0,
    ),
    "protanopia": (
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
        12.0,
    ),
}


def linear(colour: str) -> np.ndarray:
    encoded = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(XYZ @ rgb / WHITE)  # all colours are light enough for the cubic part
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_each_class_has_a_colour_in_the_order_of_the_class_table():
    assert tuple(class_colours()) == CATEGORY_NAMES
    assert class_colours()["Cardiomegaly"] == "#7777FF"


@pytest.mark.parametrize("eyes", EYES)
def test_no_two_classes_look_alike(eyes):
    matrix, least = EYES[eyes]
    seen = {name: lab(np.clip(matrix @ linear(colour), 0, 1)) for name, colour in class_colours().items()}
    nearest = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in itertools.combinations(seen, 2))
    assert nearest[0] > least, f"{nearest[1]} and {nearest[2]}"


def test_black_text_is_legible_on_every_colour():
    """WCAG 2.2 contrast of at least 4.5."""
    for name, colour in class_colours().items():
        luminance = float(XYZ[1] @ linear(colour))
        assert (luminance + 0.05) / 0.05 >= 4.5, name
