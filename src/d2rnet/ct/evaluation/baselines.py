"""What any system can be set beside: answers that look at no volume, or only at its labels.

* ``most_frequent_report``: the commonest training report, to every volume.
* ``shuffled``: the generated reports, each given to a volume of another patient.
* ``nearest_training_report``: that of the training volume whose image features are nearest (retrieve-ct-reports).
* ``label_set_report``: the 18 labels predicted from image features, answered with the stored report of that label set
  (retrieve-ct-reports).
* ``true_label_set_report``: the same with the true labels: what a perfect classifier would reach by looking up.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.ct.evaluation.abnormalities import ABNORMALITIES
from d2rnet.ct.evaluation.cases import Cases
from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import single_spaced
from d2rnet.evaluation.label_sets import ReportStore
from d2rnet.evaluation.labeller import Named
from d2rnet.evaluation.metric_names import COMMONEST, NEAREST
from d2rnet.evaluation.report_pairs import answers_of, commonest_answer, derangement
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report

SHUFFLED = "shuffled"
LABEL_SET = "label_set_report"
TRUE_LABEL_SET = "true_label_set_report"
NO_SHUFFLE = "undefined: one patient holds more than half of the volumes"
BASELINES = {
    COMMONEST: "commonest",
    SHUFFLED: "shuffled",
    NEAREST: "nearest",
    LABEL_SET: "label set",
    TRUE_LABEL_SET: "true label set",
}


def known_labels(entries: Sequence[Entry]) -> tuple[Named, Named]:
    """Return (N, 18) labels of entries, and which of them are known; a label that is not known is False."""
    labels = np.array([[value == 1 for value in entry["labels"]] for entry in entries], dtype=bool)
    known = np.array([[value is not None for value in entry["labels"]] for entry in entries], dtype=bool)
    shape = (-1, len(ABNORMALITIES.classes))
    return labels.reshape(shape), known.reshape(shape)


def one_per_study(entries: Sequence[Entry]) -> list[Entry]:
    """Return the first volume of each study, in their order: volumes of a study share report and labels."""
    return list({entry["study_id"]: entry for entry in reversed(entries)}.values())[::-1]


def report_store(training: Sequence[Entry], protocol: str, *, candidates: int) -> ReportStore:
    """Store the training reports, one a study, by the labels of the annotation.

    Raises:
        DatasetError: no training study has a report.
    """
    entries = one_per_study(training)
    texts = [single_spaced(clean_report(entry["report"], protocol)) for entry in entries]
    written = [place for place, text in enumerate(texts) if text]
    if not written:
        raise DatasetError("ct_annotation.json: no training study has a report; the baselines answer with one.")
    labels, _ = known_labels([entries[place] for place in written])
    return ReportStore([texts[place] for place in written], labels, candidates=candidates)


def plain_answers(
    cases: Cases, training: Sequence[Entry], *, protocol: str, candidates: int, seed: int
) -> tuple[dict[str, list[str]], dict[str, Any], dict[str, str]]:
    """Return the answers of the baselines that need no image features.

    Args:
        cases: the N answered volumes.
        training: entries of the training split.
        protocol: text protocol.
        candidates: see :class:`ReportStore`.
        seed: of the shuffling.

    Returns:
        Baseline -> N texts; facts of the commonest report; baseline -> why it has none.

    Raises:
        DatasetError: no training study has a report.
    """
    commonest = commonest_answer(one_per_study(training), protocol)
    answers = {COMMONEST: [commonest["report"]] * len(cases.entries)}
    notes: dict[str, str] = {}
    partner = derangement(cases.patients, seed)
    if partner is None:
        notes[SHUFFLED] = NO_SHUFFLE
    else:
        answers[SHUFFLED] = [cases.hypotheses[place] for place in partner]
    store = report_store(training, protocol, candidates=candidates)
    labels, _ = known_labels(cases.entries)
    answers[TRUE_LABEL_SET] = [store.texts[store.answer(row)] for row in labels]
    return answers, commonest, notes


def read_answers(cases: Cases, files: Mapping[str, Path | None]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Read the answers of retrieve-ct-reports.

    Args:
        cases: the N answered volumes.
        files: baseline -> its file, None where it was not made.

    Returns:
        Baseline -> N texts; baseline -> why it has none.

    Raises:
        FileNotFoundError: a file is not there.
        DatasetError: a volume has no answer, or one against another reference.
    """
    wanted = dict(zip(cases.ids, cases.references, strict=True))
    answers = {name: answers_of(path, wanted) for name, path in files.items() if path is not None}
    return answers, dict.fromkeys(files.keys() - answers.keys(), "not run: no answers of retrieve-ct-reports were given")
