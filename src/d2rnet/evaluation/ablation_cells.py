"""The cells of an ablation, folders ``<arm>/seed_<n>``: whether they can be compared, and what their scores rest on."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import Entry
from d2rnet.runs.provenance import code_version

REPORTS = "reports.jsonl"
REPORTS_RECORD = "reports.run.json"
HISTORY = "metrics.jsonl"
SEED = "seed_"  # and its number: the name of a cell's folder
Reports = Mapping[Path, Mapping[str, Mapping[str, Any]]]


def in_order(cells: Iterable[Path], arms: Sequence[str]) -> list[Path]:
    """Return the cells in the order of the arms, then of the seeds.

    Raises:
        ConfigError: a folder of another name, or of no arm.
    """
    return sorted(cells, key=lambda folder: (_place(folder, arms), int(folder.name.removeprefix(SEED))))


def _place(folder: Path, arms: Sequence[str]) -> int:
    name = folder.parent.name
    if name not in arms or not folder.name.removeprefix(SEED).isdecimal():
        raise ConfigError(f"{folder}: expected a folder <arm>/seed_<n>, with an arm of the design ({', '.join(arms)}).")
    return arms.index(name)


def check_reference(cells: Iterable[Path], reference: str) -> None:
    """Refuse cells that hold none of the arm which the others are compared with.

    Raises:
        ConfigError: there is none.
    """
    if reference not in {folder.parent.name for folder in cells}:
        raise ConfigError(f"no cell of the arm '{reference}', which the others are compared with. Give its cells too.")


def read_cells(cells: Iterable[Path]) -> dict[Path, dict[str, dict[str, Any]]]:
    """Return cell -> id -> line of its reports.

    Raises:
        FileNotFoundError: a file is not there.
        DatasetError: not JSON lines.
    """
    return {folder: {line["id"]: line for line in read_jsonl(folder / REPORTS)} for folder in cells}


def same_entries(reports: Reports, splits: Mapping[str, Sequence[Entry]], annotation: Path) -> tuple[list[str], str]:
    """Return the ids that every cell holds, with the same references, sorted, and their split.

    Args:
        reports: of :func:`read_cells`.
        splits: of the annotation.
        annotation: its path.

    Raises:
        DatasetError: cells differ in entries or references, or are not of a whole split.
    """
    first = next(iter(reports))
    ids = sorted(reports[first])
    for folder, found in reports.items():
        if sorted(found) != ids:
            raise DatasetError(
                f"{folder / REPORTS}: its {len(found)} entries are not the {len(ids)} of {first / REPORTS}. "
                "Write the reports of both again."
            )
        other = [name for name in ids if found[name]["reference"] != reports[first][name]["reference"]]
        if other:
            raise DatasetError(
                f"{folder / REPORTS}: {len(other)} of {len(ids)} references are not those of "
                f"{first / REPORTS}, such as {other[0]}. Write the reports of both again under one text protocol."
            )
    for split, entries in splits.items():
        if ids and {entry["id"] for entry in entries} == set(ids):
            return ids, split
    raise DatasetError(
        f"{first / REPORTS}: its {len(ids)} entries are not those of a split of {annotation}. Give the file that the "
        "reports were written for."
    )


def train_seconds(folder: Path) -> float:
    """Return the seconds that the training of a model folder took, validation left out."""
    return float(sum(line["train_seconds"] for line in read_jsonl(folder / HISTORY)))


def facts_of(cells: Sequence[Path]) -> dict[str, Any]:
    """Return what the scores rest on: steps of every cell, and the machines and commits that made them.

    Raises:
        DatasetError: cells trained for different numbers of steps.
    """
    steps = {folder: max(line["step"] for line in read_jsonl(folder / HISTORY)) for folder in cells}
    if len(set(steps.values())) > 1:
        least = min(steps, key=steps.__getitem__)
        most = max(steps, key=steps.__getitem__)
        raise DatasetError(
            f"{least} trained for {steps[least]} steps, {most} for {steps[most]}; expected equal steps of every cell. "
            "Train those of other settings again."
        )
    trained, written = ([read_json(folder / name) for folder in cells] for name in ("run.json", REPORTS_RECORD))
    machines = {
        ", ".join(hardware["gpus"]) if record["device"].startswith("cuda") else hardware["processor"]
        for record in trained
        for hardware in [record["hardware"]]
    }
    commits = {"trained": trained, "written": written, "scored": [{"code": code_version()}]}
    return {
        "steps": next(iter(steps.values())),
        "machine": " and ".join(sorted(machines)),
        "commit": ", ".join(f"{what} at {_commits(records)}" for what, records in commits.items()),
    }


def _commits(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the commits of run records; one whose tracked files had been changed says so."""
    codes = (record["code"] for record in records)
    return " and ".join(sorted({f"{code['commit']}{' with changes' if code['dirty'] else ''}" for code in codes}))
