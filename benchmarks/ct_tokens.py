"""What the visual tokens of a chest CT cost the report model: selected patches beside all patches.

Counted, not timed, and on no device (tensors without content): numbers that a training step keeps for its backward pass, in
bytes, and floating-point operations of its forward pass; of the whole model and of the visual tokens' part, which is what a
volume of one token does not need. Then, at sizes that fit, the time of real training steps, side by side.

Usage: python benchmarks/ct_tokens.py [--preset demo] [--patches 1296] [--structures 10] [--batch 16] [--tokens 100]
       [--words 340] [--repeats 5] [--set KEY=VALUE ...] [--output results.json]
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from d2rnet.ct.report_model.dataset import CtBatch, CtReportDataset
from d2rnet.ct.report_model.features import FeatureFacts
from d2rnet.ct.report_model.model import CtReportModel
from d2rnet.ct.report_model.selection import NONE, PATCH
from d2rnet.ct.report_model.settings import CtReportSettings
from d2rnet.figures.tables import markdown_table
from d2rnet.report.text.vocabulary import BOS_ID, SPECIAL_TOKENS
from d2rnet.report.training_task import Losses, report_task
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.settings import parse_settings, read_overlay

ROOT = Path(__file__).resolve().parents[1]


def lengths(settings: CtReportSettings, *, patches: int, structures: int, queries: int = 1) -> dict[str, int]:
    """Return the visual tokens of a volume by what is selected: all patches, and k of each structure with no patch twice."""
    observations = structures * queries
    of_structures = structures * settings.model.patches_per_structure
    return {"selected": observations + min(of_structures, patches), "all": observations + patches}


def make_model(settings: CtReportSettings, options: argparse.Namespace) -> CtReportModel:
    """Make a model for features of random numbers."""
    names = tuple(f"structure {number}" for number in range(options.structures))
    facts = FeatureFacts("none", names, (1, 1, options.patches), 1, options.width, "all", options.patches)
    return CtReportModel(settings.model, num_tokens=options.words, facts=facts)


def make_batch(length: int, options: argparse.Namespace) -> CtBatch:
    """Make a batch of volumes of ``length`` random tokens and reports of random words."""
    shape = (options.batch, length)
    token_ids = torch.randint(len(SPECIAL_TOKENS), options.words, (options.batch, options.tokens))
    token_ids[:, 0] = BOS_ID
    nothing = torch.zeros(options.batch, options.structures, 1)
    return CtBatch(
        vectors=torch.randn(*shape, options.width),
        kinds=torch.full(shape, PATCH),
        structures=torch.full(shape, NONE),
        places=torch.randint(0, options.patches, shape),
        mask=torch.ones(shape, dtype=torch.bool),
        top=nothing.long(),
        top_attention=nothing,
        token_ids=token_ids,
    )


def count(settings: CtReportSettings, length: int, options: argparse.Namespace) -> tuple[int, int]:
    """Return bytes that a training step keeps for its backward pass, without weights, and operations of its forward pass."""
    kept: dict[int, int] = {}
    with FakeTensorMode():
        losses = Losses(make_model(settings, options), None, 0.0).train()
        batch = make_batch(length, options)
        weights = {weight.untyped_storage()._cdata for weight in losses.parameters()}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights:
                kept[storage._cdata] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), FlopCounterMode(display=False) as counter:
            loss = losses(batch)["train"]  # alive until all is counted: a freed storage's place is taken by the next
        assert loss.requires_grad
    return sum(kept.values()), counter.get_total_flops()


def seconds_of_a_step(settings: CtReportSettings, length: int, options: argparse.Namespace) -> float:
    """Return the median time of a training step."""
    torch.manual_seed(0)
    training = settings.training.replaced(batch_size=options.batch)
    data = cast(CtReportDataset, range(options.batch))  # the task asks its data set for nothing but its length here
    task = report_task(make_model(settings, options), data, training, device=torch.device("cpu"))
    batch = make_batch(length, options)
    taken = []
    for _ in range(options.repeats + 1):
        start = time.perf_counter()
        task.finished_steps = 0
        task.train_step(batch)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def measure(settings: CtReportSettings, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Count, and time where that is wanted, both selections."""
    least_bytes, least_operations = count(settings, 1, options)
    found: dict[str, dict[str, float]] = {}
    for name, length in lengths(settings, patches=options.patches, structures=options.structures).items():
        kept, operations = count(settings, length, options)
        found[name] = {
            "visual_tokens": length,
            "kept_mb_per_volume": kept / options.batch / 1e6,
            "kept_mb_per_volume_visual": (kept - least_bytes) / options.batch / 1e6,
            "forward_gflop_per_volume": operations / options.batch / 1e9,
            "forward_gflop_per_volume_visual": (operations - least_operations) / options.batch / 1e9,
        }
        if options.repeats:
            found[name]["training_step_seconds"] = seconds_of_a_step(settings, length, options)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="demo", help="workflow/presets/ct/<name>.yaml; 'demo': config.yaml")
    parser.add_argument("--patches", type=int, default=1296, help="of a volume")
    parser.add_argument("--structures", type=int, default=10)
    parser.add_argument("--width", type=int, default=96, help="of the vectors of stage 1")
    parser.add_argument("--batch", type=int, default=16, help="volumes")
    parser.add_argument("--tokens", type=int, default=100, help="of a report")
    parser.add_argument("--words", type=int, default=340, help="of the vocabulary")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps; 0: count alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of section ct.report")
    parser.add_argument("--output", type=Path, help="write the figures here too")
    options = parser.parse_args()
    overlay: dict[str, Any] = {}
    if options.preset != "demo":
        overlay = read_overlay(ROOT / "workflow" / "presets" / "ct" / f"{options.preset}.yaml").get("ct", {}).get("report", {})
    figures = measure(parse_settings(CtReportSettings, json.dumps(overlay), options.set), options)
    rows = [
        [key.replace("_", " "), *(f"{found[key]:.3g}" for found in figures.values()), f"{figures['all'][key] / value:.1f}"]
        for key, value in figures["selected"].items()
    ]
    print("\n".join(markdown_table(["per", *figures, "all / selected"], rows)))
    facts = {**vars(options), "output": None, "hardware": hardware(), "commit": code_version()["commit"]}
    print(json.dumps(facts))
    if options.output:
        text = json.dumps({"figures": figures, "facts": facts}, indent=1) + "\n"
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
