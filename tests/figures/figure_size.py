"""What a figure measures on paper, read from its SVG."""

import re
from pathlib import Path

from d2rnet.figures.plots import COLUMN_MM, MM_PER_INCH, MOST_HEIGHT_MM, PAGE_MM


def breaks_the_rule(path: Path) -> list[str]:
    """Return what of a figure is not as the rule says: its width, its height, sizes of its text."""
    text = path.read_text(encoding="utf-8")
    width, height = (
        float(side) / 72 * MM_PER_INCH for side in re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups()
    )
    sizes = {float(size) for size in re.findall(r"font(?:-size)?:[^;\"]*?([\d.]+)px", text)}
    found = [] if min(abs(width - one) for one in (COLUMN_MM, PAGE_MM)) < 0.1 else [f"{width:.1f} mm wide"]
    found += [f"{height:.1f} mm high"] if height > MOST_HEIGHT_MM else []
    return found + [f"text of {size:g} pt" for size in sorted(sizes) if not 6 <= size <= 7] + ([] if sizes else ["no text"])
