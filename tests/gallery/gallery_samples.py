"""Studies for the gallery's tests: short reports, drawn radiographs, boxes; one of each kind of error."""

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.gallery.studies import Answer, Study

HEIGHT, WIDTH = 200, 160
HOSTILE = "</script><script>window.hacked = 1</script> <img src=x onerror=\"window.hacked = 1\"> & 'quote' \u2028 \x00"
# name of the case -> reference, generated report, its error
CASES = {
    "agrees": ("there is a left pleural effusion . the heart is enlarged .", "there is a left pleural effusion .", "missed"),
    "invented": ("the lungs are clear . no pneumothorax .", "there is a right pneumothorax .", "invented"),
    "wrong side": (
        "there is a left pleural effusion .",
        "a small right pleural effusion is seen . lungs are clear .",
        "wrong_side",
    ),
    "clean": ("the heart is enlarged .", "the heart is enlarged .", ""),
}
LINKED = {"agrees": [1], "invented": [], "wrong side": [1], "clean": [0]}  # boxes of the first sentence


def entry(name: str, *, boxes: bool = True, split: str = "test") -> dict[str, Any]:
    """An entry of annotation.json with a heart and an effusion box, the second less sure."""
    return {
        "id": name,
        "study_id": f"s{name}",
        "subject_id": "p",
        "image_path": [f"{name}.png"],
        "split": split,
        "report": "x",
        "height": HEIGHT,
        "width": WIDTH,
        "boxes": [[20.0, 80.0, 60.0, 50.0], [100.0, 120.0, 40.0, 60.0]] if boxes else [],
        "scores": [0.9, 0.6] if boxes else [],
        "labels": ["Cardiomegaly", "Pleural effusion"] if boxes else [],
    }


def generated_lines(count: int) -> list[dict[str, Any]]:
    """Lines of test.jsonl, the cases in turn; the first sentence attends to the second box, an effusion."""
    lines = []
    for row in range(count):
        name = list(CASES)[row % len(CASES)]
        reference, hypothesis, _ = CASES[name]
        first, *rest = [f"{part.strip()} ." for part in hypothesis.split(" .") if part.strip()]
        sentences = [{"text": first, "boxes": [1], "attended": 1, "linked": LINKED[name]}]
        sentences += [{"text": text, "boxes": [], "attended": 1, "linked": []} for text in rest]
        lines.append(
            {
                "id": f"i{row}",
                "reference": reference,
                "hypothesis": hypothesis,
                "log_prob": -float(row),
                "sentences": sentences,
            }
        )
    return lines


def studies(count: int, *, text: str = "") -> list[Study]:
    """Studies with all that a page shows; ``text`` is put before each generated report."""
    made = []
    for row, line in enumerate(generated_lines(count)):
        answer = Answer(
            f"{text} {line['hypothesis']}" if text else line["hypothesis"],
            line["sentences"],
            {"rouge_l": round(row / count, 3), "bleu_4": 0.5},
        )
        truth = [(0, ("Pleural effusion", [95.0, 110.0, 150.0, 190.0]))]
        made.append(Study(line["id"], f"s{line['id']}", line["reference"], (answer,), entry(line["id"]), truth))
    return made


def draw_images(folder: Path, count: int) -> None:
    """Radiographs of the studies: noise on a gradient."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(count):
        noise = np.random.default_rng(row).integers(0, 60, (HEIGHT, WIDTH))
        cv2.imwrite(str(folder / f"i{row}.png"), (noise + np.linspace(40, 190, WIDTH)).astype(np.uint8))


def meta(**changes: Any) -> dict[str, Any]:
    """Head of a page."""
    return {
        "title": "Gallery",
        "mode": "run",
        "systems": ["Generated"],
        "sort": "order",
        "missing": 0,
        "shown_score": 0.0,
        "protocol": {"text": "r2gen", "section": "findings", "split": "test", "n": 4},
        "corpus": [["rouge_l", "ROUGE-L", [[0.5, [0.4, 0.6]]]]],
        **changes,
    }


def read_page(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What index.html holds: its data, and its studies."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="gallery-data">(.*?)</script>', text, re.DOTALL)[1]
    return json.loads(data), [
        json.loads(study) for study in re.findall(r'<script type="application/json" class="study">(.*?)</script>', text)
    ]


def write_run(folder: Path, count: int) -> dict[str, Any]:
    """Write the files that render_gallery reads; return its arguments but output and settings."""
    lines = generated_lines(count)
    draw_images(folder / "images", count)
    write_jsonl(folder / "test.jsonl", lines)
    write_json(folder / "annotation.json", {"train": [], "val": [], "test": [entry(line["id"]) for line in lines]})
    scored = [
        {key: line[key] for key in ("id", "reference", "hypothesis")} | {"rouge_l": 1 - row / count, "meteor": None}
        for row, line in enumerate(lines)
    ]
    write_jsonl(folder / "scores" / "per_report.jsonl", scored)
    table = [{"metric": "rouge_l", "value": 0.5, "interval": [0.4, 0.6]}]
    write_json(folder / "scores" / "metrics.json", {"protocol": meta()["protocol"], "table": table})
    return {
        "generated": folder / "test.jsonl",
        "annotation": folder / "annotation.json",
        "scores": folder / "scores",
        "image_root": folder / "images",
        "workers": 1,
    }
