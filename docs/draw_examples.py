"""Draw test radiographs with their pseudo boxes, generated and reference findings, from a finished run.

python docs/draw_examples.py --run . --image-root resources/demo_cohort/mimic --output docs/figures/demo_boxes.png
"""

import argparse
import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

from d2rnet.data.annotation_file import load_annotation
from d2rnet.data.categories import CATEGORY_NAMES
from d2rnet.data.dicom import read_radiograph
from d2rnet.io import atomic_path, read_jsonl

COLUMNS = 3
TEXT_WIDTH = 44  # characters a line


def draw(run: Path, image_root: Path, output: Path, *, count: int, first: int) -> None:
    """Write one picture with ``count`` entries of the test split, from entry ``first`` on."""
    entries = load_annotation(run / "results/build_annotation/annotation.json")["test"][first : first + count]
    generated = {record["id"]: record for record in read_jsonl(run / "results/generate_reports/test.jsonl")}
    rows = -(-len(entries) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(4.4 * COLUMNS, 7.2 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, entry in zip(axes.flat, entries, strict=False):
        draw_entry(axis, entry, generated[entry["id"]], image_root)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=80, bbox_inches="tight")


def draw_entry(axis: plt.Axes, entry: dict, record: dict, image_root: Path) -> None:
    """Draw the first image of an entry, the boxes on it, and both texts below."""
    axis.set_anchor("N")
    axis.imshow(read_radiograph(image_root / entry["image_path"][0]).pixels, cmap="gray", vmin=0, vmax=255)
    palette = plt.get_cmap("tab20")
    on_first = entry.get("box_image", [0] * len(entry["boxes"]))
    for (x, y, width, height), label, score, image in zip(
        entry["boxes"], entry["labels"], entry["scores"], on_first, strict=True
    ):
        if image == 0:
            colour = palette(CATEGORY_NAMES.index(label) % 20)
            axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.6))
            axis.text(
                x,
                y - 4,
                f"{label} {score:.2f}",
                fontsize=7,
                color="black",
                bbox={"facecolor": colour, "pad": 1, "linewidth": 0},
            )
    texts = [f"{name}: {record[key]}" for name, key in (("GENERATED", "hypothesis"), ("REFERENCE", "reference"))]
    wrapped = "\n\n".join(textwrap.fill(text, TEXT_WIDTH) for text in texts)
    axis.text(0, -0.03, wrapped, transform=axis.transAxes, fontsize=8, va="top", family="monospace")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of the run (default: here)")
    parser.add_argument("--image-root", type=Path, required=True, help="data.reports.root of the run")
    parser.add_argument("--output", type=Path, required=True, help="PNG to write")
    parser.add_argument("--count", type=int, default=3, help="entries to draw (default 3)")
    parser.add_argument("--first", type=int, default=0, help="first entry, counted from 0 (default 0)")
    args = parser.parse_args()
    draw(args.run, args.image_root, args.output, count=args.count, first=args.first)


if __name__ == "__main__":
    main()
