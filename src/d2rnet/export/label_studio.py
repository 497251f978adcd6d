"""Pseudo boxes as pre-annotations of Label Studio: an annotator corrects them in place of drawing from nothing.

Reads: annotation.json of build-annotation; test.jsonl of generate-reports, if given. Writes, into the output folder:

* ``tasks.json``: a task per image, its ``data`` (``image``: the address, ``id`` and ``image_path`` of annotation.json,
  ``findings``) and one prediction: a rectangle per box, in percent of the image;
* ``labels.xml``: the labelling interface, with the class table and its colours.

No patient's id is written; ``findings`` and ``image_path`` are those of the data set.

Source: Label Studio, https://labelstud.io/guide/predictions (format) and /tags/rectanglelabels (interface).
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import d2rnet
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.report_pairs import read_reports
from d2rnet.export.annotated_images import AnnotatedImage, read_images
from d2rnet.figures.plots import class_colours
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)
SHOWN_BY_BROWSERS = frozenset({".png", ".jpg", ".jpeg"})
LOCAL_FILES = "/data/local-files/?d="  # of its local storage, below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT
PERCENT_DIGITS = 4  # of a side of 4,096 px: 0.004 px


def export_label_studio(
    *, annotation: Path, split: str, generated: Path | None, address: str, output: Path, least_score: float = 0.5
) -> None:
    """Write ``tasks.json`` and ``labels.xml``.

    Args:
        annotation: annotation.json of build-annotation.
        split: train, val, test or all.
        generated: reports of the entries, shown beside the image; None: none are.
        address: what stands before an image's path below the image root.
        output: folder to write to.
        least_score: of the boxes that are handed on, 0 to 1; weak ones are more to delete than to correct.

    Raises:
        ConfigError: there is no such split, or ``least_score`` is none.
        DatasetError: annotation.json or the reports are not what their formats say, or an image is of a format that browsers
            do not show.
    """
    if not 0 <= least_score <= 1:
        raise ConfigError(f"--least-score {least_score}: expected a score from 0 to 1.")
    found = read_images(annotation, split)
    images = [replace(image, boxes=tuple(box for box in image.boxes if box.score >= least_score)) for image in found]
    _check_formats(annotation, images)
    problems = Problems()
    reports = {} if generated is None else read_reports(generated, problems)
    problems.raise_if_any()
    tasks = [_task(image, address, reports.get(image.entry["id"], {}).get("hypothesis", "")) for image in images]
    write_json(output / "tasks.json", tasks)
    write_text(output / "labels.xml", label_config())
    boxes = sum(len(image.boxes) for image in images)
    weak = sum(len(image.boxes) for image in found) - boxes
    told = sum(bool(task["data"]["findings"]) for task in tasks)
    log.info("export label-studio: %d images, %d boxes, %d with findings: %s", len(tasks), boxes, told, output)
    if weak:
        log.info("%d boxes with a score below %s are left out (--least-score)", weak, least_score)


def label_config() -> str:
    """Return the labelling interface: the image with a rectangle tool for each class, the findings below it."""
    labels = "\n".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>" for name, colour in class_colours().items()
    )
    return (
        '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true" '
        'contrastControl="true"/>\n'
        f'  <RectangleLabels name="label" toName="image" showInline="true">\n{labels}\n  </RectangleLabels>\n'
        '  <Text name="findings" value="$findings"/>\n</View>\n'
    )


def _check_formats(annotation: Path, images: Sequence[AnnotatedImage]) -> None:
    suffixes = [PurePosixPath(image.path).suffix.lower() for image in images]
    strange = Counter(suffix for suffix in suffixes if suffix not in SHOWN_BY_BROWSERS)
    if strange:
        first = next(image.path for image, suffix in zip(images, suffixes, strict=True) if suffix in strange)
        found = ", ".join(f"{count} of '{suffix or 'no suffix'}'" for suffix, count in strange.items())
        raise DatasetError(
            f"{annotation}: {found} among {len(images)} images, such as {first}; expected "
            f"{', '.join(sorted(SHOWN_BY_BROWSERS))}, which browsers show. Read the images with 'd2rnet read --coco' and "
            "import its coco/ folder."
        )


def _task(image: AnnotatedImage, address: str, findings: str) -> dict[str, Any]:
    scores = [box.score for box in image.boxes]
    prediction = {
        "model_version": f"d2rnet {d2rnet.__version__}",
        "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
        "result": [_region(image, number) for number in range(len(image.boxes))],
    }
    data = {
        "image": address + quote(image.path),
        "id": image.entry["id"],
        "image_path": image.path,
        "findings": findings,
    }
    return {"data": data, "predictions": [prediction]}


def _region(image: AnnotatedImage, number: int) -> dict[str, Any]:
    """Return a box as a region: percent of width and height, from the left and from the top."""
    box = image.boxes[number]
    sides = (image.width, image.height, image.width, image.height)
    x, y, width, height = (round(100 * value / side, PERCENT_DIGITS) for value, side in zip(box.xywh, sides, strict=True))
    return {
        "id": f"box{number + 1}",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": box.score,
        "value": {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [box.label]},
    }
