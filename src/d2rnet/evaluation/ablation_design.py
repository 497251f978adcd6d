"""Arms of an ablation: which settings and boxes each one has. Read by the workflow and by the table.

Reads: workflow/ablation.yaml, or the file at ``ablation.design``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d2rnet.errors import ConfigError
from d2rnet.settings import Settings, complete, merge

DESIGN_KEYS = {"reference", "report", "arms"}
ARM_KEYS = {"label", "boxes", "report"}
BOXES = ("pseudo", "oracle")
TRAINING_SECTIONS = ("text", "model", "training")


def read_design(path: Path) -> dict[str, Any]:
    """Read the arms of an ablation.

    Returns:
        ``reference`` (the arm that others are compared with), ``report`` (settings of every arm) and ``arms``: name ->
        ``label``, ``boxes`` (pseudo or oracle) and ``report`` (settings of this arm).

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: a key is missing or unknown, or the reference is no arm.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the YAML file of an ablation's arms.")
    design = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(design, dict) or set(design) != DESIGN_KEYS or design["reference"] not in design["arms"]:
        expected = ", ".join(sorted(DESIGN_KEYS))
        raise ConfigError(f"{path}: expected the keys {expected}, and 'reference' to be one of the arms.")
    for name, arm in design["arms"].items():
        if not isinstance(arm, dict) or set(arm) != ARM_KEYS or arm["boxes"] not in BOXES:
            raise ConfigError(f"{path}: arm {name}: expected the keys label, boxes (one of {', '.join(BOXES)}) and report.")
    return design


def cell_settings(report: Settings, design: Mapping[str, Any], *, arm: str, seed: int) -> Settings:
    """Return the settings that one arm trains with.

    Args:
        report: section ``report`` of the configuration.
        design: of :func:`read_design`.
        arm: name of an arm.
        seed: of weights, order and dropout.

    Returns:
        Section ``report`` without ``generation``, so that another way of decoding trains nothing again.

    Raises:
        ConfigError: the arm's settings are not valid.
    """
    for overlay in (design["report"], design["arms"][arm]["report"], {"training": {"seed": seed}}):
        report = merge(report, overlay)
    report = complete(report, "report")
    return {key: report[key] for key in TRAINING_SECTIONS}
