"""Time recipes for turning a CT volume (.nii.gz) into an array of one size, side by side, on one core.

usual: nibabel's get_fdata (float64), trilinear zoom, clip, as the published converters do. Two zooms: torch's interpolate,
which CT-CLIP, CT2Rep and the code of arXiv 2603.04878 use, and scipy's, which many scripts use (left out where absent).
ours: d2rnet.ct.volumes and d2rnet.ct.conversion, with everything that they check.

The volume is drawn with a scanner's noise: 512 x 512 x 300 int16, 0.703 x 0.703 x 1 mm, to 480 x 480 x 200 at 0.75 x 0.75 x
1.5 mm, so that all recipes use the same sampling points; results are compared after the window. The floor is inflating the
gzip alone. Processor time is compared, so that other work on the machine matters little.

Usage: python benchmarks/volumes.py [--slices N] [--repeat N] [--memory SLICES]
"""

import argparse
import gzip
import json
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import torch
from isal import igzip

from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.conversion.store import read_array, write_array
from d2rnet.ct.volumes.reader import read_volume
from d2rnet.runs.provenance import code_version, hardware

SIDE = 512
SPACING_XYZ = (0.703125, 0.703125, 1.0)  # mm
NOISE_SD_HU = 25.0
DATA_BEGINS, SLICES_AT = 352, 46  # bytes of a NIfTI-1 file
WINDOW_HU = (-1000.0, 1000.0)
RAS_TO_LPS = [-1.0, -1.0, 1.0, 1.0]


def draw_volume(slices: int, side: int = SIDE) -> np.ndarray:
    """A body with lungs, vessels and spine, with noise: (Z, Y, X) int16 HU."""
    rng = np.random.default_rng(0)
    y, x = (np.linspace(-1, 1, side)[:, None], np.linspace(-1, 1, side)[None])
    body = np.where((y / 0.7) ** 2 + (x / 0.9) ** 2 < 1, 40.0, -1000.0)
    hu = np.empty((slices, side, side), np.int16)
    vessels = np.array(cv2.resize(rng.normal(0, 1, (64, 64)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC))
    noise = rng.normal(0, NOISE_SD_HU, (side, side + slices)).astype(np.float32)
    for number in range(slices):
        z = 2 * number / slices - 1
        part = body.copy()
        for middle in (-0.42, 0.42):
            lung = (z / 0.9) ** 2 + (y / 0.55) ** 2 + ((x - middle) / 0.33) ** 2 < 1
            part[lung] = -850 + 200 * np.clip(np.roll(vessels, 3 * number, axis=0)[lung] - 1, 0, 4)
        part[((y - 0.5) / 0.1) ** 2 + (x / 0.1) ** 2 < 1] = 400
        hu[number] = np.clip(np.rint(part + np.roll(noise, number, axis=0)[:, number : number + side]), -1024, 3071)
    return hu


def write_volume(path: Path, hu: np.ndarray) -> None:
    """Write (Z, Y, X) HU as .nii.gz, as CT-RATE is stored."""
    affine = np.diag([*SPACING_XYZ, 1.0]) * np.array(RAS_TO_LPS)[:, None]
    path.write_bytes(gzip.compress(nib.Nifti1Image(hu.transpose(2, 1, 0), affine).to_bytes(), 6))


def wanted_zyx(slices: int) -> tuple[int, int, int]:
    """Size of the result."""
    return round(slices / 1.5), round(SIDE * 0.703125 / 0.75), round(SIDE * 0.703125 / 0.75)


def usual_torch(path: Path, slices: int) -> np.ndarray:
    """nibabel, float64, torch's trilinear interpolation, clip."""
    values = nib.load(path).get_fdata().transpose(2, 1, 0)
    tensor = torch.tensor(values, dtype=torch.float32)[None, None]
    zoomed = torch.nn.functional.interpolate(tensor, size=wanted_zyx(slices), mode="trilinear", align_corners=False)
    return np.clip(zoomed[0, 0].numpy(), *WINDOW_HU)


def usual_scipy(path: Path, slices: int) -> np.ndarray:
    """nibabel, float64, scipy's trilinear zoom, clip."""
    from scipy.ndimage import zoom

    values = nib.load(path).get_fdata().transpose(2, 1, 0)
    factors = [new / old for new, old in zip(wanted_zyx(slices), values.shape, strict=True)]
    return np.clip(zoom(values, factors, order=1, mode="nearest", grid_mode=True), *WINDOW_HU)


def settings(slices: int) -> CtConversionSettings:
    """The same grid and window, as HU."""
    return CtConversionSettings(
        spacing_mm=(1.5, 0.75, 0.75), shape_zyx=wanted_zyx(slices), window_hu=WINDOW_HU, bits=16, antialias=False
    )


def ours(path: Path, slices: int) -> np.ndarray:
    """The reader and the conversion of the workflow."""
    return convert_volume(read_volume(path), settings(slices)).array


def inflate_zlib(path: Path, slices: int) -> None:
    """Inflate with zlib, keeping nothing."""
    with gzip.open(path) as stream:
        while stream.read(1 << 18):
            pass


def inflate_isal(path: Path, slices: int) -> None:
    """Inflate with ISA-L, keeping nothing."""
    with igzip.open(path) as stream:
        while stream.read(1 << 18):
            pass


def seconds(recipe: Callable[[], object], repeat: int) -> float:
    """Least processor time of several runs."""
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        recipe()
        best = min(best, time.process_time() - start)
    return best


def compare_recipes(path: Path, slices: int, repeat: int) -> None:
    """Print time and difference of each recipe."""
    reference = usual_torch(path, slices)
    recipes: dict[str, Callable[[Path, int], object]] = {"usual, torch": usual_torch}
    try:
        import scipy  # noqa: F401

        recipes["usual, scipy"] = usual_scipy
    except ImportError:
        print("scipy is not installed: its zoom is left out")
    recipes |= {"ours": ours, "floor: inflate, zlib": inflate_zlib, "floor: inflate, ISA-L": inflate_isal}
    times = dict.fromkeys(recipes, float("inf"))
    for _ in range(repeat):  # in turn, so that other work on the machine meets all of them
        for name, recipe in recipes.items():
            times[name] = min(times[name], seconds(lambda recipe=recipe: recipe(path, slices), 1))
    difference = np.abs(ours(path, slices) - reference)
    for name, taken in times.items():
        print(f"{name:24} {taken:6.2f} s   {taken / times['ours']:5.2f} x ours")
    print(f"difference of ours from usual: at most {difference.max():.2f} HU, mean {difference.mean():.3f} HU")


def half_resolution() -> CtConversionSettings:
    """Half the resolution of the released code of arXiv 2603.04878, the same field of view."""
    return CtConversionSettings(spacing_mm=(3.0, 1.5, 1.5), shape_zyx=(120, 240, 240))


def compare_stores(path: Path, folder: Path, repeat: int) -> None:
    """Print size and time of the two ways to store, at half resolution."""
    array = convert_volume(read_volume(path), half_resolution()).array
    for name in ("volume.npy", "volume.npy.gz"):
        target = folder / name
        write = seconds(lambda target=target: write_array(target, array), repeat)
        read = seconds(lambda target=target: np.array(read_array(target)), repeat)
        patch = seconds(lambda target=target: np.array(read_array(target)[40:72, 80:144, 80:144]), repeat)
        size = target.stat().st_size / 1e6
        print(f"{name:14} {size:5.1f} MB   write {write:.3f} s   read {read:.3f} s   one patch of 32 x 64 x 64 {patch:.4f} s")


def peak_memory(slices: int, folder: Path) -> None:
    """Convert 1024 x 1024 x slices int16 in a process of its own and print its peak memory."""
    path = folder / "large.nii.gz"
    part = draw_volume(50, 1024)
    affine = np.diag([*SPACING_XYZ, 1.0]) * np.array(RAS_TO_LPS)[:, None]
    one_slice = nib.Nifti1Image(np.zeros((1024, 1024, 1), np.int16), affine)
    start_of_file = bytearray(one_slice.to_bytes()[:DATA_BEGINS])
    struct.pack_into("<h", start_of_file, SLICES_AT, slices)
    with igzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(bytes(start_of_file))
        for start in range(0, slices, len(part)):
            stream.write(part[: min(len(part), slices - start)].tobytes())
    done = subprocess.run([sys.executable, __file__, "--convert", str(path)], stdout=subprocess.PIPE, text=True, check=True)
    print(f"1024 x 1024 x {slices} int16, .nii.gz: {json.loads(done.stdout.splitlines()[-1])['peak_mib']} MiB at the most")


def convert_one(path: Path) -> None:
    """Convert one volume and print this process's peak memory."""
    convert_volume(read_volume(path), half_resolution())
    print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", type=int, default=0, metavar="SLICES", help="measure the peak memory of so many slices")
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.convert:
        convert_one(arguments.convert)
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    print(f"commit {code_version()}, {hardware()}")
    with tempfile.TemporaryDirectory() as name:
        if arguments.memory:
            peak_memory(arguments.memory, Path(name))
            return
        path = Path(name, "volume.nii.gz")
        write_volume(path, draw_volume(arguments.slices))
        print(f"512 x 512 x {arguments.slices} int16, {path.stat().st_size / 1e6:.0f} MB .nii.gz")
        compare_recipes(path, arguments.slices, arguments.repeat)
        compare_stores(path, Path(name), arguments.repeat)


if __name__ == "__main__":
    main()
