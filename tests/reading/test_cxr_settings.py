"""Settings of a reading: from the run records, or from configuration files; what is missing is named with the remedy."""

import json
from pathlib import Path

import pytest
import yaml
from reading_samples import OVERLAY

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.reading.cxr_settings import ReadingSettings, detector_of_reports, settings_of_files, settings_of_run


def of_run(run: Path) -> ReadingSettings:
    return settings_of_run(run / "results/cxr/train_detector", run / "results/cxr/train_report_model")


@pytest.fixture
def records(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the run records alone."""
    names = [
        "resources/cxr/convert_unlabelled/run.json",
        "results/cxr/predict_boxes/run.json",
        "results/cxr/build_annotation/run.json",
    ]
    for name in [*names, "results/cxr/generate_reports/shards/1-of-1.run.json"]:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    return tmp_path


def test_configuration_files_give_what_the_run_records_give(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text(yaml.safe_dump({**OVERLAY, "annotation": {"max_boxes": 99}}))
    (tmp_path / "second.yaml").write_text(yaml.safe_dump({"annotation": OVERLAY["annotation"]}))
    files = [tmp_path / "first.yaml", tmp_path / "second.yaml"]
    assert settings_of_files(files, tmp_path / "results/cxr/train_report_model") == of_run(finished_run)


def test_run_records_hold_what_decides(records: Path) -> None:
    settings = of_run(records)
    assert settings.max_side_px == 96 and settings.views == ("PA", "AP") and settings.max_boxes == 6
    assert settings.prediction["max_boxes_per_image"] == 30 and settings.generation["beam_size"] == 2
    assert settings.thresholds == {name: 0.3 if name == "Edema" else 0.1 for name in CATEGORY_NAMES}
    assert json.loads(json.dumps(settings.to_json()))["views"] == ["PA", "AP"]


def test_setting_that_an_older_record_lacks_takes_its_default(records: Path) -> None:
    path = records / "results/cxr/generate_reports/shards/1-of-1.run.json"
    record = json.loads(path.read_text())
    del record["settings"]["no_repeat_ngram"]
    path.write_text(json.dumps(record))
    assert of_run(records).generation["no_repeat_ngram"] == 0


@pytest.mark.parametrize(
    "name",
    [
        "resources/cxr/convert_unlabelled/run.json",
        "results/cxr/build_annotation/run.json",
        "results/cxr/generate_reports/shards/1-of-1.run.json",
    ],
)
def test_missing_record_is_named_with_the_remedy(records: Path, name: str) -> None:
    (records / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name}: no such file.*--configfile"):
        of_run(records)


@pytest.mark.parametrize(
    ("content", "match"),
    [("[]", "not a run record"), ('{"settings": {"max_boxes": 6}}', "lacks 'thresholds'"), ("{", "not a JSON document")],
)
def test_damaged_record_is_named(records: Path, content: str, match: str) -> None:
    (records / "results/cxr/build_annotation/run.json").write_text(content)
    with pytest.raises(DatasetError, match=match):
        of_run(records)


def test_calibrated_thresholds_are_those_of_the_run(tmp_path: Path) -> None:
    model = tmp_path / "results/cxr/train_report_model"
    (tmp_path / "mine.yaml").write_text("annotation: {thresholds: calibrated}\n")
    with pytest.raises(FileNotFoundError, match=r"calibrate_thresholds/thresholds\.json"):
        settings_of_files([tmp_path / "mine.yaml"], model)
    classes = {name: {"threshold": number / 100} for number, name in enumerate(CATEGORY_NAMES)}
    file = tmp_path / "results/cxr/calibrate_thresholds/thresholds.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"classes": classes, "detector": {"sha256": "0"}}))
    assert settings_of_files([tmp_path / "mine.yaml"], model).thresholds["Other lesion"] == 0.21


@pytest.mark.parametrize(
    ("text", "match"),
    [("annotation: {max_box: 3}", "did you mean 'max_boxes'"), ("- a", "got a list"), ("a: [", "not a YAML document")],
)
def test_bad_configuration_file_is_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        settings_of_files([tmp_path / "bad.yaml"], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml"):
        settings_of_files([tmp_path / "gone.yaml"], tmp_path)


def test_detector_of_the_reports_is_that_of_the_predictions(finished_run: Path, tmp_path: Path) -> None:
    from d2rnet.files.hashes import sha256_file

    weights = finished_run / "results/cxr/train_detector/model_final.pth"
    assert detector_of_reports(finished_run / "results/cxr/train_report_model") == sha256_file(weights)
    assert detector_of_reports(tmp_path / "results/cxr/train_report_model") is None
