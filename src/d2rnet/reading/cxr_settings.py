"""What decides a reading beside the models: conversion, prediction, confidence filter, generation.

They are those of the run that the models come from, read from its run records, so that a reading is what the workflow would
have made of the image; or those of configuration files, where the models lie without their run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from d2rnet.cxr.annotation.confidence_filter import choose_thresholds
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.settings import Settings, complete, merge

CONVERSION = "resources/cxr/convert_unlabelled/run.json"
PREDICTION = "results/cxr/predict_boxes/run.json"
FILTER = "results/cxr/build_annotation/run.json"
GENERATION = "results/cxr/generate_reports/shards"
CALIBRATED = "results/cxr/calibrate_thresholds/thresholds.json"
_REMEDY = "Run the workflow to its end, or name its configuration with --configfile."


@dataclass(frozen=True)
class ReadingSettings:
    """Settings of a reading.

    Attributes:
        max_side_px: longer side of the image that the detector sees.
        views: views that the models were trained on; empty: any.
        prediction: section ``cxr.detector.prediction``.
        thresholds: class name -> least score of a box, all 22 classes.
        max_boxes: most boxes kept an image.
        generation: section ``cxr.report.generation``.
    """

    max_side_px: int
    views: tuple[str, ...]
    prediction: Settings
    thresholds: dict[str, float]
    max_boxes: int
    generation: Settings

    def with_score_threshold(self, threshold: float) -> "ReadingSettings":
        """Return the same settings with one threshold for all classes.

        Raises:
            ConfigError: it is not in [0, 1].
        """
        if not 0 <= threshold <= 1:
            raise ConfigError(f"--score-threshold {threshold}: expected a score from 0 to 1.")
        return replace(self, thresholds=dict.fromkeys(CATEGORY_IDS, float(threshold)))

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON values."""
        return {**asdict(self), "views": list(self.views)}


def settings_of_run(detector: Path, report_model: Path) -> ReadingSettings:
    """Read the settings from the run records beside the models.

    Args:
        detector: folder ``results/cxr/train_detector`` of a run: its conversion and prediction count.
        report_model: folder ``results/cxr/train_report_model`` of a run, most often the same: its confidence filter and
            generation count.

    Raises:
        FileNotFoundError: the run has no such record; names it and the remedy.
        DatasetError: a record is not what its rule writes.
        ConfigError: a recorded setting is not one of this version.
    """
    of_detector, of_report = run_folder(detector), run_folder(report_model)
    data = _settings_in(of_detector / CONVERSION)
    prediction = _settings_in(of_detector / PREDICTION)
    kept = _read_record(of_report / FILTER)
    shards = sorted((of_report / GENERATION).glob("*.run.json"))
    generation = _settings_in(shards[0] if shards else of_report / GENERATION / "1-of-1.run.json")
    try:
        return ReadingSettings(
            max_side_px=data["conversion"]["max_side_px"],
            views=tuple(data["reports"]["views"]),
            prediction=complete(prediction, "cxr.detector.prediction"),
            thresholds={name: float(kept["thresholds"]["by_class"][name]) for name in CATEGORY_IDS},
            max_boxes=kept["settings"]["max_boxes"],
            generation=complete(generation, "cxr.report.generation"),
        )
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{of_report}: a run record lacks {error}; it is of another version. {_REMEDY}") from error


def settings_of_files(configfiles: Sequence[Path], report_model: Path) -> ReadingSettings:
    """Read the settings from configuration files, laid over the shipped ``config.yaml`` as Snakemake does.

    Args:
        configfiles: YAML files, later ones over earlier ones.
        report_model: folder of the report model; with ``cxr.annotation.thresholds: calibrated`` the thresholds are its run's.

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: a setting is unknown or out of range.
    """
    overlay: Settings = {}
    for path in configfiles:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected a configuration as for Snakemake's --configfile.")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}: not a YAML document ({error}).") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path}: got a {type(content).__name__}; expected sections such as 'data' and 'report'.")
        overlay = merge(overlay, content)
    settings = complete(overlay)
    annotation = settings["annotation"]
    calibrated = run_folder(report_model) / CALIBRATED if annotation["thresholds"] == "calibrated" else None
    return ReadingSettings(
        max_side_px=settings["data"]["conversion"]["max_side_px"],
        views=tuple(settings["data"]["reports"]["views"]),
        prediction=settings["detector"]["prediction"],
        thresholds=choose_thresholds(annotation, calibrated).by_class(),
        max_boxes=annotation["max_boxes"],
        generation=settings["report"]["generation"],
    )


def run_folder(model: Path) -> Path:
    """Return the working directory of the run that a folder ``results/cxr/<rule>`` belongs to."""
    return model.absolute().parent.parent


def detector_of_reports(report_model: Path) -> str | None:
    """Return the SHA-256 of the detector whose boxes the report model was trained on; None where the run does not say."""
    path = run_folder(report_model) / PREDICTION
    record = read_json(path) if path.is_file() else {}
    detector = record.get("detector", {}) if isinstance(record, dict) else {}
    return detector.get("sha256") if isinstance(detector, dict) else None


def _settings_in(record: Path) -> Any:
    return _read_record(record)["settings"]


def _read_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; it tells the settings of the run that the models come from. {_REMEDY}")
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise DatasetError(f"{path}: not a run record (no 'settings'). {_REMEDY}")
    return record
