"""make-demo-cohort: layouts, determinism, laterality, and what it refuses to overwrite."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pydicom
import pytest
from demo_samples import SMALL
from filelock import FileLock
from laterality import check_laterality

from d2rnet.cxr.demo import cohort as demo
from d2rnet.cxr.demo.vindr import ENCODINGS, READERS, ReaderBox, annotation_table, read_by_readers, write_dicom
from d2rnet.errors import D2RNetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.findings.classes import CATEGORY_NAMES


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("demo") / "cohort"
    demo.make_demo_cohort(output=output, workers=1, settings=SMALL)
    return output


def _digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_gives_the_same_bytes_with_one_worker_or_two(cohort, tmp_path):
    demo.make_demo_cohort(output=tmp_path / "again", workers=2, settings=SMALL)
    assert _digests(tmp_path / "again") == _digests(cohort)


def test_another_seed_gives_other_pictures(cohort, tmp_path):
    few = SMALL.replaced(labelled_train_images=4, labelled_test_images=2, report_train_studies=4, seed=8)
    demo.make_demo_cohort(output=tmp_path / "other", workers=1, settings=few)
    assert not {name for name in _digests(tmp_path / "other") if name.endswith((".dicom", ".jpg"))} & set(_digests(cohort))


def test_sentinel_holds_seed_settings_and_counts(cohort):
    record = read_json(cohort / "cohort.json")
    assert record["seed"] == 7 and record["settings"] == SMALL.to_json()
    assert record["counts"]["images"]["vindr_train"] == 24 and record["counts"]["studies"]["test"] == 6
    assert read_json(cohort / "run.json")["seeds"] == {"cohort": 7}
    assert [path.name for path in cohort.parent.glob(".cohort*")] == [".cohort.lock"]  # no temporary folder is left


def test_vindr_tables_have_the_release_layout(cohort):
    folder = cohort / "vindr"
    train = pd.read_csv(folder / "annotations/annotations_train.csv")
    test = pd.read_csv(folder / "annotations/annotations_test.csv")
    assert list(train) == ["image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"]
    assert list(test) == ["image_id", "class_name", "x_min", "y_min", "x_max", "y_max"]
    assert train.image_id.str.fullmatch("[0-9a-f]{32}").all()
    assert set(train.rad_id) <= set(READERS) and (train.groupby("image_id").rad_id.nunique() == 3).all()
    for split, table in (("train", train), ("test", test)):
        assert {path.stem for path in (folder / split).glob("*.dicom")} == set(table.image_id)
        empty = table[table.class_name == "No finding"]
        assert len(empty) and empty[["x_min", "y_min", "x_max", "y_max"]].isna().all(axis=None)
        assert set(table.class_name[table.x_min.notna()]) <= set(CATEGORY_NAMES)
        labels = pd.read_csv(folder / f"annotations/image_labels_{split}.csv")
        assert len(labels.columns) == (30 if split == "train" else 29)
        assert ("Other diseases" if split == "train" else "Other disease") in labels
        assert tuple(labels.columns[-28:-6]) == CATEGORY_NAMES
        assert len(labels) == table.groupby(["image_id", *(["rad_id"] if split == "train" else [])]).ngroups


def test_dicoms_have_the_true_size_and_the_boxes_lie_inside(cohort):
    truth = {record["image_id"]: record for record in read_jsonl(cohort / "truth.jsonl")}
    table = pd.read_csv(cohort / "vindr/annotations/annotations_train.csv").dropna()
    for image_id, rows in table.groupby("image_id"):
        header = pydicom.dcmread(cohort / f"vindr/train/{image_id}.dicom", stop_before_pixels=True)
        assert (header.Rows, header.Columns) == (truth[image_id]["height"], truth[image_id]["width"])
        assert (rows.x_min >= 0).all() and (rows.x_max <= header.Columns).all() and (rows.x_min < rows.x_max).all()
        assert (rows.y_min >= 0).all() and (rows.y_max <= header.Rows).all() and (rows.y_min < rows.y_max).all()
        assert "PatientName" not in header


@pytest.mark.parametrize("seed", range(12))
def test_dicom_pixels_give_the_picture_back_through_window_and_polarity(tmp_path, seed):
    picture = np.tile(np.linspace(0.05, 0.95, 64, dtype=np.float32), (48, 1))
    write_dicom(tmp_path / "a.dicom", picture, np.random.default_rng(seed), 5)
    dataset = pydicom.dcmread(tmp_path / "a.dicom")
    assert dataset.file_meta.TransferSyntaxUID in {syntax for syntax, _ in ENCODINGS}
    assert dataset.BitsStored in (8, 10, 12, 14, 16)
    values = pydicom.pixels.apply_voi_lut(pydicom.pixels.apply_rescale(dataset.pixel_array, dataset), dataset).astype(float)
    low, high = (values.min(), values.max())
    shown = (values - low) / (high - low)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    assert np.abs(shown - (picture - 0.05) / 0.9).max() < 0.03


def test_encodings_bit_depths_and_polarities_are_mixed(tmp_path):
    found = set()
    for seed in range(40):
        write_dicom(tmp_path / f"{seed}.dicom", np.full((64, 64), 0.5, np.float32), np.random.default_rng(seed), seed + 1)
        header = pydicom.dcmread(tmp_path / f"{seed}.dicom")
        found |= {header.file_meta.TransferSyntaxUID, header.PhotometricInterpretation, header.BitsStored}
    assert found == {*(syntax for syntax, _ in ENCODINGS), "MONOCHROME1", "MONOCHROME2", 8, 10, 12, 14, 16}


def test_readers_jitter_miss_and_disagree_but_someone_sees_every_lesion():
    truth = [("Consolidation", (50.0, 60.0, 120.0, 130.0))]
    names, per_reader, overlaps = set(), [], []
    for seed in range(200):
        readers, boxes = read_by_readers(truth, (256, 256), np.random.default_rng(seed))
        assert len(set(readers)) == 3 and {box.reader for box in boxes} <= set(readers)
        near = [box for box in boxes if abs(box.box[0] - 50) < 15 and abs(box.box[2] - 120) < 15]
        assert near
        per_reader.append(len(near))
        names |= {box.category for box in near}
        overlaps += [abs(box.box[0] - 50) for box in near]
    assert set(per_reader) >= {2, 3} and names == {"Consolidation", "Lung Opacity"}
    assert 0.5 < np.mean(overlaps) < 4


def test_annotation_rows_of_a_reader_who_saw_nothing_and_of_global_labels():
    boxes = [ReaderBox("R1", name, (1.0, 2.0, 3.0, 4.0)) for name in ("Emphysema", "ILD", "Edema")]
    table = annotation_table([{"image_id": "a", "readers": ["R1", "R2"], "boxes": boxes}], consensus=False)
    assert table[table.rad_id == "R2"].class_name.tolist() == ["No finding"]
    assert table[table.rad_id == "R1"].class_name.tolist() == ["Emphysema", "ILD", "Edema", "COPD"]
    assert table.x_min.isna().tolist() == [False, False, False, True, True]


def test_mimic_tables_files_and_splits(cohort):
    root = cohort / "mimic"
    split = pd.read_csv(root / "mimic-cxr-2.0.0-split.csv.gz")
    metadata = pd.read_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz")
    labels = pd.read_csv(root / "mimic-cxr-2.0.0-chexpert.csv.gz")
    assert list(split) == ["dicom_id", "study_id", "subject_id", "split"]
    assert set(split.split) == {"train", "validate", "test"}
    assert (split.groupby("subject_id").split.nunique() == 1).all()
    assert set(metadata.ViewPosition) == {"PA", "AP", "LATERAL"}
    assert split.study_id.nunique() == 40 == len(labels) and len(labels.columns) == 16
    for row in metadata.itertuples():
        image = cv2.imread(
            str(next(root.glob(f"files/p*/p{row.subject_id}/s{row.study_id}/{row.dicom_id}.jpg"))), cv2.IMREAD_UNCHANGED
        )
        assert image.shape == (row.Rows, row.Columns)
    for row in split.itertuples():
        assert (root / f"files/p{str(row.subject_id)[:2]}/p{row.subject_id}/s{row.study_id}.txt").is_file()
        assert re.fullmatch(r"([0-9a-f]{8}-){4}[0-9a-f]{8}", row.dicom_id)
    with gzip.open(root / "mimic-cxr-2.0.0-split.csv.gz", "rt") as stream:
        assert stream.readline() == "dicom_id,study_id,subject_id,split\n"


def test_box_side_and_report_side_agree_and_a_mirrored_picture_is_caught(cohort):
    said, caught = 0, 0
    for record in read_jsonl(cohort / "truth.jsonl"):
        if record["source"] != "mimic" or not record["boxes"]:
            continue
        report, width = record["report"]["findings"], record["width"]
        boxes = [(box["class"], _xywh(box["bbox_xyxy"])) for box in record["boxes"]]
        assert check_laterality(boxes, report, width) == []
        mirrored = [(name, (width - x - w, y, w, h)) for name, (x, y, w, h) in boxes]
        sided = [box for box in record["boxes"] if box["side"] and f"{box['side']} " in report.lower()]
        said += bool(sided)
        caught += bool(check_laterality(mirrored, report, width))
        for box in record["boxes"]:
            centre = (box["bbox_xyxy"][0] + box["bbox_xyxy"][2]) / 2
            assert not box["side"] or (centre > width / 2) == (box["side"] == "left")
    assert caught >= 0.7 * said > 5


def _xywh(box):
    x0, y0, x1, y1 = box
    return x0, y0, x1 - x0, y1 - y0


def test_a_stranger_s_folder_is_not_replaced_but_an_older_cohort_is(cohort, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(D2RNetError, match=r"thesis\.txt.*no demo cohort.*Choose another --output"):
        demo.make_demo_cohort(output=tmp_path / "mine", workers=1, settings=SMALL)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "file").write_text("")
    with pytest.raises(D2RNetError, match="got a file"):
        demo.make_demo_cohort(output=tmp_path / "file", workers=1, settings=SMALL)
    few = SMALL.replaced(labelled_train_images=4, labelled_test_images=2, report_train_studies=4)
    for seed in (1, 2):
        demo.make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=few.replaced(seed=seed))
    assert json.loads((tmp_path / "cohort" / "cohort.json").read_text())["seed"] == 2
    assert len(list((tmp_path / "cohort" / "vindr" / "train").iterdir())) == 4


def test_failure_leaves_neither_half_a_cohort_nor_a_temporary_folder(tmp_path, monkeypatch):
    def full_disk(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(demo, "write_jsonl", full_disk)
    few = SMALL.replaced(labelled_train_images=4, labelled_test_images=2, report_train_studies=4)
    with pytest.raises(OSError, match="No space left"):
        demo.make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=few)
    assert [path.name for path in tmp_path.iterdir()] == [".cohort.lock"]


def test_leftovers_of_a_killed_run_are_cleared_and_a_running_one_is_respected(tmp_path):
    few = SMALL.replaced(labelled_train_images=4, labelled_test_images=2, report_train_studies=4)
    (tmp_path / ".cohort.part" / "vindr").mkdir(parents=True)
    (tmp_path / ".cohort.part" / "half.dicom").touch()
    with (
        FileLock(tmp_path / ".cohort.lock", is_singleton=False),
        pytest.raises(D2RNetError, match="another process is making this cohort"),
    ):
        demo.make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=few)
    demo.make_demo_cohort(output=tmp_path / "cohort", workers=1, settings=few)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".cohort.lock", "cohort"]
    assert not (tmp_path / "cohort" / "half.dicom").exists()


def test_workers_end_with_a_killed_parent(tmp_path):
    """Spawned workers that wait for work would stay for ever, 300 MB each."""
    command = [sys.executable, "-m", "d2rnet", "make-demo-cohort", "--output", tmp_path / "cohort", "--workers", "2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        parent = psutil.Process(process.pid)
        while len(workers := parent.children(recursive=True)) < 4:  # two of them, their server and its tracker
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert psutil.wait_procs(workers, timeout=30)[1] == []
