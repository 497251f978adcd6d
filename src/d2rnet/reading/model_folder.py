"""Folders of models that readings need: those of a run, apart, or both in one folder as 'd2rnet export hub' writes it."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Parts:
    """The two models of a modality.

    Attributes:
        first: name in a folder of both; command that makes it; option of 'd2rnet read'.
        report: of the report model, likewise.
        load: function of the package that loads both.
        image: what they read.
    """

    first: tuple[str, str, str]
    report: tuple[str, str, str]
    load: str
    image: str


RADIOGRAPHS = Parts(
    ("detector", "train-detector", "detector"),
    ("report_model", "train-report-model", "report-model"),
    "load_models",
    "radiographs",
)
CT = Parts(
    ("structures", "train-structures", "structures"),
    ("report_model", "train-ct-report-model", "ct-report-model"),
    "load_ct_models",
    "CTs",
)


def find_parts(first: str | Path, report: str | Path | None, parts: Parts, *, needs_first: bool = True) -> tuple[Path, Path]:
    """Return the folders of both models.

    Args:
        first: folder of the first model, or, without ``report``, of both.
        report: folder of the report model.
        parts: what belongs together.
        needs_first: the first model is used; its folder need not exist otherwise.

    Raises:
        FileNotFoundError: a folder is missing; the message says what makes it.
    """
    if report is not None:
        if needs_first:
            _check(Path(first), parts.first)
        _check(Path(report), parts.report)
        return Path(first), Path(report)
    both = Path(first)
    found = [both / name for name, _, _ in (parts.first, parts.report)]
    missing = [folder.name for folder in found[not needs_first :] if not folder.is_dir()]
    if missing:
        other = next((one for one in (RADIOGRAPHS, CT) if one is not parts and (both / one.first[0]).is_dir()), None)
        remedy = f"It reads {other.image}: d2rnet.{other.load}" if other else "Name the folders of both models"
        raise FileNotFoundError(
            f"{both}: no folder {' and '.join(missing)} in it; expected what 'd2rnet export hub' writes. {remedy}."
        )
    return found[0], found[1]


def _check(folder: Path, part: tuple[str, str, str]) -> None:
    _, command, option = part
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; expected one of 'd2rnet {command}'. Work in the directory of a finished run, or name "
            f"the folder with --{option}."
        )
