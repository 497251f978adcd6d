"""VinDr-CXR part of the demo cohort: DICOM files and the tables of 17 readers, in the layout of PhysioNet's release 1.0.0.

Writes below ``<folder>``: ``train/*.dicom``, ``test/*.dicom``, ``annotations/annotations_{train,test}.csv``,
``annotations/image_labels_{train,test}.csv``. Training images have three readers each, with jitter, misses, confused and
invented boxes; test images a consensus without reader. Layout: https://physionet.org/content/vindr-cxr/1.0.0/ (facts only).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from d2rnet.cxr.demo.canvas import FloatImage
from d2rnet.cxr.demo.findings import Box
from d2rnet.findings.classes import CATEGORY_NAMES

Rng = np.random.Generator
READERS = tuple(f"R{number}" for number in range(1, 18))
MISS_PROBABILITY = 0.07
CONFUSION_PROBABILITY = 0.04
INVENTION_PROBABILITY = 0.03
JITTER = 0.03  # standard deviation of a reader's box sides, in box sides
_CONFUSED = {
    "Consolidation": "Lung Opacity", "Lung Opacity": "Infiltration", "Infiltration": "Consolidation",
    "Atelectasis": "Lung Opacity", "ILD": "Pulmonary fibrosis", "Pulmonary fibrosis": "ILD",
    "Lung cyst": "Lung cavity", "Lung cavity": "Lung cyst",
    "Nodule/Mass": "Other lesion", "Edema": "Infiltration", "Pleural thickening": "Pleural effusion",
}  # fmt: skip
_GLOBAL_LABELS = ("COPD", "Lung tumor", "Pneumonia", "Tuberculosis")
_GLOBAL_SIGNS = {"COPD": "Emphysema", "Lung tumor": "Nodule/Mass", "Pneumonia": "Consolidation", "Tuberculosis": "Lung cavity"}
# Share of each encoding. JPEG 2000 is the syntax of the real release, but encodes slowest; uncompressed is the quickest.
ENCODINGS: tuple[tuple[UID, float], ...] = (
    (ExplicitVRLittleEndian, 0.40),
    (ImplicitVRLittleEndian, 0.15),
    (RLELossless, 0.20),
    (JPEG2000Lossless, 0.15),
    (JPEGBaseline8Bit, 0.10),
)
_UID_ROOT = "2.25"


@dataclass(frozen=True)
class ReaderBox:
    """A box as one reader (or the consensus, reader "") drew it: corners in pixels."""

    reader: str
    category: str
    box: Box


def read_by_readers(truth: list[tuple[str, Box]], image_hw: tuple[int, int], rng: Rng) -> tuple[list[str], list[ReaderBox]]:
    """Let three of the 17 readers draw the boxes of a training image.

    Each finding is seen by at least one of them: a lesion that none marked would be a label that nobody could learn.

    Returns:
        The three readers, and their boxes.
    """
    readers = [READERS[i] for i in np.sort(rng.choice(len(READERS), 3, replace=False))]
    drawn = []
    for category, box in truth:
        seen = rng.random(3) >= MISS_PROBABILITY
        seen[int(rng.integers(3))] = True
        for reader in (name for name, sees in zip(readers, seen, strict=True) if sees):
            name = _CONFUSED.get(category, category) if rng.random() < CONFUSION_PROBABILITY else category
            drawn.append(ReaderBox(reader, name, _jittered(box, image_hw, rng)))
    for reader in readers:
        if truth and rng.random() < INVENTION_PROBABILITY:
            height, width = image_hw
            side = 0.12 * max(image_hw)
            x = rng.uniform(0.2, 0.65) * width
            y = rng.uniform(0.2, 0.6) * height
            drawn.append(ReaderBox(reader, "Infiltration", (x, y, x + side, y + side)))
    return readers, drawn


def _jittered(box: Box, image_hw: tuple[int, int], rng: Rng) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = rng.normal(0, JITTER, (2, 2)) * [[x1 - x0], [y1 - y0]]
    height, width = image_hw
    return (
        float(np.clip(x0 + dx[0], 0, width - 2)),
        float(np.clip(y0 + dy[0], 0, height - 2)),
        float(np.clip(x1 + dx[1], 2, width)),
        float(np.clip(y1 + dy[1], 2, height)),
    )


def write_dicom(path: Path, picture: FloatImage, rng: Rng, uid_number: int) -> None:
    """Write a picture as DICOM of a random encoding, bit depth, polarity and window.

    Args:
        path: file to write.
        picture: (H, W) float32 in [0, 1], bright where dense.
        rng: of this image.
        uid_number: makes the instance UID, unique in the cohort.
    """
    shares = np.array([share for _, share in ENCODINGS])
    syntax = ENCODINGS[int(rng.choice(len(ENCODINGS), p=shares / shares.sum()))][0]
    bits = 8 if syntax == JPEGBaseline8Bit else int(rng.choice([10, 12, 14, 16]))
    dataset = _dataset(picture.shape, bits, uid_number)
    inverted = rng.random() < 0.35
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    stored = 1 - picture if inverted else picture
    top = 2**bits - 1
    values = np.round(stored * top).astype(np.uint8) if bits == 8 else _windowed(dataset, stored, top, rng)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax != ImplicitVRLittleEndian else syntax
    dataset.PixelData = values.tobytes()
    if syntax == JPEGBaseline8Bit:
        stream = cv2.imencode(".jpg", values, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.LossyImageCompression = "01"
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax in (RLELossless, JPEG2000Lossless):
        dataset.compress(syntax, values, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)


def _windowed(dataset: FileDataset, stored: FloatImage, top: int, rng: Rng) -> np.ndarray:
    """Scale to stored values, leaving head room that the header's window (or VOI LUT, or rescale) takes away again."""
    kind = rng.choice(["full", "window", "windows", "rescale", "lut"], p=[0.25, 0.35, 0.15, 0.15, 0.10])
    low, high = (
        (0.0, float(top)) if kind == "full" else (round(rng.uniform(0.02, 0.15) * top), round(rng.uniform(0.80, 0.95) * top))
    )
    values = np.round(low + stored * (high - low)).astype(np.uint16)
    centre = (low + high) / 2
    width = high - low
    if kind == "window":
        dataset.WindowCenter = round(centre, 1)
        dataset.WindowWidth = round(width, 1)
    elif kind == "windows":  # several: the first is the one to use
        dataset.WindowCenter = [round(centre, 1), round(centre * 0.7, 1)]
        dataset.WindowWidth = [round(width, 1), round(width * 0.5, 1)]
        dataset.WindowCenterWidthExplanation = ["NORMAL", "HARDER"]
    elif kind == "rescale":
        dataset.RescaleSlope = 2
        dataset.RescaleIntercept = -100
        dataset.RescaleType = "US"
        dataset.WindowCenter = round(2 * centre - 100, 1)
        dataset.WindowWidth = round(2 * width, 1)
    elif kind == "lut":
        dataset.VOILUTSequence = [_voi_lut(int(low), int(high))]
    return values


def _voi_lut(low: int, high: int) -> FileDataset:
    """A VOI LUT that stretches low..high over 12 bits, linearly."""
    item = FileDataset("", {})
    entries = high - low + 1
    item.add_new("LUTDescriptor", "US", [entries, low, 12])
    item.add_new("LUTExplanation", "LO", "LINEAR")
    item.add_new("LUTData", "OW", np.round(np.linspace(0, 4095, entries)).astype("<u2").tobytes())
    return item


def _dataset(image_hw: tuple[int, ...], bits: int, uid_number: int) -> FileDataset:
    """Header of a digital radiograph without any personal data."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = UID(f"{_UID_ROOT}.{uid_number}")
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "DX"
    dataset.ViewPosition = "PA"
    dataset.BodyPartExamined = "CHEST"
    dataset.Rows, dataset.Columns = image_hw
    dataset.SamplesPerPixel = 1
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    return dataset


def annotation_table(records: list[dict[str, Any]], *, consensus: bool) -> pd.DataFrame:
    """Rows of annotations_{train,test}.csv: a box each, "No finding" rows with empty corners, global labels without a box.

    Args:
        records: one per image, as demo.py collects them: image_id, readers, boxes (ReaderBox).
        consensus: leave rad_id out.
    """
    rows: list[dict[str, Any]] = []
    for record in records:
        for reader in record["readers"]:
            boxes = [box for box in record["boxes"] if box.reader == reader]
            start = {"image_id": record["image_id"], "rad_id": reader}
            rows += [{**start, "class_name": b.category, **_corners(b.box)} for b in boxes]
            seen = {box.category for box in boxes}
            rows += [{**start, "class_name": name} for name in _GLOBAL_LABELS if _GLOBAL_SIGNS[name] in seen and len(seen) > 2]
            if not boxes:
                rows.append({**start, "class_name": "No finding"})
    table = pd.DataFrame(rows, columns=["image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max"])
    return table.drop(columns="rad_id") if consensus else table


def _corners(box: Box) -> dict[str, float]:
    return dict(zip(("x_min", "y_min", "x_max", "y_max"), (round(value, 2) for value in box), strict=True))


def image_label_table(records: list[dict[str, Any]], *, consensus: bool) -> pd.DataFrame:
    """Rows of image_labels_{train,test}.csv: 22 local and 6 global labels, 0 or 1, for each reader or the consensus."""
    rows = []
    for record in records:
        for reader in record["readers"]:
            seen = {box.category for box in record["boxes"] if box.reader == reader}
            local = {name: int(name in seen) for name in CATEGORY_NAMES}
            marks = {name: int(_GLOBAL_SIGNS[name] in seen) for name in _GLOBAL_LABELS}
            other = int(bool(seen) and not any(marks.values()))
            rest = {"Other disease" if consensus else "Other diseases": other, "No finding": int(not seen)}
            rows.append({"image_id": record["image_id"], "rad_id": reader, **local, **marks, **rest})
    table = pd.DataFrame(rows)
    return table.drop(columns="rad_id") if consensus else table
