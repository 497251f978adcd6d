"""The confidence filter's thresholds, one a class."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from d2rnet.data.categories import CATEGORY_IDS, suggest_category
from d2rnet.errors import ConfigError


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
        raise ConfigError(f"annotation.class_score_thresholds: {len(unknown)} unknown class name(s)\n  {hints}")
    thresholds = np.full(len(CATEGORY_IDS) + 1, float(score_threshold))
    for name, threshold in class_score_thresholds.items():
        thresholds[CATEGORY_IDS[name]] = threshold
    return thresholds
