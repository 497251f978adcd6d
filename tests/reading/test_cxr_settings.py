"""Settings of a reading: written from the configuration beside the report model; what is missing is named with the remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from radiograph_samples import draw_chest
from reading_samples import OVERLAY, write_yaml

from d2rnet.cxr.images.grey_levels import describe_grey_levels, reduce
from d2rnet.errors import ConfigError, D2RNetError, DatasetError
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.reading import cxr_settings
from d2rnet.reading.cxr_settings import FILE, ReadingSettings, describe_reading, read_reading_settings
from d2rnet.report.annotation_file import write_annotation


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that stands for a detector's weights."""
    path = tmp_path / "model_final.pth"
    path.write_bytes(b"weights")
    return path


def described(folder: Path, weights: Path, *files: Path, thresholds: Path | None = None) -> ReadingSettings:
    describe_reading(weights=weights, report_model=folder, configfile=files, thresholds=thresholds)
    return read_reading_settings(folder)


def test_configuration_files_lie_over_each_other(finished_run: Path, tmp_path: Path) -> None:
    write_yaml(tmp_path / "first.yaml", {"cxr": {**OVERLAY, "annotation": {"max_boxes": 99}}})
    write_yaml(tmp_path / "second.yaml", {"cxr": {"annotation": OVERLAY["annotation"]}})
    weights = finished_run / "results/cxr/train_detector/model_final.pth"
    expected = read_reading_settings(finished_run / "results/cxr/train_report_model")
    assert described(tmp_path, weights, tmp_path / "first.yaml", tmp_path / "second.yaml") == expected


def test_file_holds_what_decides(finished_run: Path) -> None:
    settings = read_reading_settings(finished_run / "results/cxr/train_report_model")
    assert settings.max_side_px == 96 and settings.views == ("PA", "AP") and settings.max_boxes == 6
    assert settings.prediction.max_boxes_per_image == 30 and settings.generation.beam_size == 2
    assert settings.thresholds == {name: 0.3 if name == "Edema" else 0.1 for name in CATEGORY_NAMES}
    assert settings.detector_sha256 == sha256_file(finished_run / "results/cxr/train_detector/model_final.pth")
    assert json.loads(json.dumps(settings.to_json()))["views"] == ["PA", "AP"]


def test_setting_that_an_older_file_lacks_takes_its_default(tmp_path: Path, weights: Path) -> None:
    described(tmp_path, weights)
    content = json.loads((tmp_path / FILE).read_text())
    del content["generation"]["no_repeat_ngram"]
    (tmp_path / FILE).write_text(json.dumps(content))
    assert read_reading_settings(tmp_path).generation.no_repeat_ngram == 0


def test_which_boxes_are_shown_comes_from_the_configuration(tmp_path: Path, weights: Path) -> None:
    write_yaml(tmp_path / "own.yaml", {"evaluation": {"gallery": {"shown_score": 0.3}}})
    assert described(tmp_path, weights).shown_score == 0.5
    assert described(tmp_path, weights, tmp_path / "own.yaml").shown_score == 0.3
    content = json.loads((tmp_path / FILE).read_text())
    del content["shown_score"], content["generation"]["unsaid_weight"]
    (tmp_path / FILE).write_text(json.dumps(content))
    old = read_reading_settings(tmp_path)
    assert (old.shown_score, old.generation.unsaid_weight) == (0, 0), "a model of before reads and shows as it did"


def test_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"reading\.json: no such file.*'d2rnet describe-reading'"):
        read_reading_settings(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ([], "got a list"),
        ({"max_boxes": "x"}, "max_boxes"),
        ({"thresholds": {}}, "thresholds"),
        ({"thresholds": dict.fromkeys(CATEGORY_NAMES, 2.0)}, "greater than the maximum of 1"),
        ({"generation": {"beam_siz": 1}}, "did you mean 'beam_size'"),
        ({"other": 1}, "other: unknown key"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, weights: Path, change: Any, match: str) -> None:
    described(tmp_path, weights)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, **change} if isinstance(change, dict) else change))
    with pytest.raises(D2RNetError, match=rf"reading\.json: .*(\n.*)*{match}"):
        read_reading_settings(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(D2RNetError, match="not a JSON document"):
        read_reading_settings(tmp_path)


def test_calibrated_thresholds_are_those_of_their_file(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "mine.yaml").write_text("cxr: {annotation: {thresholds: calibrated}}\n")
    with pytest.raises(ConfigError, match="no file was given with --thresholds"):
        described(tmp_path, weights, tmp_path / "mine.yaml")
    classes = {name: {"threshold": number / 100} for number, name in enumerate(CATEGORY_NAMES)}
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"split": "val", "classes": classes, "detector": {"sha256": "0"}}))
    assert described(tmp_path, weights, tmp_path / "mine.yaml", thresholds=file).thresholds["Other lesion"] == 0.21


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"cxr: {annotation: {max_box: 3}}", "did you mean 'max_boxes'"),
        (b"- a", "got a list"),
        (b"a: [", "not a YAML file"),
        (b"cxr: {}\ncxr: {}", "twice"),
        (b"cxr: \xe4", "not UTF-8"),
        (b"annotation: {max_boxes: 3}", "annotation -> cxr.annotation"),
    ],
)
def test_bad_configuration_file_is_refused(tmp_path: Path, weights: Path, text: bytes, match: str) -> None:
    (tmp_path / "bad.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=match):
        described(tmp_path, weights, tmp_path / "bad.yaml")
    with pytest.raises(FileNotFoundError, match=r"gone\.yaml"):
        described(tmp_path, weights, tmp_path / "gone.yaml")
    assert not (tmp_path / FILE).exists()


def training_images(folder: Path, count: int) -> Path:
    """Write drawn images and their annotation.json."""
    entries = []
    for number in range(count):
        Image.fromarray(draw_chest((60, 50), number)).save(folder / f"{number}.png")
        names = {"id": str(number), "study_id": "s", "subject_id": "p", "split": "train", "report": "clear"}
        entries.append(
            {**names, "image_path": [f"{number}.png"], "height": 60, "width": 50, "boxes": [], "scores": [], "labels": []}
        )
    write_annotation(folder / "annotation.json", {"train": entries})
    return folder / "annotation.json"


def test_grey_levels_are_those_of_the_training_images(tmp_path: Path, weights: Path) -> None:
    annotation = training_images(tmp_path, 25)
    describe_reading(weights=weights, report_model=tmp_path, annotation=annotation, image_root=tmp_path)
    levels = read_reading_settings(tmp_path).grey_levels
    assert levels is not None and levels == describe_grey_levels([reduce(draw_chest((60, 50), seed)) for seed in range(25)])
    (tmp_path / "7.png").unlink()
    with pytest.raises(DatasetError, match=r"7\.png"):
        describe_reading(weights=weights, report_model=tmp_path, annotation=annotation, image_root=tmp_path)
    with pytest.raises(ConfigError, match="one of --annotation and --image-root"):
        describe_reading(weights=weights, report_model=tmp_path, annotation=annotation)


def test_most_images_are_evenly_spaced(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotation = training_images(tmp_path, 50)
    monkeypatch.setattr(cxr_settings, "MOST_IMAGES", 25)
    describe_reading(weights=weights, report_model=tmp_path, annotation=annotation, image_root=tmp_path)
    expected = describe_grey_levels([reduce(draw_chest((60, 50), seed)) for seed in range(0, 50, 2)])
    assert read_reading_settings(tmp_path).grey_levels == expected


def test_few_training_images_are_said(tmp_path: Path, weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotation = training_images(tmp_path, 3)
    describe_reading(weights=weights, report_model=tmp_path, annotation=annotation, image_root=tmp_path)
    assert read_reading_settings(tmp_path).grey_levels is None
    assert "3 training images; below 20, readings do not look at grey levels" in caplog.text


def test_file_of_an_older_model_has_no_grey_levels(tmp_path: Path, weights: Path) -> None:
    described(tmp_path, weights)
    content = json.loads((tmp_path / FILE).read_text())
    del content["grey_levels"]
    (tmp_path / FILE).write_text(json.dumps(content))
    assert read_reading_settings(tmp_path).grey_levels is None


@pytest.mark.parametrize("wing", ["labelled", "reports"])
def test_models_of_the_demo_cohort_are_marked(weights: Path, tmp_path: Path, wing: str) -> None:
    (tmp_path / "cohort" / "x").mkdir(parents=True)
    roots = {"labelled": "real", "reports": "real", wing: str(tmp_path / "cohort" / "x")}
    write_yaml(tmp_path / "run.yaml", {"cxr": {"data": {name: {"root": root} for name, root in roots.items()}}})
    assert not described(tmp_path, weights, tmp_path / "run.yaml").synthetic
    (tmp_path / "cohort" / "cohort.json").write_text("{}")
    assert described(tmp_path, weights, tmp_path / "run.yaml").synthetic
