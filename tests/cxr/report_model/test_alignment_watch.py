"""What is watched of an alignment loss: retrieval and lengths by hand, a collapse named once and soon."""

import logging

import pytest
import torch
from torch.nn import functional as F

from d2rnet.cxr.report_model.alignment_watch import Watch, in_batch_retrieval, mean_length


def make_watch() -> Watch:
    return Watch("local_alignment", place="cxr.report.training.alignment", weight="lab_weight")


def test_retrieval_by_hand() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.9], [0.6, 0.6, 0.9], [0.9, 0.9, 0.0]])
    # The first two entries: images find 1 and, of two equal ones, 1/2; reports find 0 and 1.
    retrieval, chance = in_batch_retrieval(scores, torch.tensor([True, True, False]))
    assert retrieval.item() == pytest.approx((0.75 + 0.5) / 2) and chance.item() == pytest.approx(1 / 2)
    equal, chance = in_batch_retrieval(torch.zeros(4, 4), torch.ones(4, dtype=torch.bool))
    assert equal.item() == pytest.approx(chance.item()) == pytest.approx(1 / 4)


def test_length_of_a_mean_by_hand() -> None:
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-1.0, 0.0]]])
    mask = torch.tensor([[True, True], [False, False]])
    assert mean_length(vectors, mask).item() == pytest.approx(0.5**0.5)
    assert mean_length(vectors, mask & False).item() == 0.0


def watched(noise: float, caplog: pytest.LogCaptureFixture, *, pairs_agree: bool = False) -> tuple[Watch, list[str]]:
    """Watch 100 steps of vectors about one direction; the step of each word in the log is in it."""
    generator = torch.Generator().manual_seed(0)
    watch = make_watch()
    mask = torch.ones(8, 1, dtype=torch.bool)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="d2rnet"):
        for _ in range(100):
            draws = torch.randn(2, 8, 1, 16, generator=generator) * noise
            images, reports = F.normalize(torch.eye(16)[0] + draws, dim=-1)
            reports = images if pairs_agree else reports
            watch.look(images[:, 0] @ reports[:, 0].T, mask[:, 0], (mean_length(images, mask), mean_length(reports, mask)))
            watch.after_step()
    return watch, [record.getMessage() for record in caplog.records]


def test_a_collapse_is_named_once_within_100_steps(caplog: pytest.LogCaptureFixture) -> None:
    watch, messages = watched(0.01, caplog)
    (message,) = messages
    assert message.startswith("local_alignment has collapsed after 30 batches: mean vectors of regions and words are 0.99")
    assert "In cxr.report.training.alignment set centring true" in message and "a lower lab_weight" in message
    values = watch.values()
    assert values["local_alignment_region_mean_length"] > 0.99
    assert values["local_alignment_retrieval"] == pytest.approx(1 / 8, abs=0.1)
    again = make_watch()
    again.load_state_dict(watch.state_dict())  # a resumed run does not say it again
    with caplog.at_level(logging.WARNING, logger="d2rnet"):
        for _ in range(20):
            again.look(torch.zeros(8, 8), torch.ones(8, dtype=torch.bool), (torch.ones(()), torch.ones(())))
            again.after_step()
    assert len(caplog.records) == 1


def test_no_collapse_where_vectors_differ_or_pairs_are_found(caplog: pytest.LogCaptureFixture) -> None:
    assert watched(1.0, caplog)[1] == []  # at chance, but the vectors point all ways
    watch, messages = watched(0.01, caplog, pairs_agree=True)  # nearly alike, and yet told apart
    assert messages == [] and watch.values()["local_alignment_retrieval"] > 0.9


def test_averages_by_hand() -> None:
    watch = make_watch()
    valid = torch.ones(2, dtype=torch.bool)
    for length in (0.2, 0.4, 0.9):
        watch.look(torch.eye(2), valid, (torch.tensor(length), torch.tensor(1.0)))
        watch.after_step()
    watch.look(torch.eye(2), valid & False, (torch.tensor(9.0), torch.tensor(9.0)))  # nothing to tell apart
    watch.after_step()
    assert int(watch.steps) == 3
    assert watch.values() == {
        "local_alignment_retrieval": 1.0,
        "local_alignment_retrieval_by_chance": 0.5,
        "local_alignment_region_mean_length": pytest.approx(0.5),  # the mean, until momentum 0.9 looks further back
        "local_alignment_word_mean_length": 1.0,
    }


def test_micro_batches_are_one_step() -> None:
    """The second step looks back over two steps, not over three batches: (0.4 + 0.9) / 2."""
    watch = make_watch()
    valid = torch.ones(2, dtype=torch.bool)
    for lengths in ((0.2, 0.6), (0.9,)):
        for length in lengths:
            watch.look(torch.eye(2), valid, (torch.tensor(length), torch.tensor(1.0)))
        watch.after_step()
    assert int(watch.steps) == 2
    assert watch.values()["local_alignment_region_mean_length"] == pytest.approx(0.65)
