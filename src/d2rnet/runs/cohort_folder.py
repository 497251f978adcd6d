"""The folder of a demo cohort: built beside its place and renamed at the end, so that half a cohort is never seen.

Writes: ``cohort.json`` (last), and a marker that tells a demo cohort from anybody else's folder.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2rnet.errors import D2RNetError
from d2rnet.files.atomic import flush_file_system
from d2rnet.files.documents import write_json
from d2rnet.runs.cards import COHORT_FILE
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.workdir import hold_lock
from d2rnet.settings import Section

MARKER = ".demo_cohort"  # tells a demo cohort from anybody else's folder, also where cohort.json was removed


def make_cohort_folder(
    output: Path, fill: Callable[[Path], dict[str, Any]], *, command: str, seed: int, settings: Section
) -> dict[str, Any]:
    """Make a demo cohort; an older one in its place is replaced, anything else is refused.

    Args:
        output: folder to make.
        fill: writes the cohort into a folder, whose files need not be atomic or flushed, and returns its counts.
        command: sub-command, for the run record.
        seed: of the cohort.
        settings: of the cohort.

    Returns:
        The counts.

    Raises:
        D2RNetError: ``output`` holds something that is not a demo cohort.
    """
    _check_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(output.parent / f".{output.name}.lock", what=output, doing="making this cohort"):
        folder = output.parent / f".{output.name}.part"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        try:
            folder.mkdir()
            (folder / MARKER).touch()
            counts = fill(folder)
            write_run_record(folder / "run.json", command=command, settings=settings, counts=counts, seeds={"cohort": seed})
            write_json(folder / COHORT_FILE, {"seed": seed, "settings": settings.to_json(), "counts": counts})
            flush_file_system(folder)  # to flush each file by itself took a third of the time
            _swap_in(folder, output)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return counts


def _check_replaceable(output: Path) -> None:
    """Refuse to replace a folder that holds files and is not a demo cohort."""
    if output.is_dir() and not (output / MARKER).is_file():
        stranger = next((path for path in output.rglob("*") if not path.is_dir()), None)
        if stranger is None:
            return
        raise D2RNetError(
            f"{output}: got a folder with {stranger.relative_to(output)} and without {MARKER}, so it is no demo "
            "cohort and is not replaced; expected a new or empty folder. Choose another --output, or move the folder away."
        )
    if output.exists() and not output.is_dir():
        raise D2RNetError(f"{output}: got a file; expected a folder to make. Choose another --output.")


def _swap_in(folder: Path, output: Path) -> None:
    """Put a finished folder in place of an older one; both moves are renames."""
    old = output.parent / f".{output.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if output.exists():
        output.rename(old)
    folder.rename(output)
    shutil.rmtree(old, ignore_errors=True)
