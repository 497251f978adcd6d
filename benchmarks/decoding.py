"""Decoding and training speed of the report decoder, against the same weights used the plain way, in one run.

Decoding: the incremental decoder against recomputation of the whole prefix at every step: the same modules, keys and values of
the visual tokens computed anew at each step, once a source and not once a beam, scores of the last position alone, the same
beam search, the same threads. Reports must be the same token for token. Operations are counted by torch on shapes alone.
Training: the memory's loop against a loop that does one token after the other with nothing taken out of it, and a whole step.

Timings alternate; medians are printed, of wall-clock and of processor time (of all threads; the better one on a busy machine).

Usage: python benchmarks/decoding.py [--device cuda] [--precision bf16-true] [--threads 2] [--output results.json]
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from d2rnet.report.decoder.beam_search import SearchOptions, beam_search
from d2rnet.report.decoder.memory_transformer import MemoryTransformer
from d2rnet.report.decoder.relational_memory import RelationalMemory
from d2rnet.report.text.vocabulary import EOS_ID

PUBLISHED = {"d_ff": 512, "num_heads": 8, "num_layers": 3, "dropout": 0.1, "memory_slots": 3, "memory_heads": 8}
PATCHES = 144
LENGTHS = (0.25, 1.0)  # of reports that end, as shares of the limit: evenly spread
KINDS = {"32-true": torch.float32, "bf16-true": torch.bfloat16}


@dataclass
class Prefixes:
    """State of :class:`PlainDecoder`: nothing but the tokens so far, (R, t)."""

    encoded: Tensor
    mask: Tensor
    token_ids: Tensor

    def reorder(self, origin: Tensor) -> None:
        """As DecoderState.reorder."""
        sources, beams = origin.shape
        first = torch.arange(sources, device=origin.device).unsqueeze(1) * beams
        self.token_ids = self.token_ids[(first + origin).flatten()]

    def keep(self, sources: Tensor) -> None:
        """As DecoderState.keep."""
        beams = len(self.token_ids) // len(self.encoded)
        self.token_ids = self.token_ids.unflatten(0, (-1, beams))[sources].flatten(0, 1)
        self.encoded = self.encoded[sources]
        self.mask = self.mask[sources]


class PlainDecoder:
    """Recomputes whole prefixes; takes the place of MemoryTransformer in a search."""

    def __init__(self, transformer: MemoryTransformer) -> None:
        """Take the weights."""
        self.transformer = transformer

    def start(self, encoded: Tensor, mask: Tensor, *, beams: int, max_tokens: int) -> Prefixes:
        """Begin with empty prefixes."""
        return Prefixes(encoded, mask, torch.empty(len(encoded) * beams, 0, dtype=torch.long, device=encoded.device))

    def step(self, token_ids: Tensor, state: Prefixes) -> Tensor:
        """Append a token and return the scores of the next one."""
        state.token_ids = torch.cat([state.token_ids, token_ids.unsqueeze(1)], dim=1)
        features, _ = self.transformer.decode(state.encoded, state.mask, state.token_ids)
        return self.transformer.logits(features[:, -1])


class EndingDecoder:
    """Ends the report of source b after ``lengths[b]`` tokens, as a trained model would at some length."""

    def __init__(self, decoder: MemoryTransformer, lengths: Tensor) -> None:
        """Wrap a decoder."""
        self.decoder = decoder
        self.lengths = lengths

    def start(self, encoded: Tensor, mask: Tensor, *, beams: int, max_tokens: int) -> Any:
        """Begin, and let the state's ``keep`` narrow down the lengths, too."""
        state = self.decoder.start(encoded, mask, beams=beams, max_tokens=max_tokens)
        lengths = [self.lengths]
        keep = state.keep

        def keep_both(sources: Tensor) -> None:
            keep(sources)
            lengths[0] = lengths[0][sources]

        state.keep = keep_both
        state.lengths = lengths
        return state

    def step(self, token_ids: Tensor, state: Any) -> Tensor:
        """Score the next token; the end token is sure from a source's length on."""
        logits = self.decoder.step(token_ids, state)
        over = (state.lengths[0] <= state.length).repeat_interleave(len(logits) // len(state.lengths[0]))
        logits[over, EOS_ID] = 1000
        return logits


def make_transformer(options: argparse.Namespace) -> MemoryTransformer:
    """Random weights with memory-conditioned norms at work and words told clearly apart, as after training."""
    torch.manual_seed(0)
    with torch.device(options.device):
        transformer = MemoryTransformer(num_tokens=options.vocabulary, d_model=options.width, **PUBLISHED)
    nn.init.normal_(transformer.conditioned_norms.weight, std=0.3 * options.width**-0.5)
    with torch.no_grad():
        transformer.logits.weight.mul_(4)
        transformer.logits.bias[EOS_ID] -= 1000  # no report ends by itself: every search takes all steps
    return transformer


def clock(work: Callable[[], Any], device: str) -> tuple[float, float, Any]:
    """Return wall-clock seconds, processor seconds and the result."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    processor = time.process_time()
    wall = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor, result


def alternate(works: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, dict[str, float]]:
    """Time every work in turn, ``repeats`` times over; return median wall-clock and processor seconds of each."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            times[name].append(clock(work, device)[:2])
    return {
        name: {"wall_s": statistics.median(w for w, _ in pairs), "processor_s": statistics.median(p for _, p in pairs)}
        for name, pairs in times.items()
    }


def count_operations(options: argparse.Namespace) -> dict[str, int]:
    """Count floating-point operations of a whole search with either decoder, on tensors without content.

    A step's operations are a polynomial of degree two in its number, so that four steps tell those of all (three are enough;
    the fourth is the proof).
    """
    counts = {}
    with FakeTensorMode(), sdpa_kernel(SDPBackend.MATH), torch.no_grad():  # the counter knows no fused kernel of a CPU
        transformer = make_transformer(options).eval()
        encoded = torch.empty(options.batch, PATCHES, options.width, device=options.device)
        mask = torch.ones(options.batch, PATCHES, dtype=torch.bool, device=options.device)
        latest = torch.zeros(options.batch * options.beams, dtype=torch.long, device=options.device)
        for name, decoder in {"incremental": transformer, "plain": PlainDecoder(transformer)}.items():
            with FlopCounterMode(display=False) as counter:
                state = decoder.start(encoded, mask, beams=options.beams, max_tokens=options.tokens)
                seen = []
                for _ in range(5):
                    seen.append(counter.get_total_flops())
                    decoder.step(latest, state)
            start = seen[0]
            steps = [after - before for before, after in itertools.pairwise(seen)]
            first = [after - before for before, after in itertools.pairwise(steps)]
            second = [after - before for before, after in itertools.pairwise(first)]
            assert second[0] == second[1], "not of degree two"
            counts[name] = start + sum(
                weight * math.comb(options.tokens, order)
                for order, weight in enumerate((steps[0], first[0], second[0]), start=1)
            )
    return counts


@torch.no_grad()
def decoding(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the decoders."""
    transformer = make_transformer(options).eval().to(KINDS[options.precision])
    visual = torch.randn(options.batch, PATCHES, options.width, device=options.device)
    mask = torch.ones(options.batch, PATCHES, dtype=torch.bool, device=options.device)
    encoded = transformer.encode(visual, mask)
    full = SearchOptions(beam_size=options.beams, max_tokens=options.tokens, early_stop=False)
    plain = PlainDecoder(transformer)
    lengths = options.tokens * torch.linspace(*LENGTHS, options.batch, device=options.device)
    ending = EndingDecoder(transformer, lengths)
    works = {
        "incremental": lambda: beam_search(transformer, encoded, mask, full),
        "plain": lambda: beam_search(plain, encoded, mask, full),
        "ending, all steps": lambda: beam_search(ending, encoded, mask, full),
        "ending, early stop": lambda: beam_search(ending, encoded, mask, replace(full, early_stop=True)),
    }
    beam_search(transformer, encoded, mask, replace(full, max_tokens=3))  # warm
    results = {name: clock(work, options.device)[2] for name, work in works.items() if name != "plain"}
    first = clock(works["plain"], options.device)
    same = (results["incremental"].token_ids == first[2].token_ids).all(dim=1)
    times = alternate(
        works if options.repeats > 1 else {n: w for n, w in works.items() if n != "plain"}, options.repeats, options.device
    )
    times.setdefault("plain", {"wall_s": first[0], "processor_s": first[1]})
    operations = count_operations(options)
    stopped = results["ending, early stop"].token_ids.equal(results["ending, all steps"].token_ids)
    return {
        "times": times,
        "operations": operations,
        "identical_reports": f"{int(same.sum())} of {len(same)}",
        "early_stop_identical": bool(stopped),
        "reports_per_second": options.batch / times["incremental"]["wall_s"],
        "wall_ratio": times["plain"]["wall_s"] / times["incremental"]["wall_s"],
        "processor_ratio": times["plain"]["processor_s"] / times["incremental"]["processor_s"],
        "operations_ratio": operations["plain"] / operations["incremental"],
        "early_stop_wall_ratio": times["ending, all steps"]["wall_s"] / times["ending, early stop"]["wall_s"],
        "early_stop_processor_ratio": times["ending, all steps"]["processor_s"] / times["ending, early stop"]["processor_s"],
    }


def plain_memory(memory: RelationalMemory, tokens: Tensor, state: Tensor) -> Tensor:
    """Run the relational memory token by token: all products at each token, the graph recorded by autograd."""
    states = []
    for place in range(tokens.shape[1]):
        token = tokens[:, place].unsqueeze(1)
        source = torch.cat([state, token], dim=1)
        proposal = state + memory.attention(state, memory.attention.keys_values(source))
        proposal = proposal + memory.mlp(proposal)
        gates = memory.token_gates(token) + memory.memory_gates(state.tanh())
        input_gate, forget_gate = gates.split(memory.d_model, dim=2)
        state = input_gate.sigmoid() * proposal.tanh() + forget_gate.sigmoid() * state
        states.append(state.flatten(1))
    return torch.stack(states, dim=1)


class PlainMemory(RelationalMemory):
    """RelationalMemory with :func:`plain_memory` as its loop."""

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        """As RelationalMemory.forward."""
        return plain_memory(self, tokens, memory)


def training(options: argparse.Namespace) -> dict[str, Any]:
    """Compare the loops alone, forward and backward, and in a whole step of the Transformer with its optimiser."""
    transformer = make_transformer(options).train()
    optimiser = torch.optim.AdamW(transformer.parameters(), lr=1e-4)
    memory = transformer.relational_memory
    tokens = torch.randn(options.batch, options.tokens, options.width, device=options.device, requires_grad=True)
    gradient = torch.randn(options.batch, options.tokens, memory.num_slots * options.width, device=options.device)
    visual = torch.randn(options.batch, PATCHES, options.width, device=options.device)
    mask = torch.ones(options.batch, PATCHES, dtype=torch.bool, device=options.device)
    token_ids = torch.randint(4, options.vocabulary, (options.batch, options.tokens + 1), device=options.device)

    def loop(kind: type[RelationalMemory]) -> None:
        memory.__class__ = kind
        memory.zero_grad(set_to_none=True)
        memory(tokens, memory.initial(options.batch, like=tokens)).backward(gradient)

    def step(kind: type[RelationalMemory]) -> None:
        memory.__class__ = kind
        with torch.autocast(options.device.split(":")[0], torch.bfloat16, enabled=options.precision != "32-true"):
            logits = transformer(transformer.encode(visual, mask), mask, token_ids[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1).float(), token_ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    kinds = {"ours": RelationalMemory, "plain": PlainMemory}
    works = {
        f"{what}, {name}": (lambda f=f, k=k: f(k)) for what, f in (("loop", loop), ("step", step)) for name, k in kinds.items()
    }
    for work in works.values():
        work()
    times = alternate(works, 2 * options.repeats + 1, options.device)
    ratios = {
        f"{what}_{clock_name}_ratio": times[f"{what}, ours"][f"{clock_name}_s"] / times[f"{what}, plain"][f"{clock_name}_s"]
        for what in ("loop", "step")
        for clock_name in ("wall", "processor")
    }
    return {"times": times, **ratios}


def main() -> None:
    """Measure and print; with ``--output`` write JSON, too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="32-true", choices=KINDS, help="of the decoder; training: autocast")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3, help="1: plain decoding is timed once, without alternation")
    parser.add_argument("--parts", nargs="+", choices=("decoding", "training"), default=["decoding", "training"])
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    where = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else f"{options.threads} threads"
    results = {"options": {**vars(options), "output": None}, "where": where, "torch": torch.__version__}
    results |= {part: {"decoding": decoding, "training": training}[part](options) for part in options.parts}
    print(json.dumps(results, indent=1))
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
