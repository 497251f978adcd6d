"""Pairs of reference and generated report, and the two controls that tell whether a score means anything.

Reads: test.jsonl of generate-reports, annotation.json. The shuffled control keeps the hypotheses and gives each a reference of
another study: a model that ignores its image scores the same there. The most-frequent-report control answers every image with
the commonest report of the training split.
"""

import logging
import random
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.evaluation.caption_scores import single_spaced
from d2rnet.files.documents import read_jsonl
from d2rnet.files.problems import Problems
from d2rnet.report.annotation_file import Entry
from d2rnet.report.text.protocols import clean_report

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportPairs:
    """N pairs in file order.

    Attributes:
        ids: entry ids of annotation.json.
        references: cleaned reference reports, none empty.
        hypotheses: generated reports; may be empty.
        study_ids: study of each pair.
        sentences: ``text`` and ``boxes`` of each sentence of each report; none for files that do not say.
        split: the split of annotation.json that all ids belong to.
        missing: entries of that split without a generated report.
    """

    ids: list[str]
    references: list[str]
    hypotheses: list[str]
    study_ids: list[str]
    sentences: list[list[dict[str, Any]]]
    split: str
    missing: int


def read_pairs(
    generated: Path, annotation: Mapping[str, Sequence[Entry]], *, command: str = "generate-reports"
) -> ReportPairs:
    """Read generated reports and match them with the entries of annotation.json.

    Args:
        generated: JSON lines file with ``id``, ``reference``, ``hypothesis``.
        annotation: splits of annotation.json.
        command: sub-command that makes the file.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: no line, a key missing or not a string, an empty reference, an id twice, unknown, or of another split
            than the first one; all problems are listed.
    """
    if not generated.is_file():
        raise FileNotFoundError(f"{generated}: no such file; it is made by 'd2rnet {command}'.")
    where = {entry["id"]: (split, entry["study_id"]) for split, entries in annotation.items() for entry in entries}
    problems = Problems()
    lines = read_reports(generated, problems, known=where, command=command)
    splits = Counter(where[name][0] for name in lines)
    if len(splits) > 1:
        found = ", ".join(f"{count} of {split}" for split, count in splits.most_common())
        expected = "reports of one split only"
        problems.add(
            "mixed_splits", file=generated, record="all reports", got=found, expected=expected, remedy=_remedy(command)
        )
    problems.raise_if_any()
    if not lines:
        raise DatasetError(f"{generated}: holds no report; expected one JSON object per line. {_remedy(command)}")
    split = next(iter(splits))
    missing = len(annotation[split]) - len(lines)
    if missing:
        log.warning("%s: %d of %d %s entries have no generated report", generated, missing, len(annotation[split]), split)
    return ReportPairs(
        ids=list(lines),
        references=[line["reference"] for line in lines.values()],
        hypotheses=[line["hypothesis"] for line in lines.values()],
        study_ids=[where[key][1] for key in lines],
        sentences=[line.get("sentences", []) for line in lines.values()],
        split=split,
        missing=missing,
    )


def read_reports(
    path: Path, problems: Problems, *, known: Container[str] | None = None, command: str = "generate-reports"
) -> dict[str, dict[str, Any]]:
    """Read reports, one JSON object per line.

    Args:
        path: JSON lines file with ``id``, ``reference``, ``hypothesis``.
        problems: takes lines that cannot be used.
        known: ids that there are; None: any.
        command: sub-command that makes the file.

    Returns:
        id -> line, both texts single-spaced.
    """
    reports: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(read_jsonl(path), start=1):
        complaint = _complaint(line, reports, known)
        if complaint:
            kind, got, expected = complaint
            record = f"report {number} (id {line.get('id', 'missing')})"
            problems.add(kind, file=path, record=record, got=got, expected=expected, remedy=_remedy(command))
        else:
            reports[line["id"]] = {**line, **{key: single_spaced(line[key]) for key in ("reference", "hypothesis")}}
    return reports


def _remedy(command: str) -> str:
    return f"Make the file with 'd2rnet {command}-shard' and 'd2rnet {command}'."


def _complaint(line: Mapping[str, Any], seen: Container[str], known: Container[str] | None) -> tuple[str, str, str] | None:
    """Say what is wrong with one line: (kind, got, expected); None if nothing is."""
    for key in ("id", "reference", "hypothesis"):
        if not isinstance(line.get(key), str):
            return "bad_field", f"{key} {line.get(key)!r}", f"a string under '{key}'"
    if line["id"] in seen:
        return "duplicate_id", f"id '{line['id']}' a second time", "each id once"
    if known is not None and line["id"] not in known:
        return "unknown_id", f"id '{line['id']}'", "an id of annotation.json"
    if not line["reference"].strip():
        return "empty_reference", "an empty reference", "the cleaned report of the study"
    return None


def answers_of(path: Path, wanted: Mapping[str, str]) -> list[str]:
    """Read the reports of another system for the same entries.

    Args:
        path: JSON lines file with ``id``, ``hypothesis``.
        wanted: id -> single-spaced reference of N entries.

    Returns:
        N single-spaced texts in the order of ``wanted``; more reports than these are left out.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: an entry has no report, two, or one against another reference.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the reports of a baseline, one JSON object per line.")
    found: dict[str, str] = {}
    problems = Problems()
    complain = partial(
        problems.add, file=path, remedy="Write the baseline for the same annotation.json, split and text protocol."
    )
    for number, line in enumerate(read_jsonl(path), start=1):
        name = str(line.get("id"))
        text = line.get("hypothesis")
        record = f"report {number} (id {name})"
        if name not in wanted:
            continue
        if name in found:
            complain("bad_report", record=record, got="a second report", expected="one report per id")
        elif not isinstance(text, str):
            complain("bad_report", record=record, got=repr(text), expected="a string")
        elif single_spaced(line.get("reference", wanted[name])) != wanted[name]:
            got = f"reference '{line['reference'][:80]}'"
            complain("other_reference", record=record, got=got, expected=f"'{wanted[name][:80]}'")
        else:
            found[name] = single_spaced(text)
    missing = [name for name in wanted if name not in found]
    if missing and not len(problems):
        got = f"no report for {len(missing)} of {len(wanted)} entries"
        complain("missing_reports", record="all reports", got=got, expected=f"one for each, such as {missing[0]}")
    problems.raise_if_any()
    return [found[name] for name in wanted]


def derangement(groups: Sequence[str], seed: int) -> list[int] | None:
    """Return a seeded permutation that gives no item a partner of its own group.

    Groups are put in random order, members side by side, and the row is turned by the size of the largest group, which no
    group can then overlap itself.

    Args:
        groups: group name of each of N items (study ids, so that two images of a study never swap the same report).
        seed: seed of the random order.

    Returns:
        N indices, a permutation; None if one group holds more than half of the items.
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    largest = max(map(len, members.values()), default=0)
    if not groups or 2 * largest > len(groups):
        return None
    generator = random.Random(seed)
    blocks = list(members.values())
    generator.shuffle(blocks)
    for block in blocks:
        generator.shuffle(block)
    row = [index for block in blocks for index in block]
    partner = [0] * len(row)
    for place, index in enumerate(row):
        partner[index] = row[(place + largest) % len(row)]
    return partner


def commonest_answer(training: Sequence[Entry], protocol: str) -> dict[str, Any]:
    """Return the commonest cleaned ``report`` of the training entries, its ``training_count`` and their number.

    Of equals the alphabetically first.

    Raises:
        DatasetError: no training entry has a report.
    """
    cleaned = (single_spaced(clean_report(entry["report"], protocol)) for entry in training)
    counts = Counter(text for text in cleaned if text)
    if not counts:
        raise DatasetError("annotation.json: the training split has no report; the most-frequent-report control needs one.")
    report = min(counts, key=lambda text: (-counts[text], text))
    return {"report": report, "training_count": counts[report], "training_reports": len(training)}
