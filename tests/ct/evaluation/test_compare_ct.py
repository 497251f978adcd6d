"""d2rnet compare on two CT runs: abnormalities, patients drawn whole, how the modality is known, a gallery of texts."""

import json

import pytest
from ct_evaluation_samples import EFFUSION, NODULE, NORMAL, cleaned

from d2rnet.cli.entry import main
from d2rnet.ct.evaluation.systems import CHEST_CT
from d2rnet.errors import DatasetError
from d2rnet.evaluation.compare import compare_runs, read_run
from d2rnet.evaluation.settings import ScoreSettings
from d2rnet.evaluation.systems import RADIOGRAPHS
from d2rnet.files.documents import read_json, write_json, write_jsonl

TEXTS = (NODULE, EFFUSION, NORMAL)


def lines(right: int, *, patients: int = 6) -> list[dict[str, str]]:
    """Twelve volumes, the first ``right`` answered with their reference, the others with a normal report."""
    return [
        {
            "id": f"v{row}",
            "study_id": f"s{row}",
            "subject_id": f"p{row % patients}",
            "reference": cleaned(TEXTS[row % 3]),
            "hypothesis": cleaned(TEXTS[row % 3] if row < right else NORMAL),
        }
        for row in range(12)
    ]


@pytest.fixture
def runs(tmp_path):
    """Two folders of evaluate-ct-reports."""
    for name, right in (("a", 12), ("b", 0)):
        write_jsonl(tmp_path / name / "per_report.jsonl", lines(right))
        protocol = {"modality": "ct", "text": "faithful", "section": "findings", "split": "test"}
        write_json(tmp_path / name / "metrics.json", {"protocol": protocol})
    return tmp_path


def compare(folder, first="a", second="b", **changes):
    return compare_runs(
        run_a=folder / first,
        run_b=folder / second,
        studies="same",
        output=folder / "out",
        settings=ScoreSettings(meteor=False, bootstrap_samples=100),
        scorings=(RADIOGRAPHS, CHEST_CT),
        **changes,
    )


def test_abnormalities_of_two_runs(runs, capsys):
    comparison = compare(runs)
    document = read_json(runs / "out" / "comparison.json")
    assert comparison.modality == "ct"
    assert (document["n"], document["n_patients"]) == (12, 6) and "n_studies" not in document
    found = document["metrics"]
    assert (found["ct18_vs_report_uncertain_positive_micro_f1"]["first"]) == 1
    assert (found["ct18_vs_report_uncertain_positive_micro_f1"]["second"]) == 0
    assert found["ct18_vs_report_uncertain_positive_crg"]["difference"] == pytest.approx(1 - 1 / 3)
    assert not any(key.startswith("lesion") for key in found)
    printed = capsys.readouterr().out
    assert "abnormality CRG against report" in printed and "n 12 in 6 patients, resampled 100 times" in printed


def test_volumes_of_a_patient_are_drawn_together(runs, caplog):
    """One patient has eleven volumes: whole draws are all right, all wrong or few between."""
    for name, right in (("a", 11), ("b", 0)):
        rows = [line | {"subject_id": "p" if number < 11 else "q"} for number, line in enumerate(lines(right))]
        write_jsonl(runs / name / "per_report.jsonl", rows)
    whole = compare(runs)
    document = read_json(runs / "out" / "comparison.json")
    assert document["n_patients"] == 2
    low, high = document["metrics"]["rouge_l"]["interval"]
    assert (low, high) == (0.0, pytest.approx(high)) and high > 0.3  # twice q: no difference at all
    assert "no subject_id" not in caplog.text and whole.study_ids[0] == "s0"


def test_volumes_whose_patient_is_not_known_are_told(runs, caplog):
    for name in "ab":
        rows = [{key: value for key, value in line.items() if key != "subject_id"} for line in lines(3)]
        write_jsonl(runs / name / "per_report.jsonl", rows)
    compare(runs)
    assert "12 of 12 volumes: no subject_id in either run" in caplog.text
    assert read_json(runs / "out" / "comparison.json")["n_patients"] == 12


def test_how_the_modality_is_known(tmp_path):
    file = tmp_path / "test.jsonl"
    write_jsonl(file, lines(1))
    assert read_run(file).modality == "cxr"
    assert read_run(file, modality="ct").modality == "ct"
    write_json(tmp_path / "test.run.json", {"command": "generate-ct-reports"})
    assert read_run(file).modality == "ct"
    write_json(tmp_path / "test.run.json", {"command": "generate-reports"})
    assert read_run(file).modality == "cxr"
    with pytest.raises(DatasetError, match="--modality mr: expected auto, cxr, ct"):
        read_run(file, modality="mr")


def test_folder_of_a_whole_run_with_one_wing_or_both(tmp_path):
    ours = tmp_path / "results" / "ct" / "evaluate_ct_reports" / "per_report.jsonl"
    write_jsonl(ours, lines(1))
    write_json(ours.with_name("metrics.json"), {"protocol": {"modality": "ct", "text": "faithful"}})
    assert (read_run(tmp_path).file, read_run(tmp_path).modality) == (ours, "ct")
    theirs = tmp_path / "results" / "cxr" / "generate_reports" / "test.jsonl"
    write_jsonl(theirs, lines(1))
    with pytest.raises(DatasetError, match=r"holds results/cxr/.* and results/ct/.*--modality"):
        read_run(tmp_path)
    assert read_run(tmp_path, modality="ct").file == ours
    assert read_run(tmp_path, modality="cxr").file == theirs


def test_runs_of_two_modalities_are_refused(runs):
    write_jsonl(runs / "c.jsonl", lines(1))
    with pytest.raises(DatasetError, match=r"reports of ct .* and cxr .*one modality"):
        compare(runs, second="c.jsonl")


def test_command_line_with_a_gallery_of_texts(runs, capsys):
    arguments = ["compare", str(runs / "a"), str(runs / "b"), "--output", str(runs / "out"), "--gallery-studies", "4"]
    assert main([*arguments, "--set", "meteor=false", "--set", "bootstrap_samples=20"]) == 0
    assert "abnormality F1, micro, against report" in capsys.readouterr().out
    page = (runs / "out" / "gallery" / "index.html").read_text(encoding="utf-8")
    assert json.dumps("Lung nodule") in page
