"""The network: masks, boxes, weights by path."""

import pytest
import torch
from report_samples import make_batch, make_model
from torchvision.ops import roi_align

from d2rnet.cxr.report_model.lesion_encoder import position_features
from d2rnet.cxr.report_model.visual_extractor import ChannelPriorAttention
from d2rnet.errors import ConfigError


def test_padded_lesions_change_nothing() -> None:
    model = make_model()
    batch = make_batch()
    changed = make_batch()
    padding = ~changed.lesion_mask
    assert padding.any()
    changed.boxes_xyxy[padding] = torch.tensor([1.0, 1.0, 30.0, 30.0])
    changed.positions[padding] = 0.7
    changed.scores[padding] = 0.9
    changed.category_ids[padding] = 5
    assert torch.equal(model(batch), model(changed))


def test_an_entry_is_the_same_with_and_without_padding() -> None:
    """With one box, alone and beside an entry with three."""
    model = make_model()
    padded = make_batch(lesions=(1, 3))
    alone = make_batch(lesions=(1, 3))
    for name in alone.__dataclass_fields__:
        setattr(alone, name, getattr(alone, name)[:1])
    for name in ("boxes_xyxy", "positions", "lesion_view", "category_ids", "scores", "crops", "crop_insides", "lesion_mask"):
        setattr(alone, name, getattr(alone, name)[:, :1])
    assert torch.allclose(model(alone)[0], model(padded)[0], atol=1e-5)


def test_attention_of_lesions_is_that_of_the_places_behind_the_patches() -> None:
    model = make_model()
    batch = make_batch(lesions=(2, 0, 3))
    encoded = model.encode(batch)
    attention = model.region_attention(encoded, batch.token_ids)
    assert attention.shape == (3, batch.token_ids.shape[1] - 1, 3)
    there = batch.lesion_mask.unsqueeze(1).expand_as(attention)
    assert attention[there].min() > 0 and (attention[~there] == 0).all()
    assert attention.sum(dim=-1).max() < 1  # the rest goes to patches


def test_real_lesions_change_the_report_of_their_entry_only() -> None:
    model = make_model()
    batch = make_batch()
    for name, value in (
        ("category_ids", 22),
        ("scores", 0.0),
        ("positions", 0.99),
        ("boxes_xyxy", torch.tensor([0.0, 0, 32, 32])),
    ):
        changed = make_batch()
        getattr(changed, name)[0, 0] = value
        before = model(batch)
        after = model(changed)
        assert not torch.allclose(before[0], after[0], atol=1e-6), name
        assert torch.equal(before[1:], after[1:]), name


def test_box_order_does_not_matter() -> None:
    model = make_model()
    batch = make_batch(lesions=(3,))
    turned = make_batch(lesions=(3,))
    for name in ("boxes_xyxy", "positions", "category_ids", "scores", "lesion_view"):
        setattr(turned, name, getattr(turned, name).flip(1))
    assert torch.allclose(model(batch), model(turned), atol=1e-5)


@pytest.mark.parametrize("lesions", [(0, 0), (0, 1), (50, 3)])
def test_any_number_of_boxes(lesions: tuple[int, int]) -> None:
    logits = make_model()(make_batch(lesions=lesions))
    assert logits.shape[:2] == (2, 6) and torch.isfinite(logits).all()


def test_batch_equals_single() -> None:
    model = make_model()
    together = model(make_batch(lesions=(2, 2)))
    single = make_batch(lesions=(2, 2))
    for name in single.__dataclass_fields__:
        setattr(single, name, getattr(single, name)[:1])
    assert torch.allclose(model(single)[0], together[0], atol=1e-5)


def test_absent_second_view_changes_nothing() -> None:
    model = make_model()
    batch = make_batch(lesions=(2, 1))
    wider = make_batch(lesions=(2, 1))
    wider.pixels = torch.cat([batch.pixels, torch.full_like(batch.pixels, 200)], dim=1)
    wider.view_mask = torch.tensor([[True, False], [True, False]])
    assert torch.allclose(model(batch), model(wider), atol=1e-5)


def test_lesions_are_pooled_from_their_own_view() -> None:
    model = make_model()
    batch = make_batch(views=2, lesions=(1, 1))
    batch.view_mask[0, 1] = False
    batch.lesion_view = torch.tensor([[0], [1]])
    feature_map, _ = model.extractor(batch.pixels[batch.view_mask])
    pooled = model.lesion_encoder.features(feature_map, batch)
    row = torch.cat([torch.tensor([[2.0]]), batch.boxes_xyxy[1]], dim=1)  # third image that is there: entry 1, view 1
    stride = model.extractor.stride
    size = model.lesion_encoder.features.roi_size
    expected = roi_align(feature_map, row, size, 1 / stride, sampling_ratio=2, aligned=True)
    assert torch.equal(pooled[1:], expected.flatten(1))


def test_without_lesion_branch_boxes_are_ignored() -> None:
    model = make_model(lesion_branch="none")
    batch = make_batch()
    changed = make_batch()
    changed.category_ids[:] = 1
    changed.boxes_xyxy[:] = torch.tensor([0.0, 0.0, 31.0, 31.0])
    assert torch.equal(model(batch), model(changed))
    assert model.encode(batch).num_regions == 0


def test_zero_lesion_tokens_give_finite_gradients() -> None:
    model = make_model().train()
    model(make_batch(lesions=(0, 3))).square().mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)


def test_position_features_by_hand() -> None:
    found = position_features(torch.tensor([[0.5, 0.0, 1.0, 0.25]]))
    assert found.shape == (1, 36)
    assert found[0, :5].tolist() == pytest.approx([0.5, 0.0, 1.0, 0.25, 1.0])  # sin(pi / 2)
    assert found[0, 20 + 12].item() == pytest.approx(2**-0.5, abs=1e-6)  # cos(pi / 4) of the fourth number


def test_channel_attention_keeps_shape() -> None:
    assert ChannelPriorAttention(8)(torch.randn(2, 8, 5, 7)).shape == (2, 8, 5, 7)


@pytest.mark.parametrize(("d_model", "key"), [(18, "memory_heads"), (15, "num_heads")])
def test_width_that_heads_do_not_divide(d_model: int, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        make_model(d_model=d_model, **{key: 4})
