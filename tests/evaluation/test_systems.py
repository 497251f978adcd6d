"""Resampled scores against scores computed from scratch, paired comparison, equality with pycocoevalcap called directly."""

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from d2rnet.evaluation.caption_scores import Scorer
from d2rnet.evaluation.metric_names import METRICS, Group, keys_of
from d2rnet.evaluation.systems import compare_systems, intervals, score_system, study_counts

WORDS = ["there", "is", "no", "a", "small", "left", "right", "pleural", "effusion", "pneumothorax", "nodule", "heart", "."]


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=rng.integers(4, 25))) for _ in range(count)]


REFERENCES, GOOD, BAD = texts(60, 1), [], texts(60, 3)
GOOD = [text if row % 2 else other for row, (text, other) in enumerate(zip(REFERENCES, texts(60, 2), strict=True))]


def test_equal_to_pycocoevalcap_called_directly():
    scores = Scorer(None).score(REFERENCES, GOOD, what="test")
    truth = {row: [text] for row, text in enumerate(REFERENCES)}
    candidates = {row: [text] for row, text in enumerate(GOOD)}
    bleu, bleu_each = Bleu(4).compute_score(truth, candidates, verbose=0)
    rouge, rouge_each = Rouge().compute_score(truth, candidates)
    cider, cider_each = Cider().compute_score(truth, candidates)
    assert [scores.corpus[f"bleu_{order}"] for order in (1, 2, 3, 4)] == bleu
    assert (scores.corpus["rouge_l"], scores.corpus["cider"]) == (rouge, cider)
    for order in (1, 2, 3, 4):
        assert scores.pairs[f"bleu_{order}"].tolist() == bleu_each[order - 1]
    assert scores.pairs["rouge_l"].tolist() == rouge_each.tolist()
    assert scores.pairs["cider"].tolist() == cider_each.tolist()


def test_a_resample_scores_as_the_texts_it_holds():
    """BLEU and ROUGE-L of a resample are those of a file with the texts drawn; CIDEr is the mean with the weights held."""
    scores = Scorer(None).score(REFERENCES, GOOD, what="test")
    counts = np.random.default_rng(5).integers(0, 3, size=(60, 4))
    drawn = scores.resampled(counts)
    for column in range(4):
        rows = np.repeat(np.arange(60), counts[:, column])
        again = Scorer(None).score([REFERENCES[row] for row in rows], [GOOD[row] for row in rows], what="test").corpus
        for metric in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"):
            assert drawn[metric][column] == pytest.approx(again[metric], abs=1e-9)
        assert drawn["cider"][column] == pytest.approx(scores.pairs["cider"][rows].mean())


def test_studies_are_drawn_whole():
    counts = study_counts(["a", "b", "a", "c"], samples=50, seed=0)
    assert counts.shape == (4, 50)
    assert (counts[0] == counts[2]).all()
    assert ((counts[0] + counts[1] + counts[3]) == 3).all()
    assert (counts == study_counts(["a", "b", "a", "c"], samples=50, seed=0)).all()


def test_interval_holds_the_score_and_narrows_with_studies():
    wide = score_system(Scorer(None), REFERENCES[:20], GOOD[:20], what="test")
    narrow = score_system(Scorer(None), REFERENCES, GOOD, what="test")
    ends = {}
    for name, system, count in (("wide", wide, 20), ("narrow", narrow, 60)):
        counts = study_counts([str(row) for row in range(count)], samples=300, seed=0)
        ends[name] = intervals(system.resampled(counts))
        for metric, (low, high) in ends[name].items():
            assert low <= system.scores()[metric] <= high, metric
    low, high = ends["wide"]["rouge_l"]
    assert high - low > ends["narrow"]["rouge_l"][1] - ends["narrow"]["rouge_l"][0]


def test_comparison_tells_better_from_equal():
    first, second = (score_system(Scorer(None), REFERENCES, written, what="test") for written in (GOOD, BAD))
    counts = study_counts([str(row) for row in range(60)], samples=400, seed=1)
    rows = compare_systems(first, second, counts=counts)
    assert set(rows) == set(METRICS) - {"meteor"}
    for metric in ("bleu_1", "bleu_4", "rouge_l", "cider", "lesion22_uncertain_positive_micro_f1"):
        assert rows[metric]["difference"] == pytest.approx(first.scores()[metric] - second.scores()[metric])
        assert rows[metric]["interval"][0] > 0
        assert rows[metric]["p"] == pytest.approx(2 / 401)
    backwards = compare_systems(second, first, counts=counts)
    assert backwards["cider"]["interval"] == pytest.approx([-end for end in rows["cider"]["interval"][::-1]])
    same = compare_systems(first, first, counts=counts)
    assert {found["difference"] for found in same.values()} == {0.0}
    assert {found["p"] for found in same.values()} == {1.0}


def test_scores_without_meteor_and_with_one_pair():
    system = score_system(Scorer(None), ["left effusion ."], ["left effusion ."], what="test")
    scores = system.scores()
    assert list(scores) == list(METRICS)
    assert set(system.captions.corpus) == set(keys_of(Group.WORDS))
    assert scores["meteor"] is None and scores["cider"] is None
    assert scores["lesion22_uncertain_positive_micro_f1"] == 1
    assert set(system.resampled(np.ones((1, 3)))) == {metric for metric, value in scores.items() if value is not None}
