"""The queue of earlier reports beside LAB and GAB: loss by hand, what is kept, what an image compares with, exact resume."""

import copy
import math
from typing import Any

import pytest
import torch
from report_samples import NUM_TOKENS, PUBLISHED_ALIGNMENT, SMALL_MODEL, make_batch, make_model

from d2rnet.cxr.report_model import alignment
from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.report_queue import ReportQueue
from d2rnet.cxr.report_model.settings import AlignmentSettings, D2RNetModelSettings, D2RNetTrainingSettings
from d2rnet.errors import ConfigError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, Vocabulary
from d2rnet.report.training_task import report_task
from d2rnet.training.contrastive import soft_target_loss
from d2rnet.training.task import TrainingTask

WORDS = ("cardiomegaly", "pneumothorax", *"abcdefghijklm", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 0, 0, *[5] * 16), "r2gen", "findings", 1)
QUEUE = {"targets": "soft", "queue_length": 4, "queue_rule": "fifo"}


def test_soft_targets_with_a_queue_by_hand() -> None:
    """Temperature 1/2; the first report of the queue is that of the first image, its second place is empty."""
    scores = torch.tensor([[1.0, 0.0, 0.5, 9.0], [0.0, 1.0, -0.5, 9.0]])
    likeness = torch.tensor([[1.0, -50.0, 1.0, 5.0], [-50.0, 1.0, -50.0, 5.0]])
    valid = torch.tensor([True, True])
    options = {"queue_valid": torch.tensor([True, False])}
    first = math.log(math.exp(2) + 1 + math.exp(1)) - (2 + 1) / 2  # half a share each for logits 2 and 1
    second = math.log(1 + math.exp(2) + math.exp(-1)) - 2
    of_reports = math.log(1 + math.exp(-2))  # among two images
    found = soft_target_loss(scores, valid, likeness, 0.5, **options)
    assert float(found) == pytest.approx((first + second) / 4 + of_reports / 2)
    left_out = torch.tensor([[True, False, True, False], [False, True, False, False]])
    found = soft_target_loss(scores, valid, likeness, 0.5, left_out, **options)
    assert float(found) == pytest.approx((of_reports + second) / 4 + of_reports / 2)
    alone = soft_target_loss(scores[:, :2], valid, likeness[:, :2], 0.5)
    empty = soft_target_loss(scores, valid, likeness, 0.5, queue_valid=torch.zeros(2) > 0)
    assert float(alone) == float(empty) == pytest.approx(of_reports)


def test_ids_and_classes_stand_where_their_bags_do() -> None:
    queue = ReportQueue(2, rule="closest_pair", num_words=3, max_tokens=2)
    assert queue.reports().tolist() == [[0, 0], [0, 0]] and not queue.valid.any()
    bags = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0.0, 0.6, 0.8]])
    ids = torch.tensor([[1, 4, 2], [1, 5, 2], [1, 6, 2]])
    classes = torch.eye(3, len(CATEGORY_NAMES)) > 0
    queue.note(bags[:1], ids[:1], classes[:1])
    assert not queue.valid.any()  # not before the step is over
    queue.note(bags[1:], ids[1:], classes[1:])  # the next micro-batch; the second report is the older of the closest two
    queue.after_step()
    assert queue.bags.tolist() == bags[[0, 2]].tolist() and queue.reports().tolist() == ids[[0, 2]].tolist()
    assert queue.classes.nonzero().tolist() == [[0, 0], [1, 2]]
    queue.note(bags[:1], torch.tensor([[1, 4, 2, 0]]), None)  # it comes again, padded
    queue.after_step()
    assert queue.reports().tolist() == ids[[2, 0]].tolist() and queue.classes.nonzero().tolist() == [[0, 2]]
    assert queue.values() == {"alignment_queue_fill": 1.0, "alignment_queue_mean_age": 0.5}


def test_a_report_that_is_there_comes_but_once() -> None:
    queue = ReportQueue(3, rule="fifo", num_words=2, max_tokens=2)
    for _ in range(2):
        queue.note(torch.eye(2), torch.tensor([[1, 4, 2], [1, 5, 2]]), None)
        queue.after_step()
    assert queue.valid.tolist() == [True, True, False]


def make_alignment(**changes: Any) -> Alignment:
    torch.manual_seed(1)
    settings = D2RNetModelSettings(d_model=16, patch_channels=16, dropout=0.0)
    chosen = PUBLISHED_ALIGNMENT | {"embed_dim": 8, "text_heads": 2} | QUEUE | changes
    return Alignment(AlignmentSettings.read(chosen), settings, VOCABULARY, max_tokens=7)


@pytest.mark.parametrize("kind", ["patches", "mean"])
@pytest.mark.parametrize("likeness", ["words", "findings", "words_and_findings"])
def test_reports_of_the_queue_are_compared_as_those_of_the_batch(
    monkeypatch: pytest.MonkeyPatch, kind: str, likeness: str
) -> None:
    """The queue holds the reports of the batch, in their order; parameters have not moved."""
    seen: list[tuple[Any, ...]] = []

    def loss(*arguments: Any) -> torch.Tensor:
        seen.append(arguments)
        return soft_target_loss(*arguments)

    monkeypatch.setattr(alignment, "soft_target_loss", loss)
    module = make_alignment(lab="lesions_or_image", gab=kind, likeness=likeness, centring=True, same_findings="left_out")
    batch = make_batch(lesions=(2, 0, 3, 1))
    batch.token_ids[:2, 1] = torch.tensor([4, 5])
    visual = make_model(d_model=16).look(batch)
    module(visual, batch)
    module.after_step()
    module(visual, batch)
    for empty, (scores, valid, alike, _, left_out, queue_valid) in zip(seen[:2], seen[2:], strict=True):
        assert scores.shape == alike.shape == left_out.shape == (4, 8)
        assert not empty[-1].any() and queue_valid.tolist() == valid.tolist() == [True] * 4
        torch.testing.assert_close(scores[:, 4:], scores[:, :4])
        torch.testing.assert_close(alike[:, 4:], alike[:, :4])
        assert torch.equal(left_out[:, 4:], left_out[:, :4])
        words = module.text_encoder.embedding.weight
        gradient = torch.autograd.grad(scores[:, 4:].sum(), words, retain_graph=True, allow_unused=True)[0]
        assert gradient is None or not gradient.any()
    assert module.values()["alignment_queue_fill"] == 1.0


@pytest.mark.parametrize("kind", ["patches", "mean"])
def test_reports_of_the_queue_are_centred_as_those_of_the_batch_are(kind: str) -> None:
    module = make_alignment(gab=kind, centring=True)
    batch = make_batch(lesions=(2, 0, 3, 1))
    module(make_model(d_model=16).look(batch), batch)
    module.after_step()
    whole, part = (module.text_encoder(ids, by_sentence=False) for ids in (batch.token_ids, batch.token_ids[:2]))
    one, other = (module._queued("global", words) for words in (whole, part))
    assert one is not None and other is not None and torch.equal(one.mask, other.mask)
    assert not torch.allclose(one.features, other.features, atol=0.01)


class Entries:
    """Stands for a data set of four entries: a task asks for its length only."""

    def __len__(self) -> int:
        return 4


def make_task() -> TrainingTask:
    torch.manual_seed(4)
    settings = D2RNetModelSettings.read(SMALL_MODEL)
    network = D2RNet(settings, num_tokens=NUM_TOKENS, num_categories=len(CATEGORY_NAMES))
    training = D2RNetTrainingSettings(batch_size=2).replaced(
        alignment={"embed_dim": 8, "text_heads": 2, "lab": "lesions", "gab": "mean"} | QUEUE | {"queue_length": 3}
    )
    further = Alignment(training.alignment, settings, VOCABULARY, max_tokens=7)
    return report_task(network, Entries(), training, device=torch.device("cpu"), further=further)


def test_a_training_with_a_queue_resumes_exactly() -> None:
    batches = [make_batch(lesions=(2, 1), seed=seed) for seed in range(3)]
    whole, parts = make_task(), make_task()
    for batch in batches[:2]:
        whole.train_step(batch)
    parts.resume(copy.deepcopy(whole.state()))
    for task in (whole, parts):
        task.train_step(batches[2])
    assert whole.mean_losses() == parts.mean_losses() and whole.mean_losses()["alignment_queue_fill"] == 1.0
    kept = (task.objective.state_dict() for task in (whole, parts))
    assert all(torch.equal(one, other) for one, other in zip(*(state.values() for state in kept), strict=True))


def test_a_queue_needs_soft_targets() -> None:
    with pytest.raises(ConfigError, match="queue_length: got 4; expected 0 where targets is hardest"):
        AlignmentSettings.read({"queue_length": 4, "targets": "hardest"})
    assert make_alignment(gab="none", sentence_box=True).queue is None
