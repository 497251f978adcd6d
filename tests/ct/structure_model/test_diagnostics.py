"""How far embeddings spread and where attention falls, by hand; a figure of scores that cannot be had."""

from pathlib import Path

import numpy as np
import pytest

from d2rnet.ct.structure_model.diagnostics import attention_inside, effective_rank
from d2rnet.ct.structure_model.figure import draw_structures


def test_effective_rank_counts_the_dimensions_of_what_differs():
    corners = np.array([[1.0, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]])
    assert effective_rank(corners) == pytest.approx(2.0)
    assert effective_rank(corners + 100.0) == pytest.approx(2.0)  # where they lie does not matter
    assert effective_rank(np.ones((4, 3))) == 0.0
    uneven = corners * [3.0, 1.0, 1.0]  # singular values 6 and 2: shares 3/4 and 1/4
    assert effective_rank(uneven) == pytest.approx(np.exp(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25))))


def test_attention_inside_a_structure_beside_its_share_of_what_may_be_looked_at():
    attention = np.array([6.0, 2, 2, 0])
    shares = np.array([0.5, 1.0, 0.0, 0.0])
    seen = np.array([True, True, True, False])
    found = attention_inside(attention, shares, seen)
    assert found is not None
    assert found["inside"] == pytest.approx((6 * 0.5 + 2) / 10)
    assert found["expected"] == pytest.approx(0.5)  # of three patches, not of four
    assert found["hit"] is True
    missed = attention_inside(attention[[2, 1, 0, 3]], shares, seen)
    assert missed is not None and missed["hit"] is False


@pytest.mark.parametrize(
    ("attention", "shares", "seen"),
    [([1.0, 1.0], [0.0, 0.0], [True, True]), ([0.0, 0.0], [1.0, 0.0], [True, True]), ([1.0, 1.0], [1.0, 0.0], [False, False])],
)
def test_a_structure_that_is_not_there_has_no_score(attention, shares, seen):
    assert attention_inside(np.array(attention), np.array(shares), np.array(seen)) is None


def test_scores_of_a_single_volume_are_drawn(tmp_path: Path):
    """No abnormality has an AUROC, no structure an interval; found with real volumes, of which there were few."""
    nothing = {f"image_to_text_{kind}_at_5": None for kind in ("recall", "chance", "commonest")}
    row = nothing | {"image_to_text_recall_at_5_interval": None}
    metrics = {
        "structures": {"lung": row, "pleura": row},
        "similarity_image_to_text": [[0.5, None], [0.1, None]],
        "zero_shot_auroc": {"Lung nodule": {"auroc": None, "interval": None, "positive": 1}},
    }
    draw_structures(tmp_path / "structures", metrics)
    assert all((tmp_path / f"structures.{kind}").stat().st_size > 1000 for kind in ("svg", "png"))
