"""A CT run as its commands write it, small enough to be counted by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2rnet.ct.report_model.features import FORMAT, INDEX, FeatureFacts, feature_path
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.files.safetensors_files import save_safetensors
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import count_vocabulary

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


def write_mean(folder: Path, one: dict[str, Any], vector: list[float], *, key: str = FACTS.key) -> None:
    """Write the features of a volume, as far as the baselines read them."""
    path = feature_path(folder, FACTS.key, one["volume_path"])
    tensors = {"mean": torch.tensor(np.array(vector), dtype=torch.float16)}
    save_safetensors(path, tensors, {"format": FORMAT, "key": key})
    write_json(folder / INDEX, {"format": FORMAT, "facts": FACTS.to_json()})
