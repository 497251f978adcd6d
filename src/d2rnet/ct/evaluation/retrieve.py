"""retrieve_ct_reports: answer each volume by looking up training reports through its frozen features; two baselines.

Reads: features of extract-ct-features, ct_annotation.json, test.jsonl of generate-ct-reports (for its ids), vocabulary.json.
Writes: ``nearest.jsonl`` (``id, reference, hypothesis, nearest, cosine``: report of the training volume whose features are
nearest), ``label_set.jsonl`` (``id, reference, hypothesis, labels``: labels by a linear classifier of the features, answered
with the stored report of that label set), ``classifier.json`` (per label: threshold, F1 and positives on validation),
``run.json``. Trained on the training split, thresholds from the validation split; the answered volumes decide nothing.

Shapes: N volumes, M training volumes, D features.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.evaluation.baselines import known_labels, report_store
from d2rnet.ct.evaluation.cases import Cases, read_split
from d2rnet.ct.evaluation.linear_probe import Features, best_thresholds, fit_probe
from d2rnet.ct.evaluation.settings import LabelSetSettings
from d2rnet.ct.evaluation.volume_vectors import volume_vectors
from d2rnet.ct.report_model.features import INDEX
from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import single_spaced
from d2rnet.evaluation.clinical import precision_recall_f1
from d2rnet.evaluation.labeller import Named
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import load_vocabulary
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
QUERIES = 256  # compared at once; changes no answer


def retrieve_ct_reports(
    *, generated: Path, annotation: Path, features: Path, model: Path, output: Path, settings: LabelSetSettings
) -> None:
    """Write the answers of both baselines to ``output``.

    Args:
        generated: test.jsonl of generate-ct-reports; names the volumes.
        annotation: ct_annotation.json.
        features: folder of extract-ct-features.
        model: folder of train-ct-report-model, for its text protocol.
        output: folder for the results.
        settings: section ``ct.evaluation.label_set``.

    Raises:
        FileNotFoundError: an input, or the features of a volume, are not there.
        DatasetError: an input is not what its format says, or the training split holds no report or no label.
    """
    protocol = load_vocabulary(model / "vocabulary.json").protocol
    splits = load_ct_annotation(annotation)
    cases = read_split(generated, splits, protocol=protocol).answered
    training = [entry for entry in splits["train"] if clean_report(entry["report"], protocol)]
    if not training:
        raise DatasetError(f"{annotation}: no training volume has a report; the baselines answer with one.")
    of_training, of_validation, of_cases = (
        volume_vectors(features, entries, settings.features) for entries in (training, splits["val"], cases.entries)
    )
    places, cosines = nearest(of_cases, of_training)
    answers = [single_spaced(clean_report(training[place]["report"], protocol)) for place in places]
    facts = [
        {"nearest": training[place]["id"], "cosine": round(float(cosine), 5)}
        for place, cosine in zip(places, cosines, strict=True)
    ]
    write_jsonl(output / "nearest.jsonl", _lines(cases, answers, facts))
    claimed, classifier = classify(of_training, training, of_validation, splits["val"], of_cases, settings)
    store = report_store(training, protocol, candidates=settings.medoid_candidates)
    answers = [store.texts[store.answer(row)] for row in claimed]
    facts = [{"labels": [CT_ABNORMALITIES[place] for place in np.flatnonzero(row)]} for row in claimed]
    write_jsonl(output / "label_set.jsonl", _lines(cases, answers, facts))
    write_json(output / "classifier.json", classifier)
    write_run_record(
        output / "run.json",
        command="retrieve-ct-reports",
        settings=settings,
        inputs={
            "generated": generated,
            "annotation": annotation,
            "features": features / INDEX,
            "vocabulary": model / "vocabulary.json",
        },
        counts={
            "volumes": len(cases.entries),
            "training_volumes": len(training),
            "validation_volumes": len(splits["val"]),
            "different_nearest": len(set(places.tolist())),
            "different_label_sets": len(np.unique(claimed, axis=0)),
        },
    )
    log.info("two baselines for %d volumes from %d training volumes: %s", len(cases.entries), len(training), output)


def _lines(cases: Cases, answers: Sequence[str], facts: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, reference, answer, more in zip(cases.ids, cases.references, answers, facts, strict=True):
        yield {"id": name, "reference": reference, "hypothesis": answer, **more}


def nearest(queries: Features, candidates: Features) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the candidate with the greatest cosine; of equals the first.

    Args:
        queries: (N, D).
        candidates: (M, D), M at least 1.

    Returns:
        (N,) places and (N,) cosines; 0 for a vector of length 0.
    """
    own, others = _unit(queries), _unit(candidates)
    places = np.zeros(len(own), dtype=np.int64)
    cosines = np.zeros(len(own), dtype=np.float32)
    for start in range(0, len(own), QUERIES):
        likeness = own[start : start + QUERIES] @ others.T  # (queries, M)
        best = likeness.argmax(axis=1)
        places[start : start + QUERIES] = best
        cosines[start : start + QUERIES] = likeness[np.arange(len(best)), best]
    return places, cosines


def _unit(vectors: Features) -> Features:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def classify(
    of_training: Features,
    training: Sequence[Entry],
    of_validation: Features,
    validation: Sequence[Entry],
    of_cases: Features,
    settings: LabelSetSettings,
) -> tuple[Named, dict[str, Any]]:
    """Predict the 18 labels of N volumes.

    Args:
        of_training: (M, D) features of the training volumes.
        training: their entries.
        of_validation: of the validation volumes, for the thresholds.
        validation: their entries.
        of_cases: (N, D) features of the volumes to answer.
        settings: section ``ct.evaluation.label_set``.

    Returns:
        (N, 18) bool; per label ``threshold`` and, on validation, ``f1, true``.

    Raises:
        DatasetError: no label of a training volume is known.
    """
    labels, known = known_labels(training)
    if not known.any():
        raise DatasetError("ct_annotation.json: no label of a training volume is known; the classifier learns from them.")
    probe = fit_probe(of_training, labels, known, penalty=settings.penalty, max_iterations=settings.max_iterations)
    truth, judged = known_labels(validation)
    probabilities = probe.probabilities(of_validation)
    thresholds = best_thresholds(probabilities, truth, judged)
    said = (probabilities >= thresholds) & judged
    truth &= judged
    of_labels = {
        name: {
            "threshold": round(float(thresholds[place]), 6),
            "true": int(truth[:, place].sum()),
            "f1": precision_recall_f1(
                int((truth & said)[:, place].sum()), int(truth[:, place].sum()), int(said[:, place].sum())
            )["f1"],
        }
        for place, name in enumerate(CT_ABNORMALITIES)
    }
    claimed = (probe.probabilities(of_cases) >= thresholds) & known.any(axis=0)  # what was never taught is not claimed
    return claimed, {"validation_volumes": len(validation), "labels": of_labels}
