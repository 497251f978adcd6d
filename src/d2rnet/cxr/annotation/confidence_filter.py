"""The confidence filter: the least score that a pseudo box of each class needs to stand in annotation.json.

Fixed by the settings, taken from the calibration on the validation split (calibrate-thresholds), or from the training reports
(fit-thresholds). What a box needs in the detector's training is another rule: :mod:`d2rnet.cxr.detector.pseudo_label_rule`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES

# cxr.annotation.thresholds -> the sub-command whose thresholds.json it takes, and the split that they are chosen on.
CHOSEN_BY = {"calibrated": ("calibrate-thresholds", "val"), "reports": ("fit-thresholds", "train")}


@dataclass(frozen=True)
class ConfidenceFilter:
    """Which pseudo boxes are kept.

    Attributes:
        source: ``fixed``, ``calibrated`` or ``reports``.
        least_scores: (23,) float64 by category id; element 0 belongs to no class.
        detector_sha256: weights that they were chosen for, None for fixed ones and where it is not known.
    """

    source: str
    least_scores: NDArray[np.float64]
    detector_sha256: str | None = None

    @classmethod
    def of_classes(
        cls, by_class: Mapping[str, float], *, others: float = 0.0, source: str = "fixed", detector_sha256: str | None = None
    ) -> "ConfidenceFilter":
        """Make one of class name -> least score in [0, 1]; ``others`` is that of the classes left out."""
        least_scores = np.full(len(CATEGORY_IDS) + 1, float(others))
        for name, score in by_class.items():
            least_scores[CATEGORY_IDS[name]] = score
        return cls(source, least_scores, detector_sha256)

    def passes(self, category_ids: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Say which of N boxes have at least the score that their class needs."""
        return scores >= self.least_scores[category_ids]

    def by_class(self) -> dict[str, float]:
        """Class name -> least score."""
        return {name: float(self.least_scores[index]) for name, index in CATEGORY_IDS.items()}


def confidence_filter(settings: AnnotationSettings, chosen: Path | None) -> ConfidenceFilter:
    """Return the filter that the settings ask for; ``class_score_thresholds`` lies over any kind.

    Args:
        settings: the section ``cxr.annotation``.
        chosen: thresholds.json of calibrate-thresholds or fit-thresholds, None for a fixed filter.

    Raises:
        ConfigError: the file is missing though the settings ask for it, or the reverse.
        DatasetError: the file is not what the sub-command writes that the settings ask for.
    """
    own = settings.class_score_thresholds
    source = settings.thresholds
    if (source == "fixed") != (chosen is None):
        given = "no file" if chosen is None else f"the file {chosen}"
        raise ConfigError(
            f"cxr.annotation.thresholds is '{source}', but {given} was given with --thresholds; expected thresholds.json of "
            "calibrate-thresholds with 'calibrated', that of fit-thresholds with 'reports', no file with 'fixed'."
        )
    if chosen is None:
        return ConfidenceFilter.of_classes(own, others=settings.score_threshold)
    by_class, detector = read_thresholds(chosen, source)
    return ConfidenceFilter.of_classes({**by_class, **own}, source=source, detector_sha256=detector)


def read_thresholds(path: Path, source: str) -> tuple[dict[str, float], str | None]:
    """Read thresholds.json.

    Args:
        path: the file.
        source: ``calibrated`` for that of calibrate-thresholds, ``reports`` for that of fit-thresholds.

    Returns:
        Class name -> threshold for all 22 classes, and the SHA-256 of the detector's weights, None if they are not known.

    Raises:
        FileNotFoundError: no such file.
        DatasetError: not such a file, or a class is missing or has no threshold in [0, 1].
    """
    command, split = CHOSEN_BY[source]
    remedy = f"Run 'd2rnet {command}' again."
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected thresholds.json. {remedy}")
    content = read_json(path)
    try:
        thresholds = {name: content["classes"][name]["threshold"] for name in CATEGORY_NAMES}
        detector = content["detector"]["sha256"]
        found = content["split"]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: lacks {error}; expected 'split', 'detector' and all 22 'classes'. {remedy}") from error
    if found != split:
        raise DatasetError(
            f"{path}: chosen on the split {found!r}; expected '{split}', since cxr.annotation.thresholds is '{source}'. "
            f"Give the file of 'd2rnet {command}'."
        )
    wrong = [f"{name}: {value!r}" for name, value in thresholds.items() if not _is_score(value)]
    if wrong:
        raise DatasetError(f"{path}: {'; '.join(wrong)}; expected thresholds in [0, 1]. {remedy}")
    return thresholds, detector


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
