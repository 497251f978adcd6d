"""clean: what a run leaves behind and may lose, listed or deleted.

Four kinds of leftovers. ``stale``: work folders of other settings or inputs than those of the stage's finished result, and
features of CTs that another stage 1 has seen than those of now. ``finished``: the work folder that made it. ``caches``:
decoded radiographs and lesion crops of stages with a finished result; cells of an ablation share those of the report model,
which stay while one of them may want to resume. ``shards``: parts of predictions, features and reports
that have been joined since. Everything else stays: a folder that is not exactly what this package makes, one that a process
holds, and all of a stage without a finished result, which may want to resume.

Reads: ``work/``, ``results/<wing>/*/run.json``, ``results/ct/extract_ct_features/features.json``. Deletes nothing unless told
to. docs/how-to/clean-up.md says when each may go.
"""

import json as json_text
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from d2rnet.errors import ConfigError, D2RNetError
from d2rnet.exit_codes import ExitCode
from d2rnet.files.atomic import leftovers
from d2rnet.files.documents import read_json
from d2rnet.files.hashes import fingerprint
from d2rnet.runs.earlier_work import IDENTITY, is_part_of
from d2rnet.runs.workdir import WORK_KEY, hold_lock

log = logging.getLogger(__name__)
KINDS = ("stale", "finished", "caches", "shards")
DELETED = "deleted"
HELD = "held"
WOULD_GO = "would go"
NOT_ASKED = "not asked"
WORK = "work"
RESULTS = "results"
LOCK = ".lock"
RECORD = "run.json"
CACHE_FILES = frozenset({"pixels.u8", "crops.u8", "done.u8", LOCK})
SHARED = Path("cxr", "train_report_model", "images")  # caches of all trainings of report models, below work
CELLS = "cxr/ablation*/*/seed_*"  # those of ablations, below work and results
# rule -> what its shards were joined to
JOINED = {
    "predict_boxes": "predictions.json",
    "generate_reports": "test.jsonl",
    "extract_ct_features": "features.json",
    "generate_ct_reports": "test.jsonl",
}
FEATURES = Path("ct", "extract_ct_features")  # below results: features.json, and a folder features/<key>/ an extraction
FEATURE_SUFFIX = ".safetensors"
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_SHARD = re.compile(r"[0-9]+-of-[0-9]+(\.run)?\.jsonl?")


@dataclass(frozen=True)
class Leftover:
    """A folder that may be deleted.

    Attributes:
        kind: one of KINDS.
        path: the folder.
        size_bytes: of all files in it.
        why: the reason, for people.
    """

    kind: str
    path: Path
    size_bytes: int
    why: str


@dataclass(frozen=True)
class Kept:
    """A folder that looks like a leftover and stays."""

    path: Path
    why: str


def clean(*, run: Path, kinds: str, delete: bool, json: bool = False) -> ExitCode:
    """List what a run may lose, or delete it.

    Args:
        run: folder of the run, which holds ``work/`` and ``results/``.
        kinds: names out of KINDS with commas between them; "" for none.
        delete: delete instead of listing.
        json: print one JSON document instead of lines.

    Returns:
        PARTLY if a folder could not be deleted because a process holds it.

    Raises:
        ConfigError: an unknown kind.
        FileNotFoundError: there is no run in that folder.
    """
    chosen = [name for name in kinds.split(",") if name]
    unknown = [name for name in chosen if name not in KINDS]
    if unknown:
        raise ConfigError(f"--kinds: unknown kind '{unknown[0]}'; expected some of {', '.join(KINDS)}.")
    if not (run / WORK).is_dir() and not (run / RESULTS).is_dir():
        raise FileNotFoundError(f"{run}: neither '{WORK}' nor '{RESULTS}' in it; expected the folder of a run (--run).")
    found = find_leftovers(run)
    kept = [item for item in found if isinstance(item, Kept)]
    states = [(item, _deal_with(item, chosen, delete=delete)) for item in found if isinstance(item, Leftover)]
    freed = sum(item.size_bytes for item, state in states if state in (DELETED, WOULD_GO))
    if json:
        document = {
            "run": str(run),
            "deleted": delete,
            "bytes": freed,
            "leftovers": [asdict(item) | {"path": str(item.path), "state": state} for item, state in states],
            "kept": [{"path": str(item.path), "why": item.why} for item in kept],
        }
        print(json_text.dumps(document, indent=2, ensure_ascii=False))
    else:
        for stays in kept:
            print(f"kept      {stays.path}: {stays.why}")
        for item, state in states:
            print(f"{state:<9} {item.path} ({item.kind}, {_readable(item.size_bytes)}): {item.why}")
        print(f"{_readable(freed)} {'freed' if delete else 'could be freed; nothing was deleted, give --delete to do it'}")
    return ExitCode.PARTLY if any(state == HELD for _, state in states) else ExitCode.DONE


def _deal_with(item: Leftover, chosen: Sequence[str], *, delete: bool) -> str:
    """Delete a leftover if that is wanted; say what has become of it."""
    if item.kind not in chosen:
        return NOT_ASKED
    if not delete:
        return WOULD_GO
    return DELETED if _delete(item) else HELD


def find_leftovers(run: Path) -> list[Leftover | Kept]:
    """Find everything in a run's folder that may go, and what looks like it and stays.

    Args:
        run: folder of the run.

    Returns:
        Sorted by path.
    """
    found: list[Leftover | Kept] = []
    for folder in _fingerprint_folders(run / WORK):
        found.append(_judge(folder, run))
    for rule, name in JOINED.items():
        found += filter(None, (_joined_shards(folder, name) for folder in (run / RESULTS).glob(f"*/{rule}")))
    found += _other_features(run / RESULTS / FEATURES)
    return sorted(found, key=lambda item: item.path)


def _fingerprint_folders(root: Path) -> Iterator[Path]:
    """Yield the folders below ``work`` that are named by 12 hex digits; links are not followed."""
    for parent, folders, _ in os.walk(root):
        named = [name for name in folders if _FINGERPRINT.fullmatch(name)]
        yield from (Path(parent, name) for name in named)
        folders[:] = [name for name in folders if name not in named]


def _judge(folder: Path, run: Path) -> Leftover | Kept:
    """Say what a folder is: a work folder, a cache, or nothing of ours."""
    if folder.is_symlink():
        return Kept(folder, "a link; what it points to is not known here")
    passing = {path.name for path in leftovers(folder)}
    names = {path.name for path in folder.iterdir() if not path.name.startswith(f"{LOCK}.")} - passing
    stage = folder.parent.relative_to(run / WORK)
    if IDENTITY in names:
        return _judge_work(folder, run / RESULTS / stage)
    if names & CACHE_FILES - {LOCK} and names <= CACHE_FILES:
        if why := _still_wanted(stage, run):
            return Kept(folder, why)
        return Leftover("caches", folder, _size(folder), "made again from the radiographs when needed")
    return Kept(folder, "not a work folder of this package")


def _still_wanted(stage: Path, run: Path) -> str | None:
    """Say why the caches in a folder ``images`` stay; None where they may go."""
    sharing = {stage.parent}
    if stage == SHARED:
        sharing |= {cell.relative_to(root) for root in (run / WORK, run / RESULTS) for cell in root.glob(CELLS)}
    finished = {place for place in sharing if _finished(run / RESULTS / place) is not None}
    for place in sorted(sharing - finished):
        if any((run / WORK / place).glob(f"*/{IDENTITY}")):
            return f"no finished result in {run / RESULTS / place}; the run may want to resume, with this cache"
    return None if finished else "a cache of a stage without a finished result, which may want it"


def _judge_work(folder: Path, results: Path) -> Leftover | Kept:
    try:
        identity = read_json(folder / IDENTITY)
    except D2RNetError as error:
        return Kept(folder, f"its {IDENTITY} cannot be read ({error})")
    if not isinstance(identity, dict) or fingerprint(identity) != folder.name or set(identity) != {"settings", "inputs"}:
        return Kept(folder, f"its {IDENTITY} does not belong to its name")
    record = _finished(results)
    if record is None:
        return Kept(folder, f"no finished result in {results}; the run may want to resume")
    if record.get(WORK_KEY) == folder.name or _made_from(identity, record):
        return Leftover("finished", folder, _size(folder), f"made {results}, which is complete")
    return Leftover("stale", folder, _size(folder), f"of other settings or inputs than {results}")


def _finished(results: Path) -> dict[str, Any] | None:
    """Return the run record of a stage, which it writes last; None where there is none that can be read."""
    try:
        record = read_json(results / RECORD)
    except (D2RNetError, OSError):
        return None
    return record if isinstance(record, dict) and {"settings", "inputs"} <= record.keys() else None


def _made_from(identity: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether a result was made from a work folder: the same input files, and settings that hold the folder's."""
    inputs = {name: entry.get("sha256") for name, entry in record["inputs"].items() if isinstance(entry, dict)}
    return inputs == identity["inputs"] and is_part_of(identity["settings"], record["settings"])


def _joined_shards(results: Path, joined: str) -> Leftover | Kept | None:
    """Judge the shards of a rule; None where there are none."""
    folder = results / "shards"
    if not folder.is_dir():
        return None
    names = [path.name for path in folder.iterdir()]
    if folder.is_symlink() or not all(_SHARD.fullmatch(name) for name in names):
        return Kept(folder, "not only shards of this package")
    whole = results / joined
    newest = max(((folder / name).stat().st_mtime_ns for name in names), default=0)
    if not whole.is_file() or whole.stat().st_mtime_ns < newest:
        return Kept(folder, f"not joined to {whole} yet")
    return Leftover("shards", folder, _size(folder), f"joined to {whole}")


def _other_features(results: Path) -> Iterator[Leftover | Kept]:
    """Judge the features of CTs, a folder a key; nothing is said of those that features.json is about."""
    folders = sorted(path for path in (results / "features").glob("*") if path.is_dir())
    joined = results / JOINED[results.name]
    try:
        key = read_json(joined)["facts"]["key"]
        since = joined.stat().st_mtime_ns
    except (D2RNetError, OSError, KeyError, TypeError):
        yield from (Kept(folder, f"no finished result in {results}; the run may want to resume") for folder in folders)
        return
    for folder in folders:
        if folder.name == key:
            continue
        files = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
        ours = all(path.suffix == FEATURE_SUFFIX and not path.is_symlink() for path in files)
        if folder.is_symlink() or not _FINGERPRINT.fullmatch(folder.name) or not ours:
            yield Kept(folder, "not only features of this package")
        elif max((path.stat().st_mtime_ns for path in (folder, *files)), default=0) > since:
            yield Kept(folder, f"newer than {joined}; an extraction may be at work, or want to resume")
        else:
            yield Leftover("stale", folder, _size(folder), f"of another stage 1, grid or settings than {joined}")


def _delete(item: Leftover) -> bool:
    """Delete a folder unless a process holds it."""
    if item.kind == "shards":
        shutil.rmtree(item.path)
        return True
    try:
        with hold_lock(item.path / LOCK, what=item.path, doing="working in this folder"):
            for path in sorted(item.path.iterdir(), key=lambda path: path.name.startswith(LOCK)):  # the lock goes last
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            item.path.rmdir()
    except D2RNetError as error:
        log.warning("%s", error)
        return False
    return True


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _readable(size_bytes: int) -> str:
    """Format a size with a unit, such as "1.2 GB"."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
