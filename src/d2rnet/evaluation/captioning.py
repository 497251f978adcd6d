"""evaluate_reports: score generated reports beside two controls, with the protocol they hold under.

Reads: test.jsonl of generate-reports, annotation.json, vocabulary.json of the report model (it names the text protocol).
Writes: metrics.json (schema in docs/reference/formats.md) and run.json.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from d2rnet.data.annotation_file import load_annotation
from d2rnet.evaluation.caption_scores import METRICS, Scorer, Scores, open_meteor, single_spaced
from d2rnet.evaluation.report_pairs import ReportPairs, derangement, most_frequent, read_pairs
from d2rnet.io import write_json
from d2rnet.provenance import write_run_record
from d2rnet.report.text import clean_report
from d2rnet.report.vocabulary import load_vocabulary

log = logging.getLogger(__name__)
NO_SHUFFLE = "shuffled control undefined: one study holds more than half of the pairs"


def evaluate_reports(*, generated: Path, annotation: Path, model: Path, output: Path, settings: dict[str, Any]) -> None:
    """Score generated reports; write ``output/metrics.json`` and ``output/run.json``.

    Args:
        generated: JSON lines file with ``id, reference, hypothesis``, both texts cleaned by the model's text protocol.
        annotation: annotation.json; its training reports give the most-frequent-report control.
        model: folder of the report model; its vocabulary.json names the text protocol and the section.
        output: folder for the results.
        settings: section ``evaluation``.

    Raises:
        DatasetError: a generated report, annotation.json or vocabulary.json is not what its format says.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    vocabulary = load_vocabulary(model / "vocabulary.json")
    meteor, reason = open_meteor(settings["meteor"], timeout_seconds=settings["meteor_timeout_seconds"])
    splits = load_annotation(annotation)
    pairs = read_pairs(generated, splits)
    training = [clean_report(entry["report"], vocabulary.protocol) for entry in splits["train"]]
    common, occurrences = most_frequent([text for text in map(single_spaced, training) if text])
    with ExitStack() as stack:
        scorer = Scorer(stack.enter_context(meteor) if meteor else None, {"meteor": reason} if reason else {})
        sections = _score_with_controls(scorer, pairs, common, settings["shuffle_seed"])
    sections["most_frequent_report"] |= {"report": common, "training_count": occurrences, "training_reports": len(training)}
    metrics = {
        "protocol": {
            "text": vocabulary.protocol,
            "section": vocabulary.section,
            "split": pairs.split,
            "n": len(pairs.ids),
            **_scoring_protocol(settings, reason),
        },
        **sections,
        **text_statistics(pairs.references, pairs.hypotheses),
        "notes": scorer.notes,
        "files": {"generated": str(generated), "annotation": str(annotation)},
    }
    write_json(output / "metrics.json", metrics)
    write_run_record(
        output / "run.json",
        command="evaluate-reports",
        settings=settings,
        inputs={"generated": generated, "annotation": annotation, "vocabulary": model / "vocabulary.json"},
        counts={
            "reports": len(pairs.ids),
            "entries_without_report": pairs.missing,
            "empty_hypotheses": metrics["empty_hypotheses"],
        },
        seeds={"shuffle": settings["shuffle_seed"]},
    )
    _log_scores(metrics)


def _score_with_controls(scorer: Scorer, pairs: ReportPairs, common: str, seed: int) -> dict[str, dict[str, Any]]:
    """Score the reports, the same reports against other studies' references, and one report for all."""
    sections: dict[str, dict[str, Any]] = {
        "scores": dict(scorer.score(pairs.references, pairs.hypotheses, what="generated reports"))
    }
    partner = derangement(pairs.study_ids, seed)
    if partner is None:
        nothing: Scores = dict.fromkeys(METRICS)
        sections["shuffled"] = dict(nothing)
        scorer.notes["shuffled"] = NO_SHUFFLE
    else:
        shuffled = [pairs.references[index] for index in partner]
        sections["shuffled"] = dict(scorer.score(shuffled, pairs.hypotheses, what="shuffled references"))
    answers = [common] * len(pairs.references)
    sections["most_frequent_report"] = dict(scorer.score(pairs.references, answers, what="most frequent training report"))
    return sections


def _scoring_protocol(settings: dict[str, Any], meteor_reason: str) -> dict[str, Any]:
    return {
        "references_per_report": 1,
        "tokenizer": "none (white-space tokens of the text protocol)",
        "scorer": f"pycocoevalcap {metadata.version('pycocoevalcap')}",
        "meteor": meteor_reason or "1.5 (English, -norm)",
        "shuffle_seed": settings["shuffle_seed"],
    }


def text_statistics(references: Sequence[str], hypotheses: Sequence[str]) -> dict[str, Any]:
    """Count what scores hide: identical, empty and short reports.

    Args:
        references: N single-spaced texts.
        hypotheses: N single-spaced texts.

    Returns:
        ``unique_report_rate`` and ``unique_reference_rate`` (different texts / N), ``empty_hypotheses`` (count) and
        ``mean_tokens`` of both, words a report.
    """
    return {
        "unique_report_rate": len(set(hypotheses)) / len(hypotheses),
        "unique_reference_rate": len(set(references)) / len(references),
        "empty_hypotheses": sum(not text for text in hypotheses),
        "mean_tokens": {
            "hypothesis": fmean(len(text.split()) for text in hypotheses),
            "reference": fmean(len(text.split()) for text in references),
        },
    }


def _log_scores(metrics: dict[str, Any]) -> None:
    for name in ("scores", "shuffled", "most_frequent_report"):
        values = ", ".join(f"{key} {'-' if (value := metrics[name][key]) is None else f'{value:.3f}'}" for key in METRICS)
        log.info("%s: %s", name.replace("_", " "), values)
    for metric, note in metrics["notes"].items():
        log.warning("%s: %s", metric, note)
