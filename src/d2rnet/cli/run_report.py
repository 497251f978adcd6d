"""``d2rnet doctor --run``: the state of a run in words or as JSON, and the commands to type next."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from d2rnet.cli.run_failures import failure_lines
from d2rnet.cli.run_state import Process, RunState, read_run_state
from d2rnet.exit_codes import ExitCode

SHOWN_FILES = 12


def report_run(folder: Path, *, as_json: bool = False) -> ExitCode:
    """Print what is complete, what resumes from where and what to type.

    Raises:
        D2RNetError: no workflow ever ran in ``folder``.
    """
    state = read_run_state(folder)
    if as_json:
        print(json.dumps(report_document(state), indent=2, ensure_ascii=False))
    else:
        for line in report_lines(state):
            print(line)
    return ExitCode.DONE


def report_document(state: RunState) -> dict[str, Any]:
    """Return the report for programs; paths are relative to ``folder`` (docs/reference/formats.md)."""

    def inside(path: Path) -> str:
        return str(path.relative_to(state.folder))

    return {
        "folder": str(state.folder),
        "complete": bool(state.invocation and state.invocation.is_complete),
        "unfinished": state.incomplete,
        "checkpoints": [
            {"path": inside(work.path), "progress": work.progress, "finished": work.is_finished} for work in state.work_folders
        ],
        "converted": {inside(manifest): count for manifest, count in state.converted.items()},
        "locks": [{"path": inside(lock.file), "stale": lock.is_stale, **asdict(lock.holder)} for lock in state.locks],
        "snakemake_lock": state.is_locked,
        "processes": None if state.processes is None else [asdict(process) for process in state.processes],
        "leftovers": [inside(path) for path in state.leftovers],
        "next": list(_advice(state)),
    }


def report_lines(state: RunState) -> Iterator[str]:
    """Yield the lines of the report."""
    yield f"run in {state.folder}"
    if state.invocation is not None:
        end = "complete" if state.invocation.is_complete else "not complete"
        yield f"last start: {state.invocation.command}; {end} (which results there are: the same with --summary)"
    busy = "are being made" if _snakemakes(state) else "are of jobs that did not finish; Snakemake makes them again"
    if state.incomplete:
        yield f"unfinished: {len(state.incomplete)} output(s) {busy}"
        yield from _some(state.incomplete)
    yield from _resume_lines(state)
    yield from _process_lines(state)
    size = sum(path.stat().st_size for path in state.leftovers if path.exists())
    if state.leftovers:
        yield f"leftovers: {len(state.leftovers)} temporary file(s), {size / 1e6:.1f} MB; no reader looks at them"
        yield from _some([str(path.relative_to(state.folder)) for path in state.leftovers])
    if state.invocation is not None and not state.invocation.is_complete:
        yield from failure_lines(state.folder, state.invocation.log)
    yield "next:"
    yield from (f"  {line}" for line in _advice(state))


def _resume_lines(state: RunState) -> Iterator[str]:
    used = {lock.file.parent: lock.holder for lock in state.locks if not lock.is_stale}
    for work in state.work_folders:
        end = "finished" if work.is_finished else "resumes here if settings and inputs are the same"
        yield f"checkpoint {work.path.relative_to(state.folder)}: {work.progress}; {end}"
        if work.path in used:
            yield f"           in use by {used[work.path]}"
    for manifest, count in state.converted.items():
        what = "volume(s) need not be made" if manifest.is_dir() else "image(s) need not be converted"
        yield f"conversion {manifest.relative_to(state.folder)}: {count} {what} again"
    for lock in state.locks:
        whose = "left by a killed process, harmless" if lock.is_stale else "held"
        yield f"lock       {lock.file.relative_to(state.folder)}: {whose}, {lock.holder}"


def _process_lines(state: RunState) -> Iterator[str]:
    if state.processes is None:
        yield "processes: cannot be listed on this system; look for 'snakemake' and 'd2rnet' yourself"
    for process in state.processes or ():
        yield f"process    {process.pid}: {process.command}"
    if state.is_locked:
        yield "Snakemake's lock is set" + ("" if _snakemakes(state) else "; no Snakemake of this machine works here")


def _some(names: list[str]) -> Iterator[str]:
    yield from (f"  {name}" for name in names[:SHOWN_FILES])
    if len(names) > SHOWN_FILES:
        yield f"  and {len(names) - SHOWN_FILES} more"


def _snakemakes(state: RunState) -> list[Process]:
    return [process for process in state.processes or () if process.command == "snakemake"]


def _advice(state: RunState) -> Iterator[str]:
    """Yield what to do, in order: lines for a shell, what is to be read by people behind "#"."""
    if running := _snakemakes(state):
        yield f"# Snakemake (process {running[0].pid}) is at work here; let it go on"
        return
    jobs = [process for process in state.processes or () if process.command != "snakemake"]
    for job in jobs:
        yield f"# wait for {job.command} (process {job.pid}), which goes on without Snakemake, or end it:"
        yield f"kill {job.pid}"
    held = [lock.holder for lock in state.locks if not lock.is_stale]
    for holder in sorted({holder for holder in held if holder.pid not in {job.pid for job in jobs}}, key=str):
        gone = "; if that machine was switched off, its lock went with it" if holder.is_elsewhere() else ""
        yield f"# wait for {holder}, or end it there{gone}"
    last = state.invocation
    if last is None:
        yield "# give the command that you gave before"
        return
    if last.is_complete and not (state.incomplete or state.is_locked):
        yield "# nothing: what was asked for last is complete"
        return
    here = f"cd {shlex.quote(last.folder)} && " if last.folder else ""
    if state.is_locked:
        yield f"{here}{last.command} --unlock"
    yield f"{here}{last.command}"
