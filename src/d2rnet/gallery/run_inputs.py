"""Where the radiographs and boxes of a run lie, from its run records, so that nobody has to name them again.

A record names files as they were called in the directory that its command ran in. That directory is looked for among the
folders above the reports, then the present one; a file counts only if its SHA-256 is the recorded one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json
from d2rnet.files.hashes import sha256_file
from d2rnet.report.annotation_file import Entry, load_annotation

OF_ANNOTATION = ("generate_reports/shards/*.run.json", "train_report_model/run.json", "render_gallery/run.json")
IMAGE_ROOT = "--image-root"


@dataclass(frozen=True)
class RunInputs:
    """What the pictures of a run are made of.

    Attributes:
        annotation: annotation.json that its reports were written for.
        image_root: folder that ``image_path`` is relative to.
        true_boxes: truth.jsonl or COCO json; None where the run knows of none.
    """

    annotation: Path
    image_root: Path
    true_boxes: Path | None


def find_inputs(reports: Path, *, annotation: Path | None = None, image_root: Path | None = None) -> RunInputs:
    """Find what a run's reports were written for.

    Args:
        reports: JSON lines file of a run.
        annotation: where it is known; else as the record beside the reports says.
        image_root: where it is known; else as a command of the same run was told.

    Raises:
        DatasetError: something cannot be found; the message says what, in one line.
    """
    record = record_of(reports)
    if annotation is None:
        if "annotation" not in record.get("inputs", {}):
            raise DatasetError(f"{reports}: no run record beside it names an annotation.json")
        annotation = _recorded_file(record["inputs"]["annotation"], reports)
    digest = sha256_file(annotation)
    results = dict.fromkeys((reports.parent.parent, annotation.parent.parent))  # a cell of an ablation lies deeper
    beside = [path for folder in results for place in OF_ANNOTATION for path in sorted(folder.glob(place))]
    related = [record, *map(read_json, beside)]
    related = [one for one in related if one.get("inputs", {}).get("annotation", {}).get("sha256") == digest]
    root = image_root or _find_image_root(related, reports)
    truth = next((one["inputs"]["true_boxes"] for one in related if "true_boxes" in one["inputs"]), None)
    return RunInputs(annotation, root, _recorded_file(truth, reports) if truth else None)


def entries_by_id(annotation: Path) -> dict[str, Entry]:
    """Read an annotation.json.

    Returns:
        id -> entry, of all splits.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: it is not what its format says.
    """
    return {entry["id"]: entry for entries in load_annotation(annotation).values() for entry in entries}


def record_of(reports: Path) -> dict[str, Any]:
    """Return the record that was written with a file of reports: of its own name, or that of its folder; else nothing."""
    for place in (reports.with_suffix(".run.json"), reports.with_name("run.json")):
        record = read_json(place) if place.is_file() else None
        if isinstance(record, dict):
            return record
    return {}


def _recorded_file(recorded: dict[str, str], reports: Path) -> Path:
    found = [folder / recorded["file"] for folder in _folders_above(reports)]
    for path in found:
        if path.is_file() and sha256_file(path) == recorded["sha256"]:
            return path
    changed = "has changed since" if any(path.is_file() for path in found) else "is not there any more"
    raise DatasetError(f"{reports}: {recorded['file']}, which its run was made of, {changed}")


def _find_image_root(records: list[dict[str, Any]], reports: Path) -> Path:
    named = {root for record in records for root in _option(record.get("argv", []), IMAGE_ROOT)}
    for name in sorted(named):
        for folder in _folders_above(reports):
            if (folder / name).is_dir():
                return folder / name
    tried = (
        f"no folder {', '.join(sorted(named))}" if named else f"no record of a run on this annotation.json has {IMAGE_ROOT}"
    )
    raise DatasetError(f"{reports}: the radiographs of its run were not found ({tried})")


def _option(arguments: list[str], name: str) -> Iterator[str]:
    """Yield the values that a command line gives to an option, after it or behind "="."""
    for place, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            yield argument.removeprefix(f"{name}=")
        elif argument == name and place + 1 < len(arguments):
            yield arguments[place + 1]


def _folders_above(reports: Path) -> list[Path]:
    """Folders that a run may have been made in, written as short as the path of the reports is."""
    here = Path.cwd()
    above = [folder.relative_to(here) if folder.is_relative_to(here) else folder for folder in reports.absolute().parents]
    return [*above, Path()]
