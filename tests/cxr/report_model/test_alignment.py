"""LAB and GAB: scores by hand, the boundary, both kinds of targets, masks, what takes part."""

import math

import pytest
import torch
from report_samples import make_batch, make_model
from torch.nn import functional as F

from d2rnet.cxr.report_model import alignment
from d2rnet.cxr.report_model.alignment import Alignment, Boundary, best_similarities, optimal_boundary, word_scores
from d2rnet.cxr.report_model.settings import AlignmentSettings, D2RNetModelSettings
from d2rnet.errors import ConfigError
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.training.contrastive import hardest_negative_loss, soft_target_loss

# Words as many as the samples' token ids; the full stop is the last of them.
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *"abcdefghijklmno", "."), (0, 0, 0, 0, *[5] * 16), "r2gen", "findings", 1)
REGIONS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
WORDS = torch.tensor([[[0.6, 0.8], [-1.0, 0.0]]])
YES = torch.ones(1, 2, dtype=torch.bool)


def make_alignment(branch: str = "roi_align", **changes) -> Alignment:
    torch.manual_seed(1)
    settings = D2RNetModelSettings(lesion_branch=branch, d_model=16, patch_channels=16, dropout=0.0)
    chosen = {"embed_dim": 8, "text_heads": 2} | changes
    return Alignment(AlignmentSettings.read(chosen), settings, VOCABULARY)


def test_score_by_hand() -> None:
    """Word 1 is shown by both regions, word 2 by none: -0.5 mismatch, nothing shared, relevance -0.16192."""
    score = word_scores(REGIONS, YES, WORDS, YES, boundary=torch.tensor(0.5), sharpness=10.0)
    shown = [1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))]  # softmax of 10 * (0.1, 0.3)
    shared = (0.6 * shown[0] + 0.8 * shown[1]) / math.hypot(*shown)
    assert shared == pytest.approx(0.87324, abs=1e-5)
    first = 1 / (1 + math.exp(10 * (1.0 - 0.6 / math.hypot(0.6, 0.1))))  # leaky ReLU makes -1 of word 2 to -0.1
    related = [0.6 * first + 0.8 * (1 - first), -1 / (1 + math.exp(10 * 0.1 / math.hypot(0.6, 0.1)))]
    assert related == pytest.approx([0.70679, -0.16192], abs=1e-5)
    assert float(score) == pytest.approx((shared + related[0] - 0.5 + related[1]) / 2, abs=1e-5)
    assert float(score) == pytest.approx(0.45905, abs=2e-5)


def test_masked_regions_and_words_change_nothing() -> None:
    options = {"boundary": torch.tensor(0.1), "sharpness": 20.0}
    expected = word_scores(REGIONS, YES, WORDS, YES, **options)
    wider = torch.cat([REGIONS, torch.tensor([[[0.8, 0.6]]])], dim=1)
    longer = torch.cat([WORDS, torch.tensor([[[0.0, 1.0]]])], dim=1)
    mask = torch.tensor([[True, True, False]])
    assert torch.allclose(word_scores(wider, mask, longer, mask, **options), expected, atol=1e-6)
    assert not torch.allclose(word_scores(wider, mask | True, WORDS, YES, **options), expected, atol=1e-3)
    assert torch.equal(best_similarities(wider, mask, WORDS), torch.tensor([[[0.8, 0.0]]]))
    order = torch.tensor([1, 0])
    assert torch.allclose(word_scores(REGIONS[:, order], YES, WORDS[:, order], YES, **options), expected, atol=1e-6)


def test_grid_equals_pair_by_pair() -> None:
    torch.manual_seed(0)
    regions = F.normalize(torch.randn(3, 5, 4), dim=-1)
    words = F.normalize(torch.randn(2, 6, 4), dim=-1)
    region_mask = torch.rand(3, 5) < 0.7
    word_mask = torch.rand(2, 6) < 0.7
    options = {"boundary": torch.tensor(0.1), "sharpness": 5.0}
    grid = word_scores(regions, region_mask, words, word_mask, **options)
    for image in range(3):
        for report in range(2):
            some = regions[image][region_mask[image]][None]
            others = words[report][word_mask[report]][None]
            everything = [torch.ones(part.shape[:2], dtype=torch.bool) for part in (some, others)]
            alone = word_scores(some, everything[0], others, everything[1], **options)
            assert float(alone) == pytest.approx(float(grid[image, report]), abs=1e-5)


def double(*values: float) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


def error(t: float, matched: tuple[float, float], mismatched: tuple[float, float], alpha: float) -> float:
    above = 0.5 * math.erfc((t - mismatched[0]) / (mismatched[1] * math.sqrt(2)))
    return alpha * above + 0.5 * math.erfc((matched[0] - t) / (matched[1] * math.sqrt(2)))


@pytest.mark.parametrize("spread", [0.1, 0.1 + 1e-9, 0.1 - 1e-9])
def test_boundary_of_equal_spreads(spread: float) -> None:
    """A is (near) 0: the middle, moved by variance / distance * ln(alpha)."""
    for alpha, expected in ((1.0, 0.3), (2.0, 0.3 + 0.01 / 0.4 * math.log(2))):
        t, holds = optimal_boundary(double(0.5, spread), double(0.1, 0.1), alpha)
        assert bool(holds) and float(t) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("matched", "mismatched", "alpha"),
    [((0.6, 0.2), (0.0, 0.1), 2.0), ((0.4, 0.05), (0.1, 0.2), 2.0), ((0.5, 0.3), (0.3, 0.1), 1.5)],
)
def test_boundary_is_the_minimum(matched: tuple[float, float], mismatched: tuple[float, float], alpha: float) -> None:
    grid = torch.linspace(-1, 1, 20001, dtype=torch.float64).tolist()
    best = min(grid, key=lambda t: error(t, matched, mismatched, alpha))
    t, holds = optimal_boundary(double(*matched), double(*mismatched), alpha)
    assert bool(holds) and float(t) == pytest.approx(best, abs=2e-4)


@pytest.mark.parametrize(
    ("matched", "mismatched", "alpha"),
    [
        ((0.1, 0.1), (0.5, 0.1), 2.0),  # matched words are less alike: the root is a maximum
        ((0.0, 0.1), (0.0, 0.1), 1.0),  # no difference at all
        ((0.2, 0.3), (0.2, 0.1), 0.1),  # no real root
        ((1.0, 0.2), (0.99, 0.2), 2.0),  # root far above 1
    ],
)
def test_no_boundary(matched: tuple[float, float], mismatched: tuple[float, float], alpha: float) -> None:
    assert not bool(optimal_boundary(double(*matched), double(*mismatched), alpha)[1])


def test_boundary_moves_slowly_and_stays_where_there_is_none() -> None:
    boundary = Boundary(start=0.0, momentum=0.9, alpha=1.0)
    best = torch.tensor([[[0.4, 0.6], [0.0, 0.2]]])  # spreads 0.1 about 0.5 and 0.1
    own = torch.tensor([[[True], [False]]]).expand_as(best)
    boundary.update(best, own, ~own)
    assert float(boundary.value) == pytest.approx(0.1 * 0.3, abs=1e-6)
    boundary.update(best, ~own, own)  # the other way round: no boundary
    boundary.update(best, own & False, ~own)  # no matched word at all
    assert float(boundary.value) == pytest.approx(0.03, abs=1e-6)
    assert list(boundary.state_dict()) == ["value"] and not boundary.value.requires_grad


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
    return module(make_model(d_model=16).look(batch), batch.token_ids)


@pytest.mark.parametrize("targets", ["hardest", "soft"])
@pytest.mark.parametrize(("local", "blocks"), [("lesions", ["local", "global"]), ("none", ["global"])])
@pytest.mark.parametrize("kind", ["patches", "mean"])
def test_losses_reach_images_and_words(targets: str, local: str, blocks: list[str], kind: str) -> None:
    module = make_alignment(lab=local, gab=kind, targets=targets)
    model = make_model(d_model=16).train()
    batch = make_batch(lesions=(2, 0, 3, 1))
    losses = module(model.look(batch), batch.token_ids)
    assert list(losses) == [f"{block}_alignment" for block in blocks]
    sum(losses.values()).backward()
    assert all(loss.item() > 0 for loss in losses.values())
    for parameter in (module.text_encoder.embedding.weight, module.words.weight, model.extractor.backbone.conv1.weight):
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().sum() > 0


def test_images_without_boxes_leave_the_local_term_or_are_their_own_region() -> None:
    batch = make_batch(lesions=(2, 0, 3, 1))
    visual = make_model(d_model=16).look(batch)
    leave, take = (make_alignment(lab=local).eval() for local in ("lesions", "lesions_or_image"))
    before = [module(visual, batch.token_ids)["local_alignment"].item() for module in (leave, take)]
    batch.token_ids[1, 1:] = 17  # report of the image without boxes
    after = [module(visual, batch.token_ids)["local_alignment"].item() for module in (leave, take)]
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


def test_weights_scale_the_losses() -> None:
    options = {"lab": "lesions", "gab": "mean"}
    once = losses_of(make_alignment(**options).eval())
    twice = losses_of(make_alignment(**options, lab_weight=2.0, gab_weight=0.0).eval())
    assert float(twice["local_alignment"]) == pytest.approx(2 * float(once["local_alignment"]))
    assert float(twice["global_alignment"]) == 0.0


def test_cut_grid_equals_whole_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[float, torch.Tensor]:
        module = make_alignment(gab="patches")
        loss = losses_of(module)["global_alignment"]
        loss.backward()
        return float(loss), module.words.weight.grad

    whole = run()
    monkeypatch.setattr(alignment, "GRID_ELEMENTS", 200)
    parts = run()
    assert parts[0] == pytest.approx(whole[0], abs=1e-6) and torch.allclose(parts[1], whole[1], atol=1e-6)


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
    exact = losses(model.look(batch), batch.token_ids)
    with torch.autocast("cpu", torch.bfloat16):
        rough = losses(model.look(batch), batch.token_ids)
    for name, loss in exact.items():
        assert float(rough[name]) == pytest.approx(float(loss), rel=0.05, abs=0.02), name
