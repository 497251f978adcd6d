"""Memory and operations of the CT method, counted without computing: tensors have shapes and no values.

Stage 1 is encoder, observer and projection of one volume, forward and backward; text tower, queue and optimiser are small
beside them. Stage 2 is what visual tokens cost: projection, encoder, and the decoder's attention from a report to them.

- Operations: 2 per multiplication and addition of matrix products and convolutions, by torch's counter.
- Kept: bytes that the forward pass keeps for the backward pass, each storage once, weights not. Attention either by a kernel
  that writes no map of queries by keys (as on GPUs), or with the map written out (as CPUs do with dropout).
- Weights: of the model, with gradients and the two moments of AdamW, 32 bits each.

Projected, not measured: volumes that fit a GPU of 80 GB, nine tenths of it; hours of all epochs over CT-RATE's training scans,
from the operations at a fifth of the peak of dense bfloat16 products, and from a store that gives 1 GB/s. The longer counts.

Usage: python benchmarks/ct_memory.py [--measure] [--output results.json]
"""

import argparse
import contextlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from d2rnet.config import Config
from d2rnet.ct.report_model.dataset import CtBatch
from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.settings import CtSettings
from d2rnet.ct.structure_model.factorised_vit import OffsetBias
from d2rnet.ct.structure_model.model import StructureModel
from d2rnet.figures.tables import markdown_table
from d2rnet.report.decoder.attention import MultiHeadAttention
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.settings import merge, read_overlay

ROOT = Path(__file__).resolve().parents[1]
STRUCTURES = 10
EMBED_DIM = 512
WORDS = 4000
GIB = 2**30
OPTIMISER_COPIES = 4  # weights, gradients, two moments
SCANS = 24_128  # of CT-RATE's training split, one reconstruction each
H100_PEAK = 989e12  # operations a second, dense bfloat16, by its maker
H100_SHARE = 0.2  # of the peak that narrow networks reach (assumed)
READ_BYTES_PER_SECOND = 1e9  # of the store that the volumes come from, whatever the number of GPUs (assumed)


@dataclass(frozen=True)
class Cost:
    """Counts of one training pass.

    Attributes:
        forward: operations.
        backward: operations.
        kept: bytes for the backward pass.
        weights: numbers of the model.
    """

    forward: int
    backward: int
    kept: int
    weights: int

    @property
    def trained_bytes(self) -> int:
        """Weights with what the optimiser holds."""
        return self.weights * 4 * OPTIMISER_COPIES


def convolution_backward_operations(leaving: Any, _entering: Any, weight: Any, *arguments: Any, **_: Any) -> int:
    """Count the gradients of a convolution from shapes: each asked for costs what the convolution did."""
    asked_input, asked_weight, _ = arguments[-1]  # output_mask
    return 2 * math.prod(leaving) * math.prod(weight[1:]) * (asked_input + asked_weight)


@contextlib.contextmanager
def counted_storages(weights: set[int], found: dict[int, Tensor]) -> Iterator[None]:
    """Collect the tensors that autograd keeps, by storage, without those of ``weights``."""

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in weights:
            found[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


def cost_of(make: Callable[[], nn.Module], run: Callable[[Any], Tensor], *, precision: str, written_out: bool) -> Cost:
    """Count one pass of a model that is made without values.

    Args:
        make: makes the model.
        run: takes it through a batch to one tensor.
        precision: "32-true", or one with bfloat16 products.
        written_out: the map of attention is written out and kept; only then the counter sees attention, too.
    """
    with FakeTensorMode():
        model = make().train()
        if not written_out:
            for module in model.modules():
                if isinstance(module, MultiHeadAttention):
                    module.dropout = 0.0  # a CPU has no kernel with dropout, or with a bias that learns; a GPU has
                elif isinstance(module, OffsetBias):
                    module.requires_grad_(False)
        own = {tensor.untyped_storage()._cdata for tensor in [*model.parameters(), *model.buffers()]}
        found: dict[int, Tensor] = {}
        # torch's own count of a convolution's backward pass ignores groups: 512 times too much for a depthwise one.
        mapping = {torch.ops.aten.convolution_backward: convolution_backward_operations}
        there, back = (FlopCounterMode(display=False, custom_mapping=mapping) for _ in range(2))
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true")
        kernel = sdpa_kernel(SDPBackend.MATH if written_out else SDPBackend.FLASH_ATTENTION)
        with kernel:
            with there, counted_storages(own, found), autocast:
                out = run(model)
            kept = sum(tensor.untyped_storage().nbytes() for tensor in found.values())
            with back:
                out.float().sum().backward()
        weights = sum(parameter.numel() for parameter in model.parameters())
        return Cost(there.get_total_flops(), back.get_total_flops(), kept, weights)


def structure_cost(settings: CtSettings, *, written_out: bool) -> Cost:
    """Count stage 1 for one volume."""
    z, y, x = settings.data.conversion.shape_zyx
    network = settings.structure_model.model
    network = network.replaced(encoder={"weights": None})

    def make() -> nn.Module:
        return StructureModel(network, shape_zyx=(z, y, x), num_structures=STRUCTURES, embed_dim=EMBED_DIM)

    return cost_of(
        make,
        lambda model: model(torch.empty(1, 1, z, y, x)),
        precision=settings.structure_model.training.precision,
        written_out=written_out,
    )


def both(count: Callable[..., Cost], *arguments: Any) -> tuple[Cost, int]:
    """Return the cost by kernel, with the operations that only the written-out map lets be counted, and what that keeps."""
    kernel = count(*arguments, written_out=False)
    written = count(*arguments, written_out=True)
    return Cost(written.forward, written.backward, kernel.kept, kernel.weights), written.kept


def report_cost(settings: CtSettings, tokens: int, report_tokens: int, *, written_out: bool) -> Cost:
    """Count what ``tokens`` visual tokens of one volume cost in stage 2, for a report of ``report_tokens`` tokens."""
    width = settings.structure_model.model.observer.d_model
    shape, patch = settings.data.conversion.shape_zyx, settings.structure_model.model.encoder.patch_zyx
    z, y, x = (side // step for side, step in zip(shape, patch, strict=True))
    facts = FeatureFacts("key", ("structure",) * STRUCTURES, (z, y, x), 1, width, "all", 9)

    def run(model: CtReportModel) -> Tensor:
        nothing = torch.zeros(1, tokens, dtype=torch.int64)
        batch = CtBatch(
            vectors=torch.empty(1, tokens, width),
            kinds=nothing,
            structures=nothing,
            places=nothing,
            mask=torch.ones(1, tokens, dtype=torch.bool),
            top=torch.zeros(1, STRUCTURES, 9, dtype=torch.int64),
            top_attention=torch.zeros(1, STRUCTURES, 9),
            token_ids=torch.ones(1, report_tokens, dtype=torch.int64),
            entry_numbers=torch.zeros(1, dtype=torch.int64),
        )
        encoded = model.encode(batch)
        words = torch.empty(1, report_tokens, settings.report.model.d_model)
        seen = torch.zeros_like(words)
        for layer in model.transformer.decoder_layers:
            attention = layer.cross_attention
            seen = seen + attention(words, attention.keys_values(encoded.tokens), encoded.mask[:, None, None])
        return seen

    # A map is written out where its weights drop out. One projection for all, as released: of their own all would be passed.
    sizes = settings.report.model.replaced(attention_dropout=None, structure_projections=False)
    return cost_of(
        lambda: CtReportModel(sizes, num_tokens=WORDS, facts=facts),
        run,
        precision=settings.report.training.precision,
        written_out=written_out,
    )


def variants() -> dict[str, CtSettings]:
    """The settings that are counted, by name."""
    folder = ROOT / "workflow" / "presets" / "ct"
    rate = read_overlay(folder / "ct_rate.yaml")
    released = merge(rate, read_overlay(folder / "as_released.yaml"))

    def settings(overlay: dict[str, Any], *, recompute: bool = False, **observer: Any) -> CtSettings:
        network = {"observer": observer, "encoder": {"recompute": recompute}}
        return Config.read(merge(overlay, {"ct": {"structure_model": {"model": network}}})).ct

    # Training leaves out the update behind the last layer, so with one layer there is none.
    return {
        "demo": settings({}),
        "demo, two layers": settings({}, num_layers=2),
        "demo, two layers, patches updated": settings({}, num_layers=2, update_patches=True),
        "ct_rate": settings(rate),
        "ct_rate, two layers": settings(rate, num_layers=2),
        "ct_rate, two layers, patches updated": settings(rate, num_layers=2, update_patches=True),
        "as_released": settings(released),
        "as_released, layers recomputed": settings(released, recompute=True),
        "as_released, patches not updated": settings(released, update_patches=False),
    }


def computing_hours(gpus: int, cost: Cost, epochs: int) -> float:
    """Project the hours of training on GPUs that are never kept waiting."""
    return SCANS * epochs * (cost.forward + cost.backward) / (gpus * H100_PEAK * H100_SHARE) / 3600


def structure_rows(results: dict[str, Any]) -> list[list[str]]:
    """Count stage 1 at every size."""
    rows = []
    for name, settings in variants().items():
        cost, written = both(structure_cost, settings)
        shape = settings.data.conversion.shape_zyx
        epochs = settings.structure_model.training.epochs
        hours = {f"computing_hours_{gpus}_gpu": computing_hours(gpus, cost, epochs) for gpus in (1, 8)}
        hours["reading_hours"] = SCANS * epochs * math.prod(shape) / READ_BYTES_PER_SECOND / 3600  # uint8
        results[name] = {**vars(cost), "kept_written_out": written, **hours}
        fits = int((80e9 - cost.trained_bytes) * 0.9 // cost.kept)
        published = not name.startswith("demo")
        rows.append(
            [
                name,
                f"{cost.weights / 1e6:.1f} M",
                f"{cost.forward / 1e9:,.1f}",
                f"{(cost.forward + cost.backward) / 1e9:,.1f}",
                f"{cost.kept / GIB:.3f}",
                f"{written / GIB:.3f}",
                str(fits) if published else "",
                " / ".join(f"{value:.1f}" for value in hours.values()) if published else "",
            ]
        )
    return rows


def report_rows(results: dict[str, Any]) -> list[list[str]]:
    """Count stage 2 with the selected tokens and with all patches."""
    chosen = {name: settings for name, settings in variants().items() if name in ("demo", "ct_rate", "as_released")}
    rows = []
    for name, settings in chosen.items():
        model = settings.report.model
        shape, patch = settings.data.conversion.shape_zyx, settings.structure_model.model.encoder.patch_zyx
        patches = torch.Size(side // step for side, step in zip(shape, patch, strict=True)).numel()
        selected = STRUCTURES * (1 + model.patches_per_structure + model.observations_twice)
        length = settings.report.training.max_report_tokens
        for what, tokens in (("selected", selected), ("all patches", STRUCTURES + patches)):
            cost, written = both(report_cost, settings, tokens, length)
            bytes_each = 4 if settings.report.generation.precision == "32-true" else 2
            cache = 2 * model.num_layers * tokens * model.d_model * bytes_each  # keys and values of cross-attention
            results[f"{name}, {what}"] = {**vars(cost), "kept_written_out": written, "tokens": tokens, "cache": cache}
            numbers = [
                f"{(cost.forward + cost.backward) / 1e9:,.1f}",
                *(f"{n / 2**20:,.1f}" for n in (cost.kept, written, cache)),
            ]
            rows.append([f"{name}, {what}", str(tokens), *numbers])
    return rows


def measured_steps(repeats: int = 5) -> dict[str, float]:
    """Time forward and backward of the demo's stage 1 on this machine's CPU, two layers, with updated patches and without."""
    found = {name: variants()[name] for name in ("demo, two layers", "demo, two layers, patches updated")}
    models = {}
    for name, settings in found.items():
        z, y, x = settings.data.conversion.shape_zyx
        network = settings.structure_model.model
        models[name] = StructureModel(network, shape_zyx=(z, y, x), num_structures=STRUCTURES, embed_dim=64).train()
    volumes = torch.rand(4, 1, z, y, x) * 2 - 1
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats + 1):
        for name, model in models.items():
            start = time.perf_counter()
            model(volumes).sum().backward()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) / len(volumes) for name, values in seconds.items()}


def main() -> None:
    """Count, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="time the demo's stage 1 on this CPU, too")
    parser.add_argument("--output", type=Path, help="write the counts here too")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    header = ["stage 1, one volume", "weights", "GFLOP forward", "GFLOP with backward", "kept, GiB", "map written out, GiB"]
    header += ["volumes in 80 GB (projected)", "hours: computing on 1 / 8 H100 / reading (projected)"]
    print("\n".join(markdown_table(header, structure_rows(results))))
    header = ["stage 2, one volume", "visual tokens", "GFLOP with backward", "kept, MiB", "map written out, MiB", "cache, MiB"]
    print("\n" + "\n".join(markdown_table(header, report_rows(results))))
    if options.measure:
        results["seconds_per_volume"] = measured_steps()
        print("\n" + json.dumps(results["seconds_per_volume"]))
    facts = {"hardware": hardware(), "commit": code_version()["commit"], "torch": torch.__version__}
    print("\n" + json.dumps(facts))
    if options.output:
        options.output.write_text(json.dumps({"counts": results, "facts": facts}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
