"""Pseudo boxes of annotation.json as a COCO data set, in original pixels.

Reads: annotation.json of build-annotation. Writes ``labels.json`` (``file_name`` relative to the image root; annotations carry
their ``score``) and ``results.json``, the COCO results list of the same boxes. The labelled splits are COCO already
(``resources/cxr/labelled``), and so are the boxes before the confidence filter (``predictions.json`` of predict-boxes).
"""

import logging
from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.coco import scored_box, write_coco, write_results
from d2rnet.export.annotated_images import read_images

log = logging.getLogger(__name__)


def export_coco(*, annotation: Path, split: str, output: Path) -> None:
    """Write ``labels.json`` and ``results.json``.

    Args:
        annotation: annotation.json of build-annotation.
        split: train, val, test or all.
        output: folder to write to.

    Raises:
        ConfigError: there is no such split.
        DatasetError: annotation.json is not what its format says, or the split is empty.
    """
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number, image in enumerate(read_images(annotation, split), start=1):
        images.append({"id": number, "file_name": image.path, "height": image.height, "width": image.width})
        for box in image.boxes:
            boxes.append(scored_box(len(boxes) + 1, number, box.label, box.score, box.xywh))
    write_coco(output / "labels.json", images, boxes)
    write_results(output / "results.json", boxes)
    log.info("export coco: %d images, %d boxes: %s", len(images), len(boxes), output)
