"""Encoder, observer and their masks: places of patches, what may be seen, whose attention it is."""

import math
from pathlib import Path

import pytest
import torch

from d2rnet.ct.structure_model.encoders import make_encoder
from d2rnet.ct.structure_model.model import StructureModel, scaled
from d2rnet.ct.structure_model.observer import Observer
from d2rnet.ct.structure_model.positions import patch_positions
from d2rnet.ct.structure_model.settings import ObserverSettings, StructureNetworkSettings, VolumeEncoderSettings
from d2rnet.ct.structure_model.volume_encoder import SmallEncoder, patch_mask
from d2rnet.errors import ConfigError
from d2rnet.runs.device import freed_memory_kept
from d2rnet.training.collectives import num_processes, process_rank
from d2rnet.training.processes import run_processes

SHAPE = (8, 16, 24)  # patches of 8 x 8 x 8: a grid of 1 x 2 x 3
TINY = StructureNetworkSettings().replaced(
    encoder={"width": 12, "channels": 4, "layers": 1, "num_heads": 2},
    observer={"d_model": 12, "d_ff": 16, "num_heads": 2, "queries_per_structure": 2},
)


def tiny(**observer: object) -> StructureModel:
    torch.manual_seed(3)
    settings = TINY.replaced(observer=observer)
    return StructureModel(settings, shape_zyx=SHAPE, num_structures=3, embed_dim=5).eval()


def volumes(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 1, *SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes_and_shares():
    model = tiny()
    observation = model.observe(volumes())
    assert observation.tokens.shape == (2, 3, 2, 12)
    assert observation.patches.shape == (2, 6, 12)
    assert observation.attention.shape == (2, 3, 6)
    assert (observation.attention.sum(dim=2) >= 1 - 1e-5).all()  # the greatest of several shares that sum to 1
    embedded = model.embed(observation.tokens)
    torch.testing.assert_close(embedded.norm(dim=2), torch.ones(2, 3))


@pytest.mark.parametrize("place", [(0, 0, 0), (0, 1, 2), (0, 1, 0)])
def test_a_patch_is_where_its_voxels_are(place):
    """Raster order with x fastest: a change in the middle of a patch changes its embedding most, whatever the weights."""
    before = torch.zeros(1, 1, *SHAPE)
    after = before.clone()
    z, y, x = (8 * number + 4 for number in place)
    after[0, 0, z - 1 : z + 1, y - 1 : y + 1, x - 1 : x + 1] = 1.0
    change = torch.zeros(6)
    for seed in range(10):
        torch.manual_seed(seed)
        encoder = SmallEncoder(VolumeEncoderSettings(width=12, channels=4), SHAPE).eval()
        change += (encoder(after) - encoder(before)).norm(dim=2)[0]
    assert encoder.grid_zyx == (1, 2, 3)
    assert int(change.argmax()) == (place[0] * 2 + place[1]) * 3 + place[2]


def test_shares_of_grey_ranges():
    """By hand: of the eight parts of 4 x 4 x 4 voxels of a patch, one is half bone."""
    encoder = SmallEncoder(VolumeEncoderSettings(width=12, channels=4, edges=(-0.5, 0.5)), SHAPE)
    found = torch.zeros(1, 1, *SHAPE)
    found[0, 0, 4:8, 8:12, 16:18] = 1.0  # patch z 0, y 1, x 2; part of the upper half in z, the first in y and x
    shares = encoder.shares(found)
    assert shares.shape == (1, 9, 1, 2, 3)  # mean, most, least of three ranges
    half = 0.5**0.5
    expected = torch.tensor([0, (7 + half) / 8, half / 8, 0, 1, half, 0, half, 0])
    torch.testing.assert_close(shares[0, :, 0, 1, 2], expected)
    torch.testing.assert_close(shares[0, :, 0, 0, 0], torch.tensor([0.0, 1, 0, 0, 1, 0, 0, 1, 0]))


def test_an_edge_belongs_to_the_range_above_it():
    encoder = SmallEncoder(VolumeEncoderSettings(width=12, channels=4, edges=(0.0,)), SHAPE)
    assert encoder.shares(torch.zeros(1, 1, *SHAPE))[0, :, 0, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]


def test_observations_are_standardised_over_the_batch_and_by_running_values_afterwards():
    model = tiny()
    plain = tiny(standardise=False)
    plain.load_state_dict(model.state_dict(), strict=False)
    found = volumes(4)
    before = plain.observe(found).tokens  # (B, S, K, D)
    expected = (before - before.mean(dim=0)) / (before.var(dim=0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(model.train().observe(found).tokens, expected, atol=1e-4, rtol=1e-3)
    running = 0.1 * before.mean(dim=0)
    spread = 0.9 + 0.1 * before.var(dim=0)
    alone = model.observe(found[:1]).tokens  # one volume has no deviation: by running values, which it does not change
    torch.testing.assert_close(alone[0], (before[0] - running) / (spread + 1e-5).sqrt(), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(alone, model.eval().observe(found[:1]).tokens)


def finish_part(folder: Path) -> None:
    """Standardise this process's part of three volumes, or of one; the second process has none of that."""
    torch.set_num_threads(1)
    for count in (3, 1):
        model = tiny().train()
        queries = observed_queries(count)
        part = torch.tensor_split(queries, num_processes())[process_rank()].requires_grad_()
        tokens = model.observer.finish(part)
        weights = torch.tensor_split(observed_queries(count, seed=8), num_processes())[process_rank()]
        (tokens.flatten(1, 2) * weights).sum().backward()
        statistics = [model.observer.standardise.running_mean, model.observer.standardise.running_var]
        torch.save([tokens.detach(), part.grad, *statistics], folder / f"{count}_{num_processes()}_{process_rank()}.pt")


def observed_queries(count: int, seed: int = 7) -> torch.Tensor:
    return torch.randn(count, 6, 12, generator=torch.Generator().manual_seed(seed))


def test_two_processes_standardise_over_the_batch_of_both(tmp_path):
    run_processes(finish_part, tmp_path, processes=2, device=torch.device("cpu"))
    finish_part(tmp_path)
    for count in (3, 1):
        whole = torch.load(tmp_path / f"{count}_1_0.pt")
        parts = [torch.load(tmp_path / f"{count}_2_{rank}.pt") for rank in range(2)]
        for number in range(2):
            torch.testing.assert_close(torch.cat([part[number] for part in parts]), whole[number], atol=1e-5, rtol=1e-4)
        for number in range(2, 4):
            for part in parts:
                torch.testing.assert_close(part[number], whole[number])


def test_positions_tell_every_place_apart():
    found = patch_positions((2, 3, 4), 20, like=torch.zeros(1))
    assert found.shape == (24, 20)
    assert len({tuple(row) for row in found.round(decimals=4).tolist()}) == 24
    torch.testing.assert_close(found[13, :6], patch_positions((2, 1, 1), 20, like=torch.zeros(1))[1, :6])  # z = 1 alone


@pytest.mark.parametrize("observer", [{}, {"update_patches": True, "num_layers": 2}])
def test_padded_air_is_masked_and_its_content_does_not_matter(observer):
    found = volumes(1)
    found[..., 8:, 16:] = -1.0  # the last patch
    mask = patch_mask(found, (1, 2, 3))
    assert mask.tolist() == [[True, True, True, True, True, False]]
    model = tiny(**observer)
    embeddings = model.encoder(found)
    first = model.observer(embeddings, (1, 2, 3), mask)
    embeddings[:, 5] += 100.0
    second = model.observer(embeddings, (1, 2, 3), mask)
    torch.testing.assert_close(first.tokens, second.tokens)
    torch.testing.assert_close(first.patches[:, :5], second.patches[:, :5])
    assert (second.attention[..., 5] == 0).all() and (second.attention[..., :5] > 0).all()


def test_a_volume_of_air_is_looked_at_whole():
    assert patch_mask(torch.full((1, 1, *SHAPE), -1.0), (1, 2, 3)).all()


@pytest.mark.parametrize("update_patches", [False, True])
def test_a_volume_does_not_depend_on_the_others_of_its_batch(update_patches):
    model = tiny(update_patches=update_patches)
    found = volumes(3)
    found[1, ..., 8:, 16:] = -1.0
    together = model.observe(found)
    alone = model.observe(found[1:2])
    torch.testing.assert_close(together.tokens[1:2], alone.tokens)
    torch.testing.assert_close(together.patches[1:2], alone.patches)
    torch.testing.assert_close(together.attention[1:2], alone.attention)


def test_patches_change_only_where_they_are_updated():
    with_update = tiny(update_patches=True)
    without = tiny(update_patches=False)
    without.load_state_dict(with_update.state_dict())
    found = volumes()
    plain = without.observer.project(without.encoder(found)) + patch_positions((1, 2, 3), 12, like=found)
    torch.testing.assert_close(without.observe(found).patches, plain)
    assert not torch.allclose(with_update.observe(found).patches, plain)


def test_order_of_structures_does_not_matter():
    model = tiny()
    first = model.observe(volumes())
    with torch.no_grad():
        model.observer.queries.copy_(model.observer.queries[[2, 0, 1]])
    second = model.observe(volumes())
    torch.testing.assert_close(second.tokens, first.tokens[:, [2, 0, 1]])
    torch.testing.assert_close(second.attention, first.attention[:, [2, 0, 1]])


def test_attention_is_the_greatest_over_heads_and_queries():
    model = tiny(num_layers=1)
    embeddings = model.encoder(volumes())
    mask = torch.ones(2, 6, dtype=torch.bool)
    patches = model.observer.project(embeddings) + patch_positions((1, 2, 3), 12, like=embeddings)
    queries = model.observer.queries.flatten(0, 1).expand(2, -1, -1)
    shares = model.observer.layers[0].cross_weights(queries, patches, None, mask[:, None, None])  # (B, H, 6 queries, P)
    by_hand = torch.stack([shares[:, :, 2 * s : 2 * s + 2].amax(dim=(1, 2)) for s in range(3)], dim=1)
    torch.testing.assert_close(model.observer(embeddings, (1, 2, 3), mask).attention, by_hand)


def test_a_layer_by_its_formula():
    """Each block reads its input's norm and is added to it; the shares of attention that are told are those that are used."""
    layer = tiny().observer.layers[0]
    with torch.no_grad():
        for norm in layer.norms:
            norm.weight.normal_()
    x, other = (torch.randn(2, count, 12, generator=torch.Generator().manual_seed(count)) for count in (5, 6))
    normed = layer.norms[0](x)
    looked = x + layer.self_attention(normed, layer.self_attention.keys_values(normed))
    _, values = layer.cross_attention.keys_values(layer.norms[2](other))
    seen = (layer.cross_weights(x, other, None, None) @ values).transpose(1, 2).flatten(2)  # (B, H, T, Dh) -> (B, T, D)
    looked = looked + layer.cross_attention.output(seen)
    torch.testing.assert_close(layer(x, other, None, None), looked + layer.feed_forward(layer.norms[3](looked)))


def test_gradients_in_bfloat16_read_no_memory_that_was_not_written():
    """Freed numbers lie where the next buffers are: a depthwise convolution in bfloat16 adds to them (AVX512-BF16 alone)."""
    encoder = SmallEncoder(TINY.encoder.replaced(layers=0), (16, 16, 16))
    found = torch.rand(4, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    kinds = (torch.bfloat16, torch.float32)
    with freed_memory_kept(torch.device("cpu")):
        for _ in range(20):
            encoder.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
                loss = encoder(found).square().sum()
            written = [
                torch.full((2**power,), math.nan, dtype=kind) for power in range(2, 16) for kind in kinds for _ in range(8)
            ]
            del written
            loss.backward()
            assert encoder.neighbours.weight.grad.isfinite().all()


def test_an_embedding_is_the_direction_of_the_mean_of_its_queries():
    model = tiny()
    tokens = torch.randn(2, 3, 2, 12, generator=torch.Generator().manual_seed(6))
    projected = (tokens[:, :, 0] + tokens[:, :, 1]) / 2 @ model.project.weight.T
    torch.testing.assert_close(model.embed(tokens), projected / projected.norm(dim=-1, keepdim=True))


def test_attention_begins_uneven_and_training_needs_its_tokens_alone():
    even, uneven = (tiny(attention_start=start) for start in (1.0, 8.0))
    for name, weight in even.named_parameters():
        factor = 8.0 if ".cross_attention.query." in name else 1.0
        torch.testing.assert_close(uneven.get_parameter(name), weight * factor)
    most = [float(model.observe(volumes()).attention.amax()) for model in (even, uneven)]
    assert most[1] > 1.5 * most[0]
    for model in (even, uneven):
        torch.testing.assert_close(model(volumes()), model.embed(model.observe(volumes()).tokens))


def test_grey_levels_and_hounsfield_units_meet():
    levels = scaled(torch.tensor([0, 255], dtype=torch.uint8), (-1000, 1000))
    units = scaled(torch.tensor([-1000, 0, 1000, 3000], dtype=torch.int16), (-1000, 1000))
    assert levels.tolist() == [-1.0, 1.0] and units.tolist() == [-1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch_zyx": (6, 8, 8)}, r"patch_zyx: got \[6, 8, 8\]; expected divisors"),
        ({"patch_zyx": (1, 2, 3)}, "kind small expects even sides"),
        ({"edges": (0.1, 0.0)}, r"edges: got \[0.1, 0.0\]; expected each greater"),
        ({"layers": 1, "width": 13}, "expected an even multiple"),
    ],
)
def test_settings_that_do_not_go_together(changes, words):
    with pytest.raises(ConfigError, match=words):
        make_encoder(VolumeEncoderSettings().replaced(**changes), SHAPE)


def test_heads_that_do_not_divide():
    with pytest.raises(ConfigError, match=r"observer\.d_model: got 10 with num_heads 4"):
        Observer(ObserverSettings(d_model=10), num_structures=2, patch_width=8)
