"""Labels and structures against tables that users may have: drawn tables of the layouts of CT-CLIP and RadGenome-ChestCT."""

import json

import pytest

from d2rnet.cli import main
from d2rnet.findings.ct_classes import CT_ABNORMALITIES


def write_labelled(path, rows):
    lines = ["AccessionNo,report_text," + ",".join(CT_ABNORMALITIES)]
    for number, (text, labels) in enumerate(rows):
        cells = ",".join(str(int(name in labels)) for name in CT_ABNORMALITIES)
        lines.append(f'val_{number},"{text}",{cells}')
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_against_hand_labelled_reports(tmp_path, capsys):
    table = write_labelled(
        tmp_path / "val.csv",
        [
            ('Heart size increased. Nodule in the lung. "" Cardiomegaly "" Lung nodule', {"Cardiomegaly", "Lung nodule"}),
            ("Nodule in the left lung. No effusion.", {"Lung nodule", "Pleural effusion"}),  # a reader's slip
            ("Possible consolidation in the lung.", set()),
        ],
    )
    assert main(["score-ct-labels", "--tables", str(table), "--output", str(tmp_path / "out")]) == 0
    scores = json.loads((tmp_path / "out/scores.json").read_text())["1 val.csv"]
    assert scores["reports"] == 3
    assert scores["per_class"]["Lung nodule"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "true": 2, "said": 2}
    assert scores["per_class"]["Consolidation"] == {"precision": 0.0, "recall": None, "f1": 0.0, "true": 0, "said": 1}
    assert scores["macro_f1"] == pytest.approx(2 / 3)  # cardiomegaly 1, nodule 1, effusion 0
    assert scores["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
    errors = [json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert errors == [
        {"table": "val.csv", "row": 2, "missed": ["Pleural effusion"], "invented": []},
        {"table": "val.csv", "row": 3, "missed": [], "invented": ["Consolidation"]},
    ]
    assert "macro F1 0.667" in capsys.readouterr().out
    certain = ["--tables", str(table), "--output", str(tmp_path / "certain"), "--set", "uncertain_counts=false"]
    assert main(["score-ct-labels", *certain]) == 0
    assert len((tmp_path / "certain/errors.jsonl").read_text().splitlines()) == 1


def test_a_label_that_is_none(tmp_path, capsys):
    table = write_labelled(tmp_path / "val.csv", [("Nodule.", set())])
    table.write_text(table.read_text().replace(",0\n", ",maybe\n"))
    assert main(["score-ct-labels", "--tables", str(table), "--output", str(tmp_path / "out")]) == 2
    assert "row 1: got 'maybe' under Interlobular septal thickening; expected 0 or 1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


REGIONS = """Volumename,Anatomy,Sentence
train_1a_1.nii.gz,lung,A nodule is seen in the right upper lobe.
train_1a_1.nii.gz,lung/right lung,Emphysema in both lungs.
train_1a_1.nii.gz,trachea and bronchie,Trachea is open.
train_1a_1.nii.gz,abdomen,Thickening is observed.
train_1a_1.nii.gz,,The scan is of good quality.
train_1a_1.nii.gz,skull,Normal.
train_1a_1.nii.gz,bone,
train_2_a_1,heart,Heart size is normal.
train_2_a_1,mediastinum,No lymph node in the mediastinum.
"""


def test_structures_against_regions(tmp_path):
    regions = tmp_path / "train_region_report.csv"
    regions.write_text(REGIONS)
    reports = tmp_path / "train_reports.csv"
    reports.write_text(
        "VolumeName,Findings_EN\n"
        "train_1_a_2.nii.gz,Trachea is open. A nodule in the lung. Liver is normal.\n"
        "train_2_a_1.nii.gz,Heart size is normal. Thyroid is normal.\n"
        "train_3_a_1.nii.gz,Heart size is normal.\n"
    )
    arguments = ["--regions", str(regions), "--reports", str(reports), "--output", str(tmp_path / "out")]
    assert main(["score-ct-regions", *arguments]) == 0
    found = json.loads((tmp_path / "out/agreement.json").read_text())
    assert found["rows"] == {"rows": 9, "rows_whole_scan": 1, "rows_of_other_regions": 1, "rows_without_text": 1}
    sentences = found["sentences"]
    assert sentences["sentences"] == 6
    assert sentences["with_a_structure_in_common"] == pytest.approx(5 / 6)  # thickening of what?
    assert sentences["per_class"]["lung"]["true"] == sentences["per_class"]["lung"]["said"] == 2
    assert sentences["per_class"]["heart_mediastinum_vessels"]["recall"] == 1.0  # heart and mediastinum are one
    assert sentences["per_class"]["abdomen"]["recall"] == 0.0
    assert found["reports"]["reports"] == 2
    assert found["reports"]["per_class"]["thyroid"] == {"precision": 0.0, "recall": None, "f1": 0.0, "true": 0, "said": 1}
    assert found["reports"]["per_class"]["abdomen"]["f1"] == 1.0


def test_reports_are_optional_and_a_table_of_other_regions_is_none(tmp_path, capsys):
    regions = tmp_path / "regions.csv"
    regions.write_text("Volumename,Anatomy,Sentence\ntrain_1a_1,lung,Nodule in the lung.\n")
    assert main(["score-ct-regions", "--regions", str(regions), "--output", str(tmp_path / "out")]) == 0
    assert "reports" not in json.loads((tmp_path / "out/agreement.json").read_text())
    regions.write_text("Volumename,Anatomy,Sentence\ntrain_1a_1,brain,Normal.\n")
    assert main(["score-ct-regions", "--regions", str(regions), "--output", str(tmp_path / "out")]) == 2
    assert "none of 1 rows is of a region of the table 'ten'; its anatomies begin with brain" in capsys.readouterr().err
