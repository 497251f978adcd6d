"""Arms of an ablation: which settings and boxes each one has. Read by the workflow and by the table.

Reads: workflow/ablation.yaml, or the file at ``cxr.ablation.design``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2rnet.errors import ConfigError
from d2rnet.files.parsing import ParseError, parse_yaml
from d2rnet.settings import Settings, complete, default_settings, merge

DESIGN_KEYS = {"reference", "report", "arms"}
ARM_KEYS = {"label", "boxes", "report"}
BOXES = ("pseudo", "oracle")
BASELINES = ("most_frequent_report", "nearest_training_report")  # rows of the table that are no arms
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # names a folder
TRAINING_SECTIONS = ("text", "model", "training")


def read_design(path: Path) -> dict[str, Any]:
    """Read the arms of an ablation.

    Returns:
        ``reference`` (the arm that others are compared with), ``report`` (settings of every arm) and ``arms``: name ->
        ``label``, ``boxes`` (pseudo or oracle) and ``report`` (settings of this arm).

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: not YAML, a key missing, unknown or there twice, a name that cannot be a folder's, a setting of an arm
            that is not valid, or the reference is no arm.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the YAML file of an ablation's arms.")
    try:
        design = parse_yaml(path.read_text(encoding="utf-8"))
    except (ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}; expected the YAML file of an ablation's arms.") from error
    if (
        not isinstance(design, dict)
        or set(design) != DESIGN_KEYS
        or not all(isinstance(design[key], dict) for key in ("report", "arms"))
        or str(design["reference"]) not in design["arms"]
    ):
        expected = ", ".join(sorted(DESIGN_KEYS))
        raise ConfigError(
            f"{path}: expected the keys {expected}; 'report' and 'arms' with keys of their own, and 'reference' to be one "
            "of the arms."
        )
    for name, arm in design["arms"].items():
        _check_arm(name, arm, path)
        cell_settings(default_settings("report"), design, arm=name, seed=0)  # now, and not hours later when its cell starts
    return design


def _check_arm(name: Any, arm: Any, path: Path) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in BASELINES:
        raise ConfigError(
            f"{path}: arm {name!r}: expected a name of letters, digits, '_' and '-', other than {' and '.join(BASELINES)}."
        )
    known = isinstance(arm, dict) and set(arm) == ARM_KEYS and arm["boxes"] in BOXES
    if not known or not isinstance(arm["report"], dict):
        raise ConfigError(f"{path}: arm {name}: expected the keys label, boxes (one of {', '.join(BOXES)}) and report.")


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
    laid = report.to_json()
    for overlay in (design["report"], design["arms"][arm]["report"], {"training": {"seed": seed}}):
        laid = merge(laid, overlay)
    whole = complete(laid, "report", source=f"arm {arm} of the ablation").to_json()
    return {key: whole[key] for key in TRAINING_SECTIONS}
