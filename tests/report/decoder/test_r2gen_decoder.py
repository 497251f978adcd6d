"""R2Gen's weights in our decoder, against R2Gen's decoder written out literally."""

import pytest
import torch
from r2gen_reference import Reference, Weights, random_weights

import d2rnet.report
from d2rnet.errors import CheckpointError
from d2rnet.report.decoder.attention import sinusoidal_positions
from d2rnet.report.decoder.r2gen_decoder import load_r2gen_decoder

NUM_WORDS = 11


def both(
    heads: int = 4, memory_heads: int = 2, **sizes: float
) -> tuple[d2rnet.report.decoder.r2gen_decoder.R2GenDecoder, Reference]:
    """Our decoder and the literal one with the same weights."""
    weights = random_weights(**({"d_model": 16, "num_words": NUM_WORDS} | sizes))
    decoder = load_r2gen_decoder(weights, num_heads=heads, memory_heads=memory_heads)
    return decoder, Reference(weights, heads=heads, memory_heads=memory_heads)


def patches_and_ids(width: int = 20, words: int = NUM_WORDS, studies: int = 3, length: int = 9) -> tuple[torch.Tensor, ...]:
    """Patch features, and ids with an early end in the first row and zeros inside the second."""
    generator = torch.Generator().manual_seed(5)
    patches = torch.randn(studies, 6, width, generator=generator)
    ids = torch.randint(1, words + 1, (studies, length), generator=generator)
    ids[:, 0] = 0
    ids[0, 4:] = 0
    ids[1, 3] = ids[1, 5] = 0
    return patches, ids


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"num_layers": 3, "slots": 2, "seed": 1},
        {"num_layers": 1, "slots": 1, "d_ff": 24, "patch_width": 7, "seed": 2},
        {"scale": 2.5, "seed": 3},
        {"d_model": 12, "slots": 20, "heads": 3, "memory_heads": 6, "seed": 4},
        {"heads": 2, "memory_heads": 8, "seed": 5},
    ],
    ids=["plain", "three layers", "one layer, one slot, odd widths", "large norms", "more slots than width", "other heads"],
)
@torch.no_grad()
def test_log_probs_equal_the_literal_ones(sizes: dict[str, float]) -> None:
    decoder, reference = both(**sizes)
    patches, ids = patches_and_ids(decoder.shape.patch_width)
    found = decoder.log_probs(patches, ids)
    assert found.shape == (3, 8, NUM_WORDS + 1)
    assert float((found - reference.log_probs(patches, ids)).abs().max()) < 5e-5


@pytest.mark.parametrize(("d_model", "words", "tolerance"), [(64, 300, 5e-4), (512, 120, 5e-3)])
@torch.no_grad()
def test_log_probs_at_published_widths(d_model: int, words: int, tolerance: float) -> None:
    decoder, reference = both(8, 8, d_model=d_model, num_words=words, num_layers=3, patch_width=64, scale=1.5)
    patches, ids = patches_and_ids(64, words, studies=2, length=12)
    assert float((decoder.log_probs(patches, ids) - reference.log_probs(patches, ids)).abs().max()) < tolerance


@torch.no_grad()
def test_a_token_does_not_look_at_zeros_before_it() -> None:
    """The literal decoder with all zeros visible gives something else: the mask matters."""
    decoder, reference = both(scale=2.0)
    patches, ids = patches_and_ids()
    given = ids[:, :-1]
    causal = torch.ones(3, 8, 8, dtype=torch.bool).tril()
    unmasked = reference.decode(reference.encode(patches), given, causal)
    found = decoder.log_probs(patches, ids)
    assert float((found[1, 6] - unmasked[1, 6]).abs().max()) > 1e-3
    assert float((found[2] - unmasked[2]).abs().max()) < 5e-5  # no zero inside


def decode_bias(weights: Weights, bias: float) -> Weights:
    """Make the end token likelier."""
    weights["logit.bias"][0] += bias
    return weights


@pytest.mark.parametrize(
    "bias", [-30.0, 0.0, 1.5, 4.0, 30.0], ids=["never ends", "plain", "ends", "ends early", "ends at once"]
)
@pytest.mark.parametrize("beam_size", [1, 3, 5])
def test_reports_equal_those_of_a_literal_search(beam_size: int, bias: float) -> None:
    for seed in (0, 1):
        weights = decode_bias(random_weights(d_model=16, num_words=NUM_WORDS, scale=1.8, seed=seed), bias)
        patches, _ = patches_and_ids(studies=2)
        ids, sums = load_r2gen_decoder(weights, num_heads=4, memory_heads=2).generate(patches, 7, beam_size)
        expected_ids, expected_sums = Reference(weights, heads=4, memory_heads=2).generate(patches, 7, beam_size)
        assert ids.tolist() == expected_ids
        assert sums.tolist() == pytest.approx(expected_sums, abs=1e-3)
        if bias == 30:
            assert ids.abs().max() == 0


def test_sum_is_that_of_the_report() -> None:
    decoder, _ = both(scale=1.8)
    patches, _ = patches_and_ids()
    ids, sums = decoder.generate(patches, 6, 3)
    for row in range(3):
        tokens = ids[row].tolist()
        report = tokens[: tokens.index(0) + 1] if 0 in tokens else tokens
        log_probs = decoder.log_probs(patches[row : row + 1], torch.tensor([[0, *report]]))
        total = log_probs[0].gather(1, torch.tensor(report).unsqueeze(1)).sum()
        assert float(sums[row]) == pytest.approx(float(total.detach()), abs=1e-4)


@torch.no_grad()
def test_masked_patches_are_as_if_absent() -> None:
    decoder, _ = both()
    patches, ids = patches_and_ids()
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:, 4:] = False
    assert torch.allclose(decoder.log_probs(patches, ids, mask), decoder.log_probs(patches[:, :4], ids), atol=1e-5)


def renamed(weights: Weights, prefix: str) -> Weights:
    return {f"{prefix}{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("prefix", ["", "encoder_decoder.", "module.encoder_decoder."])
@torch.no_grad()
def test_prefix_position_table_and_image_network_make_no_difference(prefix: str) -> None:
    weights = random_weights(d_model=16, num_words=NUM_WORDS)
    patches, ids = patches_and_ids()
    plain = load_r2gen_decoder(weights, 4, 2).log_probs(patches, ids)
    weights["model.tgt_embed.1.pe"] = sinusoidal_positions(0, 60, 16, like=torch.zeros(1)).unsqueeze(0)
    whole = renamed(weights, prefix)
    if prefix:
        whole[prefix.replace("encoder_decoder", "visual_extractor") + "model.0.weight"] = torch.zeros(64, 3, 7, 7)
    assert torch.equal(load_r2gen_decoder(whole, 4, 2).log_probs(patches, ids), plain)


def test_half_precision_weights_become_float32() -> None:
    weights = {name: tensor.half() for name, tensor in random_weights(d_model=16, num_words=NUM_WORDS).items()}
    assert {parameter.dtype for parameter in load_r2gen_decoder(weights, 4, 2).parameters()} == {torch.float32}


def test_sizes_are_read_from_the_shapes() -> None:
    weights = random_weights(d_model=24, num_words=30, num_layers=3, d_ff=40, slots=5, patch_width=9)
    decoder = d2rnet.report.load_r2gen_decoder(weights, num_heads=6, memory_heads=3)
    shape = decoder.shape
    assert (shape.d_model, shape.num_tokens, shape.num_layers, shape.d_ff) == (24, 31, 3, 40)
    assert (shape.memory_slots, shape.patch_width) == (5, 9)
    assert not decoder.training


def test_missing_and_unexpected_keys_are_listed() -> None:
    weights = random_weights(d_model=16, num_words=NUM_WORDS)
    del weights["model.rm.U.bias"], weights["model.decoder.layers.1.sublayer.2.norm.mlp_beta.2.weight"]
    weights["model.rm.V.bias"] = torch.zeros(3)
    with pytest.raises(
        CheckpointError,
        match=r"Missing 2: model\.decoder\.layers\.1\.sublayer\.2\.norm\.mlp_beta\.2\.weight, "
        r"model\.rm\.U\.bias; unexpected 1: model\.rm\.V\.bias",
    ):
        load_r2gen_decoder(weights, 4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("att_embed.0.weight"), r"no R2Gen decoder in it: lacks att_embed\.0\.weight"),
        (lambda weights: weights.clear(), "it has none"),
        (lambda weights: weights.update({"logit.bias": torch.zeros(5)}), r"logit\.bias \(5,\) instead of \(12,\)"),
        (
            lambda weights: weights.update({"att_embed.0.weight": torch.zeros(5)}),
            r"expected matrices, got att_embed\.0\.weight",
        ),
        (lambda weights: weights.update({"model.tgt_embed.1.pe": torch.zeros(1, 9, 16)}), "differs from sinusoidal positions"),
        (lambda weights: weights.update({"visual.weight": torch.zeros(1)}), r"unexpected 1: visual\.weight"),
    ],
)
def test_other_state_dicts_are_refused(change, message: str) -> None:
    weights = random_weights(d_model=16, num_words=NUM_WORDS)
    change(weights)
    with pytest.raises(CheckpointError, match=message):
        load_r2gen_decoder(weights, 4, 2)


@pytest.mark.parametrize(("heads", "name"), [((3, 2), "num_heads 3"), ((4, 5), "memory_heads 5"), ((0, 2), "num_heads 0")])
def test_heads_must_divide_the_width(heads: tuple[int, int], name: str) -> None:
    with pytest.raises(CheckpointError, match=f"width 16 is no multiple of {name}"):
        load_r2gen_decoder(random_weights(d_model=16, num_words=NUM_WORDS), *heads)


def test_wrong_inputs_are_named() -> None:
    decoder, _ = both()
    patches, ids = patches_and_ids()
    with pytest.raises(ValueError, match=r"patch_features: got shape \(3, 6, 19\); expected \(B, L, 20\)"):
        decoder.generate(patches[..., :19], 4, 1)
    with pytest.raises(ValueError, match=r"token_ids: got shape \(3, 1\)"):
        decoder.log_probs(patches, ids[:, :1])
