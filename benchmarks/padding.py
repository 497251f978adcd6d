"""What padding, passes and a whole detector training cost at published sizes, by the number of pixels; no image is read.

The real streams draw images of the sizes in the given tables and scale them as the preset says; the images of an iteration are
dealt to processes and micro-batches. Counted are the pixels that go through student and EMA teacher, padded to whole strides,
over the pixels of the images: padded to the largest of the iteration (``padding: iteration``); to the largest of a pass, dealt
in the order of the draw, or by orientation, or by orientation and size (``padding: pass``). Then the work of the whole
training, and what a pass of the student keeps for its backward pass, measured on one small image. Prints Markdown.

Tables of sizes: NIH's Data_Entry CSV, a CSV with columns height and width, or a COCO json.

Usage: python benchmarks/padding.py --labelled TABLE --unlabelled TABLE [--preset NAME ...] [--processes N] [--iterations N]
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from d2rnet.config import Config
from d2rnet.cxr.boxes.records import Record
from d2rnet.cxr.detector import grouping
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.dataset_mapper import Draw, IterationDataset
from d2rnet.cxr.detector.registration import build_network
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore
from d2rnet.runs.provenance import code_version
from d2rnet.settings import merge, read_overlay

Size = tuple[int, int]
REPOSITORY = Path(__file__).resolve().parents[1]
STRIDE = 32
# A forward pass of R50-FPN at 800 px: 0.2e12 multiply-adds (detectron2's model zoo, 800 x 1088 px); backward twice as much.
FLOP_A_PIXEL = 2 * 0.2e12 / (800 * 1088)
BACKWARD = 2
ASSUMED_TFLOPS = 10.0
MEASURED_SIDE_PX = 320
BOXES = np.array([[10, 10, 200, 200]], dtype=np.float32)


def sizes_of(table: Path) -> list[Size]:
    """Heights and widths of a table's images, pixels."""
    if table.suffix == ".json":
        return [(image["height"], image["width"]) for image in json.loads(table.read_text(encoding="utf-8"))["images"]]
    with table.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    if "height" in header:
        return [(int(row[header.index("height")]), int(row[header.index("width")])) for row in rows]
    column = header.index("OriginalImage[Width")  # NIH's header has this comma too many
    return [(int(row[column + 1]), int(row[column])) for row in rows]


def records_of(table: Path) -> list[Record]:
    """Records of a table's sizes, with a box each, for the streams to draw from."""
    none = Path()
    classes = np.zeros(1, dtype=np.int64)
    return [Record(number, str(number), "train", none, hw, BOXES, classes) for number, hw in enumerate(sizes_of(table))]


def configuration(preset: str) -> Config:
    """The whole configuration of a preset, laid over d2rnet's as users do, without weights to load."""
    folder = REPOSITORY / "workflow" / "presets" / "cxr"
    overlay = merge(read_overlay(folder / "d2rnet.yaml"), read_overlay(folder / f"{preset}.yaml"))
    return Config.read(merge(overlay, {"cxr": {"detector": {"model": {"weights": None}}}}))


def by_orientation(sizes: Sequence[Size], *, processes: int, steps: int) -> list[list[int]]:
    """Deal portraits before landscapes, as detectron2 groups them, without a look at their size."""
    return grouping.deal([(2, 1) if height >= width else (1, 2) for height, width in sizes], processes=processes, steps=steps)


def in_order(sizes: Sequence[Size], *, processes: int, steps: int) -> list[list[int]]:
    """Deal in the order of the draw."""
    return grouping.deal([(1, 1)] * len(sizes), processes=processes, steps=steps)


DEALS: dict[str, Callable[..., list[list[int]]]] = {
    "in order": in_order,
    "orientation": by_orientation,
    "orientation and size": grouping.deal,
}


def padded(sizes: Sequence[Size]) -> int:
    """Pixels of one image padded to the largest of its pass."""
    height, width = grouping.common_hw(sizes)
    return -(-height // STRIDE) * STRIDE * (-(-width // STRIDE) * STRIDE)


class Pixels:
    """Adds up pixels, weighted by the work done on them: a forward pass of the teacher 1, a training pass 3."""

    def __init__(self, settings: TrainDetectorSettings) -> None:
        """Start at nothing."""
        self.views = 2 if settings.training.labelled_views == "weak_and_strong" else 1
        self.work = 0.0
        self.largest_pass = 0

    def add(self, labelled: Sequence[Size], unlabelled: Sequence[Size], student_px: int, teacher_px: int) -> None:
        """Add a pass in which each image takes so many pixels."""
        views = len(labelled) * self.views + len(unlabelled)
        self.work += (1 + BACKWARD) * views * student_px + len(unlabelled) * teacher_px
        self.largest_pass = max(self.largest_pass, views * student_px)


def count(settings: TrainDetectorSettings, streams: list[list[Record]], processes: int, iterations: int) -> dict[str, Pixels]:
    """Pixels of some iterations of mutual learning, by way of padding; "images" are the images themselves."""
    training = settings.training
    steps = training.accumulation_steps
    dataset = IterationDataset(*streams, ImageStore([], 0), settings.model, training)
    pixels = {name: Pixels(settings) for name in ("images", "iteration", *DEALS)}
    for iteration in range(training.burn_in_iters, training.burn_in_iters + iterations):
        sizes = [[draw.geometry.image_hw for draw in draws] for draws in _draws(dataset, iteration)]
        labelled, unlabelled = sizes
        whole = padded([*labelled, *unlabelled])
        pixels["iteration"].add(labelled, unlabelled, whole, whole)
        for name, deal in DEALS.items():
            dealt = [deal(stream, processes=processes, steps=steps) for stream in sizes]
            for own in _passes(sizes, dealt, steps):
                pixels[name].add(*own, student_px=padded(own[0] + own[1]), teacher_px=padded(own[1]))
        for hw in labelled:
            pixels["images"].add([hw], [], hw[0] * hw[1], 0)
        for hw in unlabelled:
            pixels["images"].add([], [hw], hw[0] * hw[1], hw[0] * hw[1])
    return pixels


def _draws(dataset: IterationDataset, iteration: int) -> tuple[list[Draw], list[Draw]]:
    return dataset._draws(iteration)


def _passes(sizes: list[list[Size]], dealt: list[list[list[int]]], steps: int) -> Iterator[tuple[list[Size], list[Size]]]:
    """Yield the labelled and the unlabelled sizes of each pass of each process."""
    for own in zip(*dealt, strict=True):
        for step in range(steps):
            parts = []
            for stream, indices in zip(sizes, own, strict=True):
                each = len(indices) // steps
                parts.append([stream[index] for index in indices[step * each : (step + 1) * each]])
            yield parts[0], parts[1]


def kept_bytes_a_pixel(settings: TrainDetectorSettings) -> float:
    """Bytes that a training pass of the student keeps for the backward pass, a pixel of its input, on one small image.

    Proposals weigh as much whatever the image's size: the least possible number is drawn here, so that this is a lower bound.
    """
    small = settings.replaced(model={"roi_batch_per_image": 2, "rpn_post_nms_train": 2})
    network = build_network(build_cfg(small)).train()
    target = Instances((MEASURED_SIDE_PX, MEASURED_SIDE_PX))
    target.gt_boxes = Boxes(torch.from_numpy(BOXES))
    target.gt_classes = torch.zeros(1, dtype=torch.int64)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    image = torch.zeros(1, MEASURED_SIDE_PX, MEASURED_SIDE_PX, dtype=torch.uint8)
    with EventStorage(), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = network([{"image": image, "instances": target}])
        assert losses
        return sum(kept.values()) / MEASURED_SIDE_PX**2


def main() -> None:
    """Parse the command line, count and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--labelled", type=Path, required=True, help="table of sizes")
    parser.add_argument("--unlabelled", type=Path, required=True, help="table of sizes")
    parser.add_argument("--preset", nargs="+", default=["d2rnet", "utv2", "recommended"], help="names of presets")
    parser.add_argument("--processes", type=int, help="instead of runtime.gpus of the preset")
    parser.add_argument("--iterations", type=int, default=200, help="iterations that are drawn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"commit {code_version()}\n")
    print("| preset | GPUs x passes x images | padded over real: iteration | in order | orientation | orientation and size "
          "| TFLOP an iteration | GPU days at 10 TFLOP/s | kept by the largest pass, GiB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    streams = [records_of(options.labelled), records_of(options.unlabelled)]
    for preset in options.preset:
        config = configuration(preset)
        settings = config.cxr.detector
        processes = options.processes or config.runtime.gpus
        pixels = count(settings, streams, processes, options.iterations)
        real = pixels["images"].work
        ratios = " | ".join(f"{pixels[name].work / real:.2f}" for name in ("iteration", *DEALS))
        best = pixels["orientation and size"]
        teraflop = best.work / options.iterations * FLOP_A_PIXEL / 1e12
        days = teraflop * settings.training.total_iters / ASSUMED_TFLOPS / 86400
        kept = best.largest_pass * kept_bytes_a_pixel(settings) / 2**30
        steps = settings.training.accumulation_steps
        each = (settings.training.labelled_batch + settings.training.unlabelled_batch) // (processes * steps)
        print(f"| `{preset}` | {processes} x {steps} x {each} | {ratios} | {teraflop:.1f} | {days:.1f} | {kept:.1f} |")


if __name__ == "__main__":
    main()
