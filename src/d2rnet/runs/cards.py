"""Model and data cards: one page beside trained weights or converted data, written from the run record in the same folder.

Facts come from ``run.json`` and the weight files; the sentences, and what only people can fill in, stand in a template beside
the code that makes the results. After Mitchell et al., Model Cards for Model Reporting, FAT* 2019, and Gebru et al.,
Datasheets for Datasets, CACM 2021.

Reads: run.json, hashes of weight files. Writes: model_card.md or data_card.md.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json
from d2rnet.files.hashes import sha256_file
from d2rnet.runs.code_parts import PARTS_KEY, code_words

_SYNTHETIC = (
    "**Synthetic**: drawn by code, no patient is in it. What is learnt from it shows that the machinery works, and says "
    "nothing about medicine."
)
COHORT_FILE = "cohort.json"  # of a demo cohort, beside the folders of its sources: what is there is synthetic
ORIGIN_KEY = "origin"  # of a converter's run record: a line on the source and its terms
REWARDED_KEY = "rewarded"  # of a training's run record: which score it was trained for


@dataclass(frozen=True)
class Card:
    """What is the same for every card of a command.

    Attributes:
        name: of the card.
        template: Markdown page with ``$facts``, ``$data`` and ``$settings`` for what the run record says.
        versions: packages whose versions are listed.
        weights: files whose hashes are listed, where they exist.
        sections: settings to be listed; empty: all that the run record holds.
    """

    name: str
    template: Path
    versions: tuple[str, ...]
    weights: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


def write_card(
    card: Card, folder: Path, *, output: Path | None = None, scores: Sequence[str] = (), sources: Sequence[str] = ()
) -> None:
    """Write the card of the results in a folder, from the ``run.json`` that lies there.

    Args:
        card: of the command that made the results.
        folder: its results.
        output: file to write; None: the card's name in ``folder``.
        scores: Markdown lines to stand under "Scores" in place of those of the template.
        sources: Markdown lines on the training data, before its counts; for a converter's results its run record has one.
    """
    record = read_json(folder / "run.json")
    counts = {name: value for name, value in record["counts"].items() if name != "splits"}
    origin = sources or ([record[ORIGIN_KEY]] if ORIGIN_KEY in record else [])
    data = [*origin, "", *_table(("count", "value"), _flat(counts)), *_by_split(record["counts"].get("splits", {}))]
    settings = {name: record["settings"][name] for name in card.sections or record["settings"]}
    facts = [*_facts(record, card.versions), *_weights(folder, card.weights)]
    text = card.template.read_text(encoding="utf-8")
    if scores:
        told = "\n".join(["## Scores", "", *scores, "", ""]).replace("$", "$$")
        text = re.sub(r"^## Scores\n.*?(?=^## )", lambda _: told, text, flags=re.MULTILINE | re.DOTALL)
    filled = Template(text).substitute(
        facts="\n".join(_table(("fact", "value"), facts)),
        data="\n".join(data).strip(),
        settings="\n".join(_table(("setting", "value"), _flat(settings))),
    )
    write_text(output or folder / card.name, re.sub(r"\n{3,}", "\n\n", filled))


def _facts(record: Mapping[str, Any], packages: Sequence[str]) -> Iterator[tuple[str, Any]]:
    code = record["code"]
    machine = record["hardware"]
    changed = ", with changes that are in no commit" if code["dirty"] else ""
    yield "finished (UTC)", record["finished_utc"]
    yield "code", f"d2rnet {code['d2rnet']}, commit {code['commit'] or 'unknown'}{changed}"
    parts = record.get(PARTS_KEY, [])
    for part, before in zip(parts[1:], parts, strict=False):
        yield f"code until {part['unit']} {part['from']}", code_words(before, part)
    gpus = f", GPUs: {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    yield "hardware", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB{gpus}"
    for key in ("device", "processes", "iterations", REWARDED_KEY):
        if key in record:
            yield key, record[key]
    if "selected" in record:
        chosen = (f"{name} {value:.4g}" for name, value in record["selected"].items() if name.startswith("val"))
        yield (
            "weights are those after",
            f"epoch {record['selected']['epoch']}, the best on validation data: {', '.join(chosen)}",
        )
    yield from ((f"seed: {name}", seed) for name, seed in record["seeds"].items())
    for name, file in record["inputs"].items():
        what = "SHA-256 of the sizes" if name == "images" else "SHA-256"
        yield f"input: {name}", f"{Path(file['file']).name}, {what} {file['sha256'][:16]}"
    for name in packages:
        if name in record["versions"]:
            yield f"version: {name}", record["versions"][name]


def _weights(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in names:
        if (folder / name).is_file():
            yield f"weights: {name}", f"SHA-256 {sha256_file(folder / name)}"


def _by_split(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Lay out counts by split: a row per count, a column per split."""
    if not splits:
        return []
    columns = [dict(_flat(counts)) for counts in splits.values()]
    rows = [f"| {name} | {' | '.join(str(column.get(name, '')) for column in columns)} |" for name in columns[0]]
    return ["", f"| count | {' | '.join(splits)} |", "|---" * (len(columns) + 1) + "|", *rows]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted name and value of everything in nested dictionaries."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _table(header: Sequence[str], rows: Iterable[tuple[str, Any]]) -> list[str]:
    cells = [(name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)) for name, value in rows]
    lines = [f"| {' | '.join(header)} |", "|---|---|"]
    return lines + [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in cells]


def command_of(folder: Path, commands: Iterable[str]) -> str:
    """Return which of these commands wrote a model folder.

    Raises:
        FileNotFoundError: the folder has no run record.
        DatasetError: it is of another command.
    """
    path = folder / "run.json"
    command = read_json(path).get("command")
    expected = list(commands)
    if command not in expected:
        raise DatasetError(f"{path}: got a record of {command!r}; expected one of {', '.join(expected)}.")
    return str(command)


def source_lines(counts: Sequence[Path], sections: Mapping[str, str]) -> Iterator[str]:
    """Yield a line on each source of training data whose converter's run record lies beside its counts.

    Args:
        counts: counts.json files.
        sections: converter -> section of the configuration that names its source; records of other commands are passed over.
    """
    for path in counts:
        record = read_json(path.with_name("run.json")) if path.with_name("run.json").is_file() else {}
        section = sections.get(record.get("command", ""))
        if section is not None and ORIGIN_KEY in record:
            yield f"- `{section}`: {record[ORIGIN_KEY]}"


def is_of_demo_cohort(path: str | Path) -> bool:
    """Say whether a file or folder lies in a demo cohort, at any depth: what is there is drawn."""
    return any((folder / COHORT_FILE).is_file() for folder in Path(path).absolute().parents)


def origin_line(terms: str, name: str, root: str) -> str:
    """Name a source of data and its terms, or say that it is synthetic: for the cards of data and models."""
    if is_of_demo_cohort(root):
        return f"The demo cohort, in the layout of `{name}`. {_SYNTHETIC}"
    return f"`{name}`. Terms: {terms}."
