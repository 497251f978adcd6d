"""From a CT source to converted volumes: checks, shards, resume, what is set aside, and the joined table."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from ct_samples import convert, convert_shards, data_settings, join, make_cohort

from d2rnet.ct.conversion import volume_shards
from d2rnet.ct.conversion.verify import stated_spacing, verify_ct_inputs
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("ct_cohort"))


@pytest.fixture(scope="module")
def run(cohort, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ct_run")
    convert(cohort, folder)
    return folder


@pytest.fixture
def copy(run, tmp_path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def arrays(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


def test_a_whole_conversion(run):
    lines = list(read_jsonl(run / "convert/volumes.jsonl"))
    assert len(lines) == 15  # 12 and 2 patients, one of them with two scans
    for line in lines:
        array = np.load(run / "convert" / line["volume_path"])
        assert array.shape == (40, 60, 60)
        assert array.dtype == np.uint8
        assert line["hu_source"] == "already"  # the table still holds an intercept: the trap of release v2
        body = array > 100
        assert 0.1 < body.mean() < 0.6
    counts = read_json(run / "convert/counts.json")
    assert counts["volumes"] == 15
    assert counts["volumes_unreadable"] == 1
    assert counts["volumes_set_aside"] == 1
    assert sum(part["volumes"] for part in counts["splits"].values()) == 15
    assert min(part["volumes"] for part in counts["splits"].values()) >= 2


def test_notes_are_counted_by_kind_whatever_their_numbers(run, copy, cohort):
    """A table whose spacing contradicts the headers, each volume by other numbers, is one line of the counts."""
    path = copy / "convert/shards/1-of-1.jsonl"
    lines = list(read_jsonl(path))
    for number, line in enumerate(lines):
        if line["reason"] is None:
            said = "spacing of the metadata table is not the header's"
            line["notes"] = [f"{said}: {number} x 1 x 1 mm against 5 x 4 x 3.5 mm, which is taken.", f"{number}.5 slices odd."]
    write_jsonl(path, lines)
    join(copy, data_settings(cohort), 1)
    notes = read_json(copy / "convert/counts.json")["notes"]
    assert notes == {"spacing of the metadata table is not the header's": 15, ".. slices odd.": 15}


def test_no_patient_is_in_two_splits(run):
    of_patient: dict[str, set[str]] = {}
    for line in read_jsonl(run / "convert/volumes.jsonl"):
        of_patient.setdefault(line["subject_id"], set()).add(line["split"])
    assert all(len(splits) == 1 for splits in of_patient.values())


def test_what_cannot_be_used_is_set_aside_with_its_reason(run):
    (header,) = read_jsonl(run / "verify/quarantine.jsonl")
    assert header["volume_id"] == "train_15_a_1"
    assert "expected NIfTI" in header["reason"]
    (voxels,) = read_jsonl(run / "convert/quarantine.jsonl")
    assert voxels["volume_id"] == "train_14_a_1"
    assert "cut off" in voxels["reason"]


def test_contact_sheet_shows_every_volume_up_to_twelve(run):
    picture = cv2.imread(str(run / "convert/contact_sheet.png"), cv2.IMREAD_GRAYSCALE)
    rows = 12
    assert picture.shape[0] == rows * 165
    parts = np.split(picture, rows)
    assert all(part.std() > 30 for part in parts)
    assert len({part.tobytes() for part in parts}) == rows


def test_shards_and_their_number_change_nothing(cohort, run, tmp_path):
    convert(cohort, tmp_path, shards=3)
    assert arrays(tmp_path / "convert") == arrays(run / "convert")
    assert (tmp_path / "convert/volumes.jsonl").read_text() == (run / "convert/volumes.jsonl").read_text()


def test_an_interrupted_conversion_goes_on(cohort, copy, monkeypatch):
    """Arrays that are whole are kept; a missing, cut or older one is made again, from its source alone."""
    settings = data_settings(cohort)
    lines = list(read_jsonl(copy / "convert/volumes.jsonl"))
    before = arrays(copy / "convert")
    gone, cut, unsaid = (copy / "convert" / line["volume_path"] for line in lines[:3])
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:100])
    unsaid.with_name(f"{unsaid.name}.json").unlink()
    made = []
    original = volume_shards.convert_volume
    monkeypatch.setattr(volume_shards, "convert_volume", lambda *args: made.append(1) or original(*args))
    convert_shards(copy, settings, 1)
    assert len(made) == 3
    assert arrays(copy / "convert") == before


def test_another_setting_or_a_changed_source_converts_anew(cohort, copy, monkeypatch):
    made = []
    original = volume_shards.convert_volume
    monkeypatch.setattr(volume_shards, "convert_volume", lambda *args: made.append(1) or original(*args))
    first = next(read_jsonl(copy / "verify/volumes.jsonl"))
    os.utime(first["source"])
    convert_shards(copy, data_settings(cohort), 1)
    assert len(made) == 1
    other = {"spacing_mm": [8.0, 6.0, 6.0], "shape_zyx": [40, 60, 60], "bits": 16}
    convert_shards(copy, data_settings(cohort, conversion=other), 1)
    assert len(made) == 16


def test_shards_of_other_settings_are_not_joined(cohort, copy):
    other = {"spacing_mm": [8.0, 6.0, 6.0], "shape_zyx": [40, 60, 60], "antialias": False}
    settings = data_settings(cohort, conversion=other)
    with pytest.raises(DatasetError, match="other settings"):
        join(copy, settings, 1)


def test_a_list_that_was_edited_is_not_taken(cohort, copy):
    path = copy / "verify/volumes.jsonl"
    path.write_text(path.read_text().replace('"split": "train"', '"split": "test"', 1))
    with pytest.raises(DatasetError, match="is not the table that verify-ct-inputs checked"):
        join(copy, data_settings(cohort), 1)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: lines[:-1], "holds|says"),
        (lambda lines: [lines[0], *lines], "says"),
        (lambda lines: [lines[0].replace("train_", "other_", 1), *lines[1:]], "in none of"),
        (lambda lines: ["{}\n", *lines[1:]], "line 1"),
    ],
    ids=["cut", "twice", "another volume", "no record"],
)
def test_a_damaged_shard_is_not_joined(cohort, copy, edit, message):
    path = copy / "convert/shards/1-of-1.jsonl"
    path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))
    with pytest.raises(DatasetError, match=message):
        join(copy, data_settings(cohort), 1)


def test_too_many_unreadable_volumes_stop_the_run(cohort, copy):
    with pytest.raises(DatasetError, match="of 17 volumes unreadable, not 1"):
        verify_ct_inputs(output=copy / "verify", workers=1, settings=data_settings(cohort, max_bad_fraction=0.0))
    assert read_json(copy / "verify/summary.json")["problems"] == {"too_many_unreadable_volumes": 1}
    assert not (copy / "verify/counts.json").exists()


def test_the_joined_limit_counts_what_the_headers_did_not_show(cohort, copy):
    """One budget: the volume that the check set aside and the one that the conversion could not read are two of 17."""
    settings = data_settings(cohort, max_bad_fraction=0.1)
    verify_ct_inputs(output=copy / "verify", workers=1, settings=settings)
    convert_shards(copy, settings, 1)
    with pytest.raises(
        DatasetError, match=r"cut off.*at most 10.00% of 17 volumes unreadable, not 2 \(1 of them by headers\)"
    ):
        join(copy, settings, 1)
    settings = data_settings(cohort, max_bad_fraction=2 / 17)
    verify_ct_inputs(output=copy / "verify", workers=1, settings=settings)
    join(copy, settings, 1)


def of_split(run: Path, split: str) -> list[dict[str, object]]:
    return [line for line in read_jsonl(run / "verify/volumes.jsonl") if line["split"] == split]


def test_a_split_whose_headers_are_all_unreadable_is_empty(cohort, run, tmp_path):
    shutil.copytree(cohort, tmp_path / "cohort")
    for line in of_split(run, "test"):
        path = tmp_path / "cohort" / Path(str(line["source"])).relative_to(cohort)
        path.write_bytes(b"no volume")
    settings = data_settings(tmp_path / "cohort", max_bad_fraction=0.9)
    with pytest.raises(DatasetError, match=r"empty_split: 1\n.*test: got no readable volume with a report"):
        verify_ct_inputs(output=tmp_path / "verify", workers=1, settings=settings)


def test_a_split_whose_voxels_are_all_unreadable_is_empty(cohort, run, tmp_path):
    shutil.copytree(cohort, tmp_path / "cohort")
    for line in of_split(run, "val"):
        path = tmp_path / "cohort" / Path(str(line["source"])).relative_to(cohort)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])  # its header can still be read
    settings = data_settings(tmp_path / "cohort", max_bad_fraction=0.9)
    verify_ct_inputs(output=tmp_path / "verify", workers=1, settings=settings)
    convert_shards(tmp_path, settings, 1)
    with pytest.raises(DatasetError, match=r"ct.data.reports: no volume of split val is left of \d; expected at least one"):
        join(tmp_path, settings, 1)
    assert list(read_jsonl(tmp_path / "convert/quarantine.jsonl"))  # which, and why
    assert not (tmp_path / "convert/volumes.jsonl").exists()


def test_every_problem_of_a_source_is_named_at_once(cohort, tmp_path):
    root = tmp_path / "ct_rate"
    shutil.copytree(cohort / "ct_rate", root)
    shutil.rmtree(root / "dataset/train_fixed/train_3")
    table = root / "dataset/radiology_text_reports/train_reports.csv"
    table.write_text(table.read_text() + "train_../x_a_1.nii.gz,,,Text.,\n")
    labels = root / "dataset/multi_abnormality_labels/valid_predicted_labels.csv"
    labels.write_text(re.sub(r"valid_1_a_1.nii.gz,[01]", "valid_1_a_1.nii.gz,7", labels.read_text()))
    settings = data_settings(tmp_path)
    with pytest.raises(DatasetError):
        verify_ct_inputs(output=tmp_path / "verify", workers=1, settings=settings)
    kinds = {problem["kind"] for problem in read_jsonl(tmp_path / "verify/problems.jsonl")}
    assert kinds == {"bad_id", "bad_label", "missing_volumes"}


def test_a_missing_root_is_one_problem(tmp_path):
    with pytest.raises(DatasetError, match="missing_file"):
        verify_ct_inputs(output=tmp_path / "verify", workers=1, settings=data_settings(tmp_path / "nowhere"))


def test_no_such_shard(run, cohort):
    settings = data_settings(cohort)
    with pytest.raises(ConfigError, match="expected a shard from 1 to 2"):
        volume_shards.convert_ct_shard(
            volumes=run / "verify/volumes.jsonl",
            folder=run,
            shard=3,
            shards=2,
            output=run / "x.jsonl",
            workers=1,
            settings=volume_shards.CtVolumeConversionSettings(volumes=settings.volumes, conversion=settings.conversion),
        )


@pytest.mark.parametrize("name", ["../outside.npy", "/etc/x.npy", ""])
def test_an_array_outside_its_folder_is_refused(cohort, copy, name):
    path = copy / "verify/volumes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["file_name"] = name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match="expected a path below its folder"):
        convert_shards(copy, data_settings(cohort), 1)


@pytest.mark.parametrize(
    ("row", "spacing"),
    [
        ((1.5, 0.7, 0.7), (1.5, 0.7, 0.7)),
        ((float("nan"), 0.7, 0.7), None),
        ((1.5, float("nan"), 0.7), None),
        ((1.5, 0.7, float("nan")), None),
        ((0.0, 0.7, 0.7), None),
        ((-1.0, 0.7, 0.7), None),
    ],
)
def test_a_spacing_is_stated_whole_or_not_at_all(row, spacing):
    assert stated_spacing(row) == spacing
