"""evaluate_reports: score generated reports beside controls and baselines, with the protocol they hold under.

Reads: test.jsonl of generate-reports, annotation.json, vocabulary.json of the report model (it names the text protocol),
reports of baselines. Writes: metrics.json and per_report.jsonl (docs/reference/formats.md), run.json.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

from d2rnet.errors import ConfigError
from d2rnet.evaluation.boxed_classes import boxed_classes
from d2rnet.evaluation.caption_scores import Scorer, Scores, open_scorer
from d2rnet.evaluation.chexbert import PROTOCOLS, Chexbert
from d2rnet.evaluation.clinical import (
    CONVENTIONS,
    HEADLINE,
    SIDED,
    SIDED_CLASSES,
    Named,
    agreement,
    sentence_grounding,
    side_agreement,
)
from d2rnet.evaluation.degeneracy import text_statistics
from d2rnet.evaluation.lesion_lookup import lesion_set_answers
from d2rnet.evaluation.metric_names import COMMONEST, LESION_SET, NEAREST, NO_BOX, Group, Shown, keys_of, shown_in
from d2rnet.evaluation.radgraph import radgraph_scores
from d2rnet.evaluation.report_pairs import ReportPairs, answers_of, commonest_answer, derangement, read_pairs
from d2rnet.evaluation.settings import MeteorRuntime, NoBoxSettings, ScoreSettings
from d2rnet.evaluation.systems import ScoredSystem, compare_systems, intervals, score_system, study_counts
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.findings.mentions import report_findings
from d2rnet.report.annotation_file import Entry, load_annotation
from d2rnet.report.text.scored_references import r2gen_exact
from d2rnet.report.text.vocabulary import Vocabulary, load_vocabulary
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)
# protocol of labels -> its classes
CLASSES = {**dict.fromkeys(CONVENTIONS, CATEGORY_NAMES), SIDED: SIDED_CLASSES, **PROTOCOLS}
FULL = "full"
NO_SHUFFLE = "shuffled control undefined: one study holds more than half of the pairs"
GENERATED = "generated"
SHUFFLES = 3


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
        annotation: annotation.json; its training reports give two baselines, one by the boxes of the entries.
        model: folder of the report model; its vocabulary.json names the text protocol and the section, its config.yaml the
            length that references are cut to.
        output: folder for the results.
        settings: what is scored, and how.
        nearest: test.jsonl of retrieve-reports, or nothing.
        runtime: patience with METEOR.

    Raises:
        DatasetError: an input is not what its format says, or a baseline does not answer the same entries.
        ConfigError: references are asked for that this model has not.
        ToolError: METEOR was asked for and Java is missing, or Java died or did not answer.
    """
    vocabulary = load_vocabulary(model / "vocabulary.json")
    splits = load_annotation(annotation)
    pairs = read_pairs(generated, splits)
    commonest = commonest_answer(splits["train"], vocabulary.protocol)
    baselines = {NEAREST: nearest[0]} if nearest else {}
    if settings.no_box_reports is not None:
        baselines[NO_BOX] = Path(settings.no_box_reports)
    entries = _entries_of(pairs, splits[pairs.split])
    boxed = boxed_classes(splits["train"], entries)
    answers = {COMMONEST: [commonest["report"]] * len(pairs.ids)}
    answers[LESION_SET] = lesion_set_answers(splits["train"], boxed, vocabulary.protocol)
    wanted = dict(zip(pairs.ids, pairs.references, strict=True))
    answers |= {name: answers_of(path, wanted) for name, path in baselines.items()}
    most = None if settings.references == FULL else _max_report_tokens(model / "config.yaml", vocabulary)
    if most is not None:
        pairs = replace(pairs, references=_exact(pairs.references, vocabulary, most))
        answers = {name: _exact(texts, vocabulary, most) for name, texts in answers.items()}
    chexbert = Chexbert(settings.chexbert_weights)
    radgraph, unscored = radgraph_scores(settings.radgraph_weights, pairs.references, pairs.hypotheses)
    with open_scorer(settings, runtime) as scorer:
        systems, shuffled = _score_all(scorer, pairs, answers, chexbert, settings.shuffle_seed)
    notes = {**scorer.notes, **chexbert.notes, **unscored}
    protocol = _protocol(vocabulary, pairs, settings, notes.get("meteor", ""), most)
    inputs = {"generated": generated, "annotation": annotation, **baselines}
    metrics = {
        "protocol": protocol,
        **_caption_sections(systems, shuffled, commonest),
        **_with_uncertainty(systems, pairs, protocol, settings),
        "clinical": {**_clinical(systems, pairs, entries, boxed), **radgraph},
        **text_statistics(pairs.references, pairs.hypotheses),
        "notes": notes,
        "files": {key: str(path) for key, path in inputs.items()},
    }
    write_json(output / "metrics.json", metrics)
    write_jsonl(output / "per_report.jsonl", _report_lines(pairs, systems[GENERATED]))
    used = {"vocabulary": model / "vocabulary.json", **({"config": model / "config.yaml"} if most is not None else {})}
    _write_record(output / "run.json", pairs, settings, {**inputs, **used, **_weights(chexbert, settings)})
    _log_scores(metrics, answers)


def _write_record(target: Path, pairs: ReportPairs, settings: NoBoxSettings, inputs: Mapping[str, Path]) -> None:
    write_run_record(
        target,
        command="evaluate-reports",
        settings=settings,
        inputs=inputs,
        counts={
            "reports": len(pairs.ids),
            "entries_without_report": pairs.missing,
            "empty_hypotheses": sum(not text for text in pairs.hypotheses),
        },
        seeds={"shuffle": settings.shuffle_seed, "bootstrap": settings.bootstrap_seed},
    )


def _weights(chexbert: Chexbert, settings: ScoreSettings) -> dict[str, Path]:
    return {"chexbert": Path(settings.chexbert_weights)} if chexbert.runs and settings.chexbert_weights else {}


def _max_report_tokens(config: Path, vocabulary: Vocabulary) -> int:
    """Return the most tokens of a report that a model was trained on.

    Raises:
        ConfigError: its text protocol is not that of R2Gen, or its config.yaml does not say.
    """
    if vocabulary.protocol != "r2gen":
        raise ConfigError(
            f"evaluation.references: r2gen_exact with a model of text protocol '{vocabulary.protocol}'; expected 'r2gen', on "
            "whose words R2Gen's references are made. Set evaluation.references to full."
        )
    try:
        content = parse_yaml(config.read_text(encoding="utf-8"))
        return int(content["training"]["max_report_tokens"])
    except (ParseError, UnicodeDecodeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{config}: no training.max_report_tokens ({error}), to which evaluation.references: r2gen_exact cuts. Copy the "
            "model folder again."
        ) from error


def _exact(texts: Sequence[str], vocabulary: Vocabulary, max_tokens: int) -> list[str]:
    return [r2gen_exact(text, vocabulary, max_tokens=max_tokens) for text in texts]


def _caption_sections(
    systems: Mapping[str, ScoredSystem], shuffled: Scores, commonest: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return ``scores``, ``shuffled`` and a section for each baseline."""
    sections: dict[str, dict[str, Any]] = {name: dict(system.captions.corpus) for name, system in systems.items()}
    sections[COMMONEST] |= commonest
    return {"scores": sections.pop(GENERATED), "shuffled": dict(shuffled), **sections}


def _score_all(
    scorer: Scorer, pairs: ReportPairs, answers: Mapping[str, Sequence[str]], chexbert: Chexbert, shuffle_seed: int
) -> tuple[dict[str, ScoredSystem], Scores]:
    """Score the generated reports, every baseline's answers, and the reports against shuffled references."""

    def scored(texts: Sequence[str], what: str) -> ScoredSystem:
        return score_system(scorer, pairs.references, texts, what=what, outside=chexbert.judge(pairs.references, texts))

    systems = {GENERATED: scored(pairs.hypotheses, "generated reports")}
    shuffled = _shuffled_scores(scorer, pairs, shuffle_seed)
    return systems | {name: scored(texts, name.replace("_", " ")) for name, texts in answers.items()}, shuffled


def _shuffled_scores(scorer: Scorer, pairs: ReportPairs, seed: int) -> Scores:
    """Score the reports against references of other studies: the mean over ``SHUFFLES`` orders of them.

    One order alone moves BLEU-4 of the demo's 175 reports by 0.008 (standard deviation over orders).
    """
    drawn = []
    for turn in range(SHUFFLES):
        partner = derangement(pairs.study_ids, seed + turn)
        if partner is None:
            scorer.notes["shuffled"] = NO_SHUFFLE
            return dict.fromkeys(keys_of(Group.WORDS))
        references = [pairs.references[index] for index in partner]
        drawn.append(scorer.score(references, pairs.hypotheses, what=f"shuffled references, {turn + 1} of {SHUFFLES}").corpus)
    return {key: _mean([scores[key] for scores in drawn]) for key in drawn[0]}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _with_uncertainty(
    systems: Mapping[str, ScoredSystem], pairs: ReportPairs, protocol: Mapping[str, Any], settings: ScoreSettings
) -> dict[str, Any]:
    """Return ``intervals``, ``against`` (differences to each baseline), ``table`` (a row per metric, protocol in its key)."""
    counts = study_counts(pairs.study_ids, samples=settings.bootstrap_samples, seed=settings.bootstrap_seed)
    ends = intervals(systems[GENERATED].resampled(counts))
    held = ",".join(f"{name}={protocol[name]}" for name in ("text", "references", "section", "split", "n"))
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


def _entries_of(pairs: ReportPairs, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entry of each pair."""
    by_name = {entry["id"]: entry for entry in entries}
    return [by_name[name] for name in pairs.ids]


def _clinical(
    systems: Mapping[str, ScoredSystem], pairs: ReportPairs, entries: Sequence[Entry], boxed: Named
) -> dict[str, Any]:
    """Return the scores of labels of every system under every protocol, and reports against boxes."""
    own = systems[GENERATED].labels
    return {
        **{protocol: _of_systems(systems, protocol) for protocol in own},
        "against_boxes_uncertain_positive": {
            "hypothesis": agreement(boxed, own[HEADLINE].claimed),
            "reference": agreement(boxed, own[HEADLINE].truth),
        },
        "sentences_against_boxes": sentence_grounding(pairs.sentences, [entry["labels"] for entry in entries], boxed),
        "sides": side_agreement(pairs.references, pairs.hypotheses),
    }


def _of_systems(systems: Mapping[str, ScoredSystem], protocol: str) -> dict[str, dict[str, Any]]:
    """Return system -> its scores under a protocol, class by class for the generated reports alone."""
    found = {
        name: agreement(system.labels[protocol].truth, system.labels[protocol].claimed, CLASSES[protocol])
        for name, system in systems.items()
        if protocol in system.labels
    }
    for name in found.keys() - {GENERATED}:
        del found[name]["per_class"]
        del found[name]["classes_without_truth"]
    return found


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


def _protocol(
    vocabulary: Vocabulary, pairs: ReportPairs, settings: NoBoxSettings, meteor_reason: str, max_report_tokens: int | None
) -> dict[str, Any]:
    """Return what the scores hold under."""
    return {
        "text": vocabulary.protocol,
        "references": settings.references,
        **({"max_report_tokens": max_report_tokens} if max_report_tokens is not None else {}),
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
    labels = {row["metric"]: row["value"] for row in metrics["table"]}
    sections = {name: (metrics[name], Group.WORDS) for name in ("scores", "shuffled", *baselines)}
    sections |= {"lesions": (labels, Group.LESIONS), "CheXbert": (labels, Group.CHEXBERT)}
    for name, (values, group) in sections.items():
        known = [metric for metric in shown_in(Shown.SUMMARY) if metric.group is group and metric.key in values]
        if known:
            words = (f"{metric.heading} {metric.text(values[metric.key])}" for metric in known)
            log.info("%s: %s", name.replace("_", " "), ", ".join(words))
    for metric, note in metrics["notes"].items():
        log.warning("%s: %s", metric, note)
