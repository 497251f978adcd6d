"""Words that name a side: which they are, and their loss by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from report_samples import make_batch, small_settings, training_arguments, write_cohort

from d2rnet.cxr.report_model.side_words import SideWords
from d2rnet.cxr.report_model.trainer import train_report_model
from d2rnet.findings.mentions import names_side
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, Vocabulary, build_vocabulary

WORDS = ("the", "left", "effusion", "bilaterally", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 0, 0, *[5] * 5), "r2gen", "findings", 1)


@pytest.mark.parametrize("word", ["left", "Right", "left-sided", "bilateral", "Bilaterally", "both", "bases", "left/right"])
def test_words_that_name_a_side(word: str) -> None:
    assert names_side(word)


@pytest.mark.parametrize("word", ["", ".", "upper", "base", "cleft", "upright", "lobe", "<pad>", "middle"])
def test_words_that_name_none(word: str) -> None:
    assert not names_side(word)


def test_loss_by_hand() -> None:
    ids = VOCABULARY.ids
    batch = make_batch(lesions=(1, 0))
    left = [BOS_ID, ids["the"], ids["left"], ids["effusion"], EOS_ID]
    both = [BOS_ID, ids["effusion"], ids["bilaterally"], EOS_ID, PAD_ID]
    batch.token_ids = torch.tensor([left, both])
    logits = torch.randn(2, 4, len(VOCABULARY), generator=torch.Generator().manual_seed(0))
    chances = logits.numpy().astype(np.float64)
    chances = np.exp(chances) / np.exp(chances).sum(axis=2, keepdims=True)
    expected = -0.5 * (np.log(chances[0, 1, ids["left"]]) + np.log(chances[1, 1, ids["bilaterally"]]))
    assert float(SideWords(VOCABULARY, weight=0.5)(logits, batch)) == pytest.approx(expected, rel=1e-5)


def test_no_entry_and_no_side_are_no_loss() -> None:
    batch = make_batch(lesions=(1, 0))
    batch.token_ids = torch.full((2, 4), VOCABULARY.ids["effusion"])
    logits = torch.randn(2, 3, len(VOCABULARY), requires_grad=True)
    loss = SideWords(VOCABULARY, weight=2.0)
    total = loss(logits, batch)
    total.backward()
    assert total == 0 and logits.grad is not None and not logits.grad.any()
    batch.token_ids = batch.token_ids[:0]
    assert loss(logits[:0, :, :1], batch) == 0


@pytest.mark.parametrize(("weight", "is_on"), [(3.0, True), (1.0, False)])
def test_training_has_it_where_sides_count_for_more(tmp_path: Path, weight: float, is_on: bool) -> None:
    cohort = write_cohort(tmp_path / "cohort")
    settings = small_settings().replaced(training={"side_weight": weight})
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=settings.text)
    train_report_model(**training_arguments(cohort, tmp_path, settings))
    epochs = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert all(("side_words_loss" in epoch) is is_on for epoch in epochs)
    if is_on:
        assert 0 < epochs[-1]["side_words_loss"] < epochs[0]["side_words_loss"]
