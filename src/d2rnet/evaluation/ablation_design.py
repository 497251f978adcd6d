"""An ablation's settings and the file of its arms: what all modalities share. What an arm changes is its modality's matter."""

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

from d2rnet.errors import ConfigError
from d2rnet.settings import Section, each_once, read_overlay, setting

ArmName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # names a folder, too
UNSAFE = re.compile(r"[^A-Za-z0-9_-]")  # in a folder's name that Snakemake and a shell read
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(each_once)]


class AblationSettings(Section):
    """What each part of a model gives."""

    design: str | None = setting(None)
    """YAML file of the arms and what differs in each; null: the shipped one in the folder workflow."""
    seeds: Seeds = setting((1, 2, 3), min_length=1, json_schema_extra={"uniqueItems": True})
    """Seeds of weights, order and dropout; every arm is trained with each of them."""


class AblationDesign(Section):
    """The arms of an ablation.

    Attributes:
        reference: the arm that others are compared with.
        arms: name -> arm.
    """

    reference: str
    arms: dict[ArmName, Any]


def design_folder(rule: str, design: str | None) -> str:
    """Return the name of an ablation's folder in ``work``, ``results`` and ``logs``: each design has its own.

    Two designs may call different things by one name, and one's table would take the place of the other's.

    Args:
        rule: of the ablation, which names the folder of the shipped design.
        design: setting ``design``; the file's name is added to the rule's.
    """
    if design is None or Path(design) == Path("workflow", f"{rule}.yaml"):
        return rule
    stem = Path(design).stem.removeprefix(f"{rule}_")
    return f"{rule}_{UNSAFE.sub('_', stem)}"


AnyDesign = TypeVar("AnyDesign", bound=AblationDesign)


def read_arms(path: Path, design_class: type[AnyDesign], *, baselines: tuple[str, ...]) -> AnyDesign:
    """Read the file of an ablation's arms.

    Args:
        path: YAML file.
        design_class: what it holds.
        baselines: names of the other rows of the table.

    Raises:
        FileNotFoundError: there is no such file.
        ConfigError: not YAML, a key missing, unknown or there twice, a name that cannot be a folder's or is a baseline's, or
            the reference is no arm.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the YAML file of an ablation's arms.")
    design = design_class.read(read_overlay(path), source=f"{path}: no design of an ablation")
    if design.reference not in design.arms:
        raise ConfigError(f"{path}: reference: '{design.reference}' is none of the arms ({', '.join(design.arms)}).")
    for name in design.arms:
        if name in baselines:
            raise ConfigError(f"{path}: arm '{name}': the table has a baseline of this name; choose another one.")
    return design
