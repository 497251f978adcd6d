"""Readings as a COCO data set that labelling and viewing tools open.

Layout of FiftyOne's COCODetectionDataset: ``data/`` with the images and ``labels.json``; CVAT takes ``labels.json`` as
annotations in "COCO 1.0" for the images of ``data/``. ``results.json`` is the COCO results list of the same boxes. Images are
8-bit PNG of the original size, so that boxes of the originals fit and DICOM files can be seen.
"""

from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.coco import scored_box, write_coco, write_results
from d2rnet.cxr.conversion.image_conversion import write_png
from d2rnet.reading.result import Reading, stem_of


class CocoExport:
    """A COCO data set that grows reading by reading."""

    def __init__(self, folder: Path) -> None:
        """Take the folder to write to."""
        self._folder = folder
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, reading: Reading) -> None:
        """Write the images of a reading as PNG and note its boxes."""
        for number, view in enumerate(reading.images):
            name = reading.name if len(reading.images) == 1 else f"{reading.name}/{number + 1}_{stem_of(view.path)}"
            write_png(self._folder / "data" / f"{name}.png", view.pixels)
            image_id = len(self._images) + 1
            self._images.append({"id": image_id, "file_name": f"{name}.png", "height": view.height, "width": view.width})
            for box in reading.boxes:
                if box.image == number:
                    number_of_box = len(self._annotations) + 1
                    self._annotations.append(scored_box(number_of_box, image_id, box.label, box.score, box.xywh))

    def write(self) -> None:
        """Write ``labels.json`` and ``results.json`` of the readings added so far."""
        write_coco(self._folder / "labels.json", self._images, self._annotations)
        write_results(self._folder / "results.json", self._annotations)
