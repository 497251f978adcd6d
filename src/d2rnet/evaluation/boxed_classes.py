"""Which classes the boxes of an entry say are there: what reports are held against, and what a baseline looks reports up by.

An entry has weak boxes, too, for a report model that reads their scores. A class counts as boxed where its best score in the
entry reaches the threshold with which the boxes of the training entries agree best with their reports (agreement.py), so that
a baseline makes as much of the boxes as it can without a picture.

Shapes: N entries, C = 22 classes.
"""

from collections.abc import Sequence

import numpy as np

from d2rnet.evaluation.agreement import Scores, class_thresholds
from d2rnet.evaluation.clinical import Named, named_matrix
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.report.annotation_file import Entry

MIN_REPORTS = 10  # as cxr.annotation.min_reports: a class that fewer training reports name takes the pooled threshold


def boxed_classes(training: Sequence[Entry], entries: Sequence[Entry]) -> Named:
    """Return (N, C) bool: the classes whose boxes are sure enough to count as there.

    Args:
        training: entries of the training split, at least one; their reports choose the thresholds, doubt counts as named.
        entries: N entries of any split.
    """
    named = named_matrix([entry["report"] for entry in training], uncertain_counts=True)
    least = class_thresholds(best_scores(training), named, min_reports=MIN_REPORTS)
    return best_scores(entries) >= least  # which is above 0


def best_scores(entries: Sequence[Entry]) -> Scores:
    """Return (N, C): the highest score of each class among the boxes of each entry, 0 without one."""
    best = np.zeros((len(entries), len(CATEGORY_IDS)))
    for row, entry in enumerate(entries):
        for label, score in zip(entry["labels"], entry["scores"], strict=True):
            column = CATEGORY_IDS[label] - 1
            best[row, column] = max(best[row, column], score)
    return best
