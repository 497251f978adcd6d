"""Agreement of the structures that sentences go to with the regions of RadGenome-ChestCT, where a user has its table.

Reads ``{train,validation}_region_report.csv`` (columns ``Volumename, Anatomy, Sentence``; an anatomy may be a path,
"lung/right lung"; an empty one is the whole scan) and, if given, the reports of CT-RATE. RadGenome's regions were drawn
up by a language model and only in part checked by people: a difference is no proof of a fault on either side.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.ct.sources.volume_names import study_key
from d2rnet.ct.structures.rates import rate_lines, rates
from d2rnet.ct.structures.settings import StructureSettings
from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import StructureTable, load_table
from d2rnet.errors import DatasetError
from d2rnet.files.atomic import write_text
from d2rnet.files.csv_tables import read_table_csv
from d2rnet.files.documents import write_json
from d2rnet.runs.provenance import write_run_record

REGION_COLUMNS = ("Volumename", "Anatomy", "Sentence")
REPORT_COLUMNS = ("VolumeName", "Findings_EN")


def score_ct_regions(*, regions: Sequence[Path], reports: Sequence[Path], output: Path, settings: StructureSettings) -> None:
    """Compare structures with regions, sentence by sentence and report by report; write ``agreement.json``, ``agreement.md``.

    Args:
        regions: region tables of RadGenome-ChestCT.
        reports: report tables of CT-RATE; none: only sentences are compared.
        output: folder for agreement.json, agreement.md and run.json.
        settings: which table of structures; its ``radgenome`` names are the regions that a structure covers.

    Raises:
        FileNotFoundError: a table is missing.
        DatasetError: a column is missing, no region of the tables is known, or no study is in both.
    """
    table = load_table(settings.table)
    rows, counts = _region_rows(regions, table)
    lines = [f"sentences: {len(rows)}; rows left out: {_listed(counts)}", ""]
    result: dict[str, Any] = {"rows": counts, "sentences": _sentence_agreement(rows, table)}
    lines += [*rate_lines(result["sentences"]["per_class"], "structure"), ""]
    if reports:
        result["reports"] = _report_agreement(rows, reports, table)
        lines += [f"reports in both: {result['reports']['reports']}", ""]
        lines += [*rate_lines(result["reports"]["per_class"], "structure mentioned"), ""]
    write_json(output / "agreement.json", result)
    write_text(output / "agreement.md", "\n".join(lines))
    inputs = {f"table_{number}": path for number, path in enumerate([*regions, *reports], start=1)}
    write_run_record(output / "run.json", command="score-ct-regions", settings=settings, inputs=inputs, counts=counts)
    print("\n".join(lines))


def _region_rows(paths: Sequence[Path], table: StructureTable) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return rows with columns study, structure, text; count those of no region of the table, and those without text."""
    structure_of = {region: name for name, entry in table.structures.items() for region in entry.radgenome}
    read = pd.concat([read_table_csv(path, REGION_COLUMNS) for path in paths], ignore_index=True)
    head = read["Anatomy"].str.partition("/")[0].str.strip().str.lower()
    rows = pd.DataFrame(
        {
            "study": [study_key(name)[0] for name in read["Volumename"]],
            "structure": head.map(structure_of),
            "text": read["Sentence"],
        }
    )
    counts = {
        "rows": len(rows),
        "rows_whole_scan": int((head == "").sum()),
        "rows_of_other_regions": int((rows["structure"].isna() & (head != "")).sum()),
        "rows_without_text": int((rows["structure"].notna() & (rows["text"] == "")).sum()),
    }
    rows = rows[rows["structure"].notna() & (rows["text"] != "")].reset_index(drop=True)
    if rows.empty:
        raise DatasetError(
            f"{paths[0]}: none of {counts['rows']} rows is of a region of the table '{table.name}'; its anatomies begin with "
            f"{', '.join(sorted(set(head))[:10])}; expected {', '.join(structure_of) or 'none: the table names no region'}."
        )
    return rows, counts


def _sentence_agreement(rows: pd.DataFrame, table: StructureTable) -> dict[str, Any]:
    """Compare each row's region with the structures that its text is dealt out to, without what stood around it."""
    names = list(table.structures)
    pairs = rows[["study", "text", "structure"]].drop_duplicates()
    grouped = pairs.groupby(["study", "text"], sort=False)["structure"].agg(set)
    truth = np.zeros((len(grouped), len(names)), dtype=bool)
    said = np.zeros_like(truth)
    for row, ((_, text), structures) in enumerate(grouped.items()):  # a sentence that two regions share is one record
        truth[row] = [name in structures for name in names]
        said[row] = _mentioned(str(text), table)
    agreeing = float((truth & said).any(axis=1).mean())
    return {"sentences": len(grouped), "with_a_structure_in_common": agreeing, **rates(truth, said, names)}


def _report_agreement(rows: pd.DataFrame, paths: Sequence[Path], table: StructureTable) -> dict[str, Any]:
    """Compare which structures a report mentions."""
    names = list(table.structures)
    read = pd.concat([read_table_csv(path, REPORT_COLUMNS) for path in paths], ignore_index=True)
    texts: dict[str, str] = {}
    for volume, text in zip(read["VolumeName"], read["Findings_EN"], strict=True):
        texts.setdefault(study_key(volume)[0], text)
    regions = rows.groupby("study")["structure"].agg(set)
    studies = [study for study in regions.index if study in texts]
    if not studies:
        raise DatasetError(
            f"{paths[0]}: none of its {len(texts)} studies is in the region tables, which begin with {regions.index[0]}; "
            "expected the reports of the same studies."
        )
    truth = np.array([[name in regions[study] for name in names] for study in studies])
    said = np.array([_mentioned(texts[study], table) for study in studies])
    return {"reports": len(studies), **rates(truth, said, names)}


def _mentioned(text: str, table: StructureTable) -> list[bool]:
    found = structures_of(text, table).structures
    return [entry["text"] != "" for entry in found.values()]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('rows_')} {count}" for name, count in counts.items() if name != "rows")
