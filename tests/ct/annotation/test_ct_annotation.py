"""ct_annotation.json: volumes, reports cut into structures, labels, and texts that a source has cut itself."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ct_samples import convert, make_cohort

from d2rnet.ct.annotation.build import build_ct_annotation, structures_of_regions
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.ct.structures.table import load_table
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.ct_classes import CT_ABNORMALITIES


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ct_run")
    convert(make_cohort(folder), folder)
    build(folder)
    return folder


def build(folder: Path) -> None:
    build_ct_annotation(
        volumes=folder / "convert/volumes.jsonl",
        reports=folder / "verify/reports.jsonl",
        labels=folder / "verify/labels.jsonl",
        regions=folder / "verify/regions.jsonl",
        counts=folder / "verify/counts.json",
        output=folder / "annotation",
        settings=StructureSettings(),
    )


def test_entries(run):
    annotation = read_json(run / "annotation/ct_annotation.json")
    truth = {record["study_id"]: record for record in read_jsonl(run / "cohort/truth.jsonl")}
    entries = [entry for part in annotation.values() for entry in part]
    assert {entry["study_id"] for entry in entries} == set(truth)
    for split, part in annotation.items():
        for entry in part:
            assert entry["split"] == split
            array = np.load(run / "convert" / entry["volume_path"])
            assert entry["volume_sha256"] == hashlib.sha256(array.tobytes()).hexdigest()  # tells volumes of one size apart
            record = truth[entry["study_id"]]
            assert [label for label, there in zip(CT_ABNORMALITIES, entry["labels"], strict=True) if there] == record["labels"]
            assert entry["labels_from"] == "table"
            assert list(entry["structures"]) == list(load_table("ten").structures)


def test_a_structure_that_is_not_mentioned_is_absent_and_not_normal(run):
    annotation = read_json(run / "annotation/ct_annotation.json")
    truth = {record["study_id"]: record for record in read_jsonl(run / "cohort/truth.jsonl")}
    absent = 0
    for entry in annotation["train"]:
        thyroid = entry["structures"]["thyroid"]
        true = truth[entry["study_id"]]
        if "thyroid" not in true["sentences"]:
            assert thyroid == {"text": "", "abnormal": None, "labels": []}
            absent += 1
        else:
            assert thyroid["abnormal"] is any(one["label"] == "Goitre" for one in true["drawn"])
    assert absent


def test_no_sentence_is_lost(run):
    reports = {record["study_id"]: record["report"] for record in read_jsonl(run / "verify/reports.jsonl")}
    for record in read_jsonl(run / "annotation/structures.jsonl"):
        text = "".join(sentence["text"] for sentence in record["sentences"])
        assert text.split() == reports[record["study_id"]].split()
        assert all(sentence["structures"] for sentence in record["sentences"])


def test_labels_come_from_the_report_where_the_source_has_none(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    labels = folder / "cohort/ct_rate/dataset/multi_abnormality_labels"
    shutil.rmtree(labels)
    table = folder / "cohort/ct_rate/dataset/radiology_text_reports/train_reports.csv"
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    unjudged = "The thyroid gland is outside the field of view. Pericardial effusion could not be evaluated."
    rows.loc[rows["VolumeName"].str.startswith("train_1_a_"), "Findings_EN"] = unjudged
    rows.to_csv(table, index=False)
    convert(folder / "cohort", folder)
    build(folder)
    entries = [entry for part in read_json(folder / "annotation/ct_annotation.json").values() for entry in part]
    before = [entry for part in read_json(run / "annotation/ct_annotation.json").values() for entry in part]
    assert {entry["labels_from"] for entry in entries} == {"report"}
    first = next(entry for entry in entries if entry["study_id"] == "train_1_a")
    assert first["structures"]["thyroid"] == {"text": unjudged.partition(" Peri")[0], "abnormal": None, "labels": []}
    assert first["labels"] == [None if name == "Pericardial effusion" else 0 for name in CT_ABNORMALITIES]
    assert read_json(folder / "annotation/counts.json")["structures_not_judged"]["thyroid"] == 1
    agreeing = sum(one["labels"] == two["labels"] for one, two in zip(entries, before, strict=True))
    assert agreeing >= 0.9 * len(entries)  # the demo reports say every label in words that the lexicon knows


def test_regions_of_the_source_take_the_place_of_the_splitter():
    table = load_table("ten")
    found = structures_of_regions(
        {"lung": "A nodule of 8 mm is seen.", "heart": "Heart size is normal.", "whole scan": "Taken without contrast."}, table
    )
    assert found["lung"] == {"text": "A nodule of 8 mm is seen.", "abnormal": True, "labels": ["Lung nodule"]}
    assert found["heart_mediastinum_vessels"]["abnormal"] is False
    assert found["others"]["text"] == "Taken without contrast."
    assert found["thyroid"] == {"text": "", "abnormal": None, "labels": []}


def test_regions_that_were_not_judged_or_only_doubted():
    table = load_table("ten")
    texts = {"thyroid": "It could not be evaluated.", "lung": "Possible consolidation.", "bone": "Not assessed. It is normal."}
    found = structures_of_regions(texts, table)
    assert [found[name]["abnormal"] for name in ("thyroid", "lung", "bone")] == [None, True, False]
    found = structures_of_regions(texts, table, uncertain_counts=False)
    assert found["lung"] == {"text": "Possible consolidation.", "abnormal": None, "labels": []}


def test_reports_without_a_word_are_left_out_and_counted(run, tmp_path):
    """One of them in the test split stopped the run after both trainings."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    reports = list(read_jsonl(folder / "verify/reports.jsonl"))
    wordless = {}
    for split, text in (("train", "-"), ("test", " ... ")):
        record = next(record for record in reports if record["split"] == split)
        record["report"] = text
        wordless[split] = record["study_id"]
    write_jsonl(folder / "verify/reports.jsonl", reports)
    counts = read_json(folder / "verify/counts.json")
    counts["ct"]["sha256"]["reports"] = sha256_file(folder / "verify/reports.jsonl")
    write_json(folder / "verify/counts.json", counts)
    build(folder)
    before = read_json(run / "annotation/ct_annotation.json")
    after = read_json(folder / "annotation/ct_annotation.json")
    assert after == {
        split: [entry for entry in part if entry["study_id"] != wordless.get(split)] for split, part in before.items()
    }
    left_out = {split: len(part) - len(after[split]) for split, part in before.items()}
    assert read_json(folder / "annotation/counts.json")["volumes_without_words"] == left_out
    assert left_out["train"] > 0 and left_out["test"] > 0 and left_out["val"] == 0


def test_tables_of_two_runs_are_not_joined(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    reports = folder / "verify/reports.jsonl"
    reports.write_text("\n".join(reports.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(DatasetError, match="is not the table that verify-ct-inputs checked"):
        build(folder)


@pytest.mark.parametrize("change", [{"split": "dev"}, {"volume_path": "../x.npy"}, {"volume_id": 3}])
def test_a_line_that_is_no_volume(run, tmp_path, change):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    path = folder / "convert/volumes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match="line 2"):
        build(folder)
