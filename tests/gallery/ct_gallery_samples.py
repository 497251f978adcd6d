"""A CT run as its commands write it: converted volumes, ct_annotation.json, reports and their scores."""

from pathlib import Path
from typing import Any

import gallery_samples as samples
import numpy as np

from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import load_table
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

SHAPE = (24, 40, 48)
SPACING_MM = (5.0, 3.0, 3.0)
# reference, generated report
CASES = (
    (
        "Trachea is open. A nodule of 8 mm is seen in the right upper lobe (series 2 image 45). Heart size is normal. "
        "There is pleural effusion on the left.",
        "Trachea is open. There is a lung nodule of 6 mm. Emphysematous changes are seen in both lungs. Heart size is normal.",
    ),
    ("Pericardial effusion is observed. No pleural effusion.", "No pericardial or pleural effusion is seen."),
    ("The heart is enlarged.", "The heart is enlarged."),
)


def volume_of(number: int) -> np.ndarray:
    """A dark box with one bright corner: at the head, in front, on the patient's right; (Z, Y, X) uint8."""
    levels = np.full(SHAPE, 20 + 10 * number, np.uint8)
    levels[SHAPE[0] // 2 :, : SHAPE[1] // 2, : SHAPE[2] // 2] = 250
    levels[:, SHAPE[1] // 2, : SHAPE[2] // 2] = 250  # the middle slices meet the corner, too
    return levels


def write_run(folder: Path) -> dict[str, Any]:
    """Write the files that render_ct_gallery reads; return its arguments but output and settings."""
    table = load_table("ten")
    entries, volumes, lines, scored = [], [], [], []
    for number, (reference, hypothesis) in enumerate(CASES):
        name = f"v{number}"
        (folder / "volumes" / "arrays").mkdir(parents=True, exist_ok=True)
        np.save(folder / "volumes" / "arrays" / f"{name}.npy", volume_of(number))
        path = f"arrays/{name}.npy"
        volumes.append(
            {"volume_id": name, "volume_path": path, "spacing_mm": list(SPACING_MM), "window_hu": [-1000, 1000], "bits": 8}
        )
        structured = structures_of(reference, table)
        entries.append(
            {
                "id": name,
                "study_id": f"s{number}",
                "subject_id": f"p{number}",
                "split": "test",
                "volume_path": path,
                "spacing_mm": list(SPACING_MM),
                "shape_zyx": list(SHAPE),
                "report": reference,
                "structures": structured.structures,
                "labels": [int(label in structured.labels) for label in CT_ABNORMALITIES],
                "labels_from": "report",
            }
        )
        lines.append(
            {"id": name, "reference": reference, "hypothesis": hypothesis, "log_prob": -1.0 - number, "sentences": []}
        )
        scored.append({"id": name, "reference": reference, "hypothesis": hypothesis, "rouge_l": 0.5 + number / 10})
    write_jsonl(folder / "volumes" / "volumes.jsonl", volumes)
    write_json(folder / "ct_annotation.json", {"train": [], "val": [], "test": entries})
    write_jsonl(folder / "test.jsonl", lines)
    write_jsonl(folder / "scores" / "per_report.jsonl", scored)
    table_rows = [
        {"metric": "rouge_l", "value": 0.6, "interval": [0.5, 0.7]},
        {"metric": "ct18_vs_report_uncertain_positive_micro_f1", "value": 0.4, "interval": None},
        {"metric": "ct18_vs_report_uncertain_positive_micro_precision", "value": 0.5, "interval": None},
    ]
    write_json(folder / "scores" / "metrics.json", {"protocol": samples.meta()["protocol"], "table": table_rows})
    return {
        "generated": folder / "test.jsonl",
        "annotation": folder / "ct_annotation.json",
        "scores": folder / "scores",
        "volumes": folder / "volumes" / "volumes.jsonl",
        "workers": 1,
    }
