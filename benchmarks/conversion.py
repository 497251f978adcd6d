"""Time two recipes for turning radiographs into 8-bit PNG, side by side, on one core.

usual: decode, window in float64 at full resolution, Lanczos, PNG compression 6.
ours: d2rnet.cxr.conversion.image_conversion (area average of stored values, one table look-up, PNG compression 1, JPEG 2000 at
reduced resolution), with its atomic write.

The images are synthetic, 3000 x 2500 pixels with 12 bits and film-like noise, as DICOM uncompressed, DICOM JPEG 2000 lossless
and 8-bit JPG; the lossless real radiograph of pydicom-data is added where that package is installed. Processor time is
compared, so that other work on the machine matters little.

Usage: python benchmarks/conversion.py [--images N] [--max-side-px N]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from d2rnet.cxr.conversion.image_conversion import write_png
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.runs.provenance import code_version, hardware

HEIGHT, WIDTH = 3000, 2500
NOISE_SD = 12.0  # of 4096 values
COMPUTED_RADIOGRAPHY = "1.2.840.10008.5.1.4.1.1.1"


def usual_recipe(source: Path, target: Path, max_side_px: int) -> None:
    """Convert the way most scripts do."""
    if source.suffix == ".jpg":
        shown = np.asarray(Image.open(source).convert("L")).astype(np.float64)
    else:
        dataset = dcmread(source)
        shown = apply_voi_lut(apply_modality_lut(pixel_array(dataset), dataset), dataset).astype(np.float64)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown = shown.max() - shown
        shown = (shown - shown.min()) / (shown.max() - shown.min()) * 255.0
    scale = min(1.0, max_side_px / max(shown.shape))
    size = (round(shown.shape[1] * scale), round(shown.shape[0] * scale))
    Image.fromarray(shown.astype(np.uint8)).resize(size, Image.Resampling.LANCZOS).save(target, compress_level=6)


def our_recipe(source: Path, target: Path, max_side_px: int) -> None:
    """Convert the way the workflow does."""
    write_png(target, read_radiograph(source, max_side_px=max_side_px).pixels)


def make_inputs(folder: Path) -> dict[str, Path]:
    """Write one file of each kind and return them by the name to print."""
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.random((12, 10), dtype=np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    film = 500 + 3000 * smooth + rng.normal(0, NOISE_SD, smooth.shape)
    stored = film.clip(0, 4095).astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = COMPUTED_RADIOGRAPHY, generate_uid()
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = HEIGHT, WIDTH, 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    inputs = {"DICOM, uncompressed": folder / "plain.dcm", "DICOM, JPEG 2000": folder / "j2k.dcm", "JPG": folder / "grey.jpg"}
    dcmwrite(inputs["DICOM, uncompressed"], dataset, enforce_file_format=True)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dcmwrite(inputs["DICOM, JPEG 2000"], dataset, enforce_file_format=True)
    Image.fromarray((stored >> 4).astype(np.uint8)).save(inputs["JPG"], quality=95)
    real = get_testdata_file("RG1_J2KR.dcm", download=False)
    if real is not None:
        inputs["DICOM, JPEG 2000, real (1955 x 1841)"] = Path(str(real))
    return inputs


def images_per_second(recipe: Callable[[Path, Path, int], None], source: Path, target: Path, side: int, images: int) -> float:
    """Convert one file ``images`` times after a warm-up; return images per second of processor time."""
    recipe(source, target, side)
    start = time.process_time()
    for _ in range(images):
        recipe(source, target, side)
    return images / (time.process_time() - start)


def main() -> None:
    """Parse arguments, time both recipes on each input and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5, metavar="N", help="conversions timed of each (default 5)")
    parser.add_argument(
        "--max-side-px",
        type=int,
        nargs="+",
        default=[1024, 256],
        metavar="N",
        help="longer side of the PNG (default 1024 256)",
    )
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    machine, code = hardware(), code_version()
    print(f"{machine['processor']}, {machine['cores']} cores; commit {code['commit']}{', modified' if code['dirty'] else ''}")
    print(f"images/s a core, {arguments.images} conversions each\n")
    print(f"{'input':<38}{'PNG side':>9}{'usual':>9}{'ours':>9}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, source in make_inputs(folder).items():
            for side in arguments.max_side_px:
                usual, ours = (
                    images_per_second(recipe, source, folder / "out.png", side, arguments.images)
                    for recipe in (usual_recipe, our_recipe)
                )
                print(f"{kind:<38}{side:>9}{usual:>9.2f}{ours:>9.2f}{ours / usual:>8.1f}", flush=True)


if __name__ == "__main__":
    main()
