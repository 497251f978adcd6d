"""Boundary-offset coding against hand-computed numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d2rnet.cxr.detector.box_regression import BoundaryOffsetTransform

CODEC = BoundaryOffsetTransform()
corner = st.floats(-500, 500, width=32)
extent = st.floats(32, 500, width=32)  # no offset beyond the limit of 62.5 extents


def test_each_boundary_is_ten_times_its_offset_over_the_extent() -> None:
    source = torch.tensor([[10.0, 10.0, 20.0, 30.0]])  # 10 wide, 20 high
    target = torch.tensor([[12.0, 9.0, 25.0, 35.0]])
    assert CODEC.get_deltas(source, target).tolist() == [[2.0, -0.5, 5.0, 2.5]]


def test_ten_pixel_shift_of_a_ten_pixel_box_comes_back_exactly() -> None:
    source = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    target = source + 10
    deltas = CODEC.get_deltas(source, target)
    assert deltas.tolist() == [[10.0] * 4]
    assert torch.equal(CODEC.apply_deltas(deltas, source), target)


@given(corner, corner, extent, extent, corner, corner, extent, extent)
def test_decode_inverts_encode(x: float, y: float, w: float, h: float, u: float, v: float, p: float, q: float) -> None:
    source = torch.tensor([[x, y, x + w, y + h]], dtype=torch.float64)
    target = torch.tensor([[u, v, u + p, v + q]], dtype=torch.float64)
    decoded = CODEC.apply_deltas(CODEC.get_deltas(source, target), source)
    torch.testing.assert_close(decoded, target.float(), rtol=1e-4, atol=1e-2)


def test_no_boxes_give_no_deltas() -> None:
    none = torch.zeros(0, 4)
    assert CODEC.get_deltas(none, none).shape == (0, 4)
    assert CODEC.apply_deltas(none, none).shape == (0, 4)


def test_crossing_boundaries_stay_crossed() -> None:
    source = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    crossed = torch.tensor([[8.0, 0.0, -8.0, 0.0]])  # left at 8, right at 2
    assert CODEC.apply_deltas(crossed, source).tolist() == [[8.0, 0.0, 2.0, 10.0]]


def test_a_boundary_moves_by_62_and_a_half_extents_at_most() -> None:
    """In either direction, as the authors' do; what overflowed in half precision stays finite."""
    source = torch.tensor([[0.0, 0.0, 2.0, 4.0]])
    wild = torch.tensor([[-1e9, float("-inf"), 626.0, float("inf")]])
    assert CODEC.apply_deltas(wild, source).tolist() == [[-125.0, -250.0, 127.0, 254.0]]


def test_a_source_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="width and height > 0"):
        CODEC.get_deltas(torch.tensor([[5.0, 5.0, 5.0, 9.0]]), torch.tensor([[5.0, 5.0, 6.0, 9.0]]))
