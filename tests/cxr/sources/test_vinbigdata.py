"""Labelled source vinbigdata: names, not class_id, decide; 14 classes; no official split."""

import pytest

from d2rnet.cxr.sources import vinbigdata
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_IDS

HEADER = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"


@pytest.fixture
def read(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "aa.png").touch()

    def read(rows):
        (tmp_path / "train.csv").write_text(HEADER + rows)
        problems = Problems()
        return vinbigdata.read_table(LabelledSettings(root=str(tmp_path)), problems), problems

    return read


def test_rows(read):
    table, problems = read("aa,Pneumothorax,12,R10,1,2,3,4\naa,No finding,14,R9,,,,\nbb,No finding,14,R9,,,,\n")
    assert len(problems) == 0
    assert table.images[["source_id", "split", "n_readers"]].to_numpy().tolist() == [["aa", "", 2], ["bb", "", 1]]
    assert table.boxes[["source_id", "reader_id", "category_id"]].to_numpy().tolist() == [
        ["aa", "R10", CATEGORY_IDS["Pneumothorax"]]
    ]


def test_a_class_of_vindr_that_vinbigdata_lacks_is_unknown(read):
    _, problems = read("aa,Edema,3,R10,1,2,3,4\n")
    assert problems.counts() == {"unknown_class": 1}
    assert "Known classes: Aortic enlargement, Atelectasis, Calcification, Cardiomegaly, Consolidation, ILD" in problems.text()
    assert "Clavicle fracture" not in problems.text()


def test_required_files(tmp_path):
    files = vinbigdata.required_files(LabelledSettings(root=str(tmp_path)))
    assert [file.path.name for file in files] == ["train.csv", "train"]
