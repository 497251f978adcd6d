"""One good, small file of each format that the package reads; the malformed ones are made from them."""

import gzip
import io
import json
import pickle
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from d2rnet.findings.classes import coco_categories

BOX_HEADER = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
SPLIT_HEADER = "dicom_id,study_id,subject_id,split"
REPORT = "                FINAL REPORT\n FINDINGS:\n\n The heart is enlarged. No effusion.\n\n IMPRESSION:  Cardiomegaly.\n"


def chest(height: int = 60, width: int = 50, bits: int = 8) -> np.ndarray:
    """A smooth picture with a bright disc: (height, width) uint8 or uint16."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    values = 0.5 + 0.3 * np.sin(5 * x) * np.cos(4 * y) + 0.2 * ((x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.02)
    return (values * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


@cache
def raster(image_format: str) -> bytes:
    """A PNG or JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(chest()).save(buffer, image_format)
    return buffer.getvalue()


def dicom(syntax: UID = ExplicitVRLittleEndian, **attributes: Any) -> bytes:
    """A DICOM file of 60 x 50 pixels, 12 of 16 bits (JPEG: 8)."""
    pixels = chest(bits=8 if syntax == JPEGBaseline8Bit else 12)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    packed = syntax in (RLELossless, JPEG2000Lossless)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if packed else syntax
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "2.25.1"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = 8 if syntax == JPEGBaseline8Bit else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = encapsulate([raster("JPEG")]) if syntax == JPEGBaseline8Bit else pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    if packed:
        dataset.compress(syntax, generate_instance_uid=False)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


DICOM_SYNTAXES = {
    "raw": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "JPEG": JPEGBaseline8Bit,
    "JPEG 2000": JPEG2000Lossless,
    "RLE": RLELossless,
}


def box_rows() -> list[str]:
    """Eight boxes of two images."""
    return [f"img{number % 2},R{number % 3 + 1},Cardiomegaly,{10 + number},20,{30 + number},40" for number in range(8)]


def table(header: str, rows: list[str]) -> bytes:
    """A CSV file."""
    return "\n".join([header, *rows, ""]).encode()


def split_table() -> bytes:
    """A gzipped split table of MIMIC-CXR with ten images."""
    rows = [f"image-{number},{50000000 + number},{10000000 + number},train" for number in range(10)]
    return gzip.compress(table(SPLIT_HEADER, rows), mtime=0)


def xml(number: int = 54, findings: str = "The lungs are clear.", head: str = "") -> bytes:
    """A report of Open-i."""
    return (
        f'<?xml version="1.0" encoding="utf-8"?>{head}<eCitation><uId id="CXR{number}"/><Abstract>'
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText></Abstract>'
        f'<parentImage id="CXR{number}_IM-2145-1001"/></eCitation>'
    ).encode()


def coco() -> dict[str, Any]:
    """Four images of 60 x 50 (h x w), a box each."""
    images = [
        {"id": number, "file_name": f"images/i{number}.png", "height": 60, "width": 50, "source_id": f"i{number}"}
        for number in range(1, 5)
    ]
    boxes = [{"id": number, "image_id": number, "category_id": 4, "bbox": [5.0, 6.0, 20.0, 10.0]} for number in range(1, 5)]
    return {"images": images, "annotations": boxes, "categories": coco_categories()}


def unlabelled() -> dict[str, Any]:
    """Three images of the report source, as convert_unlabelled writes them."""
    images = [
        {
            "id": number, "file_name": f"unlabelled_images/i{number}.png", "height": 60, "width": 50, "source_height": 60,
            "source_width": 50, "source_id": f"i{number}", "split": split, "study_id": f"s{number}",
            "subject_id": f"p{number}", "source_path": f"files/i{number}.jpg",
        }
        for number, split in enumerate(("train", "val", "test"), start=1)
    ]  # fmt: skip
    return {"images": images, "annotations": [], "categories": coco_categories()}


def reports() -> list[dict[str, Any]]:
    """The three reports of these images."""
    return [
        {"subject_id": f"p{number}", "study_id": f"s{number}", "split": split, "section": "findings",
         "report": "The heart is enlarged.", "images": [f"i{number}"]}
        for number, split in enumerate(("train", "val", "test"), start=1)
    ]  # fmt: skip


def predictions() -> list[dict[str, Any]]:
    """Six boxes on these images."""
    return [
        {"image_id": number % 3 + 1, "category_id": 4, "bbox": [5.0 + number, 6.0, 20.0, 10.0], "score": 0.5}
        for number in range(6)
    ]


def annotation() -> dict[str, Any]:
    """annotation.json with one entry a split."""
    return {
        split: [
            {"id": f"{split}1", "study_id": f"s{split}", "subject_id": f"p{split}", "split": split,
             "report": "The heart is enlarged.", "image_path": [f"files/{split}.jpg"], "height": 60, "width": 50,
             "boxes": [[5.0, 6.0, 20.0, 10.0]], "scores": [0.5], "labels": ["Cardiomegaly"]}
        ]
        for split in ("train", "val", "test")
    }  # fmt: skip


def as_json(value: Any) -> bytes:
    """JSON as the standard library writes it, NaN included."""
    return json.dumps(value).encode()


def as_lines(records: list[dict[str, Any]]) -> bytes:
    """JSON lines."""
    return b"".join(as_json(record) + b"\n" for record in records)


@cache
def weights(*, zipped: bool = True) -> bytes:
    """A PyTorch file of two tensors."""
    buffer = io.BytesIO()
    state = {"model": {"weight": torch.arange(600.0).reshape(20, 30), "bias": torch.zeros(20)}}
    torch.save(state, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@cache
def pickled() -> bytes:
    """A pickle of NumPy arrays, as Caffe2's weight files are."""
    return pickle.dumps({"blobs": {"conv1_w": np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2)}}, protocol=2)
