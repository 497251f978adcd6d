"""Memory of the lesion crops of one training step, counted without computing: tensors have shapes and no values.

The network of the crops alone, forward and backward, on a batch of the preset's size: its weights and their gradients, the
crops, and the most that is alive at a time beside them. Workspace of convolutions, the rest of the model and the optimiser
come on top.

Usage: python benchmarks/crop_memory.py [--preset workflow/presets/cxr/d2rnet.yaml] [--boxes 2.7 20] [--chunks 0 128]
"""

import argparse
import weakref
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from d2rnet.config import Config
from d2rnet.cxr.report_model.lesion_encoder import CropFeatures
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.figures.tables import markdown_table
from d2rnet.settings import read_overlay

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30


class Alive(TorchDispatchMode):
    """Counts the bytes of the tensors that live, each storage once; ``peak`` is the most so far."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and look at what comes out."""
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._begin(tensor.untyped_storage())
        return found

    def _begin(self, storage: Any) -> None:
        self._known.add(storage._cdata)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._end, storage._cdata, storage.nbytes())

    def _end(self, number: int, size: int) -> None:
        self._known.discard(number)
        self._now -= size


def peak_bytes(settings: D2RNetModelSettings, crops: int, *, precision: str = "32-true") -> int:
    """Count the most bytes alive at a time in a step on so many crops."""
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision != "32-true")
    with FakeTensorMode(), Alive() as alive:
        network = CropFeatures(settings).train()
        pixels = torch.zeros(crops, settings.crop_size_px, settings.crop_size_px, dtype=torch.uint8)
        insides = torch.zeros(crops, 4, dtype=torch.long) if network.inside_only else None
        with autocast:
            found = network.of_crops(pixels, insides, torch.float32)
        found.sum().backward()
    return alive.peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", type=Path, default=ROOT / "workflow/presets/cxr/d2rnet.yaml")
    parser.add_argument("--boxes", type=float, nargs="+", default=[2.7, 20.0], help="boxes an image")
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 128])
    arguments = parser.parse_args()
    report = Config.read(read_overlay(arguments.preset)).cxr.report
    rows = []
    for boxes in arguments.boxes:
        crops = round(boxes * report.training.batch_size)
        for chunk in arguments.chunks:
            settings = report.model.replaced(lesion_branch="crop", crop_chunk=chunk)
            peaks = [peak_bytes(settings, crops, precision=precision) / GIB for precision in ("32-true", "bf16-mixed")]
            print(f"{crops} crops, chunks of {chunk}: {peaks}", flush=True)
            rows.append([f"{boxes:g}", crops, chunk or "all", *(f"{peak:.1f}" for peak in peaks)])
    print("\n".join(markdown_table(["boxes an image", "crops", "chunk", "GiB, 32-true", "GiB, bf16-mixed"], rows)))


if __name__ == "__main__":
    main()
