"""Presets of the CT wing: complete configurations, networks that can be made, and the numbers of the release."""

from pathlib import Path
from typing import Any

import pytest
import torch

from d2rnet.config import Config
from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.structure_model.factorised_vit import FactorisedViT
from d2rnet.ct.structure_model.observer import Observer
from d2rnet.settings import merge, read_overlay

ALONE = ("ct_rate", "tiny")
AFTER_CT_RATE = ("as_released", "ct2rep", "ct_clip", "colipri", "ctrg", "fvlm", "radgenome", "released_code")


def overlay_of(repository: Path, preset: str) -> dict[str, Any]:
    folder = repository / "workflow" / "presets" / "ct"
    overlay = read_overlay(folder / f"{preset}.yaml")
    return overlay if preset in ALONE else merge(read_overlay(folder / "ct_rate.yaml"), overlay)


def test_none_is_forgotten(repository):
    assert {path.stem for path in (repository / "workflow/presets/ct").glob("*.yaml")} == {*ALONE, *AFTER_CT_RATE}


@pytest.mark.parametrize("preset", [*ALONE, *AFTER_CT_RATE])
def test_presets_are_valid_overlays(repository, preset):
    overlay = overlay_of(repository, preset)
    complete = Config.read(overlay).to_json()
    assert merge(complete, overlay) == complete


@pytest.mark.parametrize(
    ("preset", "grid"),
    [
        ("ct_rate", (15, 15, 15)),
        ("as_released", (16, 16, 16)),
        ("released_code", (16, 16, 16)),
        ("ct_clip", (16, 16, 16)),
        ("ct2rep", (20, 20, 20)),
        ("fvlm", (14, 16, 22)),
        ("colipri", (24, 24, 24)),
        ("ctrg", (15, 15, 15)),
        ("radgenome", (15, 15, 15)),
    ],
)
def test_patches_fill_the_grid_and_networks_can_be_made(repository, preset, grid):
    config = Config.read(overlay_of(repository, preset)).ct
    z, y, x = config.data.conversion.shape_zyx
    encoder = config.structure_model.model.encoder
    assert tuple(side // patch for side, patch in zip((z, y, x), encoder.patch_zyx, strict=True)) == grid
    assert config.report.model.patches_per_structure <= config.report.features.most_per_structure
    with torch.device("meta"):
        if encoder.kind == "ct_vit":
            assert FactorisedViT(encoder, (z, y, x)).grid_zyx == grid
        Observer(config.structure_model.model.observer, num_structures=10, patch_width=encoder.width)
        facts = FeatureFacts("key", ("lung",) * 10, grid, 1, config.structure_model.model.observer.d_model, "top", 9)
        CtReportModel(config.report.model, num_tokens=100, facts=facts)


def test_ct_clip_takes_volumes_as_its_weights_were_trained(repository):
    encoder = Config.read(overlay_of(repository, "ct_clip")).ct.structure_model.model.encoder
    assert (encoder.kind, encoder.axes, encoder.weights) == ("ct_vit", "zxy", None)


def test_the_observer_is_one_that_our_trial_speaks_for(repository):
    """Layers and start of attention (docs/explanation/ct-method.md, "Where attention comes from"); as released its own."""
    rate, released = (
        Config.read(overlay_of(repository, name)).ct.structure_model.model.observer for name in ("ct_rate", "as_released")
    )
    assert (rate.num_layers, rate.attention_start) == (1, 8.0)
    assert (released.num_layers, released.attention_start) == (2, 1.0)


def test_as_released_sees_110_tokens_of_4096_patches(repository):
    config = Config.read(overlay_of(repository, "as_released")).ct
    report = config.report.model
    per_structure = 1 + report.patches_per_structure
    assert 10 * per_structure + 10 * report.observations_twice == 110
    assert config.structure_model.model.encoder.axes == "zyx"
    contrast = config.structure_model.training.contrast
    assert (contrast.temperature, contrast.soft_share, contrast.other_structures_weight) == (0.07, 0.2, 0.1)
    assert not contrast.normalise_targets
    queue = config.structure_model.training.queue
    assert (queue.length, queue.rule, queue.start, queue.equal_texts) == (1000, "released", "noise", "always")
