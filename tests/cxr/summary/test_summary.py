"""The result table: metrics beside their baselines, protocol, counts, what is missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.summary.summary import count_lines, summarize
from d2rnet.errors import DatasetError
from d2rnet.evaluation.metric_names import Group, keys_of
from d2rnet.files.documents import write_json

SCORES = dict.fromkeys(keys_of(Group.WORDS), 0.3) | {
    "bleu_1": 0.4,
    "bleu_3": 0.2,
    "bleu_4": 0.1234,
    "meteor": 0.2,
    "cider": 1.5,
}
CONTROL = dict.fromkeys(SCORES, 0.05)


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    detector = {
        "protocol": {"scorer": "pycocotools", "max_detections": 100},
        "ema_teacher": {"AP": 0.3, "AP50": 0.6125, "AP40": 0.7, "AP75": 0.2, "per_class_AP50": {"Edema": 0.5}},
        "student": {"AP": 0.28, "AP50": 0.55, "AP40": 0.66, "AP75": 0.19},
        "n_images": 120,
        "n_boxes": 1240,
    }
    reports = {
        "protocol": {"text": "r2gen", "section": "findings", "split": "test", "n": 170},
        "scores": SCORES,
        "shuffled": CONTROL,
        "most_frequent_report": {**CONTROL, "report": "normal ."},
        "unique_report_rate": 0.8,
        "unique_reference_rate": 0.95,
        "notes": {},
        "files": {"generated": "results/cxr/generate_reports/test.jsonl", "annotation": "a.json"},
    }
    write_json(tmp_path / "detector.json", detector)
    write_json(tmp_path / "reports.json", reports)
    write_json(tmp_path / "labelled" / "counts.json", {"boxes_kept": 12345, "train": {"images": 400, "boxes": 900}})
    return {
        "detector_metrics": tmp_path / "detector.json",
        "report_metrics": tmp_path / "reports.json",
        "counts": [tmp_path / "labelled" / "counts.json"],
        "models": [],
        "output": tmp_path / "out",
    }


def change(path: Path, edit: dict[str, Any]) -> None:
    write_json(path, json.loads(path.read_text()) | edit)


def cells(text: str, metric: str) -> list[str]:
    """Return the cells of the row of one metric."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return next(row for row in rows if row[0] == metric)


def test_each_metric_stands_beside_its_baseline(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "AP50, EMA teacher") == ["AP50, EMA teacher", "0.613", "student 0.550", "120 images, 1,240 boxes"]
    assert cells(text, "AP40, EMA teacher")[1:3] == ["0.700", "student 0.660"]
    assert cells(text, "BLEU-4") == ["BLEU-4", "0.123", "shuffled 0.050, commonest 0.050", "findings, r2gen, n 170"]
    assert cells(text, "CIDEr")[1] == "1.500"
    assert cells(text, "METEOR")[1] == "0.200"
    assert cells(text, "different reports / n")[1:3] == ["0.800", "references 0.950"]
    assert "- labelled: boxes kept 12,345\n- labelled: train: images 400, boxes 900\n" in text
    assert "- generated reports beside their references: results/cxr/generate_reports/test.jsonl" in text
    assert "- detector protocol: scorer pycocotools, max detections 100." in text
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 120
    assert "synthetic" not in text


def test_intervals_and_the_paired_difference_are_shown(
    run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = json.loads(run["detector_metrics"].read_text())
    teacher = metrics["ema_teacher"] | {
        "voc_mAP40_22": 0.5,
        "froc_mean": None,
        "intervals": {"AP50": [0.55, 0.671], "froc_mean": None},
    }
    difference = {
        "AP50": {"difference": 0.0625, "interval": [-0.01, 0.13]},
        "froc_mean": {"difference": None, "interval": None},
    }
    change(run["detector_metrics"], {"ema_teacher": teacher, "teacher_minus_student": difference})
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "AP50, EMA teacher")[1] == "0.613 [0.550, 0.671]"
    assert cells(text, "VOC mAP 22, EMA teacher")[1:3] == ["0.500", "student -"]
    assert cells(text, "FROC mean, EMA teacher")[1] == "-"
    assert "- EMA teacher minus student, paired: AP50 0.062 [-0.010, 0.130], FROC mean -." in text
    assert max(map(len, text.replace(str(tmp_path), "").splitlines())) <= 120


def test_files_hold_what_the_terminal_shows(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    summarize(**run)
    assert (run["output"] / "summary.md").read_text() == capsys.readouterr().out
    summary = json.loads((run["output"] / "summary.json").read_text())
    assert summary["detector"]["ema_teacher"]["per_class_AP50"] == {"Edema": 0.5}
    assert summary["reports"]["scores"]["bleu_3"] == 0.2
    assert summary["counts"]["labelled"]["train"] == {"images": 400, "boxes": 900}
    assert list(summary["table"][0].items())[:3] == [
        ("metric", "AP50, EMA teacher"),
        ("result", "0.613"),
        ("baseline", "student 0.550"),
    ]
    assert summary["synthetic"] is False
    assert json.loads((run["output"] / "run.json").read_text())["command"] == "summarize"


def test_synthetic_data_is_said_to_be(run: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "cohort.json", {"seed": 1})
    summarize(**{**run, "counts": [*run["counts"], tmp_path / "cohort.json"]})
    text = capsys.readouterr().out
    assert "synthetic demo cohort" in text and "nothing about patients" in " ".join(text.split())
    assert json.loads((run["output"] / "summary.json").read_text())["synthetic"] is True


@pytest.mark.parametrize(("images", "reports", "few"), [(17, 1, True), (120, 49, True), (49, 170, True), (50, 50, False)])
def test_few_cases_are_said_to_be_a_smoke_test(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str], images: int, reports: int, few: bool
) -> None:
    change(run["detector_metrics"], {"n_images": images})
    protocol = json.loads(run["report_metrics"].read_text())["protocol"]
    change(run["report_metrics"], {"protocol": {**protocol, "n": reports}})
    summarize(**run)
    text = " ".join(capsys.readouterr().out.split())
    assert (f"Few test cases ({images} images for the detector, {reports} reports): a smoke test." in text) is few


def test_meteor_not_run_carries_its_remedy(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    note = "not run: Java is not on PATH. Install Java"
    change(run["report_metrics"], {"scores": {**SCORES, "meteor": None}, "notes": {"meteor": note}})
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "METEOR")[1:3] == ["not run", "see below"]
    assert f"- meteor: {note}" in text


def test_undefined_metrics_are_dashes(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    change(run["report_metrics"], {"scores": {**SCORES, "cider": None}, "shuffled": dict.fromkeys(SCORES)})
    change(run["detector_metrics"], {"ema_teacher": {"AP50": None, "AP40": None}})
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "CIDEr")[1] == "-"
    assert cells(text, "BLEU-4")[2] == "shuffled -, commonest 0.050"
    assert cells(text, "AP50, EMA teacher")[1] == "-"
    assert "AP75" not in text


@pytest.mark.parametrize(
    ("name", "edit", "complaint"),
    [
        ("detector_metrics", {"student": {"AP50": 0.5}}, r"detector\.json: student has no 'AP40' \(it has AP50\)"),
        ("detector_metrics", {"protocol": None}, r"detector\.json: 'protocol' is None; expected an object"),
        ("detector_metrics", {"ema_teacher": None}, r"'ema_teacher' is None; expected an object"),
        ("report_metrics", {"scores": {"bleu_4": 1}}, r"reports\.json: scores has no 'bleu_1'"),
        ("report_metrics", {"protocol": "r2gen"}, r"'protocol' is 'r2gen'"),
    ],
)
def test_missing_metrics_are_named(run: dict[str, Any], name: str, edit: dict[str, Any], complaint: str) -> None:
    change(run[name], edit)
    with pytest.raises(DatasetError, match=complaint):
        summarize(**run)
    assert not run["output"].exists()


def test_missing_file_is_named(run: dict[str, Any]) -> None:
    run["report_metrics"].unlink()
    with pytest.raises(FileNotFoundError, match=r"reports\.json: no such file"):
        summarize(**run)


def test_count_lines_leave_zeros_out_and_sum_up_large_groups() -> None:
    classes = {str(number): number for number in range(22)}
    counts = {
        "images": 1234,
        "bad": 0,
        "boxes": {"kept": 5, "below_threshold": classes},
        "none": {"a": 0},
        "few": {"a": {"b": 1}},
    }
    assert list(count_lines(counts)) == [
        "images 1,234",
        "boxes: kept 5, below threshold 231 in 21 entries",
        "few: a (b 1)",
    ]


def test_lesions_have_rows_with_and_without_their_side(run: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    def systems(f1: float) -> dict[str, Any]:
        means = {"micro_f1": f1, "macro_f1": f1 / 2}
        return {"generated": means, "most_frequent_report": dict.fromkeys(means, 0.0), "lesion_set_report": means}

    clinical = {"lesion22_uncertain_positive": systems(0.6), "lesion_side": systems(0.4)}
    change(run["report_metrics"], {"clinical": clinical, "intervals": {"lesion_side_micro_f1": [0.3, 0.5]}})
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "lesion F1, micro")[1:3] == ["0.600", "commonest 0.000, lesion set 0.600"]
    assert cells(text, "lesion F1, macro")[1] == "0.300"
    assert cells(text, "lesion and side F1, micro")[1:3] == ["0.400 [0.300, 0.500]", "commonest 0.000, lesion set 0.400"]
    del clinical["lesion_side"]  # as files of before it was there
    change(run["report_metrics"], {"clinical": clinical})
    summarize(**run)
    assert "lesion and side F1" not in capsys.readouterr().out.replace("; lesion and side F1: each", "")


def test_labellers_of_others_have_rows_where_they_were_asked_for(
    run: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    change(run["report_metrics"], {"notes": {"chexbert": "not run: evaluation.chexbert_weights is null"}})
    summarize(**run)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(rows) > 10 and not any("CheXbert" in row or "RadGraph" in row for row in rows)
    failed = {"chexbert": "not run: chexbert.pth: does not fit", "radgraph": "not run: AttributeError: no encode_plus"}
    protocol = json.loads(run["report_metrics"].read_text())["protocol"] | {"references": "r2gen_exact"}
    change(run["report_metrics"], {"notes": failed, "protocol": protocol})
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "CheXbert F1") == [
        "CheXbert F1",
        "not run",
        "see below",
        "findings, r2gen, references r2gen_exact, n 170",
    ]
    assert cells(text, "RadGraph F1")[1] == "not run"
    assert "- chexbert: not run: chexbert.pth: does not fit" in text and "- radgraph: not run: AttributeError" in text
    means = {"micro_f1": 0.5, "macro_f1": 0.4, "example_f1": 0.45}
    systems = {"generated": means, "most_frequent_report": dict.fromkeys(means, 0.1)}
    clinical = {
        "chexbert14_uncertain_negative": systems,
        "chexbert5_uncertain_negative": systems,
        "radgraph_xl_f1_partial": 0.25,
    }
    ends = {"chexbert5_uncertain_negative_micro_f1": [0.45, 0.55]}
    change(run["report_metrics"], {"notes": {}, "clinical": clinical, "intervals": ends})
    summarize(**run)
    text = capsys.readouterr().out
    assert cells(text, "CheXbert-14 F1, example, doubt as no")[1:3] == ["0.450", "commonest 0.100"]
    assert cells(text, "CheXbert-5 F1, micro, doubt as no")[1] == "0.500 [0.450, 0.550]"
    assert cells(text, "RadGraph F1, partial")[1] == "0.250"
    assert "not run" not in text
