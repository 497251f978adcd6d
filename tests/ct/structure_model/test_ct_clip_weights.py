"""CT-CLIP's weights: every tensor accounted for, files of other networks refused by name."""

import logging
from pathlib import Path

import pytest
import torch
from ct_clip_sample import SMALL, V1, V2, ct_clip_state

from d2rnet.ct.structure_model.ct_clip_weights import UNUSED, ct_clip_name, load_ct_clip, patch_of
from d2rnet.ct.structure_model.encoder_weights import match_weights
from d2rnet.ct.structure_model.encoders import make_encoder
from d2rnet.ct.structure_model.factorised_vit import FactorisedViT
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.errors import CheckpointError, ConfigError

SETTINGS = VolumeEncoderSettings().replaced(kind="ct_vit", patch_zyx=SMALL.patch_zyx, width=24, layers=2, num_heads=2)
SHAPE = (4, 8, 8)
FILE = Path("CT_CLIP_zeroshot.pt")


def saved(tmp_path, state):
    path = tmp_path / "CT_CLIP_zeroshot.pt"
    torch.save(state, path)
    return path


def load(path, **changes):
    settings = SETTINGS.replaced(**changes)
    encoder = FactorisedViT(settings, SHAPE)
    return encoder, load_ct_clip(encoder, path, settings.patch_zyx)


def published(sizes):
    settings = VolumeEncoderSettings().replaced(kind="ct_vit", patch_zyx=(15, 30, 30), width=512, layers=4, num_heads=8)
    with torch.device("meta"):
        network = FactorisedViT(settings, (240, 480, 480)).state_dict()
    return network, ct_clip_state(sizes, device="meta")


def test_the_first_release_fits_name_by_name():
    network, state = published(V1)
    report = match_weights(network, state, {own: ct_clip_name(own) for own in network}, UNUSED, FILE)
    assert len(report.taken) == len(network) == 110
    assert {**report.taken}["along_z.3.feed_forward.down.weight"].endswith("enc_temporal_transformer.layers.3.3.4.weight")
    used = set(report.taken.values())
    left = [name for names in report.left_out.values() for name in names]
    assert sorted([*used, *left]) == sorted(state)
    assert patch_of(state) == (15, 30, 30)


def test_the_second_release_does_not_fit_and_is_named(tmp_path):
    _, state = published(V2)
    assert patch_of(state) == (10, 20, 20)
    visual = {name: torch.zeros(tensor.shape) for name, tensor in state.items() if ".to_patch_emb" in name}
    with pytest.raises(CheckpointError, match=r"second release \(v2\), with patches of 10 x 20 x 20 .*patch_zyx is 2 x 4 x 4"):
        load(saved(tmp_path, visual))


def test_values_arrive_where_they_belong_and_the_report_tells_what_was_left_out(tmp_path, caplog):
    state = ct_clip_state(SMALL)
    with caplog.at_level(logging.INFO):
        encoder, report = load(saved(tmp_path, state))
    for own, value in encoder.state_dict().items():
        torch.testing.assert_close(value, state[ct_clip_name(own)], rtol=0, atol=0)
    assert set(report.left_out) == {
        "the text tower",
        "projections and temperature of CT-CLIP's contrast",
        "the code book behind the tokens",
        "the reconstruction of the volume",
        "patches of a single slice",
        "shifts of norms, always zero",
        "norms of cross-attention, which there is none of",
        "empty",
    }
    assert f"took {len(encoder.state_dict())} tensors" in caplog.text
    assert "left out 5 tensors, projections and temperature" in caplog.text


def test_make_encoder_loads_what_the_settings_name(tmp_path):
    state = ct_clip_state(SMALL)
    encoder = make_encoder(SETTINGS.replaced(weights=str(saved(tmp_path, state))), SHAPE)
    torch.testing.assert_close(encoder.norm.weight, state["visual_transformer.enc_temporal_transformer.norm_out.gamma"])


def test_an_image_encoder_alone_and_a_trainer_s_file_load_too(tmp_path):
    state = ct_clip_state(SMALL)
    visual = {name.removeprefix("visual_transformer."): value for name, value in state.items() if name.startswith("visual_")}
    alone, _ = load(saved(tmp_path, visual))
    wrapped, _ = load(saved(tmp_path, {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}))
    for first, second in zip(alone.state_dict().values(), wrapped.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual_transformer.enc_spatial_transformer.layers.1.1.to_q.weight": None}, "lacks 1 of the encoder's"),
        ({"visual_transformer.enc_spatial_transformer.layers.1.1.to_q.weight": torch.zeros(32, 24)}, r"\(32, 24\) instead of"),
        ({"visual_transformer.enc_spatial_transformer.layers.2.1.to_q.weight": torch.zeros(64, 24)}, "or of more layers"),
        ({"visual_transformer.head.weight": torch.zeros(3)}, "1 tensors belong to no part"),
        ({"visual_transformer.enc_spatial_transformer.norm_out.gamma": torch.full((24,), torch.nan)}, "not finite"),
        ({"visual_transformer.enc_spatial_transformer.norm_out.gamma": torch.ones(24, dtype=torch.int64)}, "whole numbers"),
        ({"visual_transformer.enc_temporal_transformer.norm_out.beta": torch.ones(24)}, "norm_out.beta is not zero"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    state = {name: value for name, value in (ct_clip_state(SMALL) | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=message):
        load(saved(tmp_path, state))


def test_fewer_layers_than_the_file_has_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="or of more layers"):
        load(saved(tmp_path, ct_clip_state(SMALL)), layers=1)


def test_a_file_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="is no state dict of CT-CLIP"):
        load(saved(tmp_path, {"conv1.weight": torch.zeros(3)}))
    with pytest.raises(CheckpointError, match="no such weight file"):
        load(tmp_path / "absent.pt")


def test_files_are_mapped_not_read(tmp_path, monkeypatch):
    """The published file has 8.6 GB that nothing here needs."""
    asked = []
    real = torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: asked.append(options["mmap"]) or real(path, **options))
    path = saved(tmp_path, ct_clip_state(SMALL))
    load(path)
    assert asked == [True]
    torch.save(ct_clip_state(SMALL), path, _use_new_zipfile_serialization=False)  # a format that cannot be mapped
    load(path)
    assert asked[1] is False


def test_the_small_encoder_has_no_weights_to_load():
    with pytest.raises(ConfigError, match="kind small has none"):
        make_encoder(VolumeEncoderSettings().replaced(weights="CT_CLIP_zeroshot.pt"), SHAPE)
