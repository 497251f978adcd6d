"""Clinical efficacy without weights: do two reports, or a report and its boxes, name the same lesions.

Each report becomes one state for each of the 22 classes (mentions.py). Precision, recall and F1 are averaged in the ways of
label_scores.py (micro, macro, example), under two conventions that the key names:
``lesion22_uncertain_positive`` counts a doubted lesion as named, ``lesion22_uncertain_negative`` does not. Denied and
unmentioned lesions are both "not named". ``lesion_side`` asks for the side, too: its classes are pairs of class and side.

Shapes: N reports, C = 22 classes, or 66 pairs of class and side.
"""

from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from d2rnet.evaluation.label_scores import RATES, label_scores
from d2rnet.evaluation.labeller import Judged, Labeller, Named, class_matrix
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mentions import classes_of, find_mentions, named_classes, named_sides

CONVENTIONS: Mapping[str, bool] = {"lesion22_uncertain_positive": True, "lesion22_uncertain_negative": False}
HEADLINE = "lesion22_uncertain_positive"
SIDED = "lesion_side"
NO_SIDE = "no side"
SIDED_CLASSES = tuple(f"{name}, {side}" for name in CATEGORY_NAMES for side in ("left", "right", NO_SIDE))
LESIONS = Labeller(CATEGORY_NAMES, CONVENTIONS, named_classes)
MEANS = tuple(f"{average}_{rate}" for average in ("micro", "macro", "example") for rate in RATES)


def named_matrix(texts: Sequence[str], *, uncertain_counts: bool) -> Named:
    """Return (N, C) bool: which classes each report names; columns in the order of CATEGORY_NAMES."""
    return LESIONS.matrix(texts, uncertain_counts=uncertain_counts)


def sided_matrix(texts: Sequence[str]) -> Named:
    """Return (N, 66) bool: which pairs of class and side each report names; columns in the order of SIDED_CLASSES.

    A doubted lesion counts as named. "Bilateral" is left and right; a class whose mentions tell no side, as those in the
    middle, is "no side". So a lesion on the wrong side is both an invention and a miss.
    """
    return class_matrix([_sided_names(text) for text in texts], SIDED_CLASSES)


def _sided_names(text: str) -> list[str]:
    mentions = find_mentions(text)
    sides = named_sides(mentions)
    return [f"{name}, {side}" for name in classes_of(mentions) for side in sides.get(name, (NO_SIDE,))]


def judge_lesions(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, Judged]:
    """Return convention, and SIDED -> lesions that N references and as many generated reports name."""
    truth = {**LESIONS.matrices(references), SIDED: sided_matrix(references)}
    claimed = {**LESIONS.matrices(hypotheses), SIDED: sided_matrix(hypotheses)}
    return {name: Judged(truth[name], claimed[name], np.ones_like(truth[name])) for name in truth}


def agreement(truth: Named, claimed: Named, classes: Sequence[str] = CATEGORY_NAMES) -> dict[str, Any]:
    """Compare claimed with true findings.

    Args:
        truth: (N, C) bool.
        claimed: (N, C) bool.
        classes: names of the C classes.

    Returns:
        Each of MEANS, such as ``micro_precision`` and ``example_f1`` (label_scores.py says how each is averaged),
        ``per_class`` (class -> ``precision``, ``recall``, ``f1``, ``true``, ``claimed``; classes that neither side holds are
        left out) and ``classes_without_truth``. A share of nothing is None: precision where nothing is claimed, recall where
        nothing is true; F1 is None only where both sides are empty, so that saying nothing does not count as right.
    """
    hits = (truth & claimed).sum(axis=0)
    true = truth.sum(axis=0)
    named = claimed.sum(axis=0)
    per_class = {
        name: _rates(int(hits[place]), int(true[place]), int(named[place]))
        for place, name in enumerate(classes)
        if true[place] or named[place]
    }
    means = label_scores(truth, claimed, np.ones_like(truth), np.ones((len(truth), 1)))
    return {
        **{mean: float(means[mean][0]) if np.isfinite(means[mean][0]) else None for mean in MEANS},
        "per_class": per_class,
        "classes_without_truth": [name for name, count in zip(classes, true, strict=True) if not count],
    }


def _rates(hits: int, true: int, claimed: int) -> dict[str, Any]:
    return {**precision_recall_f1(hits, true, claimed), "true": true, "claimed": claimed}


def precision_recall_f1(hits: int, true: int, claimed: int) -> dict[str, float | None]:
    """Return precision, recall and F1 of counts; a share of nothing is None."""
    return {
        "precision": hits / claimed if claimed else None,
        "recall": hits / true if true else None,
        "f1": 2 * hits / (true + claimed) if true or claimed else None,
    }


def sentence_grounding(
    sentences: Sequence[Sequence[Mapping[str, Any]]], labels: Sequence[Sequence[str]], boxed: Named
) -> dict[str, int | float | None]:
    """Compare the lesions that sentences name with the boxes of their entry and with those listed for the sentence.

    Args:
        sentences: ``text`` and ``boxes`` (places in the entry's boxes) of each sentence of N reports.
        labels: class names of the boxes of each of N entries.
        boxed: (N, C) classes whose boxes are sure enough to count as there.

    Returns:
        ``sentences_naming_a_lesion``; of them the shares ``with_box_of_the_class`` (anywhere in the entry),
        ``with_listed_box`` and ``with_listed_box_of_the_class``. A sentence names a lesion if a mention is present or
        uncertain.
    """
    total = in_entry = listed = right = 0
    for report, boxes, there in zip(sentences, labels, boxed, strict=True):
        classes = set(compress(CATEGORY_NAMES, there))
        for sentence in report:
            named = named_classes(sentence["text"])
            if not named:
                continue
            shown = {boxes[place] for place in sentence["boxes"]}
            total += 1
            in_entry += bool(named & classes)
            listed += bool(shown)
            right += bool(named & shown)
    shares = {"with_box_of_the_class": in_entry, "with_listed_box": listed, "with_listed_box_of_the_class": right}
    return {"sentences_naming_a_lesion": total, **{key: count / total if total else None for key, count in shares.items()}}


def side_agreement(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, int | float | None]:
    """Compare the sides of lesions that both reports name as there.

    Args:
        references: N texts.
        hypotheses: N texts.

    Returns:
        ``compared`` lesions (named with a side by both), ``same_side`` their share with the same set of sides ("bilateral" is
        left and right), ``wrong_side`` the share with no side in common.
    """
    compared = same = wrong = 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        theirs = named_sides(find_mentions(reference))
        ours = named_sides(find_mentions(hypothesis))
        for name in theirs.keys() & ours.keys():
            compared += 1
            same += theirs[name] == ours[name]
            wrong += not theirs[name] & ours[name]
    return {
        "compared": compared,
        "same_side": same / compared if compared else None,
        "wrong_side": wrong / compared if compared else None,
    }
