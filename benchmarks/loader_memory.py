"""Memory of the image records in a detector training: all its processes and their loader processes.

Made-up records of as many images as MIMIC-CXR has, the real loader in several training processes of this machine, images of 64
px that are made up too: what a batch weighs is left out. Each loader process looks at every seventh record before its first
batch, as it would have after some hours; where records are lists of objects that copies nearly every page of them. Prints
Markdown: the proportional set sizes (PSS) of all processes added up, so that shared memory counts once, beside the same
processes with next to no record.

Usage: python benchmarks/loader_memory.py [--images N] [--processes N] [--workers N] [--kept bytes|lists]
"""

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from d2rnet.cxr.boxes.records import Record
from d2rnet.cxr.detector.dataset_mapper import Batch, IterationDataset, batch_loader
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.detector.streams import ImageStore
from d2rnet.cxr.detector.training_images import compact
from d2rnet.runs.provenance import code_version, hardware
from d2rnet.training.collectives import gather_objects, num_processes, process_rank
from d2rnet.training.processes import run_processes

MIMIC_IMAGES = 377_110
LABELLED_IMAGES = 4_394  # images with boxes in VinDr-CXR's training set
NEXT_TO_NONE = 64
SIDE_PX = 64
LOOKED_AT = 7
BATCHES = 3
CPU = torch.device("cpu")


def made_up(count: int, boxes: int) -> list[Record]:
    """Records with paths and names of the usual length."""
    rng = np.random.default_rng(0)
    corners = np.array([[8.0, 8.0, 40.0, 40.0]] * boxes, dtype=np.float32).reshape(-1, 4)
    records = []
    for number in range(count):
        name = "-".join(f"{part:08x}" for part in rng.integers(2**32, size=5))
        path = Path(f"/data/resources/cxr/unlabelled/p1{number % 10}/p1{number:07d}/s5{number:07d}/{name}.png")
        classes = np.zeros(boxes, dtype=np.int64)
        records.append(Record(number + 1, name, "train", path, (SIDE_PX, SIDE_PX), corners.copy(), classes, "PA"))
    return records


class MadeUpStore(ImageStore):
    """Grey images that are on no disk."""

    def __init__(self) -> None:
        """Keep nothing."""
        super().__init__([], 0)

    def get(self, record: Record) -> NDArray[np.uint8]:
        """Return a grey image of the size of the record."""
        return np.full(record.image_hw, 127, dtype=np.uint8)


class LookingDataset(IterationDataset):
    """Looks at many records before its first batch."""

    looked = False

    def __getitem__(self, iteration: int) -> Batch:
        """Build a batch."""
        if not self.looked:
            self.looked = True
            for place in range(0, len(self._unlabelled), LOOKED_AT):
                assert self._unlabelled[place].image_id > 0
        return super().__getitem__(iteration)


def train_nothing(streams: tuple[Sequence[Record], Sequence[Record]], workers: int) -> float | None:
    """Body of a process: load a few batches, then add up the memory of all processes, GB."""
    settings = TrainDetectorSettings().replaced(
        model={"train_shortest_px": [SIDE_PX, SIDE_PX], "longest_px": SIDE_PX},
        training={"burn_in_iters": 1, "labelled_batch": 8, "unlabelled_batch": 8},
    )
    dataset = LookingDataset(
        *streams, MadeUpStore(), settings.model, settings.training, rank=process_rank(), processes=num_processes()
    )
    batches = iter(batch_loader(dataset, 1, 10**6, workers))
    for _ in range(max(BATCHES, workers)):
        next(batches)
    gather_objects(None)
    memory = proportional_set_size(os.getppid() if num_processes() > 1 else os.getpid()) if process_rank() == 0 else None
    gather_objects(None)
    return memory


def proportional_set_size(parent: int) -> float:
    """Add up the PSS of a process and all below it, GB."""
    kilobytes = 0
    for process in family(parent):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
        kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024 / 1e9


def family(parent: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield parent
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in map(int, children.read_text(encoding="ascii").split()):
            yield from family(child)


def measured(images: int, kept: str, processes: int, workers: int) -> float:
    """Memory of a training with so many unlabelled images, GB."""
    streams: tuple[Sequence[Record], Sequence[Record]] = (made_up(min(images, LABELLED_IMAGES), 4), made_up(images, 0))
    if kept == "bytes":
        streams = (compact(streams[0]), compact(streams[1]))
    memory = run_processes(train_nothing, streams, workers, processes=processes, device=CPU)
    assert memory is not None
    return memory


def main() -> None:
    """Parse the command line, measure twice and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--images", type=int, default=MIMIC_IMAGES, help="unlabelled images")
    parser.add_argument("--processes", type=int, choices=(1, 2, 4, 8), default=8, help="training processes, one a GPU")
    parser.add_argument("--workers", type=int, default=8, help="loader processes of each")
    parser.add_argument("--kept", choices=("bytes", "lists"), default="bytes", help="how the records are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    without = measured(NEXT_TO_NONE, options.kept, options.processes, options.workers)
    with_records = measured(options.images, options.kept, options.processes, options.workers)
    print(f"{hardware()}, commit {code_version()}\n")
    print("| images | records kept as | processes x workers | all memory, GB | without records, GB | of the records, GB |")
    print("|---|---|---|---|---|---|")
    memory = f"{with_records:.2f} | {without:.2f} | {with_records - without:.2f}"
    print(f"| {options.images:,} | {options.kept} | {options.processes} x {options.workers} | {memory} |")


if __name__ == "__main__":
    main()
