"""References and generated reports as RadEval takes them: two lists of texts.

Reads: test.jsonl of generate-reports or generate-ct-reports; annotation.json or ct_annotation.json. Writes, into the output
folder, the files that RadEval's page on file formats reads, with an id more:

* ``reports.json``: ``{"ids": [...], "references": [...], "hypotheses": [...]}``;
* ``reports.csv``: columns ``id, reference, hypothesis``. An empty cell, or the word "None", is a text: pandas needs
  ``keep_default_na=False``.

Its files of one report a line are not written: whoever reads them drops empty reports, and the others move up.

Source: RadEval (Delbrouck et al., EMNLP 2025, https://github.com/jbdel/RadEval), docs/file_formats.md.
"""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2rnet.errors import DatasetError
from d2rnet.evaluation.report_pairs import read_reports
from d2rnet.files.atomic import atomic_path
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems
from d2rnet.reading.result import readable
from d2rnet.report.annotation_file import read_splits

log = logging.getLogger(__name__)
COLUMNS = ("id", "reference", "hypothesis")


def export_radeval(*, generated: Path, annotation: Path | None, output: Path) -> None:
    """Write ``reports.json`` and ``reports.csv``.

    Args:
        generated: JSON lines file with ``id``, ``reference``, ``hypothesis``.
        annotation: what the reports were written for: references as they stand there and hypotheses with capitals and
            punctuation, for scores that read text; None: both as tokens of the text protocol, for n-gram scores that are those
            of evaluate-reports.
        output: folder to write to.

    Raises:
        DatasetError: no report, one that lacks a key or is there twice, or one that ``annotation`` does not know.
    """
    problems = Problems()
    written = {} if annotation is None else _written_reports(annotation)
    reports = read_reports(generated, problems, known=None if annotation is None else written)
    problems.raise_if_any()
    if not reports:
        raise DatasetError(
            f"{generated}: holds no report; expected one JSON object per line. Give test.jsonl of a finished run."
        )
    rows = [(name, written.get(name, line["reference"]), _hypothesis(line, written)) for name, line in reports.items()]
    ids, references, hypotheses = (list(column) for column in zip(*rows, strict=True))
    write_json(output / "reports.json", {"ids": ids, "references": references, "hypotheses": hypotheses})
    with atomic_path(output / "reports.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([COLUMNS, *rows])
    log.info("export radeval: %d reports, %d of them empty: %s", len(rows), hypotheses.count(""), output)


def _hypothesis(line: Mapping[str, Any], written: Mapping[str, str]) -> str:
    """Return a generated report, as people write where its reference is as they do."""
    if not written:
        return line["hypothesis"]
    sentences = [sentence["text"] for sentence in line.get("sentences", [])] or [line["hypothesis"]]
    return " ".join(map(readable, sentences))


def _written_reports(annotation: Path) -> dict[str, str]:
    """Return id -> report of an annotation of any modality, white space made single: a CSV cell is one line."""
    splits = read_splits(annotation, _complaint, command="build-annotation", remedy="Give annotation.json of the same run.")
    return {entry["id"]: " ".join(entry["report"].split()) for entries in splits.values() for entry in entries}


def _complaint(entry: Any, split: str) -> str | None:
    if not isinstance(entry, dict):
        return f"got a {type(entry).__name__}; expected an object"
    bad = [key for key in ("id", "report") if not isinstance(entry.get(key), str)]
    return f"{' and '.join(bad)}: expected a text of the entry of split '{split}'" if bad else None
