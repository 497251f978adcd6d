"""The factorised Transformer: patches and axes, what sees what, and the formulas of CT-CLIP by other code."""

import math

import pytest
import torch
from ct_clip_sample import SMALL, ct_clip_state
from torch.nn import functional as F

from d2rnet.ct.structure_model.ct_clip_weights import ct_clip_name
from d2rnet.ct.structure_model.factorised_vit import CosineAttention, FactorisedLayer, FactorisedViT, OffsetBias
from d2rnet.ct.structure_model.settings import VolumeEncoderSettings
from d2rnet.errors import ConfigError

SETTINGS = VolumeEncoderSettings().replaced(kind="ct_vit", patch_zyx=(2, 4, 4), width=24, layers=2, num_heads=2)


def vit(shape=(4, 12, 16), **changes) -> FactorisedViT:
    torch.manual_seed(5)
    return FactorisedViT(SETTINGS.replaced(**changes), shape).eval()


def volumes(*shape, count=1):
    return torch.rand(count, 1, *shape, generator=torch.Generator().manual_seed(2)) * 2 - 1


def with_ct_clip_values(network: FactorisedViT) -> dict:
    state = ct_clip_state(SMALL)
    network.load_state_dict({own: state[ct_clip_name(own)] for own in network.state_dict()})
    return {name.removeprefix("visual_transformer."): tensor for name, tensor in state.items()}


def test_published_sizes_without_computing_them():
    settings = SETTINGS.replaced(patch_zyx=(15, 30, 30), width=512, layers=4, num_heads=8)
    with torch.device("meta"):
        network = FactorisedViT(settings, (240, 480, 480))
        out = network(torch.empty(1, 1, 240, 480, 480))
    assert network.grid_zyx == (16, 16, 16)
    assert out.shape == (1, 4096, 512)
    assert network.in_plane[0].feed_forward.down.in_features == 1365  # two thirds of 4 x 512


def test_a_voxel_enters_the_token_of_its_patch_alone():
    network = vit()
    volume = volumes(4, 12, 16)
    before = network.patches(volume, network.grid_zyx).flatten(1, 3)
    for z, y, x in [(0, 0, 0), (3, 0, 0), (0, 11, 0), (0, 0, 15), (2, 5, 9)]:
        bright = volume.clone()
        bright[0, 0, z, y, x] += 3.0
        changed = (network.patches(bright, network.grid_zyx).flatten(1, 3) != before).any(dim=2)[0]
        place = (z // 2 * 3 + y // 4) * 4 + x // 4  # raster order of 2 x 3 x 4 patches
        assert changed.nonzero().flatten().tolist() == [place], (z, y, x)


def test_the_voxels_of_a_patch_are_read_z_then_y_then_x():
    network = vit()
    volume = torch.arange(4 * 12 * 16, dtype=torch.float32).view(1, 1, 4, 12, 16)
    seen = []
    network.patches.norm_voxels.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network.patches(volume, network.grid_zyx)
    expected = volume[0, 0, 2:4, 4:8, 12:16].flatten()
    torch.testing.assert_close(seen[0][0, 1, 1, 3], expected)


def test_a_batch_is_its_volumes_one_by_one():
    network = vit()
    batch = volumes(4, 12, 16, count=3)
    together = network(batch)
    alone = torch.cat([network(batch[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_layers_in_the_plane_mix_a_slab_and_layers_along_z_mix_a_column():
    """Without the convolution, a token of the first stack depends on its slab alone, one of the second on its column."""
    for axes, same in ((2, lambda a, b: a[0] == b[0]), (1, lambda a, b: a[:2] == b[:2])):
        torch.manual_seed(1)
        layer = FactorisedLayer(24, 2, attended_axes=axes).eval()
        torch.nn.init.zeros_(layer.neighbours.weight)
        x = torch.randn(1, 2, 3, 4, 24, requires_grad=True)
        bias = OffsetBias(24, 2)(3, 4) if axes == 2 else None
        target = (1, 2, 0)
        layer(x, bias)[(0, *target)].square().sum().backward()
        reached = x.grad.abs().sum(dim=-1)[0] > 0
        for place in [(a, b, c) for a in range(2) for b in range(3) for c in range(4)]:
            assert bool(reached[place]) == same(place, target), (axes, place)


def test_the_convolution_sees_nothing_ahead_along_its_first_axis():
    layer = FactorisedLayer(24, 2, attended_axes=1).eval()
    x = torch.randn(1, 5, 5, 5, 24, requires_grad=True)
    padded = F.pad(x.movedim(-1, 1), (1, 1, 1, 1, 2, 0))
    layer.neighbours(padded)[0, :, 2, 2, 2].sum().backward()
    reached = x.grad.abs().sum(dim=-1)[0].nonzero()
    assert reached.min(dim=0).values.tolist() == [0, 1, 1]
    assert reached.max(dim=0).values.tolist() == [2, 3, 3]


def test_attention_by_hand():
    """Two tokens, one head: cosines of unit vectors, times 8, plus the bias."""
    attention = CosineAttention(32, 1)
    with torch.no_grad():
        for linear in (attention.query, attention.out):
            linear.weight.copy_(torch.eye(32))
        attention.key_value.weight.copy_(torch.cat([torch.eye(32), torch.eye(32)]))
        attention.key_scale.fill_(0.5)
    x = torch.zeros(1, 2, 32)
    x[0, 0, 0] = 2.0
    x[0, 1, 1] = 3.0
    bias = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    normed = F.layer_norm(x, (32,))  # of the queries alone
    length = normed[0, 0].norm()
    on, off = float(normed[0, 0, 0] / length), float(normed[0, 0, 1] / length)
    scores = (8 * 0.5 * on, 8 * 0.5 * off + 1.0)  # keys are the unit vectors of axes 0 and 1
    share = math.exp(scores[0]) / (math.exp(scores[0]) + math.exp(scores[1]))
    out = attention(x, bias).detach()
    assert float(out[0, 0, 0]) == pytest.approx(2.0 * share, rel=1e-5)  # values are not normed
    assert float(out[0, 0, 1]) == pytest.approx(3.0 * (1 - share), rel=1e-5)


def test_the_bias_is_of_the_offset_of_query_and_key():
    torch.manual_seed(0)
    network = OffsetBias(8, 2)
    bias = network(2, 3)
    places = [(row, column) for row in range(2) for column in range(3)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            offset = torch.tensor([row - other_row, column - other_column], dtype=torch.float32)
            hidden = offset.sign() * torch.log(offset.abs() + 1)
            for layer in network.layers[:-1]:
                hidden = F.leaky_relu(layer(hidden), 0.1)
            torch.testing.assert_close(bias[:, i, j], network.layers[-1](hidden))


def layer_by_formula(state, prefix, tokens, conv_shape, bias):
    """One layer of CT-CLIP: tokens (R, N, W), which its convolution reads as (1, *conv_shape, W) whatever they stand for."""
    part = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    heads = 2
    grid = tokens.reshape(*conv_shape, -1)
    around = torch.zeros(conv_shape[0] + 2, conv_shape[1] + 2, conv_shape[2] + 2, grid.shape[-1])
    around[2:, 1:-1, 1:-1] = grid
    summed = part["0.dsconv.bias"].expand(grid.shape).clone()
    for a in range(3):
        for b in range(3):
            for c in range(3):
                shifted = around[a : a + conv_shape[0], b : b + conv_shape[1], c : c + conv_shape[2]]
                summed = summed + shifted * part["0.dsconv.weight"][:, 0, a, b, c]
    tokens = tokens + summed.reshape(tokens.shape)
    normed = F.layer_norm(tokens, tokens.shape[-1:]) * part["1.norm.gamma"]
    queries = (normed @ part["1.to_q.weight"].T).reshape(*tokens.shape[:2], heads, 32)
    keys, values = ((tokens @ half.T).reshape(*tokens.shape[:2], heads, 32) for half in part["1.to_kv.weight"].split(64))
    queries = queries / queries.norm(dim=-1, keepdim=True) * part["1.q_scale"]
    keys = keys / keys.norm(dim=-1, keepdim=True) * part["1.k_scale"]
    scores = 8 * torch.einsum("rihd,rjhd->rhij", queries, keys) + bias
    seen = torch.einsum("rhij,rjhd->rihd", scores.softmax(dim=-1), values).flatten(2)
    tokens = tokens + seen @ part["1.to_out.weight"].T
    normed = F.layer_norm(tokens, tokens.shape[-1:], part["3.0.weight"], part["3.0.bias"])
    content, gate = (normed @ part["3.1.weight"].T).chunk(2, dim=-1)
    return tokens + (content * 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))) @ part["3.4.weight"].T


def test_formulas_of_ct_clip_written_again():
    """A grid of 3 x 3 x 3, where CT-CLIP's reading of tokens in the layers over z is a convolution over (y, x, z)."""
    network = vit(shape=(6, 12, 12))
    state = with_ct_clip_values(network)
    volume = volumes(6, 12, 12)
    tokens = torch.stack(
        [
            volume[0, 0, z * 2 : z * 2 + 2, y * 4 : y * 4 + 4, x * 4 : x * 4 + 4].flatten()
            for z in range(3)
            for y in range(3)
            for x in range(3)
        ]
    )
    tokens = F.layer_norm(tokens, (32,), state["to_patch_emb.1.weight"], state["to_patch_emb.1.bias"])
    tokens = F.linear(tokens, state["to_patch_emb.2.weight"], state["to_patch_emb.2.bias"])
    tokens = F.layer_norm(tokens, (24,), state["to_patch_emb.3.weight"], state["to_patch_emb.3.bias"])
    bias = network.offset_bias(3, 3)
    tokens = tokens.view(3, 9, 24)  # slabs of 3 x 3
    for layer in range(2):
        tokens = layer_by_formula(state, f"enc_spatial_transformer.layers.{layer}.", tokens, (3, 3, 3), bias)
    tokens = F.layer_norm(tokens, (24,)) * state["enc_spatial_transformer.norm_out.gamma"]
    tokens = tokens.transpose(0, 1)  # columns: (y x), z
    for layer in range(2):
        tokens = layer_by_formula(state, f"enc_temporal_transformer.layers.{layer}.", tokens, (3, 3, 3), 0.0)
    tokens = F.layer_norm(tokens, (24,)) * state["enc_temporal_transformer.norm_out.gamma"]
    expected = tokens.transpose(0, 1).reshape(1, 27, 24)
    torch.testing.assert_close(network(volume), expected, rtol=1e-3, atol=1e-4)


def test_order_zxy_reads_the_volume_as_ct_clip_was_trained_and_gives_back_our_raster_order():
    plain = vit(shape=(4, 16, 12), patch_zyx=(2, 4, 4))
    turned = vit(shape=(4, 12, 16), axes="zxy")
    turned.load_state_dict(plain.state_dict())
    volume = volumes(4, 12, 16)
    expected = plain(volume.transpose(3, 4)).view(1, 2, 4, 3, 24).transpose(2, 3).reshape(1, 24, 24)
    torch.testing.assert_close(turned(volume), expected)


def test_recomputing_layers_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        network = vit(recompute=recompute).train()
        network(volumes(4, 12, 16)).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, again)


def test_every_weight_takes_part():
    network = vit().train()
    network(volumes(4, 12, 16, count=2)).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_settings_that_do_not_go_together():
    with pytest.raises(ConfigError, match="layers: got 0"):
        vit(layers=0)
    with pytest.raises(ConfigError, match=r"patch_zyx: got \[2, 4, 4\]"):
        vit(shape=(4, 12, 15))
