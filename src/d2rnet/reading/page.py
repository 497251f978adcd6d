"""What the pages of all readings share: one HTML file without any other, safe to open, all text escaped.

Colours follow the reader's light or dark theme. The page can load nothing: its content security policy allows what is inside
it alone.
"""

import base64
import io
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib import resources
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from d2rnet.reading.content import NOTICE


@cache
def asset(name: str) -> str:
    """Return a file of the folder ``assets``."""
    return resources.files("d2rnet.reading").joinpath("assets", name).read_text(encoding="utf-8")


def fill_page(
    *, title: str, warnings: Iterable[str], images: str, text: str, facts: Iterable[str], style: str, script: str
) -> str:
    """Return a page.

    Args:
        title: name of the reading.
        warnings: what its reader should know.
        images: HTML of its left side.
        text: HTML of its right side.
        facts: of file, models and time.
        style: file of ``assets``, after ``page.css``.
        script: file of ``assets``.
    """
    return Template(asset("page.html")).substitute(
        title=escape(title),
        notice=escape(NOTICE),
        warnings="".join(f'<p class="warning">{escape(warning)}</p>' for warning in warnings),
        images=images,
        text=text,
        facts=" \u00b7 ".join(map(escape, facts)),
        style=asset("page.css") + asset(style),
        script=asset(script),
    )


def notebook_frame(page: str, *, height_px: int = 760) -> str:
    """Return a page within a frame of its own, for a notebook: neither's style and script reach the other."""
    return (
        f'<iframe srcdoc="{escape(page)}" sandbox="allow-scripts" title="reading" loading="lazy" '
        f'style="width: 100%; height: {height_px}px; border: 0"></iframe>'
    )


def origin_facts(origin: Mapping[str, Any], seconds: float) -> list[str]:
    """Return what a page says of models, device and time; of each model the hash of its first file."""
    return [
        f"{seconds:.1f} s on {origin['device']}",
        *(f"{kind.replace('_', ' ')} {next(iter(hashes.values()))[:12]}" for kind, hashes in origin["models"].items()),
        f"d2rnet {origin['code']['d2rnet']}",
    ]


def jpeg_url(pixels: NDArray[np.uint8], *, quality: int) -> str:
    """Return (height, width) pixels as the address of a JPEG that it holds itself."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
