"""What the encoder finds: its layer and loss by hand, what the decoder is told of it, and that training has it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_samples import NUM_TOKENS, make_batch, make_model, small_settings, training_arguments, write_cohort
from safetensors.torch import load_file
from torch import Tensor

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.finding_tokens import FindingTokens
from d2rnet.cxr.report_model.generate import load_writer
from d2rnet.cxr.report_model.lesion_loss import LesionLoss, classes_of_reports
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import D2RNetTrainingSettings
from d2rnet.cxr.report_model.trainer import train_report_model, what_decides
from d2rnet.evaluation.labeller import Named
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.decoder.beam_search import SearchOptions
from d2rnet.report.interface import Encoded
from d2rnet.report.self_critical import SelfCritical
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, Vocabulary, build_vocabulary
from d2rnet.report.training_task import Losses
from d2rnet.training.batches import Ragged

WORDS = ("possible", "no", "pneumothorax", "cardiomegaly", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 0, 0, *[5] * 5), "r2gen", "findings", 1)
PNEUMOTHORAX, CARDIOMEGALY = (CATEGORY_NAMES.index(name) for name in ("Pneumothorax", "Cardiomegaly"))
CLASSES = len(CATEGORY_NAMES)
NONE = torch.zeros(2, CLASSES)
NOWHERE = torch.zeros(2, CLASSES, 2, dtype=torch.bool)


def read(*reports: str) -> Tensor:
    """Token ids of reports of two words and a full stop."""
    return torch.tensor([[BOS_ID, *(VOCABULARY.ids[word] for word in text.split()), EOS_ID, PAD_ID] for text in reports])


def named_by(batch: ChestBatch) -> Named:
    """What the reports of a batch name, whose entries are all there are."""
    return classes_of_reports(Ragged([ids[ids != PAD_ID] for ids in batch.token_ids.numpy()], np.int64), VOCABULARY)


def by_hand(*, told: bool = True, threshold: float = 0.5, sides: bool = False, scores: bool = False) -> FindingTokens:
    """A layer of width 1 that finds pneumothorax by the lesion tokens and cardiomegaly by the others; never anything else."""
    found = FindingTokens(num_classes=CLASSES, d_model=1, told=told, sides=sides, scores=scores)
    found.threshold = threshold
    with torch.no_grad():
        found.classify.weight.zero_()
        found.classify.bias.fill_(-30)
        found.classify.bias[[PNEUMOTHORAX, CARDIOMEGALY]] = 0
        found.classify.weight[PNEUMOTHORAX] = torch.tensor([1.0, 0.0])
        found.classify.weight[CARDIOMEGALY] = torch.tensor([0.0, 1.0])
    return found


def encoded() -> Encoded:
    """Two entries of three tokens and two lesions; the first lacks its third token, the second its lesions."""
    tokens = torch.tensor([[1.0, 3.0, 90.0, 5.0, 7.0], [-4.0, -8.0, -3.0, 80.0, 70.0]]).unsqueeze(-1)
    mask = torch.tensor([[True, True, False, True, True], [True, True, True, False, False]])
    return Encoded(tokens, mask, num_regions=2)


def test_a_layer_finds_classes_in_the_means() -> None:
    logits = by_hand()(encoded(), NONE, NOWHERE).findings
    assert logits is not None
    assert logits[:, PNEUMOTHORAX].tolist() == [6, 0], "without a lesion the mean of the lesion tokens is 0"
    assert logits[:, CARDIOMEGALY].tolist() == [2, -5]
    assert (logits.sum(dim=1) + 20 * 30).tolist() == [8, -5]


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.45, [{PNEUMOTHORAX, CARDIOMEGALY}, {PNEUMOTHORAX}]),
        (0.5, [{PNEUMOTHORAX, CARDIOMEGALY}, {PNEUMOTHORAX}]),
        (0.9, [{PNEUMOTHORAX}, {CLASSES}]),
        (0.999, [{CLASSES}, {CLASSES}]),
    ],
)
def test_the_decoder_is_told_what_is_found_or_that_nothing_is(threshold: float, expected: list[set[int]]) -> None:
    told = by_hand(threshold=threshold)(encoded(), NONE, NOWHERE)
    assert told.num_regions == 2 and told.tokens.shape == (2, CLASSES + 1 + 5, 1)
    assert [set(row.nonzero().flatten().tolist()) for row in told.mask[:, : CLASSES + 1]] == expected
    torch.testing.assert_close(told.tokens[:, CLASSES + 1 :], encoded().tokens)
    assert torch.equal(told.mask[:, CLASSES + 1 :], encoded().mask)


def test_a_class_with_a_box_of_score_1_is_found() -> None:
    """As the boxes of a person have; those of the first image are its own, those of the second are not there."""
    model = make_model(findings="told")
    batch = make_batch(lesions=(3, 1))
    batch.category_ids = torch.tensor([[PNEUMOTHORAX + 1, 1, 2], [CARDIOMEGALY + 1, 0, 0]])
    batch.scores = torch.tensor([[1.0, 0.99, 1.0], [0.5, 0.0, 0.0]])
    assert model.findings is not None
    model.findings.threshold = 1.0
    shown = model.encode(batch).mask[:, : CLASSES + 1]
    assert [set(row.nonzero().flatten().tolist()) for row in shown] == [{PNEUMOTHORAX, 1}, {CLASSES}]
    unseen = make_model(findings="told", lesion_branch="none")
    assert not unseen.look(batch).best.any()


def test_the_layer_starts_from_the_surest_box_of_each_class() -> None:
    """Log-odds times the weight of the class; no box is as little as a score of 0.02."""
    found = by_hand(scores=True)
    assert found.score_weight is not None
    with torch.no_grad():
        found.score_weight[CARDIOMEGALY] = 0.5
    best = NONE.clone()
    best[0, PNEUMOTHORAX], best[1, CARDIOMEGALY], best[1, PNEUMOTHORAX] = 0.2, 0.9, 1.0
    logits = found(encoded(), best, NOWHERE).findings
    assert logits is not None
    least = math.log(0.02 / 0.98)
    expected = [[6 + math.log(0.2 / 0.8), 2 + 0.5 * least], [-least, -5 + 0.5 * math.log(0.9 / 0.1)]]
    torch.testing.assert_close(logits[:, [PNEUMOTHORAX, CARDIOMEGALY]].detach(), torch.tensor(expected))


def test_the_greatest_score_is_of_the_boxes_that_are_there() -> None:
    model = make_model(findings="told", finding_scores=True)
    batch = make_batch(lesions=(3, 1))
    batch.category_ids = torch.tensor([[PNEUMOTHORAX + 1, PNEUMOTHORAX + 1, 2], [CARDIOMEGALY + 1, 5, 5]])
    batch.scores = torch.tensor([[0.3, 0.7, 0.4], [0.6, 0.9, 0.9]])
    best = model.look(batch).best
    expected = torch.zeros(2, CLASSES)
    expected[0, PNEUMOTHORAX], expected[0, 1], expected[1, CARDIOMEGALY] = 0.7, 0.4, 0.6
    torch.testing.assert_close(best, expected)
    assert "findings.score_weight" in model.state_dict()
    for change in ({"finding_scores": False}, {"findings": "none"}, {"lesion_branch": "none"}):
        other = make_model(**{"findings": "told", "finding_scores": True} | change)
        assert "findings.score_weight" not in other.state_dict()
    without = make_model(findings="told", lesion_branch="none").look(batch).best
    assert without.shape == (2, CLASSES) and not without.any()


def test_the_token_of_a_class_says_on_which_sides_its_boxes_lie() -> None:
    found = by_hand(sides=True)
    assert found.tokens is not None and found.sides is not None
    with torch.no_grad():
        found.tokens.weight.copy_(torch.arange(CLASSES + 1.0).unsqueeze(1))
        found.sides.weight.copy_(torch.tensor([[100.0, 1000.0]]))
    places = NOWHERE.clone()
    places[0, PNEUMOTHORAX, 0] = True
    places[0, CARDIOMEGALY] = True
    places[1, PNEUMOTHORAX, 1] = True
    told = found(encoded(), NONE, places).tokens[:, : CLASSES + 1, 0] - torch.arange(CLASSES + 1.0)
    expected = torch.zeros(2, CLASSES + 1)
    expected[0, PNEUMOTHORAX] = 100
    expected[0, CARDIOMEGALY] = 1100
    expected[1, PNEUMOTHORAX] = 1000
    torch.testing.assert_close(told, expected)


def test_sides_are_those_of_the_boxes_that_are_there() -> None:
    """A lateral image has none; the second entry has one box, and no lesion branch sees none."""
    model = make_model(findings="told", finding_sides=True)
    batch = make_batch(lesions=(3, 1))
    batch.category_ids = torch.tensor([[PNEUMOTHORAX + 1, PNEUMOTHORAX + 1, 2], [CARDIOMEGALY + 1, 5, 5]])
    batch.lesion_sides = torch.tensor([[1, 2, 0], [2, 1, 2]])
    sides = model.look(batch).sides
    assert sides.shape == (2, CLASSES, 2)
    assert sides.nonzero().tolist() == [[0, PNEUMOTHORAX, 0], [0, PNEUMOTHORAX, 1], [1, CARDIOMEGALY, 1]]
    assert not make_model(findings="told", lesion_branch="none").look(batch).sides.any()


def test_a_box_on_the_other_side_changes_what_the_decoder_is_told() -> None:
    batch = make_batch(lesions=(1,))
    batch.lesion_sides = torch.tensor([[1]])
    model = make_model(findings="told", finding_sides=True)
    named = torch.ones(1, CLASSES, dtype=torch.bool)
    assert model.findings is not None

    def logits() -> Tensor:
        assert model.findings is not None
        return model.logits(model.findings.tell(model.encode(batch), named), batch.token_ids)

    left = logits()
    batch.lesion_sides = torch.tensor([[2]])
    assert not torch.allclose(left, logits())
    assert "findings.sides.weight" in model.state_dict()
    without = {"finding_sides": False}, {"findings": "taught"}, {"lesion_branch": "none"}
    for change in without:
        other = make_model(**{"findings": "told", "finding_sides": True} | change)
        assert "findings.sides.weight" not in other.state_dict()


def test_taught_alone_tells_nothing() -> None:
    taught = by_hand(told=False)(encoded(), NONE, NOWHERE)
    assert torch.equal(taught.tokens, encoded().tokens) and torch.equal(taught.mask, encoded().mask)
    assert taught.findings is not None


def test_loss_by_hand() -> None:
    batch = make_batch(lesions=(2, 0))
    batch.token_ids = read("possible pneumothorax .", "no cardiomegaly .")
    found = by_hand()
    loss = LesionLoss(found, named_by(batch), weight=0.5, dropout=0.0)(found(encoded(), NONE, NOWHERE), batch)

    def nats(logit: float, *, true: bool) -> float:
        return math.log1p(math.exp(-logit if true else logit))

    first = nats(6, true=True) + nats(2, true=False)  # the doubted pneumothorax is named
    second = nats(0, true=False) + nats(-5, true=False)
    assert float(loss.detach()) == pytest.approx(0.5 * (first + second), rel=1e-5)


def test_no_entry_is_no_loss() -> None:
    batch = make_batch(lesions=(2,))
    batch.token_ids, batch.entry_numbers = batch.token_ids[:0], batch.entry_numbers[:0]
    nothing = Encoded(torch.zeros(0, 5, 1, requires_grad=True), torch.zeros(0, 5, dtype=torch.bool), 2)
    total = LesionLoss(by_hand(), named_by(batch), weight=1.0, dropout=0.0)(nothing, batch)
    total.backward()
    assert total == 0


def test_in_training_the_decoder_is_told_what_the_report_names() -> None:
    model = make_model(dropout=0.0, patch_dropout=0.0, findings="told")
    batch = make_batch(lesions=(2, 0))
    batch.token_ids = read("possible pneumothorax .", "no cardiomegaly .")
    assert model.findings is not None
    losses = Losses(model, None, 0.0, encoded_loss=LesionLoss(model.findings, named_by(batch), weight=1.0, dropout=0.0))(batch)
    with torch.no_grad():
        told = model.encode(batch)
        named = torch.zeros(2, CLASSES + 1, dtype=torch.bool)
        named[0, PNEUMOTHORAX] = named[1, CLASSES] = True
        told.mask = torch.cat([named, told.mask[:, CLASSES + 1 :]], dim=1)
        logits = model.logits(told, batch.token_ids)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.token_ids[:, 1:].flatten(), ignore_index=PAD_ID)
    torch.testing.assert_close(losses["train"].detach(), expected)
    assert losses["lesion"] > 0


def test_in_training_a_share_of_them_is_hidden() -> None:
    found = by_hand()
    told = found(encoded(), NONE, NOWHERE)
    batch = make_batch(lesions=(2, 0))
    batch.token_ids = read("possible pneumothorax .", "possible cardiomegaly .")
    loss = LesionLoss(found, named_by(batch), weight=1.0, dropout=0.25)
    torch.manual_seed(0)
    shown = torch.stack([loss.tell(told, batch).mask[:, : CLASSES + 1] for _ in range(400)])  # (400, 2, C + 1)
    assert shown[:, 0, PNEUMOTHORAX].float().mean().item() == pytest.approx(0.75, abs=0.07)
    assert torch.equal(shown[:, 0, CLASSES], ~shown[:, 0, PNEUMOTHORAX]), "then nothing is found"
    assert (shown.sum(dim=2) == 1).all()
    assert (loss.eval().tell(told, batch).mask[:, [PNEUMOTHORAX, CARDIOMEGALY]] == torch.eye(2)).all()


def test_tokens_of_findings_change_what_is_written_and_only_they_tell() -> None:
    model = make_model(findings="told")
    batch = make_batch()
    assert model.findings is not None
    told = model.encode(batch)
    other = model.findings.tell(told, torch.ones(3, CLASSES, dtype=torch.bool))
    assert not torch.allclose(model.logits(told, batch.token_ids), model.logits(other, batch.token_ids))
    assert "findings.tokens.weight" not in make_model(findings="taught").state_dict()
    assert not [name for name in make_model(findings="none").state_dict() if name.startswith("findings.")]
    assert model.logits(told, batch.token_ids).shape[-1] == NUM_TOKENS


@pytest.mark.parametrize("branch", ["roi_align", "none"])
def test_training_teaches_it(tmp_path: Path, branch: str) -> None:
    cohort = write_cohort(tmp_path / "cohort")
    model = {"lesion_branch": branch, "findings": "told"}
    settings = small_settings().replaced(model=model, training={"lesion_loss": 3.0, "pointer_weight": 0.0})
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=settings.text)
    train_report_model(**training_arguments(cohort, tmp_path, settings))
    epochs = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    losses = [epoch["lesion_loss"] for epoch in epochs]
    assert losses[-1] < losses[0]
    assert "findings.classify.weight" in load_file(tmp_path / "model" / "model.safetensors")


def test_what_does_not_matter_without_findings_decides_nothing() -> None:
    """A training that was begun before there were findings goes on, and the least that must be the same does."""
    taught, told = (small_settings().replaced(model={"findings": each}) for each in ("taught", "told"))
    other = {"lesion_loss": 3.0, "finding_dropout": 0.5}
    no_sides = {"finding_sides": False}
    assert what_decides(taught.replaced(model=no_sides)) == what_decides(taught.replaced(model={"finding_sides": True}))
    assert what_decides(told.replaced(model=no_sides)) != what_decides(told.replaced(model={"finding_sides": True}))
    no_scores = {"finding_scores": False}
    assert what_decides(small_settings().replaced(model=no_scores)) == what_decides(small_settings())
    assert what_decides(told.replaced(model=no_scores)) != what_decides(told.replaced(model={"finding_scores": True}))
    assert what_decides(small_settings().replaced(training=other)) == what_decides(small_settings())
    assert what_decides(taught.replaced(training=other)) == what_decides(taught.replaced(training={"lesion_loss": 3.0}))
    assert what_decides(told.replaced(training=other)) != what_decides(told)


def test_rewards_see_what_is_found_and_not_what_the_report_names(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(dropout=0.0, patch_dropout=0.0, findings="told")
    batch = make_batch(lesions=(2, 0))
    batch.token_ids = read("possible pneumothorax .", "no cardiomegaly .")
    assert model.findings is not None
    asked = D2RNetTrainingSettings().replaced(self_critical={"reward": "findings_f1", "start_epoch": 0})
    critic = SelfCritical(asked, lambda references, written: torch.zeros(len(written)), steps_per_epoch=1)
    seen: list[Tensor] = []

    def look(decoder: Any, encoded: Encoded, batch: Any) -> Tensor:
        seen.append(encoded.mask[:, : CLASSES + 1])
        return encoded.tokens.sum()

    monkeypatch.setattr(critic, "forward", look)
    taught = LesionLoss(model.findings, named_by(batch), weight=1.0, dropout=0.0)
    Losses(model, None, 0.0, critic, encoded_loss=taught)(batch)
    found = model.encode(batch).mask[:, : CLASSES + 1]
    assert torch.equal(seen[0], found) and not torch.equal(found[:, :-1], torch.from_numpy(named_by(batch)))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision(precision: str) -> None:
    model = make_model(findings="told")
    batch = make_batch()
    with torch.autocast("cpu", dtype=getattr(torch, precision)):
        encoded = model.encode(batch)
        logits = model.logits(encoded, batch.token_ids)
    logits.float().sum().backward()
    assert model.findings is not None and model.findings.tokens is not None
    assert model.findings.tokens.weight.grad is not None and model.findings.tokens.weight.grad.isfinite().all()
    assert model.findings.sides is not None and model.findings.sides.weight.grad is not None
    assert model.findings.sides.weight.grad.isfinite().all()
    model.transformer.to(torch.bfloat16)
    with torch.no_grad():
        halved = model.encode(batch)
        assert halved.tokens.dtype == torch.bfloat16 and halved.findings is not None
        assert halved.findings.dtype == torch.float32
        assert model.generate(halved, SearchOptions(beam_size=2, max_tokens=5)).token_ids.shape[0] == 3


def test_the_threshold_is_one_of_writing(tmp_path: Path) -> None:
    cohort = write_cohort(tmp_path / "cohort")
    settings = small_settings().replaced(model={"findings": "told"}, training={"pointer_weight": 0.0})
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=settings.text)
    train_report_model(**training_arguments(cohort, tmp_path, settings))
    asked = settings.generation.replaced(finding_threshold=0.9)
    loaded = load_writer(tmp_path / "model", torch.device("cpu"), asked)
    assert isinstance(loaded.model, D2RNet) and loaded.model.findings is not None
    assert loaded.model.findings.threshold == 0.9
