"""COCO json -> checked image records, in the frame of the converted PNG."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.cxr.boxes.geometry import clip_to_image, xywh_to_xyxy
from d2rnet.errors import DatasetError
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)

BOX_TOLERANCE_PX = 1.0


@dataclass(frozen=True)
class Record:
    """One image of a COCO file, in the frame of its PNG."""

    image_id: int
    source_id: str
    split: str
    path: Path
    image_hw: tuple[int, int]
    boxes_xyxy: NDArray[np.float32]  # (N, 4) pixels
    classes: NDArray[np.int64]  # (N,) 0-based: category id - 1
    view: str = ""  # as the report source names it, PA for instance; empty where it does not


def load_records(json_path: Path, *, split: str | None = None) -> list[Record]:
    """Read and check a COCO file.

    Args:
        json_path: the file; ``file_name`` in it is relative to its folder.
        split: keep only images of this split; None keeps all.

    Returns:
        Records in the order of image ids. Annotations with ``iscrowd`` are left out and counted in the log; boxes that leave
        their image by at most 1 px are clipped.

    Raises:
        DatasetError: not a COCO file of this package, or bad records; all of them are listed.
        FileNotFoundError: no such file.
    """
    if not json_path.is_file():
        raise FileNotFoundError(f"{json_path}: no such file; expected a COCO json of the convert rules.")
    coco = load_coco(json_path)
    problems = Problems()
    for image in coco["images"]:
        if not image.get("source_id"):
            problems.add(
                "no_source_id",
                file=json_path,
                record=f"image {image['id']}",
                got=image.get("source_id"),
                expected="source_id, the image's name in its source",
                remedy="Convert again.",
            )
    crowds = 0
    boxes: dict[int, list[Mapping[str, Any]]] = {}
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    for annotation in coco["annotations"]:
        width, height = sizes[annotation["image_id"]]
        if annotation.get("iscrowd"):
            crowds += 1
        elif _leaves_image(annotation["bbox"], width, height):
            problems.add(
                "box_outside_image",
                file=json_path,
                got=annotation["bbox"],
                record=f"annotation {annotation['id']} of image {annotation['image_id']}",
                expected=f"x, y, width, height inside {width} x {height} px",
                remedy="Run 'd2rnet verify-inputs' or drop the annotation.",
            )
        else:
            boxes.setdefault(annotation["image_id"], []).append(annotation)
    problems.raise_if_any()
    if crowds:
        log.info("%s: %d crowd annotation(s) left out", json_path.name, crowds)
    images = sorted(coco["images"], key=lambda image: image["id"])
    return [
        _record(json_path.parent, image, boxes.get(image["id"], []))
        for image in images
        if split is None or image.get("split") == split
    ]


def _leaves_image(bbox_xywh: Sequence[float], width: int, height: int) -> bool:
    """Whether a box sticks out by more than 1 px, or nothing of it is inside (all anchors would match it)."""
    x1, y1, x2, y2 = xywh_to_xyxy([bbox_xywh])[0]
    return min(x1, y1, width - x2, height - y2) < -BOX_TOLERANCE_PX or min(x2, y2, width - x1, height - y1) <= 0


def _record(folder: Path, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> Record:
    image_hw = (int(image["height"]), int(image["width"]))
    corners = xywh_to_xyxy([annotation["bbox"] for annotation in annotations])
    return Record(
        image_id=image["id"],
        source_id=str(image["source_id"]),
        split=str(image.get("split", "")),
        path=folder / image["file_name"],
        image_hw=image_hw,
        boxes_xyxy=clip_to_image(corners, image_hw).astype(np.float32),
        classes=np.array([annotation["category_id"] - 1 for annotation in annotations], dtype=np.int64),
        view=str(image.get("view") or ""),
    )


def assert_disjoint(groups: Mapping[str, Sequence[Record]]) -> None:
    """Prove that no image is in two groups (training, validation, test, unlabelled).

    Raises:
        DatasetError: names the groups and the first shared ids.
    """
    owner: dict[str, str] = {}
    shared: dict[tuple[str, str], list[str]] = {}
    for name, records in groups.items():
        for record in records:
            first = owner.setdefault(record.source_id, name)
            if first != name:
                shared.setdefault((first, name), []).append(record.source_id)
    if shared:
        lines = [f"{a} and {b}: {len(ids)} ({', '.join(ids[:10])})" for (a, b), ids in shared.items()]
        raise DatasetError(
            f"train-detector: images in two groups, by source_id: {'; '.join(lines)}. Expected disjoint groups, or test "
            "images would be trained on. Check the splits of the sources."
        )


def read_image(record: Record) -> NDArray[Any]:
    """Decode one PNG to (H, W) uint8.

    Raises:
        DatasetError: unreadable, or not of the size that the COCO file states.
    """
    image = cv2.imread(str(record.path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DatasetError(f"{record.path}: image {record.image_id} is missing or not readable. Convert again.")
    if image.shape != record.image_hw:
        raise DatasetError(
            f"{record.path}: image {record.image_id} is {image.shape} (height, width); its COCO file says {record.image_hw}. "
            "Convert again."
        )
    return image
