"""Which code worked on a run that was interrupted: one part per change of commit or versions, from which progress on.

A run may be resumed by another commit or other packages than those that began it. Its work folder keeps a line for each: work
that a kill threw away counts for nothing, so a part begins where its checkpoint was.

Reads and writes: ``code.json`` in a work folder.
"""

import logging
from pathlib import Path
from typing import Any

from d2rnet.files.documents import read_json, write_json
from d2rnet.runs.provenance import code_version, versions

log = logging.getLogger(__name__)
CODE_NAME = "code.json"
PARTS_KEY = "code_parts"  # in run.json


def note_code(folder: Path, done: int, unit: str) -> None:
    """Note that this process's code goes on from here, and say so where other code did the work until now.

    Args:
        folder: work folder of the run.
        done: how far the checkpoint is that it goes on from; 0 at the beginning.
        unit: what ``done`` counts, such as "iteration".
    """
    parts = [part for part in code_parts(folder) if part["from"] < done]
    now = {"from": done, "unit": unit, "code": code_version(), "versions": versions()}
    if done and not parts:
        log.warning("%s %d and before: done by code that left no note", unit, done)
        parts = [{"from": 0, "unit": unit, "code": None, "versions": {}}]
    if parts and _differs(parts[-1], now):
        log.warning("resuming with other code: %s; until %s %d: %s", code_words(now), unit, done, code_words(parts[-1], now))
    if not parts or _differs(parts[-1], now):
        parts.append(now)
    write_json(folder / CODE_NAME, parts)


def code_parts(folder: Path) -> list[dict[str, Any]]:
    """Return the parts noted in a work folder, in order: ``from``, ``unit``, ``code`` and ``versions`` as in run.json."""
    path = folder / CODE_NAME
    return list(read_json(path)) if path.is_file() else []


def code_words(part: dict[str, Any], other: dict[str, Any] | None = None) -> str:
    """Name version and commit of a part for people, and the packages whose versions are not those of another part."""
    code = part["code"]
    if code is None:
        return "unknown code"
    changed = ", with changes that are in no commit" if code["dirty"] else ""
    packages = [
        f"{name} {version}"
        for name, version in part["versions"].items()
        if other is not None and other["versions"].get(name) != version
    ]
    return ", ".join([f"d2rnet {code['d2rnet']}, commit {code['commit'] or 'unknown'}{changed}", *packages])


def _differs(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return any(one[key] != other[key] for key in ("code", "versions"))
