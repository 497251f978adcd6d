"""The page of a CT that was read: three planes through the volume, findings structure by structure, attention over the planes.

The volume is held as gzip of the differences from slice to slice, which the browser unpacks itself. Without JavaScript, or in
a browser that cannot unpack it, the middle slices and the findings are seen.
"""

import base64
import zlib
from html import escape

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.structures.table import structure_title
from d2rnet.ct.volumes.display_windows import LUNG, WINDOWS, grey_levels
from d2rnet.gallery.page import script_json
from d2rnet.reading.ct_content import CtContent, CtSentence
from d2rnet.reading.ct_view import LEVELS_HU, VolumeView
from d2rnet.reading.page import fill_page, jpeg_url, origin_facts

JPEG_QUALITY = 85
# Of each plane: name, axes down and across the picture, marks at its left, right, top and bottom, ends of its slices.
PLANES = (
    ("axial", 1, 2, "RLAP", ("feet", "head")),
    ("coronal", 0, 2, "RLHF", ("front", "back")),
    ("sagittal", 0, 1, "APHF", ("right", "left")),
)


def page_text(reading: CtContent) -> str:
    """Return the page of a reading."""
    shown = " x ".join(f"{side:.1f}" for side in reading.volume.spacing_mm)
    source = " x ".join(map(str, reading.source["source_shape_zyx"]))
    spacing = " x ".join(f"{side:.2f}" for side in reading.source["source_spacing_mm"])
    facts = [
        f"{reading.file}: {source} voxels of {spacing} mm (z, y, x), {reading.source['file_format']}",
        f"shown at {shown} mm",
        *origin_facts(reading.origin, reading.seconds),
    ]
    return fill_page(
        title=reading.name,
        warnings=reading.warnings,
        images=_images(reading),
        text=_findings(reading),
        facts=facts,
        style="slices.css",
        script="slices.js",
    )


def _images(reading: CtContent) -> str:
    windows = "\n".join(
        f'<button type="button" data-window="{name}" aria-pressed="{str(name == "lung").lower()}" '
        f'aria-keyshortcuts="{number}">{name.capitalize()} <kbd>{number}</kbd></button>'
        for number, name in enumerate(WINDOWS, start=1)
    )
    planes = "\n".join(_figure(reading.volume, *plane) for plane in PLANES)
    return (
        f'<div class="tools" role="group" aria-label="Window">\n{windows}\n</div>\n<div class="planes">\n{planes}\n</div>\n'
        '<p class="legend idle"><span><span class="scale" aria-hidden="true"></span> <span id="attended" role="status">'
        "The middle slices in the lung window; the page needs JavaScript to show others.</span></span></p>\n"
        '<p class="keys">Click in a plane: the other two follow. Wheel, or the arrow keys on a slider: next slice. '
        "Press a sentence: go to where its structure was looked at most; <kbd>Esc</kbd> lets go.</p>\n"
        f'<script type="application/json" id="reading-data">{script_json(_data(reading))}</script>'
    )


def _figure(volume: VolumeView, name: str, down: int, across: int, marks: str, ends: tuple[str, str]) -> str:
    """Return a plane: its middle slice, a canvas over it, marks of the patient's sides, the slider of its slices."""
    along = 3 - down - across
    slices = volume.levels.shape[along]
    ratio = volume.spacing_mm[across] * volume.levels.shape[across] / (volume.spacing_mm[down] * volume.levels.shape[down])
    still = jpeg_url(_still(volume, down, across), quality=JPEG_QUALITY)
    sides = "".join(
        f'<span class="side {place}">{mark}</span>'
        for place, mark in zip(("left", "right", "top", "bottom"), marks, strict=True)
    )
    return (
        f'<figure class="plane" id="{name}" data-down="{down}" data-across="{across}">\n'
        f'<div class="frame" style="--ratio: {ratio:.4f}"><img src="{still}" alt="middle {name} slice">'
        f'<canvas hidden role="img" aria-label="{name} slice"></canvas>'
        f'<span class="line down"></span><span class="line across"></span>{sides}</div>\n'
        f'<figcaption><label for="{name}-slice">{name.capitalize()}</label> '
        f'<input type="range" id="{name}-slice" min="1" max="{slices}" value="{slices // 2 + 1}" '
        f'aria-description="from {ends[0]} to {ends[1]}"> <output for="{name}-slice"></output></figcaption>\n</figure>'
    )


def _still(volume: VolumeView, down: int, across: int) -> NDArray[np.uint8]:
    """Return the middle slice of a plane in the lung window, (height, width); the head is on top."""
    along = 3 - down - across
    levels = volume.levels.take(volume.levels.shape[along] // 2, axis=along)  # (down, across): the axes are in this order
    upright = levels[::-1] if down == 0 else levels
    return grey_levels(LEVELS_HU[upright], LUNG)


def _data(reading: CtContent) -> dict[str, object]:
    """Return what the script reads; attention of each structure is told in parts of its own greatest, 0 to 255."""
    greatest = reading.attention.max(axis=(1, 2, 3), keepdims=True)  # (S, 1, 1, 1)
    shares = np.divide(reading.attention, greatest, out=np.zeros_like(reading.attention), where=greatest > 0)
    levels = reading.volume.levels
    steps = np.diff(levels, axis=0, prepend=np.zeros_like(levels[:1]))  # modulo 256
    return {
        "shape": levels.shape,
        "levels_hu": np.round(LEVELS_HU, 1).tolist(),
        "windows": {name: list(window) for name, window in WINDOWS.items()},
        "volume": _packed(steps),
        "grid": reading.attention.shape[1:],
        "attention": _packed(np.rint(255 * shares).astype(np.uint8)),
        "structures": [structure_title(name) for name in reading.structures],
    }


def _packed(values: NDArray[np.uint8]) -> str:
    """Return gzip as base64. Differences of voxels are noise and runs: matches would be looked for in vain, and for long."""
    packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, zlib.Z_RLE)
    return base64.b64encode(packer.compress(values.tobytes()) + packer.flush()).decode()


def _findings(reading: CtContent) -> str:
    parts = [_structure(number, name, sentences) for number, (name, sentences) in enumerate(reading.by_structure().items())]
    return "<h2>Findings by structure</h2>\n" + "\n".join(parts)


def _structure(number: int, name: str, sentences: tuple[CtSentence, ...]) -> str:
    """Return a structure's heading and sentences; each is a button that shows where the structure was looked at."""
    button = f'<button type="button" data-structure="{number}" aria-pressed="false">'
    items = "".join(f"<li>{button}{escape(one.text)}</button></li>" for one in sentences)
    absent = "" if items else " <small>not mentioned</small>"
    listed = f"<ol>{items}</ol>" if items else ""
    return f"<section><h3>{button}{escape(structure_title(name))}{absent}</button></h3>\n{listed}</section>"
