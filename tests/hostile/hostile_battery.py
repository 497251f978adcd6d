"""All cases of the battery, a run of all of them, and the table of what became of each."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import cases_ct_tables
import cases_documents
import cases_images
import cases_models
import cases_tables
import cases_volumes
from hostile_case import MEMORY_BOUND_MIB, READ, REFUSED, SECONDS, SET_ASIDE, Result, run_case
from hostile_readers import READERS

CASES = [
    *cases_images.cases(),
    *cases_volumes.cases(),
    *cases_tables.cases(),
    *cases_ct_tables.cases(),
    *cases_documents.cases(),
    *cases_models.cases(),
]


def run_all() -> list[Result]:
    """Run every case.

    Raises:
        BatteryError: a reader did what no reader may do.
    """
    with tempfile.TemporaryDirectory() as name:
        return [run_case(case, READERS[case.reader], Path(name) / str(number) / "case") for number, case in enumerate(CASES)]


def table_rows(results: Sequence[Result]) -> list[str]:
    """One row of a Markdown table for each result: reader, input, outcome, message."""
    return [
        f"| {result.case.reader} | {_cell(result.case.name)} | {result.outcome.kind} | {_cell(result.outcome.message)} |"
        for result in results
    ]


def _cell(text: str) -> str:
    """Escape what Markdown would take for a column, a tag or a picture."""
    for plain, escaped in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("|", "&#124;"),
        ("[", "\\["),
        ("`", "'"),
        ("*", "\\*"),
    ):
        text = text.replace(plain, escaped)
    return text


def section(results: Sequence[Result]) -> str:
    """Return the section of docs/reference/robustness.md."""
    kinds = {kind: sum(result.outcome.kind == kind for result in results) for kind in (REFUSED, SET_ASIDE, READ)}
    peak = max(results, key=lambda result: result.peak_mib)
    return "\n".join(
        [
            f"{len(results)} inputs to {len(READERS)} readers, made by hand or by seeded damage to good files:",
            f"{kinds[REFUSED]} refused, {kinds[SET_ASIDE]} set aside and counted, {kinds[READ]} read with nothing lost.",
            "",
            "- *refused*: an error of this package that names the file and, where there are records, the record.",
            "- *set aside*: left out, counted, listed with the reason (quarantine, unreadable reports, image conversion).",
            "- *read*: a formula or a script is text and stays text; a changed byte may leave a file as good as it was.",
            "",
            f"Bounds that the test enforces on each: {MEMORY_BOUND_MIB} MiB of memory above what was there, {SECONDS} s,",
            "no file outside the output folder, inputs unchanged.",
            f"The most memory was {peak.peak_mib} MiB ({peak.case.reader}: {_cell(peak.case.name)}).",
            "",
            "| reader | input | outcome | message (start) |",
            "|---|---|---|---|",
            *table_rows(results),
        ]
    )
