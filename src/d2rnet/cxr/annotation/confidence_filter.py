"""The confidence filter's thresholds, one a class: fixed by the settings, or calibrated on the validation split."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES, suggest_category

_REMEDY = "Run 'd2rnet calibrate-thresholds' again."


@dataclass(frozen=True)
class Thresholds:
    """Least score that a pseudo box needs.

    Attributes:
        source: ``fixed`` or ``calibrated``.
        table: (23,) float64 by category id; element 0 belongs to no class.
        detector_sha256: weights that they were calibrated for, None for fixed ones.
    """

    source: str
    table: NDArray[np.float64]
    detector_sha256: str | None

    def by_class(self) -> dict[str, float]:
        """Class name -> threshold."""
        return {name: float(self.table[index]) for name, index in CATEGORY_IDS.items()}


def choose_thresholds(settings: AnnotationSettings, calibrated: Path | None) -> Thresholds:
    """Return the thresholds that the settings ask for; ``class_score_thresholds`` lies over either kind.

    Args:
        settings: the section ``annotation``.
        calibrated: thresholds.json of calibrate-thresholds, None for fixed thresholds.

    Raises:
        ConfigError: the file is missing though the settings ask for it, or the reverse; a class name is unknown.
        DatasetError: the file is not what calibrate-thresholds writes.
    """
    source, own = settings.thresholds, settings.class_score_thresholds
    if (source == "calibrated") != (calibrated is not None):
        given = "no file" if calibrated is None else f"the file {calibrated}"
        raise ConfigError(
            f"cxr.annotation.thresholds is '{source}', but {given} was given with --thresholds; expected thresholds.json of "
            "calibrate-thresholds with 'calibrated', no file with 'fixed'."
        )
    if calibrated is None:
        return Thresholds(source, threshold_table(settings.score_threshold, own), None)
    by_class, detector = read_calibrated(calibrated)
    return Thresholds(source, threshold_table(0.0, {**by_class, **own}), detector)


def threshold_table(score_threshold: float, class_score_thresholds: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the least score that a pseudo box of each class needs.

    Args:
        score_threshold: threshold of every class that has none of its own, in [0, 1].
        class_score_thresholds: class name -> threshold in [0, 1].

    Returns:
        (23,) thresholds indexed by category id; element 0 belongs to no class.

    Raises:
        ConfigError: a class name is unknown; the message names the closest one and all known ones.
    """
    unknown = [name for name in class_score_thresholds if name not in CATEGORY_IDS]
    if unknown:
        hints = "\n  ".join(f"'{name}': {suggest_category(name)}" for name in unknown)
        raise ConfigError(f"cxr.annotation.class_score_thresholds: {len(unknown)} unknown class name(s)\n  {hints}")
    thresholds = np.full(len(CATEGORY_IDS) + 1, float(score_threshold))
    for name, threshold in class_score_thresholds.items():
        thresholds[CATEGORY_IDS[name]] = threshold
    return thresholds


def read_calibrated(path: Path) -> tuple[dict[str, float], str]:
    """Read thresholds.json of calibrate-thresholds.

    Returns:
        Class name -> threshold for all 22 classes, and the SHA-256 of the detector's weights.

    Raises:
        FileNotFoundError: no such file.
        DatasetError: not such a file, or a class is missing or has no threshold in [0, 1].
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected thresholds.json. {_REMEDY}")
    content = read_json(path)
    try:
        thresholds = {name: content["classes"][name]["threshold"] for name in CATEGORY_NAMES}
        detector = content["detector"]["sha256"]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: lacks {error}; expected 'detector' and all 22 'classes'. {_REMEDY}") from error
    wrong = [f"{name}: {value!r}" for name, value in thresholds.items() if not _is_score(value)]
    if wrong:
        raise DatasetError(f"{path}: {'; '.join(wrong)}; expected thresholds in [0, 1]. {_REMEDY}")
    return thresholds, detector


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
