"""A few tiny volumes whose reports follow from what is drawn in them, with the settings that learn them in seconds."""

from pathlib import Path
from typing import Any

import numpy as np

from d2rnet.ct.conversion.store import write_array
from d2rnet.ct.structure_model.settings import TrainStructuresSettings
from d2rnet.ct.structures.table import load_table
from d2rnet.files.documents import write_jsonl
from d2rnet.report.annotation_file import write_annotation

SHAPE = [16, 16, 16]
TEXTS = {
    "lung": {False: "Both lungs are clear.", True: "There is a nodule in the right lung."},
    "pleura": {False: "There is no pleural effusion.", True: "There is a pleural effusion."},
}
LABELS = {"lung": "Lung nodule", "pleura": "Pleural effusion"}
CORNERS = {"lung": (slice(0, 8), slice(0, 8), slice(0, 8)), "pleura": (slice(8, 16), slice(8, 16), slice(8, 16))}


def write_samples(folder: Path, *, train: int = 12, val: int = 4, test: int = 6) -> Path:
    """Write ``ct_annotation.json`` and ``volumes/``; return the folder."""
    from d2rnet.findings.ct_classes import CT_ABNORMALITIES

    rng = np.random.default_rng(5)
    splits: dict[str, list[dict[str, Any]]] = {}
    number = 0
    for split, count in (("train", train), ("val", val), ("test", test)):
        splits[split] = []
        for _ in range(count):
            found = {name: bool((number >> place) % 2) for place, name in enumerate(TEXTS)}
            array = rng.integers(40, 60, SHAPE).astype(np.uint8)
            for name, there in found.items():
                array[CORNERS[name]] += np.uint8(120 * there)
            write_array(folder / "volumes" / f"v{number}.npy", array)
            structures: dict[str, Any] = {}
            for name in load_table("ten").structures:
                there = found.get(name)
                mentioned = there is not None and not (name == "pleura" and number % 5 == 4)
                labels = [LABELS[name]] if mentioned and there else []
                text = TEXTS[name][bool(there)] if mentioned else ""
                structures[name] = {"text": text, "abnormal": there if mentioned else None, "labels": labels}
            splits[split].append(
                {
                    "id": f"v{number}",
                    "study_id": f"s{number}",
                    "subject_id": f"p{number}",
                    "split": split,
                    "volume_path": f"v{number}.npy",
                    "spacing_mm": [5.0, 5.0, 5.0],
                    "shape_zyx": SHAPE,
                    "report": " ".join(one["text"] for one in structures.values() if one["text"]),
                    "structures": structures,
                    "labels": [int(found.get(name, False)) for label in CT_ABNORMALITIES for name in [_of(label)]],
                    "labels_from": "table",
                }
            )
            number += 1
    write_annotation(folder / "ct_annotation.json", splits)
    lines = [
        {
            "volume_id": entry["id"],
            "study_id": entry["study_id"],
            "mask_folder": "",
            "source_shape_zyx": SHAPE,
            "source_spacing_mm": [5.0, 5.0, 5.0],
            "spacing_mm": [5.0, 5.0, 5.0],
            "start_in_grid_zyx": [0, 0, 0],
            "grid_shape_zyx": SHAPE,
            "shape_zyx": SHAPE,
        }
        for entries in splits.values()
        for entry in entries
    ]
    write_jsonl(folder / "volumes" / "volumes.jsonl", lines)
    return folder


def _of(label: str) -> str:
    return next((name for name, its in LABELS.items() if its == label), "")


def tiny_settings(**changes: Any) -> TrainStructuresSettings:
    """Settings for these samples; ``changes`` are laid over ``structure_model``."""
    base = TrainStructuresSettings.read(
        {
            "data": {"conversion": {"shape_zyx": SHAPE, "spacing_mm": [5.0, 5.0, 5.0]}},
            "structure_model": {
                "text": {"embed_dim": 8, "num_heads": 2, "min_token_count": 1},
                "model": {
                    "encoder": {"width": 12, "channels": 4},
                    "observer": {"d_model": 12, "d_ff": 16, "num_heads": 2},
                },
                "training": {
                    "epochs": 2,
                    "batch_size": 4,
                    "validate_every_epochs": 1,
                    "max_shift_voxels": 1,
                    "queue": {"length": 3},
                },
            },
        }
    )
    return base.replaced(structure_model=changes)
