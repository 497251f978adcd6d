"""Baseline of the radiograph reports: the training report that names the classes of an entry's boxes.

It knows the classes of the boxes, and nothing else of the picture. A report model that names lesions less well than this has
not learnt to read its own lesion tokens.

Shapes: N entries, C = 22 classes.
"""

from collections.abc import Sequence

from d2rnet.evaluation.caption_scores import single_spaced
from d2rnet.evaluation.clinical import Named, named_matrix
from d2rnet.evaluation.label_sets import ReportStore
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report

CANDIDATES = 400  # reports of one set of classes that are searched for the medoid; its time is the square of their number


def lesion_set_answers(training: Sequence[Entry], boxed: Named, protocol: str) -> list[str]:
    """Answer entries by the classes of their boxes.

    Args:
        training: entries of the training split; each study counts once. At least one has a report.
        boxed: (N, C) classes of the boxes, see :func:`d2rnet.evaluation.boxed_classes.boxed_classes`; none is a set, too: that
            of reports without a lesion.
        protocol: text protocol.

    Returns:
        N reports: of those that name, doubtful mentions included, just these classes, or else the nearest set (Jaccard index),
        the medoid (:class:`ReportStore`).
    """
    of_studies = {entry["study_id"]: single_spaced(clean_report(entry["report"], protocol)) for entry in reversed(training)}
    texts = [text for text in reversed(of_studies.values()) if text]
    store = ReportStore(texts, named_matrix(texts, uncertain_counts=True), candidates=CANDIDATES)
    return [texts[store.answer(wanted)] for wanted in boxed]
