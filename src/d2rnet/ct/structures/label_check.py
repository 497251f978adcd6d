"""The 18 abnormalities read from reports, scored against hand-labelled reports, where a user has them.

Reads tables in the layout of CT-CLIP's ``text_classifier/data/{train,val}.csv``: column ``report_text`` (findings and
impression) and one column of 0 or 1 for each abnormality. Those two tables are public under a
non-commercial licence and are not shipped.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2rnet.ct.structures.rates import Matrix, rate_lines, rates
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import load_table
from d2rnet.files.atomic import write_text
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.problems import Problems
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.runs.provenance import write_run_record

TEXT = "report_text"
_CELLS = {"0": False, "1": True, "0.0": False, "1.0": True}


def score_ct_labels(*, tables: Sequence[Path], output: Path, settings: StructureSettings) -> None:
    """Score the labels read from reports against those of readers; write ``scores.json``, ``scores.md`` and ``errors.jsonl``.

    Args:
        tables: CSV files with columns ``report_text`` and the 18 abnormalities.
        output: folder for scores.json (per table: per label, macro, micro and weighted F1), scores.md, errors.jsonl (row,
            missed and invented labels of each report that differs; no text) and run.json.
        settings: whether doubted findings count.

    Raises:
        FileNotFoundError: a table is missing.
        DatasetError: a column is missing, or a label is neither 0 nor 1.
    """
    problems = Problems()
    structures = load_table(settings.table)
    scores = {}
    lines: list[str] = []
    errors: list[dict[str, object]] = []
    for number, path in enumerate(tables, start=1):
        table = read_table_csv(path, [TEXT, *CT_ABNORMALITIES])
        truth = _label_matrix(table[list(CT_ABNORMALITIES)].to_numpy(), path, problems)
        problems.raise_if_any()
        said = np.zeros_like(truth)
        for row, text in enumerate(table[TEXT]):
            found = structures_of(text, structures, uncertain_counts=settings.uncertain_counts).labels
            said[row] = [name in found for name in CT_ABNORMALITIES]
        score = rates(truth, said, CT_ABNORMALITIES)
        scores[f"{number} {path.name}"] = {"reports": len(table), **score}
        means = ", ".join(f"{kind} F1 {score[f'{kind}_f1'] or 0:.3f}" for kind in ("macro", "micro", "weighted"))
        lines += [f"{path.name}: {len(table)} reports, {means}", "", *rate_lines(score["per_class"], "label"), ""]
        errors += _errors(path, truth, said)
    write_json(output / "scores.json", scores)
    write_text(output / "scores.md", "\n".join(lines))
    write_jsonl(output / "errors.jsonl", errors)
    inputs = {f"table_{number}": path for number, path in enumerate(tables, start=1)}
    write_run_record(output / "run.json", command="score-ct-labels", settings=settings, inputs=inputs)
    print("\n".join(lines))


def _label_matrix(cells: np.ndarray, path: Path, problems: Problems) -> Matrix:
    """Return (N, 18) bool of cells "0" and "1"; note every other."""
    truth = np.zeros(cells.shape, dtype=bool)
    for (row, column), cell in np.ndenumerate(cells):
        if cell in _CELLS:
            truth[row, column] = _CELLS[cell]
            continue
        problems.add(
            "bad_label",
            file=path,
            record=f"row {row + 1}",
            got=f"'{cell}' under {CT_ABNORMALITIES[column]}",
            expected="0 or 1",
            remedy="Mend or remove the row.",
        )
    return truth


def _errors(path: Path, truth: Matrix, said: Matrix) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for row in np.flatnonzero((truth != said).any(axis=1)):
        missed = [name for name, is_so in zip(CT_ABNORMALITIES, truth[row] & ~said[row], strict=True) if is_so]
        invented = [name for name, is_so in zip(CT_ABNORMALITIES, said[row] & ~truth[row], strict=True) if is_so]
        found.append({"table": path.name, "row": int(row) + 1, "missed": missed, "invented": invented})
    return found
