"""What it gives on a CPU that a training keeps the memory it frees (d2rnet.runs.device.freed_memory_kept).

Steps of the demo's trainings on random input, in a process of their own, with and without in turn; ratios of the medians of
processor time, user and system together, which other work on the machine hardly moves.

Usage: python benchmarks/kept_memory.py [--repeats 3] [--steps 8]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext

import torch
from report_step import make_batch, make_task

from d2rnet.config import Config
from d2rnet.ct.structure_model.model import StructureModel
from d2rnet.figures.tables import markdown_table
from d2rnet.runs.device import freed_memory_kept
from d2rnet.runs.provenance import code_version, hardware

CPU = torch.device("cpu")
KEPT, GIVEN_BACK = "kept", "given back"


def structures_step() -> Callable[[], None]:
    """Stage 1 of chest CT: forward, backward, optimiser of one batch."""
    settings = Config().ct
    network = settings.structure_model
    model = StructureModel(
        network.model, shape_zyx=settings.data.conversion.shape_zyx, num_structures=9, embed_dim=network.text.embed_dim
    )
    volumes = torch.rand(network.training.batch_size, 1, *settings.data.conversion.shape_zyx) * 2 - 1
    optimizer = torch.optim.AdamW(model.parameters(), network.training.learning_rate, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        model(volumes)[..., 0].sum().backward()
        optimizer.step()

    return step


def report_step() -> Callable[[], None]:
    """The report model of radiographs: a whole training step."""
    settings = Config().cxr.report
    batch = settings.training.batch_size
    options = argparse.Namespace(words=400, precision="32-true", batch=batch, device="cpu")
    task = make_task(settings, options)
    entries = make_batch(settings, entries=batch, boxes=3, tokens=60, words=options.words)
    task.losses.train()

    def step() -> None:
        task.finished_steps = 0
        task.train_step(entries)

    return step


STEPS = {"stage 1 of chest CT": structures_step, "report model of radiographs": report_step}


def measure(name: str, way: str, steps: int) -> None:
    """In a process of its own: print what a step takes."""
    with freed_memory_kept(CPU) if way == KEPT else nullcontext():
        torch.manual_seed(0)
        step = STEPS[name]()
        for _ in range(2):
            step()
        before = resource.getrusage(resource.RUSAGE_SELF)
        for _ in range(steps):
            step()
        after = resource.getrusage(resource.RUSAGE_SELF)
    user = (after.ru_utime - before.ru_utime) / steps
    system = (after.ru_stime - before.ru_stime) / steps
    print(json.dumps({"user": user, "system": system, "gib": after.ru_maxrss / 2**20}))


def main() -> None:
    """Measure both ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--child", nargs=2, metavar=("STEP", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(*options.child, options.steps)
        return
    rows = []
    for name in STEPS:
        found: dict[str, list[dict[str, float]]] = {GIVEN_BACK: [], KEPT: []}
        for _ in range(options.repeats):
            for way, runs in found.items():
                command = [sys.executable, __file__, "--steps", str(options.steps), "--child", name, way]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                runs.append(json.loads(done.stdout))
        middle = {
            way: {key: statistics.median(run[key] for run in runs) for key in ("user", "system", "gib")}
            for way, runs in found.items()
        }
        seconds = {way: values["user"] + values["system"] for way, values in middle.items()}
        for way, values in middle.items():
            cells = [f"{values['user']:.3f}", f"{values['system']:.3f}", f"{values['gib']:.2f}"]
            rows.append([name, way, *cells, f"{seconds[GIVEN_BACK] / seconds[way]:.2f}"])
    print("\n".join(markdown_table(["step", "freed memory", "user s", "system s", "peak GiB", "times faster"], rows)))
    print(f"\nCommit {code_version()['commit'][:7]}, {hardware()['processor']}, one thread.")


if __name__ == "__main__":
    main()
