"""A tiny stage 1 with random weights, and tiny volumes with reports, for the tests of stage 2."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.conversion.store import write_array
from d2rnet.ct.report_model.extract import extract_ct_features, extract_ct_features_shard
from d2rnet.ct.report_model.generate import generate_ct_reports, generate_ct_reports_shard
from d2rnet.ct.report_model.settings import CtFeatureSettings, CtReportSettings, TrainCtReportModelSettings
from d2rnet.ct.report_model.trainer import train_ct_report_model
from d2rnet.ct.report_model.vocabulary import build_ct_vocabulary
from d2rnet.ct.structure_model.model import StructureModel, facts_of
from d2rnet.ct.structure_model.settings import StructureModelSettings
from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import load_table
from d2rnet.files.documents import read_jsonl, write_json
from d2rnet.reading.ct_settings import CtReadingSettings
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.model_files import save_model
from d2rnet.report.text.vocabulary import count_vocabulary

SHAPE = (16, 16, 24)  # patches of 8 x 8 x 8: a grid of 2 x 2 x 3
CONVERSION = CtConversionSettings(shape_zyx=SHAPE)
TABLE = load_table("ten")
NAMES = tuple(TABLE.structures)
REPORTS = (
    "The heart is of normal size. There is a nodule of 3.5 mm in the right lung.",
    "Pleural effusion is present. The trachea is open.",
    "The lungs are clear. No lymph node is enlarged in the mediastinum.",
)
SMALL = {
    "text": {"min_token_count": 1},
    "model": {
        "d_model": 16,
        "d_ff": 16,
        "num_heads": 2,
        "num_layers": 1,
        "memory_heads": 2,
        "patches_per_structure": 2,
    },
    "training": {"epochs": 3, "batch_size": 2, "max_report_tokens": 30, "validate_every_epochs": 1, "learning_rate": 0.01},
    "features": {"most_per_structure": 3},
    "generation": {"batch_size": 2, "beam_size": 2, "max_tokens": 30, "min_tokens": 8},
}


def settings_of(**changes: Any) -> CtReportSettings:
    """Section ``ct.report`` with a model that trains in a moment."""
    return CtReportSettings.read(SMALL).replaced(**changes)


def structure_settings() -> StructureModelSettings:
    """Stage 1 of a few numbers."""
    return StructureModelSettings.read(
        {
            "model": {
                "encoder": {"width": 12, "channels": 4, "num_heads": 2},
                "observer": {"d_model": 12, "d_ff": 16, "num_heads": 2},
            }
        }
    )


def write_structure_model(folder: Path, *, seed: int = 0) -> Path:
    """Write the folder of a stage 1 that has learnt nothing."""
    torch.manual_seed(seed)
    settings = structure_settings()
    model = StructureModel(settings.model, shape_zyx=SHAPE, num_structures=len(NAMES), embed_dim=8)
    torch.nn.init.normal_(model.observer.queries, std=3.0)  # structures look at different patches
    vocabulary = count_vocabulary(REPORTS, protocol="faithful", section="findings", min_token_count=1)
    facts = facts_of(NAMES, CONVERSION, 8)
    save_model(folder, model.state_dict(), settings=settings, vocabulary=vocabulary, facts=facts, selected={"epoch": 1})
    return folder


def make_entry(number: int, split: str, folder: Path) -> dict[str, Any]:
    """Write a volume, whose lowest slices are padded air, and return its entry; two volumes are of one study."""
    study = f"{split}{number // 2}"
    volume = np.random.default_rng([number, len(split)]).integers(1, 256, SHAPE, dtype=np.uint8)
    if number % 2:
        volume[:8] = 0
    path = f"arrays/{split}/{split}_{number}.npy"
    write_array(folder / path, volume)
    report = REPORTS[(number // 2) % len(REPORTS)]
    return {
        "id": f"{split}_{number}",
        "study_id": study,
        "subject_id": study,
        "split": split,
        "volume_path": path,
        "spacing_mm": list(CONVERSION.spacing_mm),
        "shape_zyx": list(SHAPE),
        "report": report,
        "structures": structures_of(report, TABLE).structures,
        "labels": [0] * 18,
        "labels_from": "report",
    }


def write_ct_cohort(folder: Path) -> Path:
    """Write volumes, ct_annotation.json and a stage 1: 6 training, 2 validation and 5 test volumes."""
    counts = {"train": 6, "val": 2, "test": 5}
    entries = {
        split: [make_entry(number, split, folder / "volumes") for number in range(count)] for split, count in counts.items()
    }
    write_annotation(folder / "ct_annotation.json", entries)
    write_structure_model(folder / "structures")
    return folder


def extract(cohort: Path, output: Path, settings: CtFeatureSettings | None = None, *, shards: int = 1, **changes: Any) -> Path:
    """Extract features in shards and join them; return their folder."""
    settings = settings or settings_of().features
    parts = [output / "shards" / f"{shard}-of-{shards}.jsonl" for shard in range(1, shards + 1)]
    for shard, part in enumerate(parts, start=1):
        extract_one(cohort, output, part, settings, shard=shard, shards=shards, **changes)
    extract_ct_features(annotation=cohort / "ct_annotation.json", shards=parts, output=output, settings=settings)
    return output


def describe(model: Path) -> None:
    """Write reading.json into a model folder: what a reading needs beside the weights."""
    settings = settings_of()
    reading = CtReadingSettings(
        volumes={},
        conversion=CONVERSION.to_json(),
        table="ten",
        features=settings.features.to_json(),
        generation=settings.generation.to_json(),
    )
    write_json(model / "reading.json", reading.to_json())


def extract_one(
    cohort: Path, output: Path, part: Path, settings: CtFeatureSettings, *, shard: int = 1, shards: int = 1, **changes: Any
) -> None:
    """Extract one shard."""
    options: dict[str, Any] = {"structures": cohort / "structures", "device": "cpu"} | changes
    extract_ct_features_shard(
        annotation=cohort / "ct_annotation.json",
        volumes=cohort / "volumes",
        folder=output,
        shard=shard,
        shards=shards,
        output=part,
        settings=settings,
        **options,
    )


def train(cohort: Path, features: Path, folder: Path, settings: CtReportSettings | None = None, processes: int = 1) -> Path:
    """Build the vocabulary and train; return the model folder."""
    settings = settings or settings_of()
    annotation = cohort / "ct_annotation.json"
    build_ct_vocabulary(annotation=annotation, output=folder / "vocabulary", settings=settings.text)
    train_ct_report_model(
        annotation=annotation,
        vocabulary=folder / "vocabulary" / "vocabulary.json",
        features=features,
        work=folder / "work",
        output=folder / "model",
        device="cpu",
        settings=TrainCtReportModelSettings(text=settings.text, model=settings.model, training=settings.training),
        processes=processes,
    )
    return folder / "model"


def generate(
    cohort: Path, features: Path, model: Path, output: Path, *, shards: int = 1, **changes: Any
) -> list[dict[str, Any]]:
    """Write the reports of the test split in shards and join them."""
    settings = settings_of(generation=changes).generation
    parts = [output.with_name(f"{output.stem}_{shard}.jsonl") for shard in range(1, shards + 1)]
    for shard, part in enumerate(parts, start=1):
        generate_ct_reports_shard(
            annotation=cohort / "ct_annotation.json",
            features=features,
            model=model,
            shard=shard,
            shards=shards,
            output=part,
            device="cpu",
            settings=settings,
        )
    generate_ct_reports(annotation=cohort / "ct_annotation.json", shards=parts, output=output, settings=settings)
    return list(read_jsonl(output))
