"""evaluate_ct_reports: score generated chest CT reports beside baselines, with the protocol that each number holds under.

Reads: test.jsonl of generate-ct-reports, ct_annotation.json, counts.json of verify-ct-inputs (which data), vocabulary.json of
the report model (its text protocol), answers of retrieve-ct-reports. Writes: metrics.json, per_report.jsonl, run.json
(docs/reference/formats.md).
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.evaluation.abnormalities import ABNORMALITIES, ACCURACY, Truth, truths_of
from d2rnet.ct.evaluation.baselines import LABEL_SET, plain_answers, read_answers
from d2rnet.ct.evaluation.cases import Cases, Split, data_version, read_split
from d2rnet.ct.evaluation.metric_table import CT_METRICS, HEADLINE, OWN
from d2rnet.ct.evaluation.radbert import RadBert
from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.ct.evaluation.systems import CtSystem, judge
from d2rnet.evaluation.caption_scores import Scorer, Scores, open_scorer
from d2rnet.evaluation.clinical import agreement
from d2rnet.evaluation.degeneracy import text_statistics
from d2rnet.evaluation.metric_names import COMMONEST, NEAREST
from d2rnet.evaluation.settings import MeteorRuntime
from d2rnet.evaluation.systems import compare_systems, intervals, study_counts
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
GENERATED = "generated"
NO_TABLE = "not run: no scored volume has labels of a table (labels_from)"


def evaluate_ct_reports(
    *,
    generated: Path,
    annotation: Path,
    counts: Path,
    model: Path,
    output: Path,
    device: str,
    settings: EvaluateCtSettings,
    nearest: Sequence[Path] = (),
    label_set: Sequence[Path] = (),
    runtime: MeteorRuntime = MeteorRuntime(),
) -> None:
    """Score generated reports; write metrics.json, per_report.jsonl and run.json to ``output``.

    Args:
        generated: JSON lines file with ``id, reference, hypothesis``, both texts cleaned by the model's text protocol.
        annotation: ct_annotation.json.
        counts: counts.json of verify-ct-inputs.
        model: folder of the report model; its vocabulary.json names the text protocol.
        output: folder for the results.
        device: auto, cpu, cuda or cuda:N; for RadBERT alone.
        settings: section ``ct.evaluation``.
        nearest: nearest.jsonl of retrieve-ct-reports, or nothing.
        label_set: label_set.jsonl of retrieve-ct-reports, or nothing.
        runtime: patience with METEOR.

    Raises:
        DatasetError: an input is not what its format says, or a baseline does not answer the same volumes.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    vocabulary = load_vocabulary(model / "vocabulary.json")
    splits = load_ct_annotation(annotation)
    split = read_split(generated, splits, protocol=vocabulary.protocol)
    protocol = _protocol(vocabulary, split, settings, data_version(read_json(counts), counts))
    given = {NEAREST: next(iter(nearest), None), LABEL_SET: next(iter(label_set), None)}
    inputs = {name: path for name, path in given.items() if path is not None}
    inputs |= {"generated": generated, "annotation": annotation, "counts": counts, "vocabulary": model / "vocabulary.json"}
    outside = RadBert(settings.radbert_weights, device=device)
    answers, commonest, notes = _answers(split.answered, splits["train"], given, vocabulary.protocol, settings)
    truths = truths_of(split.answered.references, split.answered.entries)
    if "table" not in truths:
        notes["labels_of_table"] = NO_TABLE
    with open_scorer(settings, runtime, notes) as scorer:
        systems = _score_all(scorer, split.answered, answers, truths, outside, settings.level)
        missing = _missing(scorer, split, outside, settings)
    protocol["meteor"] = scorer.notes.get("meteor", "1.5 (English, -norm)")
    metrics = {
        "protocol": protocol,
        **_score_sections(systems, split.answered, protocol, settings),
        COMMONEST: commonest,
        "missing": missing,
        "labels": _label_sections(systems[GENERATED], truths),
        **text_statistics(split.answered.references, split.answered.hypotheses, ABNORMALITIES),
        "notes": {**scorer.notes, **outside.notes},
        "files": {name: str(path) for name, path in inputs.items()},
    }
    write_json(output / "metrics.json", metrics)
    write_jsonl(output / "per_report.jsonl", _report_lines(split.answered, systems[GENERATED]))
    _write_record(output / "run.json", split, settings, {**inputs, **outside.files})
    _log_scores(metrics)


def _write_record(target: Path, split: Split, settings: EvaluateCtSettings, inputs: Mapping[str, Path]) -> None:
    write_run_record(
        target,
        command="evaluate-ct-reports",
        settings=settings,
        inputs=inputs,
        counts={**split.answered.sizes(), "missing_predictions": len(split.missing.entries)},
        seeds={"shuffle": settings.shuffle_seed, "bootstrap": settings.bootstrap_seed},
    )


def _answers(
    cases: Cases,
    training: Sequence[Entry],
    files: Mapping[str, Path | None],
    protocol: str,
    settings: EvaluateCtSettings,
) -> tuple[dict[str, list[str]], dict[str, Any], dict[str, str]]:
    """Return baseline -> its reports, facts of the commonest report, and why a baseline has no reports."""
    answers, commonest, unshuffled = plain_answers(
        cases,
        training,
        protocol=protocol,
        candidates=settings.label_set.medoid_candidates,
        seed=settings.shuffle_seed,
    )
    retrieved, absent = read_answers(cases, files)
    return {**answers, **retrieved}, commonest, {**unshuffled, **absent}


def _score_all(
    scorer: Scorer,
    cases: Cases,
    answers: Mapping[str, Sequence[str]],
    truths: Mapping[str, Truth],
    outside: RadBert,
    level: str,
) -> dict[str, CtSystem]:
    """Score the generated reports and every baseline's."""
    return {
        name: _score(scorer, cases, texts, truths, outside, level, what=name.replace("_", " "))
        for name, texts in {GENERATED: cases.hypotheses, **answers}.items()
    }


def _score(
    scorer: Scorer,
    cases: Cases,
    texts: Sequence[str],
    truths: Mapping[str, Truth],
    outside: RadBert,
    level: str,
    *,
    what: str,
) -> CtSystem:
    labels = {**judge(truths, texts), **outside.judge(cases.references, truths.get("table"), texts)}
    return CtSystem(scorer.score(cases.references, texts, what=what), labels, cases.weights(level))


def _score_sections(
    systems: Mapping[str, CtSystem], cases: Cases, protocol: Mapping[str, Any], settings: EvaluateCtSettings
) -> dict[str, Any]:
    """Return ``scores, baselines, intervals``, ``against`` (differences to each baseline) and ``table`` (protocol in keys)."""
    own = systems[GENERATED]
    others = {name: system for name, system in systems.items() if name != GENERATED}
    counts = study_counts(cases.patients, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    ends = intervals(own.resampled(counts))
    held = ",".join(f"{name}={protocol[name]}" for name in ("data", "section", "text", "split", "level", "n", "missing"))
    table = [
        {"key": f"{metric}[{held}]", "metric": metric, "value": value, "interval": ends.get(metric)}
        for metric, value in own.scores().items()
    ]
    return {
        "scores": own.scores(),
        "baselines": {name: system.scores() for name, system in others.items()},
        "intervals": ends,
        "against": {name: compare_systems(own, system, counts=counts) for name, system in others.items()},
        "table": table,
    }


def _missing(scorer: Scorer, split: Split, outside: RadBert, settings: EvaluateCtSettings) -> dict[str, Any]:
    """Count the missing predictions; where there are any, score the whole split with an empty report for each of them."""
    found: dict[str, Any] = {"predictions": len(split.missing.entries), "ids": split.missing.ids[:100]}
    if not split.missing.entries:
        return found
    everything = split.everything()
    truths = truths_of(everything.references, everything.entries)
    what = "missing predictions as empty reports"
    system = _score(scorer, everything, everything.hypotheses, truths, outside, settings.level, what=what)
    log.warning("%d predictions are missing; 'missing' of metrics.json scores them as empty reports", found["predictions"])
    return {**found, **everything.sizes(), "scores_with_empty_reports": system.scores()}


def _label_sections(system: CtSystem, truths: Mapping[str, Truth]) -> dict[str, Any]:
    """Return per class what the reports name, for each protocol; and our reading of the references against the table."""
    sections: dict[str, Any] = {
        key: agreement(judged.truth & judged.known, judged.claimed & judged.known, ABNORMALITIES.classes)
        for key, judged in system.labels.items()
    }
    if "table" in truths:
        table, reading = truths["table"], truths["report"].labels[HEADLINE]
        sections["references_against_table"] = agreement(
            table.labels[HEADLINE] & table.known, reading & table.known, ABNORMALITIES.classes
        )
    return sections


def _report_lines(cases: Cases, system: CtSystem) -> Iterator[dict[str, Any]]:
    """Yield the scores of each report."""
    judged = system.labels[f"{OWN}_vs_report_{HEADLINE}"]
    for row, entry in enumerate(cases.entries):
        yield {
            **{key: entry[key] for key in ("id", "study_id", "subject_id")},
            "reference": cases.references[row],
            "hypothesis": cases.hypotheses[row],
            **{metric: round(float(values[row]), 6) for metric, values in system.captions.pairs.items()},
            "reference_abnormalities": _names(judged.truth[row]),
            "hypothesis_abnormalities": _names(judged.claimed[row]),
        }


def _names(row: Any) -> list[str]:
    return [name for name, there in zip(ABNORMALITIES.classes, row, strict=True) if there]


def _protocol(vocabulary: Vocabulary, split: Split, settings: EvaluateCtSettings, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the scores hold under."""
    sizes = split.answered.sizes()
    return {
        "modality": "ct",
        "data": data["data"],
        "section": data["section"],
        "text": vocabulary.protocol,
        "split": split.name,
        "level": settings.level,
        "n": sizes["scans" if settings.level == "scan" else "volumes"],
        "n_volumes": sizes["volumes"],
        "n_patients": sizes["patients"],
        "missing": len(split.missing.entries),
        "without_reference": split.without_reference,
        "reconstructions": data["reconstructions"],
        "no_chest_left_out": data["no_chest_left_out"],
        "labels_from": dict(Counter(entry.get("labels_from", "not recorded") for entry in split.answered.entries)),
        "ct18": ACCURACY,
        "references_per_report": 1,
        "tokenizer": "none (white-space tokens of the text protocol)",
        "scorer": f"pycocoevalcap {metadata.version('pycocoevalcap')}",
        "shuffle_seed": settings.shuffle_seed,
        "interval": f"95 %, percentile bootstrap over patients, {settings.bootstrap_samples} resamples",
    }


def _log_scores(metrics: Mapping[str, Any]) -> None:
    shown = (
        "bleu_4",
        "rouge_l",
        "cider",
        *(key for key in CT_METRICS if key.endswith((f"{HEADLINE}_micro_f1", f"{HEADLINE}_crg"))),
    )
    sections: dict[str, Scores] = {GENERATED: metrics["scores"], **metrics["baselines"]}
    for name, scores in sections.items():
        values = (f"{CT_METRICS[key].heading} {CT_METRICS[key].text(scores[key])}" for key in shown if key in scores)
        log.info("%s: %s", name.replace("_", " "), ", ".join(values))
    for metric, note in metrics["notes"].items():
        log.warning("%s: %s", metric, note)
