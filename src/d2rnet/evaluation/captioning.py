"""evaluate_reports: score generated reports beside controls and baselines, with the protocol they hold under.

Reads: test.jsonl of generate-reports, annotation.json, vocabulary.json of the report model (it names the text protocol),
reports of baselines. Writes: metrics.json and per_report.jsonl (docs/reference/formats.md), run.json.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from d2rnet.evaluation.caption_scores import Scorer, Scores, open_scorer
from d2rnet.evaluation.clinical import CONVENTIONS, HEADLINE, agreement, class_matrix, sentence_grounding, side_agreement
from d2rnet.evaluation.degeneracy import text_statistics
from d2rnet.evaluation.metric_names import COMMONEST, METRICS, NEAREST, NO_BOX, Group, keys_of
from d2rnet.evaluation.outside_labelers import outside_scores
from d2rnet.evaluation.report_pairs import ReportPairs, answers_of, commonest_answer, derangement, read_pairs
from d2rnet.evaluation.settings import MeteorRuntime, NoBoxSettings, ScoreSettings
from d2rnet.evaluation.systems import ScoredSystem, compare_systems, intervals, score_system, study_counts
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.findings.mentions import report_findings
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
NO_SHUFFLE = "shuffled control undefined: one study holds more than half of the pairs"
GENERATED = "generated"


def evaluate_reports(
    *,
    generated: Path,
    annotation: Path,
    model: Path,
    output: Path,
    settings: NoBoxSettings,
    nearest: Sequence[Path] = (),
    runtime: MeteorRuntime = MeteorRuntime(),
) -> None:
    """Score generated reports; write metrics.json, per_report.jsonl and run.json to ``output``.

    Args:
        generated: JSON lines file with ``id, reference, hypothesis``, both texts cleaned by the model's text protocol.
        annotation: annotation.json; its training reports give the most-frequent-report control.
        model: folder of the report model; its vocabulary.json names the text protocol and the section.
        output: folder for the results.
        settings: what is scored, and how.
        nearest: test.jsonl of retrieve-reports, or nothing.
        runtime: patience with METEOR.

    Raises:
        DatasetError: an input is not what its format says, or a baseline does not answer the same entries.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    vocabulary = load_vocabulary(model / "vocabulary.json")
    splits = load_annotation(annotation)
    pairs = read_pairs(generated, splits)
    commonest = commonest_answer(splits["train"], vocabulary.protocol)
    baselines = {NEAREST: nearest[0]} if nearest else {}
    if settings.no_box_reports is not None:
        baselines[NO_BOX] = Path(settings.no_box_reports)
    answers = {COMMONEST: [commonest["report"]] * len(pairs.ids)}
    wanted = dict(zip(pairs.ids, pairs.references, strict=True))
    answers |= {name: answers_of(path, wanted) for name, path in baselines.items()}
    outside, notes = outside_scores(pairs.references, pairs.hypotheses, settings)
    with open_scorer(settings, runtime, notes) as scorer:
        systems, shuffled = _score_all(scorer, pairs, answers, settings.shuffle_seed)
    protocol = _protocol(vocabulary, pairs, settings, scorer.notes.get("meteor", ""))
    metrics = {
        "protocol": protocol,
        **_caption_sections(systems, shuffled, commonest),
        **_with_uncertainty(systems, pairs, protocol, settings),
        "clinical": {**_clinical(systems, pairs, splits[pairs.split]), **outside},
        **text_statistics(pairs.references, pairs.hypotheses),
        "notes": scorer.notes,
        "files": {key: str(path) for key, path in {"generated": generated, "annotation": annotation, **baselines}.items()},
    }
    write_json(output / "metrics.json", metrics)
    write_jsonl(output / "per_report.jsonl", _report_lines(pairs, systems[GENERATED]))
    write_run_record(
        output / "run.json",
        command="evaluate-reports",
        settings=settings,
        inputs={"generated": generated, "annotation": annotation, "vocabulary": model / "vocabulary.json", **baselines},
        counts={
            "reports": len(pairs.ids),
            "entries_without_report": pairs.missing,
            "empty_hypotheses": metrics["empty_hypotheses"],
        },
        seeds={"shuffle": settings.shuffle_seed, "bootstrap": settings.bootstrap_seed},
    )
    _log_scores(metrics, answers)


def _caption_sections(
    systems: Mapping[str, ScoredSystem], shuffled: Scores, commonest: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return ``scores``, ``shuffled`` and a section for each baseline."""
    sections: dict[str, dict[str, Any]] = {name: dict(system.captions.corpus) for name, system in systems.items()}
    sections[COMMONEST] |= commonest
    return {"scores": sections.pop(GENERATED), "shuffled": dict(shuffled), **sections}


def _score_all(
    scorer: Scorer, pairs: ReportPairs, answers: Mapping[str, Sequence[str]], shuffle_seed: int
) -> tuple[dict[str, ScoredSystem], Scores]:
    """Score the generated reports, every baseline's answers, and the reports against shuffled references."""
    systems = {GENERATED: score_system(scorer, pairs.references, pairs.hypotheses, what="generated reports")}
    shuffled = _shuffled_scores(scorer, pairs, shuffle_seed)
    for name, texts in answers.items():
        systems[name] = score_system(scorer, pairs.references, texts, what=name.replace("_", " "))
    return systems, shuffled


def _shuffled_scores(scorer: Scorer, pairs: ReportPairs, seed: int) -> Scores:
    """Score the reports against references of other studies."""
    partner = derangement(pairs.study_ids, seed)
    if partner is None:
        scorer.notes["shuffled"] = NO_SHUFFLE
        return dict.fromkeys(keys_of(Group.WORDS))
    shuffled = [pairs.references[index] for index in partner]
    return scorer.score(shuffled, pairs.hypotheses, what="shuffled references").corpus


def _with_uncertainty(
    systems: Mapping[str, ScoredSystem], pairs: ReportPairs, protocol: Mapping[str, Any], settings: ScoreSettings
) -> dict[str, Any]:
    """Return ``intervals``, ``against`` (differences to each baseline), ``table`` (a row per metric, protocol in its key)."""
    counts = study_counts(pairs.study_ids, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    ends = intervals(systems[GENERATED].resampled(counts))
    held = ",".join(f"{name}={protocol[name]}" for name in ("text", "section", "split", "n"))
    table = [
        {"key": f"{metric}[{held}]", "metric": metric, "value": value, "interval": ends.get(metric)}
        for metric, value in systems[GENERATED].scores().items()
    ]
    against = {
        name: compare_systems(systems[GENERATED], system, counts=counts)
        for name, system in systems.items()
        if name != GENERATED
    }
    return {"intervals": ends, "against": against, "table": table}


def _clinical(systems: Mapping[str, ScoredSystem], pairs: ReportPairs, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return lesion scores of every system under every convention, and reports against boxes."""
    labels = {entry["id"]: entry["labels"] for entry in entries}
    boxed = [labels[name] for name in pairs.ids]
    scores = {name: system.lesions() for name, system in systems.items()}
    for name in scores.keys() - {GENERATED}:
        for found in scores[name].values():
            del found["per_class"]
            del found["classes_without_truth"]
    boxes = class_matrix(boxed)
    own = systems[GENERATED]
    return {
        **{convention: {name: scores[name][convention] for name in scores} for convention in CONVENTIONS},
        "against_boxes_uncertain_positive": {
            "hypothesis": agreement(boxes, own.named[HEADLINE]),
            "reference": agreement(boxes, own.truth[HEADLINE]),
        },
        "sentences_against_boxes": sentence_grounding(pairs.sentences, boxed),
        "sides": side_agreement(pairs.references, pairs.hypotheses),
    }


def _report_lines(pairs: ReportPairs, system: ScoredSystem) -> Iterator[dict[str, Any]]:
    """Yield the scores of each report."""
    for row, name in enumerate(pairs.ids):
        yield {
            "id": name,
            "study_id": pairs.study_ids[row],
            "reference": pairs.references[row],
            "hypothesis": pairs.hypotheses[row],
            **{metric: round(float(values[row]), 6) for metric, values in system.captions.pairs.items()},
            "reference_lesions": report_findings(pairs.references[row]),
            "hypothesis_lesions": report_findings(pairs.hypotheses[row]),
        }


def _protocol(vocabulary: Vocabulary, pairs: ReportPairs, settings: ScoreSettings, meteor_reason: str) -> dict[str, Any]:
    """Return what the scores hold under."""
    return {
        "text": vocabulary.protocol,
        "section": vocabulary.section,
        "split": pairs.split,
        "n": len(pairs.ids),
        "references_per_report": 1,
        "tokenizer": "none (white-space tokens of the text protocol)",
        "scorer": f"pycocoevalcap {metadata.version('pycocoevalcap')}",
        "meteor": meteor_reason or "1.5 (English, -norm)",
        "shuffle_seed": settings.shuffle_seed,
        "interval": f"95 %, percentile bootstrap over studies, {settings.bootstrap_samples} resamples",
    }


def _log_scores(metrics: Mapping[str, Any], baselines: Iterable[str]) -> None:
    lesions = {row["metric"]: row["value"] for row in metrics["table"]}
    sections = {name: (metrics[name], Group.WORDS) for name in ("scores", "shuffled", *baselines)}
    for name, (values, group) in {**sections, "lesions": (lesions, Group.LESIONS)}.items():
        shown = (f"{METRICS[key].heading} {METRICS[key].text(values[key])}" for key in keys_of(group))
        log.info("%s: %s", name.replace("_", " "), ", ".join(shown))
    for metric, note in metrics["notes"].items():
        log.warning("%s: %s", metric, note)
