"""Which pictures get the warning of grey levels: real radiographs that should not, odd pictures that should.

Limits are learnt (:mod:`d2rnet.cxr.images.grey_levels`) on every second of the given radiographs; the others, and those of
``--other`` (named as Open-i's, where 2001 is a lateral view), tell how often the warning is false; then the halves change
places. Twenty odd pictures are drawn here, or made from a radiograph of the second half and from slices of a CT volume. With
``--drawn`` (files of the demo cohort) the same is told of limits learnt on drawings. Prints Markdown.

Usage: python benchmarks/odd_pictures.py --radiographs DIR --other DIR --volume NIFTI [--drawn DIR] [--max-side-px 1024]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image, ImageDraw

from d2rnet.cxr.images.grey_levels import GreyLevels, describe_grey_levels, reduce
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.reading.cxr_settings import MOST_IMAGES
from d2rnet.runs.provenance import code_version

SIDE = 512


def read_all(folder: Path, max_side_px: int) -> dict[Path, np.ndarray]:
    """Read the PNG and JPG files below a folder, (h, w) uint8 each, in the order of their names."""
    files = sorted((path for path in folder.rglob("*") if path.suffix in (".png", ".jpg")), key=lambda path: path.name)
    return {path: read_radiograph(path, max_side_px=max_side_px).pixels for path in files}


def text_page() -> np.ndarray:
    """Black lines of words on white."""
    page = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(page)
    for top in range(30, SIDE - 30, 14):
        draw.text((30, top), "The heart is of normal size. No effusion is seen. The lungs are clear. No pneumothorax.", fill=0)
    return np.asarray(page)


def drawing(ground: int, draw: Callable[[ImageDraw.ImageDraw], object]) -> np.ndarray:
    """Shapes on one grey level."""
    picture = Image.new("L", (SIDE, SIDE), ground)
    draw(ImageDraw.Draw(picture))
    return np.asarray(picture)


def hand(draw: ImageDraw.ImageDraw) -> None:
    """Palm and five fingers."""
    draw.ellipse((160, 240, 350, 480), fill=170)
    for left, top in ((165, 90), (215, 50), (265, 60), (312, 110)):
        draw.rounded_rectangle((left, top, left + 34, 320), 16, fill=190)
    draw.line((340, 360, 440, 250), fill=190, width=34)


def fan(draw: ImageDraw.ImageDraw) -> None:
    """A fan of ultrasound, before its speckle."""
    draw.pieslice((-60, -200, 572, 480), 50, 130, fill=120)


def skull(draw: ImageDraw.ImageDraw) -> None:
    """Head with eyes."""
    draw.ellipse((120, 60, 400, 440), fill=200)
    draw.ellipse((150, 90, 370, 400), fill=130)
    for left in (180, 280):
        draw.ellipse((left, 220, left + 60, 270), fill=60)


def knee(draw: ImageDraw.ImageDraw) -> None:
    """Two bones in soft tissue."""
    draw.rectangle((150, 0, 370, SIDE), fill=80)
    draw.rounded_rectangle((190, -40, 330, 245), 40, fill=200)
    draw.rounded_rectangle((190, 260, 330, 560), 40, fill=200)


def photograph(rng: np.random.Generator) -> np.ndarray:
    """Texture whose power falls with the square of the frequency, as that of photographs does (Field 1987)."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    frequency[0, 0] = 1
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / frequency).real
    return np.clip(127 + 50 * (field - field.mean()) / field.std(), 0, 255).astype(np.uint8)


def landscape(rng: np.random.Generator) -> np.ndarray:
    """Bright sky above dark, rough ground."""
    sky = np.linspace(230, 170, SIDE)[:, None].repeat(SIDE, axis=1)
    horizon = 260 + 40 * np.sin(np.arange(SIDE) / 60)
    ground = 60 + 25 * rng.standard_normal((SIDE, SIDE))
    return np.clip(np.where(np.arange(SIDE)[:, None] > horizon, ground, sky), 0, 255).astype(np.uint8)


def ct_slices(volume: Path) -> dict[str, np.ndarray]:
    """An axial slice in lung and in soft-tissue window, and a sagittal one, of a volume in Hounsfield units."""
    image = nibabel.as_closest_canonical(nibabel.load(volume))
    hu = np.asanyarray(image.dataobj)  # right to left, back to front, feet to head
    middle = [length // 2 for length in hu.shape]
    axial = hu[::-1, ::-1, middle[2]].T
    sagittal = hu[middle[0], ::-1, ::-1].T

    def window(slice_hu: np.ndarray, centre: float, width: float) -> np.ndarray:
        return (np.clip((slice_hu - centre) / width + 0.5, 0, 1) * 255).astype(np.uint8)

    return {
        "CT, axial, lung window": window(axial, -600, 1500),
        "CT, axial, soft-tissue window": window(axial, 40, 400),
        "CT, sagittal, soft-tissue window": window(sagittal, 40, 400),
    }


def odd_pictures(radiograph: np.ndarray, volume: Path) -> dict[str, np.ndarray]:
    """Make the odd pictures, name -> (h, w) uint8."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((SIDE, SIDE))
    speckle = rng.rayleigh(0.8, (SIDE, SIDE))
    return {
        "white": np.full((SIDE, SIDE), 255, dtype=np.uint8),
        "black": np.zeros((SIDE, SIDE), dtype=np.uint8),
        "noise": rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8),
        "gradient, left to right": (columns // 2).astype(np.uint8),
        "gradient, top to bottom": (rows // 2).astype(np.uint8),
        "checkerboard of 64 px": ((rows // 64 + columns // 64) % 2 * 255).astype(np.uint8),
        "page of text": text_page(),
        "texture of a photograph": photograph(rng),
        "landscape": landscape(rng),
        "fan of ultrasound": np.clip(drawing(0, fan) * speckle, 0, 255).astype(np.uint8),
        "hand": drawing(10, hand),
        "skull": drawing(5, skull),
        "knee": drawing(10, knee),
        **ct_slices(volume),
        "radiograph, inverted": 255 - radiograph,
        "radiograph, turned by 90 degrees": np.rot90(radiograph).copy(),
        "radiograph, turned by 180 degrees": np.rot90(radiograph, 2).copy(),
        "radiograph, its upper left quarter": radiograph[: len(radiograph) // 2, : radiograph.shape[1] // 2].copy(),
    }


def share(levels: GreyLevels, pictures: Sequence[np.ndarray]) -> str:
    """Tell how many pictures get the warning."""
    warned = sum(bool(levels.unlike(picture)) for picture in pictures)
    return f"{warned} of {len(pictures)}"


def learn(pictures: Sequence[np.ndarray]) -> GreyLevels:
    """Learn limits, of at least twenty images."""
    levels = describe_grey_levels([reduce(picture) for picture in pictures])
    if levels is None:
        raise SystemExit(f"got {len(pictures)} images to learn from; expected twenty or more.")
    return levels


def print_shares(learnt_on: str, levels: GreyLevels, pictures: dict[str, list[np.ndarray]]) -> None:
    """Print how many of each group get the warning."""
    print(f"\nLimits learnt on {levels.images} {learnt_on}.\n\n| pictures | with a warning |\n|---|---|")
    for name, group in pictures.items():
        print(f"| {name} | {share(levels, group)} |")


def groups(
    held_out: list[np.ndarray], other: dict[Path, np.ndarray], odd: dict[str, np.ndarray]
) -> dict[str, list[np.ndarray]]:
    """Group the pictures, by what is expected of them."""
    real = {"radiographs, held out": held_out}
    for path, pixels in other.items():
        real.setdefault(f"other source, {'lateral' if path.stem.endswith('2001') else 'frontal'}", []).append(pixels)
    return {
        **real,
        "the held-out ones, turned by 90 degrees": [np.rot90(pixels).copy() for pixels in held_out],
        "the held-out ones, turned by 180 degrees": [np.rot90(pixels, 2).copy() for pixels in held_out],
        "the held-out ones, inverted": [255 - pixels for pixels in held_out],
        "odd pictures": list(odd.values()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--radiographs", type=Path, required=True, help="folder of PNG files, half of which are learnt from")
    parser.add_argument("--other", type=Path, required=True, help="folder of PNG files of another source")
    parser.add_argument("--volume", type=Path, required=True, help="CT volume, NIfTI in HU")
    parser.add_argument("--drawn", type=Path, help="folder of JPG files of the demo cohort")
    parser.add_argument("--max-side-px", type=int, default=1024)
    options = parser.parse_args()
    radiographs = list(read_all(options.radiographs, options.max_side_px).values())
    other = read_all(options.other, options.max_side_px)
    odd = odd_pictures(radiographs[1], options.volume)
    print(f"Version {code_version()['commit']}.")
    levels = [learn(radiographs[start::2]) for start in (0, 1)]
    print_shares("radiographs", levels[0], groups(radiographs[1::2], other, odd))
    print_shares("radiographs, the other half", levels[1], groups(radiographs[::2], other, odd))
    print("\n| odd picture | what is unlike, by the first half |\n|---|---|")
    for name, picture in odd.items():
        print(f"| {name} | {'; '.join(levels[0].unlike(picture)) or '**no warning**'} |")
    if options.drawn:
        drawn = list(read_all(options.drawn, options.max_side_px).values())
        count = min(len(drawn), MOST_IMAGES)
        chosen = [drawn[number * len(drawn) // count] for number in range(count)]
        print_shares("drawings of the demo cohort", learn(chosen), groups(radiographs, other, odd))


if __name__ == "__main__":
    main()
