"""Which patches and observations become tokens of the decoder, by hand."""

import pytest
import torch

from d2rnet.ct.report_model.selection import (
    MEAN,
    NONE,
    OBSERVATION,
    PATCH,
    Features,
    chosen_once,
    random_patches,
    select,
    top_patches,
)
from d2rnet.ct.report_model.settings import CtReportModelSettings

ALL_SEEN = torch.ones(6, dtype=torch.bool)
# structure 0 looks at patches 4, 1; structure 1 at 1, 5
ATTENTION = torch.tensor([[0.0, 0.3, 0.0, 0.1, 0.5, 0.1], [0.1, 0.4, 0.1, 0.1, 0.0, 0.3]])


def features(**changes) -> Features:
    """Two structures of one observation, six patches; the vector of patch p is [p, p], of observation s [10 + s, 10 + s]."""
    patches = torch.arange(6.0)[:, None].expand(6, 2)
    top = top_patches(ATTENTION, ALL_SEEN, 2)
    values = {
        "observations": torch.tensor([[[10.0, 10.0]], [[11.0, 11.0]]]),
        "top": top,
        "top_attention": ATTENTION.gather(1, top),
        "mean": patches.mean(dim=0),
        "patch_mask": ALL_SEEN,
        "chosen": top,
        "vectors": patches[top],
        "patches": None,
    }
    return Features(**values | changes)


def chosen(settings: dict, **changes) -> list[tuple[float, int, int, int]]:
    """First number of the vector, kind, structure and place of each token."""
    found = select(features(**changes), CtReportModelSettings.read({"patches_per_structure": 2} | settings))
    columns = (found.vectors[:, 0], found.kinds, found.structures, found.places)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_greatest_attention_first_and_equal_ones_in_raster_order():
    attention = torch.tensor([[0.2, 0.3, 0.2, 0.3], [0.0, 0.0, 0.0, 0.0]])
    assert top_patches(attention, ALL_SEEN[:4], 4).tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]
    many = torch.ones(1, 5000)
    assert top_patches(many, torch.ones(5000, dtype=torch.bool), 9).tolist() == [list(range(9))]


def test_masked_patches_are_never_chosen_not_even_where_too_few_are_left():
    mask = torch.tensor([False, True, False, True, False, False])
    assert top_patches(ATTENTION, mask, 3).tolist() == [[1, 3, NONE], [1, 3, NONE]]
    drawn = random_patches(mask, 2, 3, name="a", seed=0)
    assert sorted(drawn.flatten().tolist()) == [NONE] * 4 + [1, 3]


def test_a_patch_of_several_structures_is_of_the_one_that_attends_most():
    indices = torch.tensor([[4, 1, NONE], [1, 5, NONE]])
    shares = torch.tensor([[0.5, 0.3, 0.0], [0.4, 0.3, 0.0]])
    assert chosen_once(indices, shares).tolist() == [[True, False, False], [True, True, False]]
    equal = torch.tensor([[0.5, 0.4, 0.0], [0.4, 0.3, 0.0]])
    assert chosen_once(indices, equal).tolist() == [[True, True, False], [False, True, False]]
    # the structures in another order choose the same
    assert chosen_once(indices.flip(0), shares.flip(0)).tolist() == [[True, True, False], [True, False, False]]


def test_as_released_and_repaired():
    o, p = OBSERVATION, PATCH
    released = {"duplicates": "keep", "observations_twice": True}
    assert chosen(released) == [
        (10, o, 0, NONE),
        (4, p, 0, 4),
        (1, p, 0, 1),
        (11, o, 1, NONE),
        (1, p, 1, 1),
        (5, p, 1, 5),
        (10, o, 0, NONE),
        (11, o, 1, NONE),
    ]
    repaired = [(10, o, 0, NONE), (4, p, 0, 4), (11, o, 1, NONE), (1, p, 1, 1), (5, p, 1, 5)]
    assert chosen({}) == repaired
    assert chosen({"observations": False}) == [token for token in repaired if token[1] == p]
    assert chosen({"patches_per_structure": 1}) == [(10, o, 0, NONE), (4, p, 0, 4), (11, o, 1, NONE), (1, p, 1, 1)]


def test_the_released_sizes_give_110_tokens():
    observations, patches = torch.zeros(10, 1, 3), torch.zeros(4096, 3)
    top = top_patches(torch.rand(10, 4096), torch.ones(4096, dtype=torch.bool), 9)
    whole = features(observations=observations, top=top, top_attention=torch.rand(10, 9), chosen=top, vectors=patches[top])
    released = {"duplicates": "keep", "observations_twice": True, "patches_per_structure": 9}
    assert select(whole, CtReportModelSettings.read(released)).vectors.shape == (110, 3)


def test_baselines():
    o = OBSERVATION
    seen = torch.tensor([True, False, True, True, False, True])
    patches = torch.arange(6.0)[:, None].expand(6, 2)
    observations = [(10, o, 0, NONE), (11, o, 1, NONE)]
    assert chosen({"selection": "none"}) == observations
    assert chosen({"selection": "mean"}) == [*observations, (2.5, MEAN, NONE, NONE)]
    every = chosen({"selection": "all"}, patches=patches, vectors=None, patch_mask=seen)
    assert every == [*observations, *((place, PATCH, NONE, place) for place in (0, 2, 3, 5))]
    drawn = random_patches(seen, 2, 2, name="a", seed=0)
    at_random = chosen({"selection": "random"}, patches=patches, vectors=None, patch_mask=seen, chosen=drawn)
    assert sorted(at_random) == sorted([*observations, *((place, PATCH, NONE, place) for place in (0, 2, 3, 5))])


def test_all_patches_kept_serve_attention_as_its_own_vectors_do():
    patches = torch.arange(6.0)[:, None].expand(6, 2)
    drawn = random_patches(ALL_SEEN, 2, 2, name="a", seed=0)
    assert chosen({}, patches=patches, vectors=None, chosen=drawn) == chosen({})


def test_a_draw_is_of_the_volume_and_the_seed_and_distinct():
    mask = torch.rand(500, generator=torch.Generator().manual_seed(0)) > 0.3
    one = random_patches(mask, 10, 9, name="train_1_a_1", seed=0)
    assert torch.equal(one, random_patches(mask, 10, 9, name="train_1_a_1", seed=0))
    for name, seed in (("train_1_a_2", 0), ("train_1_a_1", 1)):
        assert not torch.equal(one, random_patches(mask, 10, 9, name=name, seed=seed))
    assert len(set(one.flatten().tolist())) == 90 and mask[one.flatten()].all()


@pytest.mark.parametrize("selection", ["attention", "random"])
def test_missing_patches_make_no_token(selection):
    few = torch.tensor([[4, NONE], [5, NONE]])
    vectors = torch.tensor([[[4.0, 4.0], [0.0, 0.0]], [[5.0, 5.0], [0.0, 0.0]]])
    for duplicates in ("once", "keep"):
        found = chosen(
            {"selection": selection, "duplicates": duplicates, "observations": False},
            top=few,
            chosen=few,
            top_attention=torch.tensor([[0.5, 0.0], [0.5, 0.0]]),
            vectors=vectors,
        )
        assert [(token[0], token[3]) for token in found] == [(4, 4), (5, 5)]
