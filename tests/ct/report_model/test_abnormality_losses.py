"""What teaches the report model to look: losses by hand, tokens that count more where they belong."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from d2rnet.ct.evaluation.abnormalities import named_abnormalities
from d2rnet.ct.report_model.abnormality_losses import AbnormalityLoss, AbnormalityWords, named_tokens, read_abnormalities
from d2rnet.ct.report_model.model import StructureLinear
from d2rnet.ct.report_model.selection import NONE, OBSERVATION, PATCH
from d2rnet.ct.report_model.settings import TrainCtReportModelSettings
from d2rnet.report.interface import Encoded
from d2rnet.report.text.vocabulary import PAD_ID, count_vocabulary
from d2rnet.training.batches import Ragged

REPORTS = (
    "The trachea is open. There is pleural effusion on the left. The heart is of normal size.",
    "The heart is enlarged. No nodule is seen.",
    "No nodule is seen. There is pleural effusion on the left",
)
VOCABULARY = count_vocabulary(REPORTS, protocol="faithful", section="findings", min_token_count=1)


def encoded(tokens: torch.Tensor) -> Encoded:
    """Encoded tokens (B, L, D), of which the loss asks nothing else."""
    return Encoded(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool), 0)


def token_ids() -> Ragged:
    """The first and second report whole, the third cut before its end."""
    lengths = (60, 60, 9)
    return Ragged((VOCABULARY.encode(text, max_tokens=most) for text, most in zip(REPORTS, lengths, strict=True)), np.int32)


def batch_of(*rows: int) -> SimpleNamespace:
    """Padded token ids of reports."""
    ids = token_ids()
    padded = torch.full((len(rows), max(ids.lengths[list(rows)]) + 2), PAD_ID)
    for place, row in enumerate(rows):
        padded[place, : ids.lengths[row]] = torch.from_numpy(ids[row]).long()
    return SimpleNamespace(token_ids=padded, entry_numbers=torch.tensor(rows, dtype=torch.long))


def words_of(flags: np.ndarray) -> list[str]:
    """The words that are flagged, of each report."""
    ids = token_ids()
    bounds = np.cumsum([0, *ids.lengths])
    return [" ".join(VOCABULARY.decode(ids[row][flags[bounds[row] : bounds[row + 1]]])) for row in range(len(ids.lengths))]


def test_tokens_of_sentences_that_name_an_abnormality():
    read = []

    def names(sentence: str) -> tuple[str, ...]:
        read.append(sentence)
        return named_abnormalities(sentence)

    said = words_of(named_tokens(token_ids(), VOCABULARY, names))
    assert said == ["There is pleural effusion on the left .", "The heart is enlarged .", "There is pleural effusion"]
    assert len(read) == len(set(read))


def test_tokens_count_once_more_where_they_are_foretold():
    """Rows in another order than the entries; the first token, which is never foretold, and padding cost nothing."""
    ids = token_ids()
    flags = named_tokens(ids, VOCABULARY, named_abnormalities)
    starts = np.cumsum([0, *ids.lengths])
    batch = batch_of(2, 0)
    torch.manual_seed(0)
    logits = torch.randn(2, batch.token_ids.shape[1] - 1, len(VOCABULARY))
    costs = -F.log_softmax(logits, 2)
    expected = sum(
        costs[row, step - 1, ids[entry][step]]
        for row, entry in enumerate((2, 0))
        for step in range(1, ids.lengths[entry])
        if flags[starts[entry] + step]
    )
    torch.testing.assert_close(AbnormalityWords(flags, ids.lengths, weight=1.5)(logits, batch), 1.5 * expected)


def test_no_token_costs_nothing():
    words = AbnormalityWords(np.ones(9, bool), np.array([4, 5]), weight=1.0)
    batch = SimpleNamespace(token_ids=torch.zeros(0, 2, dtype=torch.long), entry_numbers=torch.zeros(0, dtype=torch.long))
    assert words(torch.zeros(0, 1, 1), batch) == 0


def seen(kinds: list[list[int]], structures: list[list[int]], mask: list[list[bool]], entries: list[int]) -> SimpleNamespace:
    return SimpleNamespace(
        kinds=torch.tensor(kinds),
        structures=torch.tensor(structures),
        mask=torch.tensor(mask),
        entry_numbers=torch.tensor(entries),
    )


def test_loss_of_labels_by_hand():
    """Structure 0 has two observations, whose mean counts; patches and padding do not; the third label is not known."""
    labels = np.array([[False, False, True], [True, False, True]])
    known = np.array([[True, True, True], [True, True, False]])
    loss = AbnormalityLoss(labels, known, num_structures=2, d_model=1, weight=0.5)
    with torch.no_grad():
        loss.classify.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        loss.classify.bias.zero_()
    tokens = torch.tensor([[[1.0], [3.0], [-1.0], [50.0], [70.0]]])
    kinds = [[OBSERVATION, OBSERVATION, OBSERVATION, PATCH, OBSERVATION]]
    batch = seen(kinds, [[0, 0, 1, 0, NONE]], [[True, True, True, True, False]], [1])
    expected = 0.5 * (np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0)))  # logits 2 (true) and -1 (false)
    assert float(loss(encoded(tokens), batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_no_entry_is_no_loss_but_a_gradient():
    """Where several processes share fewer entries than there are processes, all of them average the same parameters."""
    loss = AbnormalityLoss(np.zeros((2, 3), bool), np.ones((2, 3), bool), num_structures=2, d_model=4, weight=1.0)
    empty = torch.zeros(0, 1, dtype=torch.long)
    batch = SimpleNamespace(kinds=empty, structures=empty, mask=empty.bool(), entry_numbers=empty[:, 0])
    total = loss(encoded(torch.zeros(0, 1, 4)), batch)
    total.backward()
    assert total == 0 and loss.classify.weight.grad is not None and not loss.classify.weight.grad.any()


def test_labels_are_not_stored_with_a_checkpoint():
    loss = AbnormalityLoss(np.zeros((2, 3), bool), np.ones((2, 3), bool), num_structures=2, d_model=4, weight=1.0)
    assert set(loss.state_dict()) == {"classify.weight", "classify.bias"}


def test_each_structure_has_its_own_layer():
    torch.manual_seed(0)
    layer = StructureLinear(3, 4, 2)
    tokens = torch.randn(2, 3, 4)
    structures = torch.tensor([[0, 2, NONE], [1, 1, 0]])
    found = layer(tokens, structures)
    for row, column in np.ndindex(2, 3):
        place = int(structures[row, column])  # NONE is the last of four
        torch.testing.assert_close(found[row, column], layer.weight[place] @ tokens[row, column] + layer.bias)
    assert len(layer.weight) == 4 and not torch.equal(layer.weight[0], layer.weight[1])


def test_observations_of_a_language_model_are_bfloat16():
    loss = AbnormalityLoss(np.zeros((2, 3), bool), np.ones((2, 3), bool), num_structures=2, d_model=4, weight=1.0)
    batch = seen([[OBSERVATION, OBSERVATION]], [[0, 1]], [[True, True]], [1])
    loss(encoded(torch.ones(1, 2, 4, dtype=torch.bfloat16)), batch).backward()
    assert loss.classify.weight.grad.isfinite().all()


def test_layers_of_structures_cast_once_in_half_precision():
    layer = StructureLinear(3, 4, 2)
    tokens = torch.randn(2, 3, 4)
    structures = torch.tensor([[0, 2, NONE], [1, 1, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = layer(tokens, structures)
    torch.testing.assert_close(halved.float(), layer(tokens, structures), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (2.0, 1.0)),
        ({"training": {"abnormality_loss": 0.0, "abnormality_weight": 3.0}}, (None, 2.0)),
        ({"training": {"abnormality_loss": 0.5, "abnormality_weight": 1.0}}, (0.5, None)),
        ({"model": {"observations": False}}, (None, 1.0)),  # the loss reads the observations
        ({"model": {"llm": {"weights": "x"}}}, (2.0, None)),  # its tokens are no words of the vocabulary
    ],
)
def test_there_is_what_the_settings_ask_for(changes, expected):
    settings = TrainCtReportModelSettings.read(changes)
    entries = [{"labels": [1, None, *[0] * 16]}] * 3
    said = read_abnormalities(entries, token_ids(), VOCABULARY, settings)
    assert said.labels.sum() == 3 and (~said.known).sum() == 3 and said.labels.shape == (3, 18)
    found = said.losses(settings, num_structures=2, d_model=4)
    assert tuple(part and part.weight for part in found) == expected
