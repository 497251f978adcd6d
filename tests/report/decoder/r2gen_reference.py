"""R2Gen's decoder written out slowly and literally, straight from a state dict under R2Gen's names: a test oracle.

Nothing is shared with the package: no cache, no batch of beams, one token of the memory at a time, one beam's whole prefix at
each step. Shapes: B studies, L patches, T tokens, D width, M memory slots.
"""

import math

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def random_weights(
    *,
    d_model: int,
    num_words: int,
    num_layers: int = 2,
    d_ff: int | None = None,
    slots: int = 3,
    patch_width: int = 20,
    scale: float = 1.0,
    seed: int = 0,
) -> Weights:
    """Draw a state dict under R2Gen's names; ``scale`` 1 keeps the variance of what passes a layer."""
    generator = torch.Generator().manual_seed(seed)
    d_ff = d_ff or d_model
    state: Weights = {}

    def linear(name: str, into: int, out: int) -> None:
        state[f"{name}.weight"] = torch.randn(out, into, generator=generator) * scale / math.sqrt(into)
        state[f"{name}.bias"] = torch.randn(out, generator=generator) * 0.1 * scale

    def norm(name: str) -> None:
        state[f"{name}.gamma"] = 1 + 0.2 * scale * torch.randn(d_model, generator=generator)
        state[f"{name}.beta"] = 0.2 * scale * torch.randn(d_model, generator=generator)

    def attention(name: str) -> None:
        for number in range(4):
            linear(f"{name}.linears.{number}", d_model, d_model)

    linear("att_embed.0", patch_width, d_model)
    linear("logit", d_model, num_words + 1)
    state["model.tgt_embed.0.lut.weight"] = torch.randn(num_words + 1, d_model, generator=generator) / math.sqrt(d_model)
    for stack, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "src_attn"))):
        norm(f"model.{stack}.norm")
        for number in range(num_layers):
            layer = f"model.{stack}.layers.{number}"
            for name in attentions:
                attention(f"{layer}.{name}")
            linear(f"{layer}.feed_forward.w_1", d_model, d_ff)
            linear(f"{layer}.feed_forward.w_2", d_ff, d_model)
            for sublayer in range(len(attentions) + 1):
                norm(f"{layer}.sublayer.{sublayer}.norm")
                if stack == "decoder":
                    for network in ("mlp_gamma", "mlp_beta"):
                        linear(f"{layer}.sublayer.{sublayer}.norm.{network}.0", slots * d_model, d_model)
                        linear(f"{layer}.sublayer.{sublayer}.norm.{network}.2", d_model, d_model)
    attention("model.rm.attn")
    linear("model.rm.mlp.0", d_model, d_model)
    linear("model.rm.mlp.2", d_model, d_model)
    linear("model.rm.W", d_model, 2 * d_model)
    linear("model.rm.U", d_model, 2 * d_model)
    return state


class Reference:
    """R2Gen's decoder in float64."""

    def __init__(self, weights: Weights, *, heads: int, memory_heads: int) -> None:
        self.weights = {name: tensor.double() for name, tensor in weights.items()}
        self.heads = heads
        self.memory_heads = memory_heads
        self.width = weights["model.tgt_embed.0.lut.weight"].shape[1]
        self.layers = len({name.split(".")[3] for name in weights if name.startswith("model.decoder.layers.")})
        self.slots = weights["model.decoder.layers.0.sublayer.0.norm.mlp_gamma.0.weight"].shape[1] // self.width

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def attention(self, name: str, query: Tensor, source: Tensor, mask: Tensor | None, heads: int) -> Tensor:
        """Heads one after the other; ``mask`` (B, T or 1, L) is True where a key is seen."""
        q, k, v = (self.linear(f"{name}.linears.{n}", x) for n, x in enumerate((query, source, source)))
        size = self.width // heads
        parts = []
        for head in range(heads):
            columns = slice(head * size, (head + 1) * size)
            scores = q[..., columns] @ k[..., columns].transpose(1, 2) / math.sqrt(size)
            if mask is not None:
                scores = scores.masked_fill(~mask, -1e9)
            parts.append(torch.softmax(scores, dim=-1) @ v[..., columns])
        return self.linear(f"{name}.linears.3", torch.cat(parts, dim=-1))

    def norm(self, name: str, x: Tensor, memory: Tensor | None = None) -> Tensor:
        """Unbiased deviation, eps outside the root; ``memory`` (B, T, M D) shifts gamma and beta."""
        gamma = self.weights[f"{name}.gamma"]
        beta = self.weights[f"{name}.beta"]
        if memory is not None:
            gamma = gamma + self.linear(f"{name}.mlp_gamma.2", torch.relu(self.linear(f"{name}.mlp_gamma.0", memory)))
            beta = beta + self.linear(f"{name}.mlp_beta.2", torch.relu(self.linear(f"{name}.mlp_beta.0", memory)))
        return gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + beta

    def feed_forward(self, layer: str, x: Tensor) -> Tensor:
        return self.linear(f"{layer}.feed_forward.w_2", torch.relu(self.linear(f"{layer}.feed_forward.w_1", x)))

    def encode(self, patches: Tensor) -> Tensor:
        x = torch.relu(self.linear("att_embed.0", patches.double()))
        for number in range(self.layers):
            layer = f"model.encoder.layers.{number}"
            normed = self.norm(f"{layer}.sublayer.0.norm", x)
            x = x + self.attention(f"{layer}.self_attn", normed, normed, None, self.heads)
            x = x + self.feed_forward(layer, self.norm(f"{layer}.sublayer.1.norm", x))
        return self.norm("model.encoder.norm", x)

    def embed(self, ids: Tensor) -> Tensor:
        x = self.weights["model.tgt_embed.0.lut.weight"][ids] * math.sqrt(self.width)
        for place in range(ids.shape[1]):
            for pair in range(0, self.width, 2):
                angle = place / 10000.0 ** (pair / self.width)
                x[:, place, pair] += math.sin(angle)
                x[:, place, pair + 1] += math.cos(angle)
        return x

    def memories(self, embedded: Tensor) -> Tensor:
        """Memory after each token, that token included: (B, T, M D)."""
        memory = torch.zeros(len(embedded), self.slots, self.width, dtype=torch.float64)
        for slot in range(min(self.slots, self.width)):
            memory[:, slot, slot] = 1
        after = []
        for place in range(embedded.shape[1]):
            token = embedded[:, place : place + 1]
            source = torch.cat([memory, token], dim=1)
            new = memory + self.attention("model.rm.attn", memory, source, None, self.memory_heads)
            new = new + torch.relu(self.linear("model.rm.mlp.2", torch.relu(self.linear("model.rm.mlp.0", new))))
            gates = self.linear("model.rm.W", token) + self.linear("model.rm.U", torch.tanh(memory))
            let_in = gates[..., : self.width]
            keep = gates[..., self.width :]
            memory = torch.sigmoid(let_in) * torch.tanh(new) + torch.sigmoid(keep) * memory
            after.append(memory.reshape(len(embedded), -1))
        return torch.stack(after, dim=1)

    def decode(self, encoded: Tensor, ids: Tensor, seen: Tensor) -> Tensor:
        """Log-probabilities (B, T, V + 1); ``seen`` (B, T, T)."""
        x = self.embed(ids)
        memory = self.memories(x)
        for number in range(self.layers):
            layer = f"model.decoder.layers.{number}"
            normed = self.norm(f"{layer}.sublayer.0.norm", x, memory)
            x = x + self.attention(f"{layer}.self_attn", normed, normed, seen, self.heads)
            normed = self.norm(f"{layer}.sublayer.1.norm", x, memory)
            x = x + self.attention(f"{layer}.src_attn", normed, encoded, None, self.heads)
            x = x + self.feed_forward(layer, self.norm(f"{layer}.sublayer.2.norm", x, memory))
        return torch.log_softmax(self.linear("logit", self.norm("model.decoder.norm", x)), dim=-1)

    def log_probs(self, patches: Tensor, ids: Tensor) -> Tensor:
        """Teacher forcing: all but the last id go in; zeros are hidden, but for the first column."""
        given = ids[:, :-1]
        length = given.shape[1]
        seen = torch.zeros(len(given), length, length, dtype=torch.bool)
        for row in range(len(given)):
            for query in range(length):
                for key in range(query + 1):
                    seen[row, query, key] = key == 0 or bool(given[row, key] > 0)
        return self.decode(self.encode(patches), given, seen)

    def next_log_probs(self, encoded: Tensor, tokens: list[int]) -> list[float]:
        """Log-probabilities after a prefix of one study; no padding mask, as in R2Gen's generation."""
        ids = torch.tensor([[0, *tokens]])
        seen = torch.ones(1, len(tokens) + 1, len(tokens) + 1, dtype=torch.bool).tril()
        return self.decode(encoded, ids, seen)[0, -1].tolist()

    def generate(self, patches: Tensor, max_tokens: int, beam_size: int) -> tuple[list[list[int]], list[float]]:
        """Beam search, study by study."""
        best = [self._search(self.encode(patches[row : row + 1]), max_tokens, beam_size) for row in range(len(patches))]
        return [tokens for _, tokens in best], [total for total, _ in best]

    def _search(self, encoded: Tensor, max_tokens: int, beam_size: int) -> tuple[float, list[int]]:
        opened: list[tuple[float, list[int]]] = [(0.0, [])]
        done: list[tuple[float, list[int]]] = []
        for length in range(1, max_tokens + 1):
            candidates = [
                (total + log_prob, [*tokens, token])
                for total, tokens in opened
                for token, log_prob in enumerate(self.next_log_probs(encoded, tokens))
            ]
            slots = sorted(candidates, key=lambda beam: -beam[0])[:beam_size]
            opened = []
            for beam in slots:  # a beam that ends has its slot in this step and is gone in the next
                (done if beam[1][-1] == 0 or length == max_tokens else opened).append(beam)
            if not opened:
                break
        total, tokens = max(done, key=lambda beam: beam[0])
        return total, tokens + [0] * (max_tokens - len(tokens))
