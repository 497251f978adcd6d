"""The relational memory's loop over tokens, with its own backward pass.

Each token needs the memory that the one before it left, so the loop cannot be avoided. But the gradients of the weights need
not be added up token by token, they are one product over all tokens; and no graph of single operations is recorded.
Formulas as in :mod:`d2rnet.report.decoder.relational_memory`.

Shapes: B sequences, T tokens, M slots, D model width, H heads, Dh = D / H.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class LoopWeights(NamedTuple):
    """Weights (out, in) and biases of the products inside the loop, all of one type."""

    slots_weight: Tensor  # (3 D, D): query, key and value of a slot
    slots_bias: Tensor
    output_weight: Tensor  # of the attention
    output_bias: Tensor
    first_weight: Tensor  # of the MLP
    first_bias: Tensor
    second_weight: Tensor
    second_bias: Tensor
    gates_weight: Tensor  # (2 D, D): what the memory adds to the gates
    gates_bias: Tensor


class _Trace(NamedTuple):
    """What the backward pass needs of one token's step; heads apart where (B, H, ...)."""

    memory: Tensor  # (B, M, D) before
    query: Tensor  # (B, H, M, Dh)
    keys: Tensor  # (B, H, M + 1, Dh), the token's last
    values: Tensor
    shares: Tensor  # (B, H, M, M + 1)
    mixed: Tensor  # (B, M, D)
    proposal: Tensor  # (B, M, D)
    first: Tensor  # (B, M, D) after ReLU
    second: Tensor
    squashed: Tensor  # tanh of proposal + second
    seen: Tensor  # tanh of memory
    gates: Tensor  # (B, M, 2 D): input, forget


def advance(memory: Tensor, token: Tensor, weights: LoopWeights, heads: int) -> tuple[Tensor, _Trace]:
    """Take in one token.

    Args:
        memory: (B, M, D).
        token: (B, 4 D) key, value and gates of the token.
        weights: of the loop.
        heads: H.

    Returns:
        The new memory and what the backward pass needs.
    """
    width = memory.shape[2]
    key, value, token_gates = token.unsqueeze(1).split([width, width, 2 * width], dim=2)
    query, keys, values = _linear(memory, weights.slots_weight, weights.slots_bias).chunk(3, dim=2)
    query = _apart(query, heads)
    keys = _apart(torch.cat([keys, key], dim=1), heads)
    values = _apart(torch.cat([values, value], dim=1), heads)
    shares = (query @ keys.transpose(2, 3) / math.sqrt(keys.shape[3])).softmax(dim=3)
    mixed = _together(shares @ values)
    proposal = memory + _linear(mixed, weights.output_weight, weights.output_bias)
    first = _linear(proposal, weights.first_weight, weights.first_bias).relu_()
    second = _linear(first, weights.second_weight, weights.second_bias).relu_()
    squashed = (proposal + second).tanh_()
    seen = memory.tanh()
    gates = _linear(seen, weights.gates_weight, weights.gates_bias).add_(token_gates).sigmoid_()
    input_gate, forget_gate = gates.chunk(2, dim=2)
    new = torch.addcmul(input_gate * squashed, forget_gate, memory)
    return new, _Trace(memory, query, keys, values, shares, mixed, proposal, first, second, squashed, seen, gates)


class _Gradients(NamedTuple):
    """Gradients of the outputs of the loop's products, of all tokens (T, ...) or of one."""

    token: Tensor  # (B, 4 D)
    slots: Tensor  # (B, M, 3 D)
    output: Tensor  # (B, M, D)
    first: Tensor
    second: Tensor
    gates: Tensor  # (B, M, 2 D)


def _retreat(grad: Tensor, trace: _Trace, weights: LoopWeights, into: _Gradients) -> Tensor:
    """Turn the gradient of the new memory into that of the old one; write those of the products' outputs ``into``."""
    input_gate, forget_gate = trace.gates.chunk(2, dim=2)
    of_gates = torch.cat([grad * trace.squashed, grad * trace.memory], dim=2)
    torch.mul(of_gates, trace.gates * (1 - trace.gates), out=into.gates)  # before the sigmoid
    old = torch.addcmul(grad * forget_gate, into.gates @ weights.gates_weight, 1 - trace.seen * trace.seen)
    proposal = grad * input_gate * (1 - trace.squashed * trace.squashed)
    torch.mul(proposal, trace.second > 0, out=into.second)
    torch.mul(into.second @ weights.second_weight, trace.first > 0, out=into.first)
    proposal = proposal + into.first @ weights.first_weight
    into.output.copy_(proposal)
    mixed = _apart(into.output @ weights.output_weight, trace.query.shape[1])
    shares = mixed @ trace.values.transpose(2, 3)
    scores = trace.shares * (shares - (shares * trace.shares).sum(dim=3, keepdim=True)) / math.sqrt(mixed.shape[3])
    query = _together(scores @ trace.keys)
    keys = _together(scores.transpose(2, 3) @ trace.query)
    values = _together(trace.shares.transpose(2, 3) @ mixed)
    torch.cat([query, keys[:, :-1], values[:, :-1]], dim=2, out=into.slots)
    torch.cat([keys[:, -1], values[:, -1], into.gates.sum(dim=1)], dim=1, out=into.token)
    return old + proposal + into.slots @ weights.slots_weight


class _MemoryLoop(torch.autograd.Function):
    """All tokens, one after the other."""

    @staticmethod
    def forward(ctx: Any, memory: Tensor, tokens: Tensor, heads: int, *flat: Tensor) -> Tensor:
        weights = LoopWeights(*flat)
        states = []
        traces = []
        for token in tokens.unbind(1):
            memory, trace = advance(memory, token, weights, heads)
            states.append(memory)
            traces.append(trace)
        ctx.traces = traces
        ctx.weights = weights
        return torch.stack(states, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        # Freed here, not when the loss goes: at T 100, D 512 and 32 sequences it is 220 MB.
        weights = ctx.weights
        traces = ctx.traces
        ctx.traces = None
        if traces is None:
            raise RuntimeError("the memory's loop can be gone through backwards once; run it again for another time")
        batch, slots, width = traces[0].memory.shape
        shapes = ((4,), (slots, 3), (slots, 1), (slots, 1), (slots, 1), (slots, 2))
        every = _Gradients(
            *(weights.slots_weight.new_empty(len(traces), batch, *rows, parts * width) for *rows, parts in shapes)
        )
        carried = torch.zeros_like(traces[0].memory)
        for place in reversed(range(len(traces))):
            into = _Gradients(*(of_all[place] for of_all in every))
            carried = _retreat(grad_states[:, place] + carried, traces[place], weights, into)
        inputs = {"slots": "memory", "output": "mixed", "first": "proposal", "second": "first", "gates": "seen"}
        of_weights: list[Tensor] = []
        for product, source in inputs.items():
            grads = getattr(every, product).flatten(0, 2)  # (T B M, out)
            given = torch.cat([getattr(trace, source) for trace in traces]).flatten(0, 1)  # (T B M, in)
            of_weights += [grads.T @ given.to(grads.dtype), grads.sum(dim=0)]
        return carried, every.token.transpose(0, 1), None, *of_weights


def run_loop(memory: Tensor, tokens: Tensor, weights: LoopWeights, heads: int) -> Tensor:
    """Run over tokens; differentiable once.

    Args:
        memory: (B, M, D) before the first token.
        tokens: (B, T, 4 D) key, value and gates of each token, T > 0.
        weights: of the loop.
        heads: H.

    Returns:
        (B, T, M, D) memory after each token.
    """
    return _MemoryLoop.apply(memory, tokens, heads, *weights)


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x.to(weight.dtype), weight, bias)


def _apart(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) -> (B, H, L, Dh)."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _together(x: Tensor) -> Tensor:
    """(B, H, L, Dh) -> (B, L, D)."""
    return x.transpose(1, 2).flatten(2)
