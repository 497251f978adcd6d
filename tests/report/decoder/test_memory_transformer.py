"""Decoder properties: causality, masks, memory formula, step by step equal to whole."""

import math

import pytest
import torch
from report_samples import NUM_TOKENS, make_batch, make_model
from torch import nn

from d2rnet.report.decoder.attention import LayerNorm, MultiHeadAttention, sinusoidal_positions, standardise
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.relational_memory import MemoryConditionedNorms, RelationalMemory


def test_standardise_divides_by_unbiased_deviation_plus_eps() -> None:
    # mean 2, unbiased variance (1 + 0 + 1) / 2 = 1
    value = standardise(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    assert torch.allclose(value, torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64) / (1 + 1e-6))


def test_constant_row_has_finite_gradient() -> None:
    x = torch.zeros(1, 8, requires_grad=True)
    LayerNorm(8)(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()


def test_positions_interleave_sine_and_cosine() -> None:
    table = sinusoidal_positions(2, 1, 4, like=torch.zeros(1))
    expected = [math.sin(2), math.cos(2), math.sin(2 / 100), math.cos(2 / 100)]
    assert table[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_attention_weights_give_the_attention() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2).eval()
    x = torch.randn(2, 3, 8)
    source = torch.randn(2, 5, 8)
    mask = (torch.arange(5) < torch.tensor([[5], [2]]))[:, None, None]
    keys, values = attention.keys_values(source)
    weights = attention.weights(x, keys, mask)
    assert weights[1, :, :, 2:].abs().max() == 0
    by_hand = attention.output((weights @ values).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x, (keys, values), mask), by_hand, atol=1e-6)


def test_few_queries_see_the_same_without_keys_and_values() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2).eval()
    source = torch.randn(2, 5, 8, requires_grad=True)
    mask = (torch.arange(5) < torch.tensor([[5], [2]]))[:, None, None]
    for queries in (3, 4):  # times two heads: less than the width, and not
        x = torch.randn(2, queries, 8, requires_grad=True)
        found = attention.over(x, source, mask)
        expected = attention(x, attention.keys_values(source), mask)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        weights = [parameter for name, parameter in attention.named_parameters() if name != "key.bias"]  # has no effect
        gradients = [torch.autograd.grad(one.square().sum(), [x, source, *weights]) for one in (found, expected)]
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_dropout_of_few_queries_takes_shares_of_whole_values() -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, dropout=0.5)
    x, source = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    keys, values = attention.keys_values(source)
    torch.manual_seed(1)
    found = attention.over(x, source)
    torch.manual_seed(1)
    kept = nn.functional.dropout(attention.weights(x, keys), 0.5)
    assert (kept == 0).any()
    torch.testing.assert_close(found, attention.output((kept @ values).transpose(1, 2).flatten(2)), atol=1e-6, rtol=1e-5)


def literal_memory(memory: nn.Module, tokens: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
    """Relational memory written token by token as R2Gen describes it, without any hoisting."""
    state = memory.initial(len(tokens), like=tokens) if state is None else state
    outputs = []
    for step in range(tokens.shape[1]):
        token = tokens[:, step : step + 1]
        source = torch.cat([state, token], dim=1)
        proposal = state + memory.attention(state, memory.attention.keys_values(source))
        proposal = proposal + memory.mlp(proposal)
        gates = memory.token_gates(token) + memory.memory_gates(torch.tanh(state))
        width = memory.d_model
        state = torch.sigmoid(gates[..., :width]) * torch.tanh(proposal) + torch.sigmoid(gates[..., width:]) * state
        outputs.append(state.flatten(1))
    return torch.stack(outputs, dim=1)


def test_relational_memory_equals_the_literal_one() -> None:
    torch.manual_seed(1)
    memory = RelationalMemory(8, 3, 2)
    tokens = torch.randn(2, 6, 8)
    found = memory(tokens, memory.initial(2, like=tokens))
    assert torch.allclose(found, literal_memory(memory, tokens), atol=1e-6)


@pytest.mark.parametrize(("length", "slots", "heads"), [(6, 3, 2), (1, 1, 4), (4, 5, 1)])
def test_gradients_of_the_memory_equal_those_of_the_literal_one(length: int, slots: int, heads: int) -> None:
    """Of tokens, starting memory and every parameter; the loop has a backward pass of its own."""
    torch.manual_seed(2)
    memory = RelationalMemory(8, slots, heads).double()
    tokens = torch.randn(2, length, 8, dtype=torch.float64, requires_grad=True)
    start = torch.randn(2, slots, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, length, slots * 8, dtype=torch.float64)
    wanted = [tokens, start, *memory.parameters()]
    found = torch.autograd.grad((memory(tokens, start) * weight).sum(), wanted)
    expected = torch.autograd.grad((literal_memory(memory, tokens, start) * weight).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_memory_under_autocast(kind: torch.dtype) -> None:
    """Gradients arrive in float32 and close to those of float32."""
    torch.manual_seed(3)
    memory = RelationalMemory(16, 3, 2)
    tokens = torch.randn(4, 8, 16)
    start = memory.initial(4, like=tokens)
    weight = torch.randn(4, 8, 48)
    expected = torch.autograd.grad((memory(tokens, start) * weight).sum(), list(memory.parameters()))
    with torch.autocast("cpu", dtype=kind):
        states = memory(tokens, start)
    assert states.dtype == torch.float32
    found = torch.autograd.grad((states * weight).sum(), list(memory.parameters()))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) < 0.03 * float(other.norm()) + 1e-2


def test_memory_goes_backwards_once() -> None:
    memory = RelationalMemory(8, 3, 2)
    tokens = torch.randn(2, 3, 8)
    total = memory(tokens, memory.initial(2, like=tokens)).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="run it again"):
        total.backward()


def test_memory_starts_as_padded_identity() -> None:
    assert torch.equal(RelationalMemory(4, 2, 1).initial(1, like=torch.zeros(1))[0], torch.eye(4)[:2])


def test_conditioned_norms_equal_separate_networks() -> None:
    torch.manual_seed(2)
    norms = MemoryConditionedNorms(2, 4, 3)
    nn.init.normal_(norms.weight)
    nn.init.normal_(norms.bias)
    memory = torch.randn(2, 5, 12)
    scales, shifts = norms(memory)
    network = 2  # norm 1, gamma
    hidden = (memory @ norms.hidden.weight[network * 4 : network * 4 + 4].T + norms.hidden.bias[8:12]).relu()
    assert torch.allclose(scales[1], norms.gamma[1] + hidden @ norms.weight[network] + norms.bias[network], atol=1e-5)
    hidden = (memory @ norms.hidden.weight[12:16].T + norms.hidden.bias[12:16]).relu()
    assert torch.allclose(shifts[1], norms.beta[1] + hidden @ norms.weight[3] + norms.bias[3], atol=1e-5)


@pytest.mark.parametrize(("of_attention", "drops"), [(None, 0.5), (0.0, 0.0), (0.2, 0.2)])
def test_weights_of_attention_drop_out_by_their_own_share(of_attention: float | None, drops: float) -> None:
    sizes = {"num_tokens": 9, "d_model": 8, "d_ff": 8, "num_heads": 2, "num_layers": 2, "memory_slots": 2, "memory_heads": 1}
    model = MemoryTransformer(**sizes, dropout=0.5, attention_dropout=of_attention)
    attentions = [part for stack in (model.encoder, model.decoder) for part in stack.modules()]
    assert [part.dropout for part in attentions if isinstance(part, MultiHeadAttention)] == [drops] * 6
    assert {part.p for part in model.modules() if isinstance(part, nn.Dropout)} == {0.5}


def test_future_token_cannot_change_past_logits() -> None:
    model = make_model()
    batch = make_batch()
    changed = make_batch()
    changed.token_ids[:, 4] = (changed.token_ids[:, 4] + 1) % NUM_TOKENS
    before = model(batch)
    after = model(changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4], after[:, 4])


def test_one_token_at_a_time_equals_whole_reports() -> None:
    model = make_model()
    batch = make_batch(length=9)
    encoded = model.encode(batch)
    whole = model.transformer(encoded.tokens, encoded.mask, batch.token_ids)
    state = model.transformer.start(encoded.tokens, encoded.mask, beams=1, max_tokens=9)
    steps = [model.transformer.step(batch.token_ids[:, place], state) for place in range(9)]
    assert torch.allclose(torch.stack(steps, dim=1), whole, atol=1e-5)


def test_reordered_beams_continue_their_own_prefix() -> None:
    """Memory and caches must follow the beam: after a swap, the next logits are those of the swapped prefixes."""
    model = make_model()
    batch = make_batch(lesions=(2,))
    encoded = model.encode(batch)
    prefixes = torch.tensor([[1, 5, 6], [1, 7, 8]])
    state = model.transformer.start(encoded.tokens, encoded.mask, beams=2, max_tokens=4)
    for place in range(3):
        model.transformer.step(prefixes[:, place], state)
    state.reorder(torch.tensor([[1, 0]]))
    found = model.transformer.step(torch.tensor([9, 10]), state)
    swapped = torch.tensor([[1, 7, 8, 9], [1, 5, 6, 10]])
    expected = model.transformer(encoded.tokens.expand(2, -1, -1), encoded.mask.expand(2, -1), swapped)[:, -1]
    assert torch.allclose(found, expected, atol=1e-5)


def test_embedding_is_scaled_and_gets_its_position() -> None:
    transformer = make_model().transformer
    found = transformer._embed(torch.tensor([[7]]), start=3)
    position = sinusoidal_positions(3, 1, 16, like=found)
    assert torch.allclose(found[0], transformer.embedding.weight[7] * 4 + position, atol=1e-6)  # sqrt(16)


def test_the_memory_changes_the_logits() -> None:
    model = make_model()
    batch = make_batch(lesions=(2,))
    encoded = model.encode(batch)
    state = model.transformer.start(encoded.tokens, encoded.mask, beams=2, max_tokens=4)
    state.memory = state.memory.clone()
    state.memory[1] += 1
    one, other = model.transformer.step(torch.tensor([1, 1]), state)
    assert not torch.allclose(one, other, atol=1e-3)


def test_cross_attention_is_a_distribution_over_tokens_that_are_there() -> None:
    model = make_model()
    batch = make_batch(lesions=(2, 0, 3))
    encoded = model.encode(batch)
    attention = model.transformer.cross_attention(encoded.tokens, encoded.mask, batch.token_ids)
    assert torch.allclose(attention.sum(dim=-1), torch.ones(3, 7), atol=1e-5)
    assert attention[~encoded.mask.unsqueeze(1).expand_as(attention)].abs().max() == 0
