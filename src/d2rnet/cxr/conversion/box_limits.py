"""Boxes against the size of their image: what becomes of one that lies outside, a little or further.

How far a box lies outside is the greatest distance of one of its sides from the image, pixels of the source frame. Up to
``box_tolerance_px`` and beyond it, a setting each says what to do: ``stop`` (a problem), ``clip`` to the image, or ``list``
(left out, listed and counted). Of a box wholly outside, clipping leaves nothing: it is a problem unless it is to be listed.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from d2rnet.cxr.sources.box_tables import CORNERS, record_name
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.files.problems import Problems

_REMEDY = (
    "Mend or remove the row; if the image is a resized copy, give cxr.data.labelled.size_table; cxr.data.labelled.{setting}: "
    "list leaves such boxes out."
)
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CheckedBoxes:
    """Boxes compared with their images.

    Attributes:
        boxes: columns BOX_COLUMNS, all inside their images and with an area.
        listed: one record a box that is left out: ``source_id``, ``origin``, ``outside_px``, the corners as stated, and the
            image's ``height`` and ``width``.
        counts: ``boxes_in``; ``boxes_of_left_out_images``; ``boxes_clipped`` and ``boxes_listed``, of either kind
            ``..._within_tolerance`` and ``..._beyond_tolerance``; ``boxes_kept``.
    """

    boxes: pd.DataFrame
    listed: list[dict[str, Any]]
    counts: Counter[str]


def check_boxes(
    boxes: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], labelled: LabelledSettings, problems: Problems
) -> CheckedBoxes:
    """Compare boxes with the size of their image, and stop at, clip or leave out what lies outside.

    Args:
        boxes: columns BOX_COLUMNS, corners in the frame of ``sizes``.
        sizes: source_id -> (height, width) in pixels; boxes of other images are left out and counted.
        labelled: says how far outside a box may lie, and what is done with it.
        problems: grows by one for each box to stop at: ``box_outside_image``, or ``zero_area`` where clipping leaves nothing.
    """
    known = boxes["source_id"].isin(list(sizes))
    counts = Counter({"boxes_in": len(boxes), "boxes_of_left_out_images": int((~known).sum())})
    boxes = boxes[known].reset_index(drop=True)
    image_hw = np.array([sizes[source_id] for source_id in boxes["source_id"]], dtype=np.float64).reshape(-1, 2)
    upper = image_hw[:, [1, 0, 1, 0]]  # (N, 4): width, height, width, height
    corners = boxes[CORNERS].to_numpy(dtype=np.float64)
    clipped = np.clip(corners, 0.0, upper)
    outside_px = np.abs(corners - clipped).max(axis=1, initial=0.0)
    flat = ((clipped[:, 2:] - clipped[:, :2]) <= 0).any(axis=1)
    kept = outside_px == 0
    listed = np.zeros(len(boxes), dtype=bool)
    tolerance = labelled.box_tolerance_px
    within = (outside_px > 0) & (outside_px <= tolerance)
    for side, chosen, setting in (
        ("within", within, "boxes_within_tolerance"),
        ("beyond", outside_px > tolerance, "boxes_beyond_tolerance"),
    ):
        action = getattr(labelled, setting)
        taken = chosen & ~flat & (action == "clip")
        left_out = chosen & (action == "list")
        counts[f"boxes_clipped_{side}_tolerance"] = int(taken.sum())
        counts[f"boxes_listed_{side}_tolerance"] = int(left_out.sum())
        wrong = chosen & ~taken & ~left_out
        empty = wrong & flat & (action == "clip")
        remedy = _REMEDY.format(setting=setting)
        wish = f"a box at most {tolerance:g} px outside" if side == "beyond" and action == "stop" else "a box inside its image"
        _note(boxes[wrong & ~empty], sizes, "box_outside_image", wish, remedy, problems)
        _note(boxes[empty], sizes, "zero_area", "a box with an area inside its image", remedy, problems)
        kept |= taken
        listed |= left_out
    counts["boxes_kept"] = int(kept.sum())
    records = _listed(boxes[listed], outside_px[listed], sizes)
    boxes[CORNERS] = clipped
    return CheckedBoxes(boxes[kept].reset_index(drop=True), records, counts)


def _note(
    boxes: pd.DataFrame, sizes: Mapping[str, tuple[int, int]], kind: str, wish: str, remedy: str, problems: Problems
) -> None:
    for row in boxes.itertuples():
        height, width = sizes[row.source_id]
        problems.add(
            kind,
            file=row.origin.partition(":")[0],
            record=record_name(row),
            got=f"{', '.join(f'{name} {getattr(row, name):g}' for name in CORNERS)} in {width} x {height} (w x h) px",
            expected=wish,
            remedy=remedy,
        )


def _listed(
    boxes: pd.DataFrame, outside_px: npt.NDArray[np.float64], sizes: Mapping[str, tuple[int, int]]
) -> list[dict[str, Any]]:
    records = []
    for row, outside in zip(boxes.to_dict("records"), outside_px.tolist(), strict=True):
        height, width = sizes[row["source_id"]]
        stated = {name: row[name] for name in ("source_id", "origin", *CORNERS)}
        records.append({**stated, "outside_px": outside, "height": int(height), "width": int(width)})
    return records
