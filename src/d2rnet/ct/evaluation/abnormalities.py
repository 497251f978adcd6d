"""The 18 abnormalities as a labeller of reports, and what is true: by the reference report, and by the labels of a table.

Both readings of a report are those of ct/structures (docs/explanation/ct-text.md has their measured errors). A label that the
reference does not judge ("could not be evaluated"), and one that the table leaves blank, is not known and counts nowhere.

Shapes: N reports, C = 18 abnormalities.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import StructureTable, load_table
from d2rnet.evaluation.labeller import Labeller, Named, class_matrix
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import Entry

ACCURACY = (
    "rules of findings/ct_lexicon.py; micro F1 .948 on 200 public hand-labelled reports, .977 on 166 sentences of our own"
)
OF_TABLE = "table"  # labels_from of entries whose labels their source gives


@lru_cache(maxsize=1)
def _table() -> StructureTable:
    return load_table("ten")  # the labels of a report are the same under every table of structures


def named_abnormalities(text: str, *, uncertain_counts: bool = True) -> tuple[str, ...]:
    """Return the abnormalities that a report says are there; with ``uncertain_counts`` also those that it doubts."""
    return structures_of(text, _table(), uncertain_counts=uncertain_counts).labels


ABNORMALITIES = Labeller(CT_ABNORMALITIES, {"uncertain_positive": True, "uncertain_negative": False}, named_abnormalities)


@dataclass(frozen=True)
class Truth:
    """What is true of N volumes, by one source.

    Attributes:
        labels: convention -> (N, C) bool.
        known: (N, C) bool, False where the source does not say.
    """

    labels: Mapping[str, Named]
    known: Named


def truth_of_reports(references: Sequence[str]) -> Truth:
    """Return what N reference reports say; what they call not judged is not known."""
    unjudged = class_matrix([structures_of(text, _table()).unknown_labels for text in references], CT_ABNORMALITIES)
    return Truth(ABNORMALITIES.matrices(references), ~unjudged)


def truth_of_table(entries: Sequence[Entry]) -> Truth | None:
    """Return what the table of labels says of N entries of ct_annotation.json, None where it says nothing of any.

    A table has no doubt: both conventions have the same truth. Entries whose labels were read from their report
    (``labels_from``) are not known here.
    """
    given = np.array([[entry.get("labels_from") == OF_TABLE] for entry in entries]).reshape(-1, 1)
    known = np.array([[value is not None for value in entry["labels"]] for entry in entries], dtype=bool) & given
    labels = np.array([[value == 1 for value in entry["labels"]] for entry in entries], dtype=bool)
    return Truth(dict.fromkeys(ABNORMALITIES.conventions, labels), known) if known.any() else None


def truths_of(references: Sequence[str], entries: Sequence[Entry]) -> dict[str, Truth]:
    """Return what is true of N volumes by each source that says anything: ``report`` and, if it does, ``table``."""
    table = truth_of_table(entries)
    reports = {"report": truth_of_reports(references)}
    return reports if table is None else {**reports, "table": table}
