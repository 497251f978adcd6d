"""Synthetic studies and small models for the tests of the report model: ellipses on noise, template sentences about them."""

import json
from collections.abc import Set
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import D2RNetModelSettings, ReportSettings, TrainReportModelSettings
from d2rnet.report.decoder.beam_search import Loss
from d2rnet.report.text.report_tokens import ReportTokens
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID

CLASSES = ("Cardiomegaly", "Pleural effusion", "Nodule/Mass")
NUM_TOKENS = 20
SMALL_MODEL = {
    "input_size_px": 32,
    "backbone_stages": 2,
    "backbone_weights": None,
    "patch_channels": 16,
    "lesion_roi_size": 2,
    "findings": "none",
    "d_model": 16,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 2,
    "memory_heads": 2,
}
# Alignment as in the published model; the defaults are what was repaired.
PUBLISHED_ALIGNMENT = {
    "weight_by": "fixed",
    "warmup_steps": 0,
    "centring": False,
    "word_projection": "shared",
    "projection_bias": True,
    "targets": "hardest",
    "likeness": "words",
    "same_findings": "negatives",
}
EVERYTHING = {
    "model": {
        "lesion_branch": "crop",
        "crop_size_px": 32,
        "crop_width": 2,
        "crop_margin": 1.25,
        "crop_chunk": 2,
        "crop_statistics": "box",
        "lesion_enhancement": "lera",
        "lera_gate": "shifted",
        "lesion_class_dropout": 0.4,
        "findings": "told",
        "view_embedding": True,
        "indication": True,
        "prior": True,
        "context_buckets": 64,
    },
    "training": {
        "pointer_weight": 0.5,
        "lesion_loss": 0.5,
        "alignment": {
            "lab": "lesions",
            "gab": "patches",
            "embed_dim": 8,
            "text_heads": 2,
            "same_findings": "negatives",  # of so few reports none would be left
            "warmup_steps": 4,
            "measure_every_steps": 2,
            "sentence_box": True,
        },
        "augmentation": {"max_shift": 0.1, "max_scale": 0.1, "max_intensity": 0.1, "horizontal_flip": True},
        "self_critical": {"reward": "findings_f1", "start_epoch": 1},
    },
}


def make_entry(number: int, split: str, folder: Path, rng: np.random.Generator) -> dict[str, Any]:
    """Draw one study of 40 x 48 pixels with ``number % 3`` lesions and write its image."""
    height = 40
    width = 48
    pixels = rng.integers(0, 40, (height, width)).astype(np.uint8)
    boxes = []
    labels = []
    sentences = []
    for lesion in range(number % 3):
        label = CLASSES[(number + lesion) % len(CLASSES)]
        x = float(rng.integers(2, 30))
        y = float(rng.integers(2, 24))
        boxes.append([x, y, 12.0, 10.0])
        labels.append(label)
        cv2.ellipse(pixels, (round(x + 6), round(y + 5)), (6, 5), 0, 0, 360, 120 + 40 * (number % 3), -1)
        side = "right" if x + 6 < width / 2 else "left"
        sentences.append(f"{label.lower().replace('/', ' ')} on the {side}.")
    name = f"{split}_{number}.png"
    cv2.imwrite(str(folder / name), pixels)
    return {
        "id": f"{split}{number}",
        "study_id": f"s{split}{number}",
        "subject_id": f"p{split}{number}",
        "image_path": [name],
        "split": split,
        "report": " ".join(sentences) or "No acute findings.",
        "height": height,
        "width": width,
        "boxes": boxes,
        "scores": [0.9] * len(boxes),
        "labels": labels,
        "views": [("PA", "AP", "")[number % 3]],
        "indication": ("Pain on the left.", "", "Cough and fever.")[number % 3],
        "prior": None if number % 2 else make_prior(f"before_{split}{number}", number),
    }


def make_prior(study_id: str, number: int) -> dict[str, Any]:
    """Return a study before, with ``number % 3`` lesions in an image of 40 x 48 pixels."""
    boxes = [[2.0 + lesion, 3.0, 12.0, 10.0] for lesion in range(number % 3)]
    labels = [CLASSES[lesion] for lesion in range(number % 3)]
    told = {"boxes": boxes, "scores": [0.8] * len(boxes), "labels": labels}
    return {"study_id": study_id, "report": "Effusion on the right.", "height": 40, "width": 48, **told}


def write_cohort(folder: Path) -> Path:
    """Write images and annotation.json: 5 training, 2 validation and 5 test studies."""
    folder.mkdir()
    rng = np.random.default_rng(7)
    splits = {"train": 5, "val": 2, "test": 5}
    content = {split: [make_entry(number, split, folder, rng) for number in range(count)] for split, count in splits.items()}
    (folder / "annotation.json").write_text(json.dumps(content))
    return folder


def small_settings() -> ReportSettings:
    """Section ``report`` with a model that trains in a moment."""
    return ReportSettings.read(
        {
            "text": {"min_token_count": 1},
            "model": SMALL_MODEL,
            "training": {
                "selection": "bleu_4",
                "epochs": 3,
                "batch_size": 2,
                "max_report_tokens": 40,
                "validate_every_epochs": 1,
            },
            "generation": {"batch_size": 2, "beam_size": 2, "max_tokens": 12, "min_tokens": 6},
        }
    )


def training_settings(settings: ReportSettings) -> TrainReportModelSettings:
    """What train_report_model reads of a section ``report``."""
    return TrainReportModelSettings(text=settings.text, model=settings.model, training=settings.training)


def training_arguments(cohort: Path, folder: Path, settings: ReportSettings) -> dict[str, Any]:
    """Arguments of train_report_model; the vocabulary is in ``folder``, where work and model go, too."""
    return {
        "annotation": cohort / "annotation.json",
        "vocabulary": folder / "vocabulary.json",
        "image_root": cohort,
        "work": folder / "work",
        "output": folder / "model",
        "device": "cpu",
        "settings": training_settings(settings),
    }


def make_batch(
    *, views: int = 1, lesions: tuple[int, ...] = (2, 0, 3), length: int = 7, seed: int = 0, crop_px: int = 32
) -> ChestBatch:
    """Random batch for a 32-pixel model: ``lesions`` gives the number of boxes of each entry."""
    generator = torch.Generator().manual_seed(seed)
    entries = len(lesions)
    most = max(lesions)
    mask = torch.arange(most) < torch.tensor(lesions).unsqueeze(1)
    corners = torch.rand(entries, most, 2, generator=generator) * 16
    sizes = 4 + torch.rand(entries, most, 2, generator=generator) * 10
    token_ids = torch.randint(4, NUM_TOKENS, (entries, length), generator=generator)
    token_ids[:, 0] = BOS_ID
    token_ids[0, -2:] = torch.tensor([EOS_ID, PAD_ID])
    return ChestBatch(
        pixels=torch.randint(0, 256, (entries, views, 32, 32), generator=generator, dtype=torch.uint8),
        view_mask=torch.ones(entries, views, dtype=torch.bool),
        boxes_xyxy=torch.cat([corners, corners + sizes], dim=2) * mask.unsqueeze(2),
        positions=torch.rand(entries, most, 4, generator=generator) * mask.unsqueeze(2),
        lesion_view=torch.randint(0, views, (entries, most), generator=generator) * mask,
        lesion_sides=torch.arange(1, most + 1).remainder(2).add(1) * mask,
        category_ids=torch.randint(1, 23, (entries, most), generator=generator) * mask,
        scores=torch.rand(entries, most, generator=generator) * mask,
        crops=torch.randint(0, 256, (entries, most, crop_px, crop_px), generator=generator, dtype=torch.uint8)
        * mask[:, :, None, None],
        crop_insides=torch.tensor([0, 0, crop_px, crop_px]) * mask.unsqueeze(2),
        lesion_mask=mask,
        token_ids=token_ids,
        entry_numbers=torch.arange(entries),
    )


def make_model(seed: int = 0, **changes: Any) -> D2RNet:
    """Small model in evaluation mode whose memory and norms are not at their neutral start."""
    torch.manual_seed(seed)
    settings = D2RNetModelSettings.read(SMALL_MODEL | changes)
    model = D2RNet(settings, num_tokens=NUM_TOKENS, num_categories=22).eval()
    torch.nn.init.normal_(model.transformer.conditioned_norms.weight, std=0.3)
    return model


def refuse(texts: Set[str], tokens: ReportTokens) -> Loss:
    """Make reports of these texts lose 1000 nats in a search."""

    def lost(sources: torch.Tensor, token_ids: torch.Tensor, ended: torch.Tensor) -> torch.Tensor:
        written = [" ".join(tokens.decode(ids)) for ids in token_ids.flatten(0, 1).tolist()]
        return 1000.0 * torch.tensor([text in texts for text in written]).view_as(ended)

    return lost
