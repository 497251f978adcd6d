"""ct_annotation.json is read back as it was written, or refused by the name of file, split and entry."""

import copy
from typing import Any

import pytest

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json

ENTRY: dict[str, Any] = {
    "id": "v1",
    "study_id": "s1",
    "subject_id": "p1",
    "split": "train",
    "report": "The lungs are clear.",
    "volume_path": "volumes/v1.npy",
    "shape_zyx": [4, 5, 6],
    "structures": {"lung": {"text": "The lungs are clear.", "abnormal": False, "labels": []}},
    "labels": [0] * 17 + [None],
}


def test_what_is_sound_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"train": [ENTRY], "test": [ENTRY | {"id": "v2", "split": "test", "subject_id": "p2"}]})
    splits = load_ct_annotation(tmp_path / "a.json")
    assert splits["train"] == [ENTRY] and splits["val"] == [] and splits["test"][0]["id"] == "v2"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "val"}, "split is 'val' but the entry is listed under 'train'"),
        ({"volume_path": "../v1.npy"}, "expected a path below the folder of convert-ct"),
        ({"shape_zyx": [4, 5]}, "expected three whole numbers"),
        ({"labels": [0] * 17}, "expected 18 of 0, 1 or null"),
        ({"labels": [2] * 18}, "expected 18 of 0, 1 or null"),
        ({"structures": {}}, "no object of structure"),
        ({"structures": {"lung": {"text": None, "abnormal": None}}}, "structure 'lung'"),
        ({"report": None}, "report is None; expected a string"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, changes, words):
    write_json(tmp_path / "a.json", {"train": [copy.deepcopy(ENTRY) | changes]})
    with pytest.raises(DatasetError, match=rf"a\.json: train\[0\] \(v1\): .*{words}.*build-ct-annotation"):
        load_ct_annotation(tmp_path / "a.json")


def test_a_patient_is_in_one_split(tmp_path):
    write_json(tmp_path / "a.json", {"train": [ENTRY], "test": [ENTRY | {"id": "v2", "split": "test"}]})
    with pytest.raises(DatasetError, match=r"patient p1 in train and in test \(v2\); expected each patient in one split"):
        load_ct_annotation(tmp_path / "a.json")
