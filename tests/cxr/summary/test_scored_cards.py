"""Model cards with scores: what a reader needs to judge the weights, from the files of a run."""

import re
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.cxr.sources import vindr
from d2rnet.cxr.sources.sources import labelled_source, report_source
from d2rnet.cxr.summary.summary import summarize
from d2rnet.errors import DatasetError
from d2rnet.evaluation.metric_names import Group, keys_of
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.runs.cards import ORIGIN_KEY, origin_line
from d2rnet.runs.provenance import write_run_record

SCORES = dict.fromkeys(keys_of(Group.WORDS), 0.4) | {"bleu_4": 0.1234}


def network(ap50: float) -> dict[str, Any]:
    by_class = {"Edema": 0.5, "Cardiomegaly": None}
    return {
        "AP": 0.3,
        "AP50": ap50,
        "AP40": 0.7,
        "intervals": {"AP50": [0.55, 0.671]},
        "per_class_AP": by_class,
        "per_class_AP50": by_class,
        "per_class_AP40": by_class,
        "boxes_per_class": {"Cardiomegaly": 0, "Edema": 7},
        "classes_without_boxes": ["Cardiomegaly"],
        "calibration": {"ece": 0.08},
    }


def model_folder(folder: Path, command: str, weights: str) -> Path:
    folder.mkdir()
    (folder / weights).write_bytes(b"weights of " + command.encode())
    settings = TrainDetectorSettings() if command == "train-detector" else TrainReportModelSettings()
    write_run_record(folder / "run.json", command=command, settings=settings, counts={"train": 396})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Arguments of summarize."""
    clinical = {"sides": {"compared": 124, "same_side": 0.69, "wrong_side": 0.306}}
    texts = {"normal_report_rate": 0.25, "repeated_sentence_rate": 0.03}
    reports = {
        "protocol": {"text": "r2gen", "section": "findings", "split": "test", "n": 175},
        "scores": SCORES,
        "shuffled": SCORES,
        "most_frequent_report": SCORES,
        "clinical": clinical,
        "degeneracy": {"hypothesis": texts, "reference": texts | {"normal_report_rate": 0.2}},
        "notes": {"chexbert": "not run: evaluation.chexbert_weights is null"},
    }
    detector = {"protocol": {"split": "test"}, "ema_teacher": network(0.6125), "student": network(0.55), "n_images": 120}
    write_json(tmp_path / "detector.json", detector)
    write_json(tmp_path / "reports.json", reports)
    for name, command in (("labelled", "convert-labelled"), ("unlabelled", "convert-unlabelled")):
        write_json(tmp_path / name / "counts.json", {})
        write_run_record(tmp_path / name / "run.json", command=command, settings=DataSettings())
    return {
        "detector_metrics": tmp_path / "detector.json",
        "report_metrics": tmp_path / "reports.json",
        "counts": [tmp_path / name / "counts.json" for name in ("labelled", "unlabelled")],
        "models": [
            model_folder(tmp_path / "detector", "train-detector", "model_final.pth"),
            model_folder(tmp_path / "report", "train-report-model", "model.safetensors"),
        ],
        "output": tmp_path / "out",
    }


def section_of(card: str, heading: str) -> str:
    return re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", card, flags=re.MULTILINE | re.DOTALL)[1]


def test_detector_card_has_scores_with_protocol_and_number(run: dict[str, Any]) -> None:
    summarize(**run)
    card = (run["output"] / "detector_card.md").read_text(encoding="utf-8")
    scores = section_of(card, "Scores")
    assert re.search(r"\| AP50, EMA teacher +\| 0\.613 \[0\.550, 0\.671\] +\| student 0\.550 +\| 120 images +\|", scores)
    assert "protocol: split test." in scores and "Expected calibration error of the scores: 0.080." in scores
    assert re.search(r"\| Edema +\| 7 +\| 0\.500 +\| 0\.500 +\| 0\.500 +\|", scores)
    assert "has no box of them: Cardiomegaly." in scores and "| Cardiomegaly" not in scores
    sha256 = sha256_file(run["models"][0] / "model_final.pth")
    assert f"| weights: model_final.pth | SHA-256 {sha256} |" in section_of(card, "Facts of the run")
    assert card.count("**to be filled in by you**") == 5 and "Not a medical device" in section_of(card, "Intended use")


def test_report_card_has_controls_and_errors(run: dict[str, Any]) -> None:
    summarize(**run)
    scores = section_of((run["output"] / "report_model_card.md").read_text(encoding="utf-8"), "Scores")
    assert re.search(r"\| BLEU-4 +\| 0\.123 +\| shuffled 0\.123, commonest 0\.123 \| findings, r2gen, n 175 \|", scores)
    assert "- Of 124 lesions that both reports name with a side, 31% are on the wrong one.\n" in scores
    assert "- Reports that name no lesion: 25% of the generated, 20% of the reference ones.\n" in scores
    assert "- chexbert: not run: evaluation.chexbert_weights is null\n" in scores


@pytest.mark.parametrize("synthetic", [False, True])
def test_training_data_is_named_with_its_terms(run: dict[str, Any], tmp_path: Path, synthetic: bool) -> None:
    write_json(tmp_path / "cohort" / ("cohort.json" if synthetic else "other.json"), {})
    for name, find, source in (("labelled", labelled_source, "vindr"), ("unlabelled", report_source, "mimic")):
        line = origin_line(find(source).TERMS, source, str(tmp_path / "cohort" / source))
        write_run_record(tmp_path / name / "run.json", command=f"convert-{name}", settings={}, extra={ORIGIN_KEY: line})
    summarize(**run)
    for name in ("detector_card.md", "report_model_card.md"):
        told = section_of((run["output"] / name).read_text(encoding="utf-8"), "Data")
        assert ("**Synthetic**" in told) is synthetic
        assert (f"- `data.labelled`: `vindr`. Terms: {vindr.TERMS}." in told) is not synthetic
        assert str(tmp_path) not in told, "a card that is handed on names no folder"
        assert "`data.reports`" in told and "| train | 396 |" in told


def test_another_folder_is_refused(run: dict[str, Any], tmp_path: Path) -> None:
    run["models"] = [tmp_path / "labelled"]
    with pytest.raises(DatasetError, match="got a record of 'convert-labelled'; expected one of train-detector"):
        summarize(**run)
