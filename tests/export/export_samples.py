"""A run's products as the exports read them: two entries, one of two images, and their reports."""

from pathlib import Path
from typing import Any

from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import write_annotation

WRITTEN = 'FINDINGS: Small left effusion,\n heart 5.5 cm.  "No" pneumothorax.'
REPORTS = [
    {
        "id": "a",
        "reference": "small left effusion , heart 5.5 cm . no pneumothorax .",
        "hypothesis": "small left effusion . no pneumothorax .",
        "sentences": [{"text": "small left effusion .", "boxes": [0]}, {"text": "no pneumothorax .", "boxes": []}],
    },
    {"id": "b", "reference": "none", "hypothesis": "", "sentences": []},
]


def entry(name: str, **changes: Any) -> dict[str, Any]:
    """An entry of annotation.json with one image of 400 x 200 px (height, width) and one box."""
    return {
        "id": name,
        "study_id": f"s{name}",
        "subject_id": f"patient-{name}",
        "split": "test",
        "report": WRITTEN,
        "image_path": [f"p 1/{name}.jpg"],
        "height": 400,
        "width": 200,
        "boxes": [[20.0, 40.0, 100.0, 200.0]],
        "scores": [0.75],
        "labels": ["Pleural effusion"],
        **changes,
    }


TWO_IMAGES = entry(
    "b",
    image_path=["b/1.png", "b/2.png"],
    heights=[400, 100],
    widths=[200, 300],
    boxes=[[20.0, 40.0, 100.0, 200.0], [30.0, 10.0, 33.0, 20.0], [0.0, 0.0, 300.0, 100.0]],
    scores=[0.75, 0.5, 0.25],
    labels=["Pleural effusion", "Other lesion", "Cardiomegaly"],
    box_image=[0, 1, 1],
)


def write_run(folder: Path) -> tuple[Path, Path]:
    """Write annotation.json and test.jsonl; return their paths."""
    annotation = folder / "annotation.json"
    write_annotation(
        annotation, {"train": [entry("c", split="train", boxes=[], scores=[], labels=[])], "test": [entry("a"), TWO_IMAGES]}
    )
    generated = folder / "test.jsonl"
    write_jsonl(generated, REPORTS)
    return annotation, generated
