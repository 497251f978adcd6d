"""A CT run as its commands write it, small enough to be counted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2rnet.ct.report_model.features import FORMAT, INDEX, FeatureFacts, feature_path
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import count_vocabulary
from d2rnet.runs.provenance import write_run_record

PROTOCOL = "faithful"
NODULE = "There is a nodule of 4 mm in the right lung."
EFFUSION = "There is pleural effusion on the left."
DOUBT = "A nodule in the left lung cannot be excluded."
NORMAL = "The heart is of normal size."
FACTS = FeatureFacts("key", ("lung",), (1, 1, 1), 1, 2, "top", 1)


def entry(name: str, report: str, labels: list[str] | None = None, *, split: str = "test", **changes: Any) -> dict[str, Any]:
    """A volume; its study and patient are ``name`` up to the first "/"."""
    study = name.partition("/")[0]
    return {
        "id": name.replace("/", "_"),
        "study_id": study,
        "subject_id": f"p{study}",
        "split": split,
        "volume_path": f"arrays/{name.replace('/', '_')}.npy",
        "spacing_mm": [1.0, 1.0, 1.0],
        "shape_zyx": [8, 8, 8],
        "report": report,
        "structures": {"lung": {"text": "", "abnormal": None, "labels": []}},
        "labels": [int(label in (labels or [])) for label in CT_ABNORMALITIES],
        "labels_from": "table",
        **changes,
    }


def cleaned(text: str) -> str:
    """A report as the model's vocabulary writes it."""
    return clean_report(text, PROTOCOL)


def write_run(
    folder: Path, entries: list[dict[str, Any]], answers: dict[str, str], training: list[dict[str, Any]] | None = None
) -> dict[str, Path]:
    """Write the inputs of evaluate-ct-reports; return them by their options.

    Args:
        folder: to write to.
        entries: of the test split.
        answers: id -> generated report, as written.
        training: of the training split; by default one normal report.
    """
    training = training or [entry("t", NORMAL, split="train")]
    write_annotation(folder / "ct_annotation.json", {"train": training, "test": entries})
    by_id = {one["id"]: one for one in entries}
    lines = [
        {"id": name, "reference": cleaned(by_id[name]["report"]), "hypothesis": cleaned(text)}
        for name, text in answers.items()
    ]
    write_jsonl(folder / "test.jsonl", lines)
    reports = {"source": "ct_rate", "release": "auto", "section": "findings", "reconstructions": "all"}
    write_json(
        folder / "counts.json", {"ct": {"settings": {"reports": reports}, "release": "v2", "source": {"volumes_no_chest": 3}}}
    )
    count_vocabulary(["x"], protocol=PROTOCOL, section="findings", min_token_count=1).save(
        folder / "model" / "vocabulary.json"
    )
    return {
        "generated": folder / "test.jsonl",
        "annotation": folder / "ct_annotation.json",
        "counts": folder / "counts.json",
        "model": folder / "model",
    }


def write_vector(
    folder: Path, one: dict[str, Any], vector: list[float], *, kind: str = "observations", key: str = FACTS.key
) -> None:
    """Write the features of a volume, as far as the baselines read them."""
    path = feature_path(folder, FACTS.key, one["volume_path"])
    shape = (len(FACTS.structures), FACTS.queries_per_structure, -1) if kind == "observations" else (-1,)
    tensors = {kind: torch.tensor(np.array(vector), dtype=torch.float16).reshape(shape)}
    save_safetensors(path, tensors, {"format": FORMAT, "key": key})
    write_json(folder / INDEX, {"format": FORMAT, "facts": FACTS.to_json()})


def structure_scores(**changes: Any) -> dict[str, Any]:
    """The metrics of evaluate-structures for two structures, one of them collapsed and without a mask."""
    lung = {
        "volumes": 3,
        "image_to_text_recall_at_5": 0.75,
        "image_to_text_recall_at_5_interval": [0.5, 1.0],
        "image_to_text_chance_at_5": 0.25,
        "image_to_text_commonest_at_5": 0.5,
        "attention_ratio": 3.25,
        "attention_ratio_interval": [3.0, 3.5],
        "pointing_hit": 1.0,
        "collapsed": False,
    }
    bone = {key: value for key, value in lung.items() if not key.startswith(("attention", "pointing"))}
    labels = {"Lung nodule": {"auroc": 0.625, "positive": 1, "labelled": 3}, "Emphysema": {"auroc": None}}
    return {
        "split": "test",
        "section": "findings",
        "volumes": 3,
        "patients": 2,
        "structures": {
            "lung": lung,
            "bone_marrow": bone | {"volumes": 1, "image_to_text_recall_at_5": None, "collapsed": True},
        },
        "zero_shot_auroc": labels,
        "zero_shot_auroc_macro": 0.625,
        "collapsed": ["bone_marrow"],
        "collapsed_texts": [],
        **changes,
    }


def write_trained(folder: Path, command: str, lines: list[dict[str, Any]]) -> Path:
    """Write a model folder as far as cards and figures read it: run record, history, the epoch that was kept."""
    write_run_record(folder / "run.json", command=command, settings={"epochs": len(lines)}, counts={"train": 8})
    write_jsonl(folder / "metrics.jsonl", lines)
    write_text(folder / "config.yaml", "selected: {epoch: 2}\n")
    return folder
