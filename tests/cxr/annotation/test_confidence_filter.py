"""One threshold a class; unknown names are refused with the closest known one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2rnet.cxr.annotation.confidence_filter import ConfidenceFilter, confidence_filter, read_thresholds
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, write_json
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES


def test_global_threshold_fills_every_class_and_a_class_threshold_overrides_it() -> None:
    table = ConfidenceFilter.of_classes({"Cardiomegaly": 0.8, "Rib fracture": 0.0}, others=0.5).least_scores
    assert table.shape == (23,)
    assert table[CATEGORY_IDS["Cardiomegaly"]] == 0.8
    assert table[CATEGORY_IDS["Rib fracture"]] == 0.0
    assert np.count_nonzero(table == 0.5) == 21


def test_every_unknown_class_is_refused_before_any_rule_runs_with_the_closest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        AnnotationSettings.read({"class_score_thresholds": {"cardiomegaly": 0.8, "Pleural efusion": 0.1, "Edema": 0.2}})
    message = str(caught.value)
    assert "2 problem(s)" in message
    assert "annotation.class_score_thresholds.cardiomegaly" in message and "did you mean 'Cardiomegaly'?" in message
    assert "did you mean 'Pleural effusion'?" in message


@pytest.mark.parametrize("name", CATEGORY_NAMES)
def test_each_of_our_class_names_may_have_a_threshold(name: str) -> None:
    assert AnnotationSettings.read({"class_score_thresholds": {name: 0.3}}).class_score_thresholds == {name: 0.3}


def thresholds_file(folder: Path, *, split: str = "val", **by_class: float) -> Path:
    """thresholds.json with 0.5 for all classes but the named ones (spaces as underscores), of the detector "abc"."""
    classes = {name: {"threshold": by_class.get(name.replace(" ", "_"), 0.5)} for name in CATEGORY_NAMES}
    content = {"split": split, "classes": classes, "detector": {"file": "m.pth", "sha256": "abc"}}
    write_json(folder / "thresholds.json", content)
    return folder / "thresholds.json"


def test_calibrated_thresholds_replace_the_fixed_ones_and_own_ones_lie_over_both(tmp_path: Path) -> None:
    own = {"Cardiomegaly": 0.9}
    fixed = confidence_filter(AnnotationSettings.read({"score_threshold": 0.2, "class_score_thresholds": own}), None)
    assert (fixed.source, fixed.detector_sha256) == ("fixed", None)
    assert (fixed.by_class()["Edema"], fixed.by_class()["Cardiomegaly"]) == (0.2, 0.9)
    settings = AnnotationSettings.read({"score_threshold": 0.2, "class_score_thresholds": own, "thresholds": "calibrated"})
    calibrated = confidence_filter(settings, thresholds_file(tmp_path, Edema=0.35, Pleural_effusion=0.0))
    assert (calibrated.source, calibrated.detector_sha256) == ("calibrated", "abc")
    by_class = calibrated.by_class()
    assert (by_class["Edema"], by_class["Pleural effusion"], by_class["ILD"]) == (0.35, 0.0, 0.5)
    assert by_class["Cardiomegaly"] == 0.9
    assert list(by_class) == list(CATEGORY_NAMES)


@pytest.mark.parametrize("source", ["fixed", "calibrated", "reports"])
def test_settings_and_file_must_agree(tmp_path: Path, source: str) -> None:
    given = thresholds_file(tmp_path) if source == "fixed" else None
    with pytest.raises(ConfigError, match=rf"annotation\.thresholds is '{source}', but (no file|the file .*) was given"):
        confidence_filter(AnnotationSettings.read({"thresholds": source}), given)


def test_thresholds_of_the_other_command_are_refused(tmp_path: Path) -> None:
    of_reports = thresholds_file(tmp_path, split="train", Edema=0.25)
    settings = AnnotationSettings.read({"thresholds": "reports"})
    assert confidence_filter(settings, of_reports).by_class()["Edema"] == 0.25
    assert confidence_filter(settings, of_reports).source == "reports"
    with pytest.raises(DatasetError, match=r"chosen on the split 'train'; expected 'val', since .* is 'calibrated'"):
        confidence_filter(AnnotationSettings.read({"thresholds": "calibrated"}), of_reports)


@pytest.mark.parametrize("value", [1.2, None, "0.5", True])
def test_a_threshold_that_is_no_score_is_named(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DatasetError, match=r"thresholds\.json: Edema: .*; expected thresholds in \[0, 1\]"):
        read_thresholds(thresholds_file(tmp_path, Edema=value), "calibrated")


def test_a_class_or_the_file_is_missing(tmp_path: Path) -> None:
    write_json(tmp_path / "thresholds.json", {"classes": {}})
    with pytest.raises(DatasetError, match="lacks 'Aortic enlargement'; expected 'split', 'detector' and all 22 'classes'"):
        read_thresholds(tmp_path / "thresholds.json", "calibrated")
    with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
        read_thresholds(tmp_path / "none.json", "calibrated")


def test_build_annotation_uses_and_records_them(inputs: Any, tmp_path: Path) -> None:
    """The 0.6 box of Nodule/Mass passes at 0.55, the 0.9 box of Cardiomegaly does not at 0.95."""
    given = thresholds_file(tmp_path, **{"Nodule/Mass": 0.55, "Cardiomegaly": 0.95})
    _, counts = inputs.build(thresholds="calibrated", thresholds_file=given)
    assert counts["boxes"]["kept_by_class"] == {"Nodule/Mass": 1}
    assert counts["thresholds"] == "calibrated"
    run = read_json(inputs.folder / "out" / "run.json")
    assert run["thresholds"]["source"] == "calibrated"
    assert run["thresholds"]["by_class"]["Cardiomegaly"] == 0.95
    assert run["inputs"]["thresholds"]["file"] == str(given)
