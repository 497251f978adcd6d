"""build_ct_annotation: converted volumes, reports cut into structures, and labels, joined into ct_annotation.json.

Reads: ``volumes.jsonl`` of convert_ct; ``reports.jsonl, labels.jsonl, regions.jsonl`` and ``counts.json`` of verify_ct_inputs.
Writes, into the output folder:

* ``ct_annotation.json``: ``{"train": [...], "val": [...], "test": [...]}``, an entry per volume: ``id, study_id, subject_id,
  split, volume_path`` (relative to the folder of convert_ct), ``spacing_mm, shape_zyx, report, structures, labels,
  labels_from``;
* ``structures.jsonl``: the sentences of each study with the structures and labels that each was given, one study a line;
* ``counts.json`` (how often each structure is mentioned, judged, called abnormal, and each label is there), ``run.json``.

A structure that a report does not mention is absent (``text`` "", ``abnormal`` null), never normal; neither is one of which it
says only that it was not judged (its ``text``, ``abnormal`` null), and a label of which it says only that is null.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from d2rnet.ct.conversion.checked_tables import COMMAND, LABELS, PART, REGIONS, REPORTS
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.ct.structures.structures import StructuredReport, structures_of
from d2rnet.ct.structures.table import StructureTable, load_table
from d2rnet.errors import DatasetError
from d2rnet.files.checked_tables import read_counts, read_table
from d2rnet.files.documents import read_jsonl, write_json, write_jsonl
from d2rnet.files.names import is_path_below
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import SPLITS, write_annotation
from d2rnet.report.text.protocols import has_words
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)

Structures = dict[str, dict[str, Any]]


def build_ct_annotation(
    *, volumes: Path, reports: Path, labels: Path, regions: Path, counts: Path, output: Path, settings: StructureSettings
) -> None:
    """Build ct_annotation.json.

    Args:
        volumes: ``volumes.jsonl`` of convert-ct.
        reports: ``reports.jsonl`` of verify-ct-inputs.
        labels: ``labels.jsonl`` of verify-ct-inputs.
        regions: ``regions.jsonl`` of verify-ct-inputs.
        counts: ``counts.json`` of verify-ct-inputs.
        output: folder to write to.
        settings: section ``ct.structures``.

    Raises:
        DatasetError: a table is not the one that was checked, or a volume has no report.
        ConfigError: there is no such table of structures.
    """
    _, inputs = read_counts(counts, PART, command=COMMAND, reports=reports, labels=labels, regions=regions)
    table = load_table(settings.table)
    texts = read_table(reports, REPORTS, command=COMMAND).set_index("study_id")
    label_rows = read_table(labels, LABELS, command=COMMAND)
    known_labels = dict(zip(label_rows["study_id"], label_rows["labels"], strict=True))
    region_texts = _region_texts(read_table(regions, REGIONS, command=COMMAND), table, settings.uncertain_counts)
    read: dict[str, StructuredReport] = {}
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    without_words = dict.fromkeys(SPLITS, 0)
    for volume in _volumes(volumes):
        study_id = volume["study_id"]
        if study_id not in texts.index:
            raise DatasetError(
                f"{volumes}: volume {volume['volume_id']} is of study {study_id}, which {reports} lacks; expected tables of "
                "one run. Run verify-ct-inputs and convert-ct again."
            )
        report = str(texts.at[study_id, "report"])
        if not has_words(report):
            without_words[volume["split"]] += 1
            continue
        if study_id not in read:
            read[study_id] = structures_of(report, table, uncertain_counts=settings.uncertain_counts)
        entries[volume["split"]].append(
            _entry(
                volume,
                report,
                read[study_id],
                known_labels.get(study_id),
                region_texts.get(study_id),
            )
        )
    write_annotation(output / "ct_annotation.json", entries)
    write_jsonl(output / "structures.jsonl", _sentence_lines(read))
    counted = {**_counts(entries, table), "volumes_without_words": without_words}
    if any(without_words.values()):
        log.warning("volumes whose report holds no word are left out: %s", without_words)
    log.info("build-ct-annotation: %s", counted["volumes"])
    write_json(output / "counts.json", counted)
    write_run_record(
        output / "run.json",
        command="build-ct-annotation",
        settings=settings,
        inputs={volumes.name: volumes, **inputs},
        counts=counted,
    )


def _volumes(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the volumes of convert-ct.

    Raises:
        DatasetError: a line lacks a key, names no split, or a path that leaves the folder.
    """
    for number, line in enumerate(read_jsonl(path), start=1):
        names = [line.get(key) for key in ("volume_id", "study_id", "subject_id")]
        is_sound = line.get("split") in SPLITS and is_path_below(line.get("volume_path"))
        if not is_sound or not all(isinstance(name, str) for name in names) or not {"spacing_mm", "shape_zyx"} <= set(line):
            raise DatasetError(f"{path}: line {number}: expected a volume of convert-ct. Run 'd2rnet convert-ct' again.")
        yield line


def _entry(
    volume: dict[str, Any],
    report: str,
    read: StructuredReport,
    labels: list[int | None] | None,
    regions: Structures | None,
) -> dict[str, Any]:
    from_report = [None if label in read.unknown_labels else int(label in read.labels) for label in CT_ABNORMALITIES]
    return {
        "id": volume["volume_id"],
        "study_id": volume["study_id"],
        "subject_id": volume["subject_id"],
        "split": volume["split"],
        "volume_path": volume["volume_path"],
        "volume_sha256": volume.get("sha256"),  # tells a training that a volume was exchanged: arrays are of one size
        "spacing_mm": volume["spacing_mm"],
        "shape_zyx": volume["shape_zyx"],
        "report": report,
        "structures": read.structures if regions is None else regions,
        "labels": from_report if labels is None else labels,
        "labels_from": "report" if labels is None else "table",
    }


def _region_texts(regions: pd.DataFrame, table: StructureTable, uncertain_counts: bool) -> dict[str, Structures]:
    """Return study -> structures of the studies that the source has split by region itself."""
    found: dict[str, Structures] = {}
    for study_id, rows in regions.groupby("study_id", sort=False):
        of_region = dict(zip(rows["region"], rows["text"], strict=True))
        found[str(study_id)] = structures_of_regions(of_region, table, uncertain_counts=uncertain_counts)
    return found


def structures_of_regions(of_region: dict[str, str], table: StructureTable, *, uncertain_counts: bool = True) -> Structures:
    """Give the texts of RadGenome's regions to the structures of a table.

    Args:
        of_region: region -> text; ``whole scan`` and regions that the table does not know go to its rest.
        table: the structures.
        uncertain_counts: as of :func:`d2rnet.ct.structures.structures.structures_of`.

    Returns:
        Structure -> text, abnormal, labels, as :func:`d2rnet.ct.structures.structures.structures_of` gives them.
    """
    texts: dict[str, list[str]] = {name: [] for name in table.structures}
    home = {region: name for name, structure in table.structures.items() for region in structure.radgenome}
    for region, text in of_region.items():
        texts[home.get(region, table.rest)].append(text)
    found: Structures = {}
    for name, parts in texts.items():
        text = " ".join(parts)
        read = structures_of(text, table, uncertain_counts=uncertain_counts)
        judged = [sentence for sentence in read.sentences if set(sentence.structures) - set(sentence.not_judged)]
        abnormal = any(sentence.abnormal for sentence in judged) if judged else None
        found[name] = {"text": text, "abnormal": abnormal, "labels": list(read.labels)}
    return found


def _sentence_lines(read: dict[str, StructuredReport]) -> Iterator[dict[str, Any]]:
    for study_id, report in read.items():
        yield {"study_id": study_id, "sentences": [vars(sentence) for sentence in report.sentences]}


def _counts(entries: dict[str, list[dict[str, Any]]], table: StructureTable) -> dict[str, Any]:
    everything = [entry for part in entries.values() for entry in part]
    mentioned: Counter[str] = Counter()
    abnormal: Counter[str] = Counter()
    not_judged: Counter[str] = Counter()
    for entry in everything:
        mentioned.update(name for name, one in entry["structures"].items() if one["text"])
        not_judged.update(name for name, one in entry["structures"].items() if one["text"] and one["abnormal"] is None)
        abnormal.update(name for name, one in entry["structures"].items() if one["abnormal"])
    labels = [sum(entry["labels"][place] == 1 for entry in everything) for place in range(len(CT_ABNORMALITIES))]
    return {
        "volumes": {split: len(part) for split, part in entries.items()},
        "structures_mentioned": {name: mentioned[name] for name in table.structures},
        "structures_not_judged": {name: not_judged[name] for name in table.structures},
        "structures_abnormal": {name: abnormal[name] for name in table.structures},
        "labels": dict(zip(CT_ABNORMALITIES, labels, strict=True)),
        "labels_from": dict(Counter(entry["labels_from"] for entry in everything)),
    }
