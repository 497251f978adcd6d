"""Time a training iteration against detectron2's own loop, side by side, and the drawing of boxes.

A pair of iterations, ours and detectron2's on the same batch, is repeated in alternating order; the ratio is the median of the
pairs' ratios. detectron2's loop sees the same number of views from the same loader and, after burn-in, also runs inference on
the weak views (detector_arms.py). Target: at most 1.15 in both stages. Prints Markdown.

On a machine that others use too, trust the processor time (all threads of this process, without loader processes); on a GPU,
the wall-clock time, which includes waiting for it.

Usage: python benchmarks/detector_step.py [--settings demo|paper|tiny] [--device cpu|cuda] [--amp off|bf16|fp16]
           [--repetitions N] [--channels-last] [--loader-workers N]
"""

import argparse
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from detector_arms import (
    OURS,
    STAGES,
    STOCK,
    STOCK_CHANNELS_LAST,
    Arm,
    burned_in_after,
    detector_settings,
    draw_images,
    set_thresholds,
    two_streams,
)
from torch.utils._python_dispatch import TorchDispatchMode

from d2rnet.cxr.boxes.records import load_records
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import batch_loader
from d2rnet.cxr.detector.predict import detect, make_batches
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import DetectorSettings
from d2rnet.runs.device import resolve_device
from d2rnet.runs.provenance import code_version, hardware, versions
from d2rnet.runs.settings import LoaderRuntime

MIMIC_IMAGES = 377_110
REPETITIONS = {"cpu": 8, "cuda": 30}
WARM_UP = {"cpu": 1, "cuda": 5}
SUSTAINED_STEPS = 60
SAMPLING_MS = 200
Seconds = dict[str, list[tuple[float, float]]]


def time_pairs(
    stage: str, arms: list[str], settings: DetectorSettings, coco: Path, device: torch.device, repetitions: int, workers: int
) -> Seconds:
    """Wall-clock and processor seconds of each arm's iterations, in alternating order, without the warm-up."""
    steps = WARM_UP[device.type] + repetitions
    loops = {name: Arm(name, stage, settings, coco, device, steps, workers) for name in arms}
    seconds: Seconds = {name: [] for name in arms}
    for repetition in range(steps):
        for name in arms if repetition % 2 else arms[::-1]:
            seconds[name].append(loops[name].step())
    return {name: timed[-repetitions:] for name, timed in seconds.items()}


def step_table(seconds: dict[str, Seconds], memory: dict[tuple[str, str], float]) -> list[str]:
    """Rows of the main table: medians, and our iteration over the other on the same batch."""
    lines = ["| stage | loop | s, wall clock | s, processor | ours / it, wall | ours / it, processor | peak memory |"]
    lines.append("|---|---|---|---|---|---|---|")
    for stage, timed in seconds.items():
        for name, own in timed.items():
            middle = [f"{statistics.median(pair[clock] for pair in own):.3f}" for clock in (0, 1)]
            pairs = list(zip(timed[OURS], own, strict=True))
            ratios = [[ours[clock] / other[clock] for ours, other in pairs] for clock in (0, 1)]
            shown = ["" if name == OURS else f"**{statistics.median(r):.2f}** ({min(r):.2f}-{max(r):.2f})" for r in ratios]
            lines.append(f"| {stage} | {name} | {' | '.join(middle + shown)} | {memory[stage, name]:.2f} GiB |")
    return lines


def peak_memory(name: str, stage: str, settings: DetectorSettings, coco: Path, device_name: str) -> float:
    """GiB after two iterations in a process of its own: most allocated on the GPU, or resident in memory."""
    cv2.setNumThreads(0)
    device = torch.device(device_name)
    arm = Arm(name, stage, settings, coco, device, 2)
    for _ in range(2):
        arm.step()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 2**20


class _Waits(TorchDispatchMode):
    """Counts operators, and among them those whose result or size the processor must know, so that it waits for a GPU."""

    NAMES = frozenset({"nonzero", "_local_scalar_dense", "masked_select", "nms"})

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split("::")[-1].split(".")[0]
        by_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        self.counts["operators"] += 1
        self.counts["waits"] += name in self.NAMES or by_mask
        return func(*args, **(kwargs or {}))


def count_waits(name: str, stage: str, settings: DetectorSettings, coco: Path) -> tuple[int, int]:
    """Operators and waits of one iteration, on a CPU and small images; SGD, which waits for nothing, as optimiser."""
    small = {"train_shortest_px": [96, 96], "longest_px": 128}
    settings = settings.replaced(model=small, training={"optimizer": "sgd", "amp": "off"})
    arm = Arm(name, stage, settings, coco, torch.device("cpu"), 2)
    arm.step()
    with _Waits() as counter:
        arm.step()
    return counter.counts["operators"], counter.counts["waits"]


def loader_seconds(settings: DetectorSettings, coco: Path) -> float:
    """Processor seconds that one loader process spends on a batch after burn-in."""
    dataset = two_streams(burned_in_after(settings, 0), coco)
    next(iter(batch_loader(dataset, 0, 1, 0)))
    start = time.process_time()
    for _ in batch_loader(dataset, 1, 4, 0):
        pass
    return (time.process_time() - start) / 3


def sustained(settings: DetectorSettings, coco: Path, device: torch.device, workers: int) -> tuple[float, str]:
    """Seconds an iteration of ours after burn-in without a pause, loader included; and how busy nvidia-smi saw the GPU."""
    arm = Arm(OURS, "mutual learning", settings, coco, device, SUSTAINED_STEPS + WARM_UP["cuda"], workers)
    for _ in range(WARM_UP["cuda"]):
        arm.step()
    with busy_samples(device) as samples:
        start = time.perf_counter()
        with arm.storage:
            for _ in range(SUSTAINED_STEPS):
                arm.trainer.run_step()
                arm.trainer.iter += 1
        arm.synchronise()
        seconds = (time.perf_counter() - start) / SUSTAINED_STEPS
    return seconds, f"busy {statistics.mean(samples):.0f} % of the time" if samples else "not sampled, no nvidia-smi"


@contextmanager
def busy_samples(device: torch.device) -> Iterator[list[float]]:
    """Give a list that holds nvidia-smi's samples of the GPU's utilisation, per cent, once the block is left."""
    samples: list[float] = []
    if shutil.which("nvidia-smi") is None:
        yield samples
        return
    gpu = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    query = ["nvidia-smi", "-i", gpu, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", str(SAMPLING_MS)]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as sampler:
        try:
            yield samples
        finally:
            sampler.terminate()
            samples += [float(line) for line in sampler.communicate()[0].split("\n") if line.strip().isdigit()]


def prediction_rate(
    settings: DetectorSettings, coco: Path, device: torch.device, runtime: LoaderRuntime
) -> tuple[float, float]:
    """Images a second of predict-boxes after start-up, by wall clock and by processor time."""
    cfg = build_cfg(settings)
    cfg.MODEL.DEVICE = str(device)
    torch.manual_seed(0)
    network = build_network(cfg).eval()
    views = two_streams(burned_in_after(settings, 0), coco)[0].unlabelled_weak
    set_thresholds(network, views)
    times = 16 if device.type == "cuda" else 1
    batches = make_batches(load_records(coco), cfg, settings.prediction.batch_images)
    for _ in detect(network, cfg, batches, settings.prediction, runtime):
        pass
    wall, processor = time.perf_counter(), time.process_time()
    images = sum(1 for _ in detect(network, cfg, batches * times, settings.prediction, runtime))
    return images / (time.perf_counter() - wall), images / (time.process_time() - processor)


def projection(settings: DetectorSettings, seconds: dict[str, float], images_per_second: float) -> str:
    """What a whole run of these settings takes at these rates."""
    training = settings.training
    burn_in, total = training.burn_in_iters, training.total_iters
    hours = (burn_in * seconds["burn-in"] + (total - burn_in) * seconds["mutual learning"]) / 3600
    inference = MIMIC_IMAGES / images_per_second / 3600
    return (
        f"Projected: {total:,} iterations, {burn_in:,} of them burn-in, {hours:,.1f} hours; boxes on {MIMIC_IMAGES:,} images "
        f"{inference:,.1f} hours, divided by the number of shards that run at the same time."
    )


def parse_arguments() -> argparse.Namespace:
    """Read and check the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", choices=["demo", "paper", "tiny"], default="demo")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
    parser.add_argument("--amp", choices=["off", "bf16", "fp16"], default="off", help="detectron2's loop has it on GPUs only")
    parser.add_argument("--repetitions", type=int, metavar="N", help="timed pairs a stage (default: cpu 8, cuda 30)")
    parser.add_argument("--loader-workers", type=int, default=0, metavar="N", help="processes that prepare batches")
    parser.add_argument("--channels-last", action="store_true", help="also time detectron2 with our memory format")
    arguments = parser.parse_args()
    arguments.device = resolve_device(arguments.device)
    if arguments.amp != "off" and arguments.device.type == "cpu":
        parser.error("--amp: detectron2's AMPTrainer needs a GPU; expected off on a CPU")
    arguments.repetitions = arguments.repetitions or REPETITIONS[arguments.device.type]
    return arguments


def main() -> None:
    """Measure everything and print the tables."""
    arguments = parse_arguments()
    device: torch.device = arguments.device
    cv2.setNumThreads(0)
    settings = detector_settings(arguments.settings, arguments.amp)
    arms = [OURS, STOCK, *([STOCK_CHANNELS_LAST] if arguments.channels_last else [])]
    print_machine(device, settings, arguments)
    with tempfile.TemporaryDirectory() as name:
        coco = draw_images(Path(name), settings.model.longest_px)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as child:
            jobs = [(stage, arm) for stage in STAGES for arm in arms]
            memory = {job: child.submit(peak_memory, job[1], job[0], settings, coco, str(device)).result() for job in jobs}
        seconds = {
            stage: time_pairs(stage, arms, settings, coco, device, arguments.repetitions, arguments.loader_workers)
            for stage in STAGES
        }
        print("\n".join(step_table(seconds, memory)), "\n", flush=True)
        print("| stage | loop | operators an iteration | of them making a GPU wait |\n|---|---|---|---|")
        for stage in STAGES:
            for arm in (OURS, STOCK):
                print(f"| {stage} | {arm} | {' | '.join(map(str, count_waits(arm, stage, settings, coco)))} |")
        medians = {stage: statistics.median(wall for wall, _ in timed[OURS]) for stage, timed in seconds.items()}
        if device.type == "cuda":
            medians["mutual learning"], samples = sustained(settings, coco, device, arguments.loader_workers)
            images = settings.training.labelled_batch + settings.training.unlabelled_batch
            rate = images / medians["mutual learning"]
            print(f"\nAfter burn-in without a pause: {medians['mutual learning']:.3f} s, {rate:.1f} images/s; GPU {samples}")
        print(f"\nLoader: {loader_seconds(settings, coco):.3f} s of one core per batch after burn-in, ", end="")
        print(f"{arguments.loader_workers} processes")
        rates = prediction_rate(settings, coco, device, LoaderRuntime(loader_workers=arguments.loader_workers))
        print(f"\npredict-boxes: {rates[0]:.1f} images/s by wall clock, {rates[1]:.1f} by processor time\n")
        print(projection(settings, medians, rates[0]))


def print_machine(device: torch.device, settings: DetectorSettings, arguments: argparse.Namespace) -> None:
    """Print what the figures depend on."""
    machine, code = hardware(), code_version()
    model, training = settings.model, settings.training
    facts = {
        "processor": f"{machine['processor']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}",
        "torch": f"{versions()['torch']}, {torch.get_num_threads()} threads",
        "GPU": torch.cuda.get_device_name(device) if device.type == "cuda" else "not used",
        "commit": f"{code['commit']}{', modified' if code['dirty'] else ''}",
        "settings": f"{arguments.settings}, amp {arguments.amp}, {arguments.repetitions} pairs a stage",
        "network": f"ResNet-{model.backbone_depth}, shorter side {'-'.join(map(str, model.train_shortest_px))} px",
        "batch": f"{training.labelled_batch} + {training.unlabelled_batch} images, {training.labelled_views}",
    }
    print("\n".join(f"- {name}: {value}" for name, value in facts.items()), "\n", flush=True)


if __name__ == "__main__":
    main()
