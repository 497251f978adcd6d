"""True boxes of the report source's radiographs: to be drawn beside the pseudo boxes, or to judge what attends to them.

Reads: truth.jsonl of the demo cohort, or a COCO json of this package (22 classes), such as one of convert-labelled.
"""

from collections.abc import Sequence
from pathlib import Path

from d2rnet.cxr.boxes.coco import annotations_by_image, category_names, images_by_id, load_coco
from d2rnet.cxr.boxes.geometry import xywh_to_xyxy
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.findings.classes import CATEGORY_IDS, suggest_category
from d2rnet.report.annotation_file import Entry

TrueBox = tuple[str, Sequence[float]]  # class name, xyxy in original pixels
TrueBoxes = dict[str, list[TrueBox]]


def read_true_boxes(path: Path) -> TrueBoxes:
    """Read true boxes: image id -> class and xyxy box, original pixels; an image without lesions has an empty list.

    Args:
        path: ``.jsonl`` with ``image_id`` and ``boxes`` (``class``, ``bbox_xyxy``), else COCO json, whose image id here is
            ``source_id``, or the stem of ``file_name`` where there is none.

    Raises:
        FileNotFoundError: there is no such file.
        DatasetError: not of either format, or a class that is not one of the 22.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected truth.jsonl of make-demo-cohort, or a COCO json.")
    boxes = _read_lines(path) if path.suffix == ".jsonl" else _read_coco(path)
    for name, found in boxes.items():
        for category, _ in found:
            if category not in CATEGORY_IDS:
                raise DatasetError(f"{path}: image {name}: class '{category}'. {suggest_category(str(category))}")
    return boxes


def true_boxes_of(entry: Entry, known: TrueBoxes) -> list[tuple[int, TrueBox]] | None:
    """Return image number and box of each true lesion of an entry; None if ``known`` has none of its images.

    An image is known by the stem of its file name; an entry of one image by its id, too.
    """
    paths = entry["image_path"]
    names = [Path(path).stem for path in paths]
    if len(paths) == 1 and entry["id"] in known:
        names = [entry["id"]]
    if not any(name in known for name in names):
        return None
    return [(image, box) for image, name in enumerate(names) for box in known.get(name, ())]


def _read_lines(path: Path) -> TrueBoxes:
    truth: TrueBoxes = {}
    for number, record in enumerate(read_jsonl(path), start=1):
        try:
            truth[record["image_id"]] = [(box["class"], box["bbox_xyxy"]) for box in record["boxes"]]
        except (KeyError, TypeError) as error:
            raise DatasetError(
                f"{path}: line {number} has no {error}; expected image_id and boxes with class and bbox_xyxy. "
                "Make the file with 'd2rnet make-demo-cohort'."
            ) from error
    return truth


def _read_coco(path: Path) -> TrueBoxes:
    coco = load_coco(path)
    names = category_names(coco)
    images = images_by_id(coco)
    boxes: TrueBoxes = {}
    for image_id, annotations in annotations_by_image(coco).items():
        image = images[image_id]
        # the json may describe a reduced copy of the radiograph
        across = image.get("source_width", image["width"]) / image["width"]
        down = image.get("source_height", image["height"]) / image["height"]
        corners = xywh_to_xyxy([annotation["bbox"] for annotation in annotations]) * (across, down, across, down)
        classes = [names[annotation["category_id"]] for annotation in annotations]
        key = str(image.get("source_id", Path(image["file_name"]).stem))
        boxes[key] = list(zip(classes, corners.tolist(), strict=True))
    return boxes
