"""LAB and GAB: scores by hand, the boundary, both kinds of targets, masks, what takes part."""

import math
from pathlib import Path

import pytest
import torch
from report_samples import PUBLISHED_ALIGNMENT, make_batch, make_model
from torch.nn import functional as F

from d2rnet.cxr.report_model import alignment
from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.settings import AlignmentSettings, D2RNetModelSettings
from d2rnet.errors import ConfigError
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.settings import read_overlay, where_absent
from d2rnet.training.contrastive import hardest_negative_loss, mean_vector, soft_target_loss
from d2rnet.training.loss_weights import mean_gradient, norm_ratio

# Words as many as the samples' token ids; the full stop is the last of them.
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"abcdefghijklmno", "."), (0, 0, 0, 0, *[5] * 16), "r2gen", "findings", 1)


def make_alignment(branch: str = "roi_align", **changes) -> Alignment:
    torch.manual_seed(1)
    settings = D2RNetModelSettings(lesion_branch=branch, d_model=16, patch_channels=16, dropout=0.0)
    chosen = PUBLISHED_ALIGNMENT | {"embed_dim": 8, "text_heads": 2} | changes
    return Alignment(AlignmentSettings.read(chosen), settings, VOCABULARY, max_tokens=5)


def test_a_loss_that_is_switched_on_is_the_repaired_one(repository: Path) -> None:
    """The preset of the published model says what is published; so do work folders from before, which lack the settings."""
    presets = repository / "workflow" / "presets" / "cxr"
    arms = read_overlay(repository / "workflow" / "ablation.yaml")
    repaired = arms["arms"]["published_lab_soft"]["report"]["training"]["alignment"]
    assert repaired.keys() == {"lab"} | PUBLISHED_ALIGNMENT.keys()
    assert AlignmentSettings(lab="lesions") == AlignmentSettings.read(repaired)
    for published in (read_overlay(presets / "d2rnet.yaml")["cxr"]["report"], arms["report"]):
        assert PUBLISHED_ALIGNMENT.items() <= published["training"]["alignment"].items()
    assert where_absent(AlignmentSettings) == PUBLISHED_ALIGNMENT


def test_hardest_negatives_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.9], [0.1, 0.6, 0.9], [0.9, 0.9, 0.0]])
    valid = torch.tensor([True, True, False])
    # Images: 0.2 + 0.4 - 0.5 = 0.1 and 0; reports: 0 and 0.2 + 0.4 - 0.6 = 0.
    assert float(hardest_negative_loss(scores, valid, 0.2)) == pytest.approx(0.1 / 2)
    # All three. Images: 0.6, 0.5, 1.1; reports: 0.6, 0.5, 1.1.
    assert float(hardest_negative_loss(scores, valid | True, 0.2)) == pytest.approx(4.4 / 3)
    assert float(hardest_negative_loss(scores, valid & False, 0.2)) == 0.0


def test_soft_targets_by_hand() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    same = torch.ones(2, 2)
    different = torch.tensor([[1.0, -50.0], [-50.0, 1.0]])
    near = -math.log(1 / (1 + math.exp(-2)))
    far = -math.log(1 / (1 + math.exp(2)))
    valid = torch.tensor([True, True])
    assert float(soft_target_loss(scores, valid, different, 0.5)) == pytest.approx(near, abs=1e-6)
    assert float(soft_target_loss(scores, valid, same, 0.5)) == pytest.approx((near + far) / 2, abs=1e-6)
    flat = soft_target_loss(torch.zeros(2, 2), valid, same, 0.5)
    assert float(flat) == pytest.approx(math.log(2))  # equal reports with equal scores: nothing better is possible
    padded = F.pad(scores, (0, 1, 0, 1), value=9.0)
    widened = soft_target_loss(padded, torch.tensor([True, True, False]), F.pad(same, (0, 1, 0, 1)), 0.5)
    assert float(widened) == pytest.approx((near + far) / 2, abs=1e-6)


def test_soft_targets_of_unequal_ways_by_hand() -> None:
    """Temperature 1/2: logits 2, 0 and 1, 4 by image, 2, 1 and 0, 4 by report; targets from likeness 2 and 1/2."""
    scores = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    likeness = torch.tensor([[1.0, 0.25], [0.25, 1.0]])

    def cost(gap: float) -> float:  # of the logit that is behind by this gap
        return math.log(1 + math.exp(gap))

    own = 1 / (1 + math.exp(-1.5))
    first = own * (cost(-2) + cost(-1)) + (1 - own) * (cost(2) + cost(1))
    second = own * (cost(-3) + cost(-4)) + (1 - own) * (cost(3) + cost(4))
    found = soft_target_loss(scores, torch.tensor([True, True]), likeness, 0.5)
    assert float(found) == pytest.approx((first + second) / 2 / 2)


def test_centring_by_hand() -> None:
    vectors = torch.tensor([[[1.0, 4.0], [3.0, 0.0]], [[5.0, 2.0], [9.0, 9.0]]], requires_grad=True)
    mask = torch.tensor([[True, True], [True, False]])
    found = vectors - mean_vector(vectors, mask)  # mean (3, 2)
    assert found.tolist() == [[[-2.0, 2.0], [0.0, -2.0]], [[2.0, 0.0], [6.0, 7.0]]]
    found[0, 0, 0].backward()
    assert vectors.grad[..., 0].tolist() == [[pytest.approx(2 / 3), pytest.approx(-1 / 3)], [pytest.approx(-1 / 3), 0.0]]


def test_likeness_of_reports() -> None:
    module = make_alignment(targets="soft", lab="lesions")
    ids = torch.tensor([[1, 5, 6, 2, 0], [1, 6, 5, 5, 5], [1, 7, 8, 2, 0], [1, 5, 6, 2, 0]])
    likeness = module._likeness(ids)
    assert torch.allclose(likeness.diagonal(), torch.ones(4)) and torch.equal(likeness, likeness.T)
    assert float(likeness[0, 3]) == pytest.approx(1.0) and float(likeness[0, 2]) == 0.0
    assert float(likeness[0, 1]) == pytest.approx(4 / math.sqrt(2 * 10))


def losses_of(module: Alignment, lesions: tuple[int, ...] = (2, 0, 3, 1), **changes) -> dict[str, torch.Tensor]:
    batch = make_batch(lesions=lesions)
    for name, value in changes.items():
        setattr(batch, name, value)
    return module(make_model(d_model=16).look(batch), batch)


@pytest.mark.parametrize("targets", ["hardest", "soft"])
@pytest.mark.parametrize(("local", "blocks"), [("lesions", ["local", "global"]), ("none", ["global"])])
@pytest.mark.parametrize("kind", ["patches", "mean"])
def test_losses_reach_images_and_words(targets: str, local: str, blocks: list[str], kind: str) -> None:
    module = make_alignment(lab=local, gab=kind, targets=targets)
    model = make_model(d_model=16).train()
    batch = make_batch(lesions=(2, 0, 3, 1))
    losses = module(model.look(batch), batch)
    assert list(losses) == [f"{block}_alignment" for block in blocks]
    sum(losses.values()).backward()
    assert all(loss.item() > 0 for loss in losses.values())
    for parameter in (
        module.text_encoder.embedding.weight,
        module.words["shared"].weight,
        model.extractor.backbone.conv1.weight,
    ):
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0


def test_images_without_boxes_leave_the_local_term_or_are_their_own_region() -> None:
    batch = make_batch(lesions=(2, 0, 3, 1))
    visual = make_model(d_model=16).look(batch)
    leave, take = (make_alignment(lab=local).eval() for local in ("lesions", "lesions_or_image"))
    before = [module(visual, batch)["local_alignment"].item() for module in (leave, take)]
    batch.token_ids[1, 1:] = 17  # report of the image without boxes
    after = [module(visual, batch)["local_alignment"].item() for module in (leave, take)]
    assert after[0] == before[0] and after[1] != before[1]


@pytest.mark.parametrize("lesions", [(0, 0, 0), (0, 2, 0)])
def test_too_few_images_with_boxes_cost_nothing(lesions: tuple[int, ...]) -> None:
    module = make_alignment(lab="lesions")
    loss = losses_of(module, lesions)["local_alignment"]
    loss.backward()
    assert loss.item() == 0.0 and float(module.boundaries["local"].value) == 0.0


def test_reports_without_words_take_no_part() -> None:
    ids = make_batch(lesions=(2, 1, 3, 1)).token_ids
    ids[2, 1:] = 0
    options = {"lab": "lesions", "gab": "patches"}
    assert all(torch.isfinite(loss) for loss in losses_of(make_alignment(**options), (2, 1, 3, 1), token_ids=ids).values())


@pytest.mark.parametrize("kind", ["patches", "mean"])
@pytest.mark.parametrize("centring", [False, True])
def test_padding_changes_no_loss(kind: str, centring: bool) -> None:
    ids = make_batch(lesions=(2, 1, 3, 1)).token_ids
    options = {"lab": "lesions", "gab": kind, "centring": centring}
    plain, padded = (losses_of(make_alignment(**options), (2, 1, 3, 1), token_ids=each) for each in (ids, F.pad(ids, (0, 5))))
    for name, loss in plain.items():
        assert padded[name].item() == pytest.approx(loss.item(), abs=1e-5), name


def test_weights_scale_the_losses() -> None:
    options = {"lab": "lesions", "gab": "mean"}
    module = make_alignment(**options, lab_weight=2.0, gab_weight=0.0).eval()
    once = losses_of(module)
    weighed = module.weigh(once, torch.zeros(()), [])
    assert weighed["local_alignment"].item() == pytest.approx(2 * once["local_alignment"].item())
    assert weighed["global_alignment"].item() == 0.0


def test_cut_grid_equals_whole_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[float, torch.Tensor]:
        module = make_alignment(gab="patches")
        loss = losses_of(module)["global_alignment"]
        loss.backward()
        return float(loss), module.words["shared"].weight.grad

    whole = run()
    monkeypatch.setattr(alignment, "GRID_ELEMENTS", 200)
    parts = run()
    assert parts[0] == pytest.approx(whole[0], abs=1e-6) and torch.allclose(parts[1], whole[1], atol=1e-6)


def test_gradients_are_measured_through_a_cut_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    def ratio() -> float:
        module = make_alignment(gab="patches", centring=True)
        model = make_model(d_model=16).train()
        batch = make_batch()
        visual = model.look(batch)
        losses = module(visual, batch)
        weighed = module.weigh(losses, visual.tokens.square().mean(), model.visual_parameters())
        weighed["global_alignment"].backward()  # the graph is still there
        return module.values()["global_alignment_gradient_ratio"]

    whole = ratio()
    monkeypatch.setattr(alignment, "GRID_ELEMENTS", 200)
    assert whole > 0 and ratio() == pytest.approx(whole, rel=1e-4)


def test_words_may_have_a_projection_for_each_loss_and_none_a_bias() -> None:
    options = {"lab": "lesions", "gab": "patches"}
    assert list(make_alignment(**options).words) == ["shared"]
    module = make_alignment(**options, word_projection="separate", projection_bias=False)
    assert list(module.words) == ["local", "global"]
    assert all(layer.bias is None for layers in (module.words, module.regions) for layer in layers.values())
    before = losses_of(module.eval())
    module.words["global"].weight.data.neg_()
    after = losses_of(module)
    assert torch.equal(after["local_alignment"], before["local_alignment"])
    assert not torch.isclose(after["global_alignment"], before["global_alignment"], atol=1e-4)


@pytest.mark.parametrize("kind", ["patches", "mean"])
def test_centred_vectors_point_all_ways(kind: str) -> None:
    """Patches of one network are much alike, words of one encoder as well."""
    lengths = []
    for centring in (False, True):
        module = make_alignment(gab=kind, centring=centring)
        losses_of(module, (1, 1, 1, 1, 1, 1))
        module.after_step()
        values = module.values()
        lengths.append([values[f"global_alignment_{side}_mean_length"] for side in ("region", "word")])
    assert min(lengths[0]) > max(lengths[1]) and lengths[0][0] > 0.9 and lengths[1][0] < 0.3


def test_weights_by_gradient_pull_as_hard_as_wanted() -> None:
    module = make_alignment(lab="lesions", gab="patches", weight_by="gradient_ratio", gradient_ratio=0.5, gab_weight=0.5)
    model = make_model(d_model=16).train()
    batch = make_batch(lesions=(2, 1, 3, 1))
    visual = model.look(batch)
    main = visual.tokens.square().mean()
    shared = model.visual_parameters()
    weighed = module.weigh(module(visual, batch), main, shared)
    for name, wanted in (("local_alignment", 0.5), ("global_alignment", 0.25)):
        assert float(norm_ratio(mean_gradient(weighed[name], shared), mean_gradient(main, shared))) == pytest.approx(wanted)
        assert module.values()[f"{name}_gradient_ratio"] == pytest.approx(wanted)


def test_bad_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"alignment\.lab: got 'lesions', but cxr\.report\.model\.lesion_branch is 'none'"):
        make_alignment("none", lab="lesions")
    with pytest.raises(ConfigError, match=r"embed_dim: got .* multiple of the text encoder's heads"):
        make_alignment(gab="mean", embed_dim=9)


@pytest.mark.parametrize("targets", ["hardest", "soft"])
def test_losses_are_finite_in_mixed_precision(targets: str) -> None:
    """Likeness of reports in bfloat16 has no number for "nowhere"."""
    batch = make_batch(lesions=(2, 0, 3))
    losses = make_alignment(lab="lesions", gab="patches", targets=targets)
    model = make_model()
    exact = losses(model.look(batch), batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = losses(model.look(batch), batch)
    for name, loss in exact.items():
        assert float(rough[name]) == pytest.approx(float(loss), rel=0.05, abs=0.02), name


def test_after_step_ends_the_step_of_boundaries_and_watches() -> None:
    """Two micro-batches: one step of each, not two."""
    module = make_alignment(lab="lesions", gab="patches").train()
    for _ in range(2):
        losses_of(module)
    module.after_step()
    assert [int(watch.steps) for watch in module.watches.values()] == [1, 1]
    values = {block: float(kept.value) for block, kept in module.boundaries.items()}
    losses_of(module)
    assert [float(kept._step[0]) for kept in module.boundaries.values()] == list(values.values())
