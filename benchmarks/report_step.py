"""What a training step and a report of D2R-Net cost at the settings of a preset, from random weights and random images.

Training: forward, losses, backward, clipping and optimiser of the real training task, batches from memory (no loader).
Reports: encoding and beam search of one batch. Times are medians, a GPU is waited for; memory is the peak that torch allocated
(a GPU) or that the process took (a CPU). The projection is the paper's run: 50 epochs of 270,790 images.

``--count`` times nothing: it counts the operations of a step on one entry (forward, and twice as many for the way back), and
the bytes that the image network of a whole batch has alive at the most, on tensors without values (crop_memory.py does so for
lesion crops). The hours follow from the preset's epochs and an assumed speed.

Usage: python benchmarks/report_step.py [--preset d2rnet ...] [--count] [--tflops 10] [--device cuda]
       [--precision bf16-mixed] [--batch 32] [--boxes 8] [--repeats 10] [--set KEY=VALUE ...] [--output results.json]
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from crop_memory import Alive
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from d2rnet.cli.given_settings import given_settings
from d2rnet.cxr.report_model.alignment import Alignment
from d2rnet.cxr.report_model.backbones import make_backbone
from d2rnet.cxr.report_model.dataset import ChestBatch, ReportDataset
from d2rnet.cxr.report_model.lesion_loss import LesionLoss
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.pointer import Pointer
from d2rnet.cxr.report_model.settings import ReportSettings
from d2rnet.cxr.report_model.side_words import SideWords
from d2rnet.cxr.report_model.visual_extractor import VisualExtractor
from d2rnet.figures.tables import markdown_table
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.decoder.beam_search import SearchOptions
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, SPECIAL_TOKENS, Vocabulary
from d2rnet.report.training_task import report_task
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.settings import merge, read_overlay
from d2rnet.training.task import TrainingTask

ROOT = Path(__file__).resolve().parents[1]
PAPER_IMAGES = 270_790
PAPER_EPOCHS = 50
BACKWARD = 2  # times the operations of a forward pass


def make_batch(settings: ReportSettings, *, entries: int, boxes: int, tokens: int, words: int) -> ChestBatch:
    """One image, ``boxes`` lesions and ``tokens`` tokens per entry, all random."""
    model = settings.model
    side = model.input_size_px
    crop = model.crop_size_px if model.lesion_branch == "crop" else 0
    corners = torch.rand(entries, boxes, 2) * side / 2
    token_ids = torch.randint(len(SPECIAL_TOKENS), words, (entries, tokens))
    token_ids[:, 0] = BOS_ID
    token_ids[:, -1] = EOS_ID
    return ChestBatch(
        pixels=torch.randint(0, 256, (entries, 1, side, side), dtype=torch.uint8),
        view_mask=torch.ones(entries, 1, dtype=torch.bool),
        boxes_xyxy=torch.cat([corners, corners + side / 4], dim=2),
        positions=torch.rand(entries, boxes, 4),
        lesion_view=torch.zeros(entries, boxes, dtype=torch.int64),
        lesion_sides=torch.ones(entries, boxes, dtype=torch.int64),
        category_ids=torch.randint(1, len(CATEGORY_NAMES) + 1, (entries, boxes)),
        scores=torch.rand(entries, boxes),
        crops=torch.randint(0, 256, (entries, boxes, crop, crop), dtype=torch.uint8),
        crop_insides=torch.tensor([0, 0, crop, crop]).expand(entries, boxes, -1),
        lesion_mask=torch.ones(entries, boxes, dtype=torch.bool),
        token_ids=token_ids,
        entry_numbers=torch.arange(entries),
    )


def make_task(settings: ReportSettings, options: argparse.Namespace) -> TrainingTask:
    """Make the training task with the losses that the settings switch on."""
    tokens = (*SPECIAL_TOKENS, *(f"word{number}" for number in range(options.words - len(SPECIAL_TOKENS))))
    vocabulary = Vocabulary(tokens, (1,) * options.words, "r2gen", "findings", 1)
    training = settings.training.replaced(precision=options.precision)
    further = None
    if training.alignment.is_on:
        further = Alignment(training.alignment, settings.model, vocabulary, max_tokens=training.max_report_tokens)
    model = D2RNet(settings.model, num_tokens=options.words, num_categories=len(CATEGORY_NAMES))
    looking = encoded_loss = None
    if training.pointer_weight:
        looking = Pointer(training.pointer_weight, vocabulary, lesion_branch=settings.model.lesion_branch)
    if model.findings is not None:
        named = np.zeros((options.batch, len(CATEGORY_NAMES)), dtype=bool)
        encoded_loss = LesionLoss(model.findings, named, weight=training.lesion_loss, dropout=training.finding_dropout)
    beyond = training.side_weight - 1
    return report_task(
        model,
        # The task asks its data set for nothing but its length here.
        cast(ReportDataset, range(options.batch)),
        training,
        device=torch.device(options.device),
        further=further,
        looking=looking,
        encoded_loss=encoded_loss,
        some_tokens=SideWords(vocabulary, weight=beyond) if beyond else None,
        rates={"extractor.backbone.": training.backbone_learning_rate},
    )


def timed(work: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Seconds of each of ``repeats`` calls, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def peak_gib(device: torch.device) -> float:
    """Peak memory so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(settings: ReportSettings, options: argparse.Namespace) -> dict[str, Any]:
    """Time training steps, then reports."""
    torch.manual_seed(0)
    device = torch.device(options.device)
    task = make_task(settings, options)
    batch = make_batch(settings, entries=options.batch, boxes=options.boxes, tokens=options.tokens, words=options.words)
    batch = batch.to(device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16-mixed")

    def step() -> None:
        task.finished_steps = 0  # the rate of the first step, however many are timed
        task.train_step(batch)

    task.losses.train()
    steps = timed(step, device, options.repeats)
    training_gib = peak_gib(device)
    task.optimizer.zero_grad(set_to_none=True)
    task.losses.eval()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    search = SearchOptions(beam_size=settings.generation.beam_size, max_tokens=options.tokens)

    @torch.no_grad()
    def write() -> None:
        with autocast:
            task.model.generate(task.model.encode(batch), search)

    reports = timed(write, device, max(1, options.repeats // 3))
    rate = options.batch / statistics.median(steps)
    return {
        "training_step_seconds": statistics.median(steps),
        "training_images_per_second": rate,
        "training_peak_gib": training_gib,
        "reports_per_second": options.batch / statistics.median(reports),
        "decoding_peak_gib": peak_gib(device) if device.type == "cuda" else None,
        "paper_training_days": PAPER_IMAGES * PAPER_EPOCHS / rate / 86400,
    }


def count(settings: ReportSettings, options: argparse.Namespace) -> dict[str, Any]:
    """Count operations and memory, and say what the preset's training takes at the assumed speed."""
    alone = argparse.Namespace(**vars(options) | {"batch": 1, "device": "cpu", "precision": "32-true"})
    task = make_task(settings, alone)
    batch = make_batch(settings, entries=1, boxes=options.boxes, tokens=options.tokens, words=options.words)
    task.losses.train()
    with FlopCounterMode(display=False) as counter:
        task.loss(batch)
    # The counter takes the weight gradients of depthwise convolutions for those of dense ones, so the way back is not counted.
    teraflop = (1 + BACKWARD) * counter.get_total_flops() / 1e12
    return {
        "TFLOP_an_entry": teraflop,
        "GPU_hours": PAPER_IMAGES * settings.training.epochs * teraflop / options.tflops / 3600,
        "image_network_gib": image_network_bytes(settings, options) / 2**30,
    }


def image_network_bytes(settings: ReportSettings, options: argparse.Namespace) -> int:
    """Most bytes alive at a time while the image network goes forward and back on a batch, an image each."""
    model = settings.model
    with FakeTensorMode(), Alive() as alive:
        backbone = make_backbone(model, None)
        network = VisualExtractor(
            backbone, patch_channels=model.patch_channels, attention=model.channel_prior_attention
        ).train()
        pixels = torch.zeros(options.batch, model.input_size_px, model.input_size_px, dtype=torch.uint8)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16-mixed"):
            feature_map, patches = network(pixels)
        (feature_map.sum() + patches.sum()).backward()
    return alive.peak


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--preset", nargs="+", default=["d2rnet"], help="workflow/presets/cxr/<name>.yaml, in this order; 'demo': config.yaml"
    )
    parser.add_argument("--count", action="store_true", help="count operations and memory, time nothing")
    parser.add_argument("--tflops", type=float, default=10.0, help="of --count: assumed speed of the GPU, TFLOP/s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="bf16-mixed")
    parser.add_argument("--batch", type=int, default=32, help="entries")
    parser.add_argument("--boxes", type=int, default=8, help="lesions per entry")
    parser.add_argument("--tokens", type=int, default=100, help="of a report")
    parser.add_argument("--words", type=int, default=4000, help="of the vocabulary")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of section report")
    parser.add_argument("--output", type=Path, help="write the metrics here too")
    options = parser.parse_args()
    overlay: dict[str, Any] = {}
    for name in options.preset:
        if name != "demo":
            preset = read_overlay(ROOT / "workflow" / "presets" / "cxr" / f"{name}.yaml")
            overlay = merge(overlay, preset.get("cxr", {}).get("report", {}))
    settings = given_settings(ReportSettings, [], json.dumps(overlay), options.set)
    metrics = (count if options.count else measure)(settings, options)
    named = {key: f"{value:.3g}" for key, value in metrics.items() if value is not None}
    print("\n".join(markdown_table(["metric", "value"], [[key.replace("_", " "), value] for key, value in named.items()])))
    chosen = {
        key: getattr(options, key) for key in ("preset", "device", "precision", "batch", "boxes", "tokens", "words", "set")
    }
    facts = {**chosen, "hardware": hardware(), "commit": code_version()["commit"]}
    print(json.dumps(facts))
    if options.output:
        options.output.write_text(json.dumps({"metrics": metrics, "facts": facts}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
