"""A reading: findings, boxes in original pixels, sentences with their boxes, and what made it.

No torch here. Nothing of an image file's header but geometry and view is kept; a file is named by its last part only.
"""

import os
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from d2rnet.cxr.boxes.evidence import BRACKETS, bracketed
from d2rnet.cxr.images.image_names import IMAGE_SUFFIXES
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.reading.content import NOTICE, Content

FORMAT = "d2rnet-reading-1"
KINDS = ("json", "png", "html")  # files of a reading
VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
_BEFORE_PUNCTUATION = re.compile(r"\s+(?=[.,;:!?)])")


class Reading(Content):
    """What the models see and say, and the files that it is written to."""

    @property
    def findings(self) -> str:
        """The findings as a person would write them."""
        return " ".join(sentence.text for sentence in self.sentences)

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``<name>.json``; docs/reference/formats.md describes it."""
        shown = set(self.shown)
        return {
            "format": FORMAT,
            "notice": NOTICE,
            "name": self.name,
            "findings": self.findings,
            "hypothesis": self.hypothesis,
            "log_prob": self.log_prob,
            "images": [
                {"file": view.path.name, "height": view.height, "width": view.width, "view": view.view} for view in self.images
            ],
            "boxes": [
                {
                    "image": box.image,
                    "category_id": CATEGORY_IDS[box.label],
                    "label": box.label,
                    "score": box.score,
                    "bbox": list(box.xywh),
                    "own": box.own,
                    "shown": place in shown,
                }
                for place, box in enumerate(self.boxes)
            ],
            "sentences": [
                asdict(sentence) | {"boxes": list(sentence.boxes), "linked": list(sentence.linked)}
                for sentence in self.sentences
            ],
            "own_boxes": [
                {"box": place, "sentences": named, "attended_by": attended}
                for place, (named, attended) in self.for_own_boxes.items()
            ],
            "warnings": list(self.warnings),
            **self.origin,
            "seconds": self.seconds,
            "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def to_text(self) -> str:
        """Return what a terminal shows: sizes, warnings, findings with the numbers of their boxes, boxes."""
        lines = [f"{self.name}"]
        lines += [
            f"  {view.path.name}: {view.width} x {view.height} px{view.view and f', {view.view}'}" for view in self.images
        ]
        lines += [f"  Warning: {warning}" for warning in self.warnings]
        lines += ["  Findings:"]
        lines += [
            f"    {sentence.text}{bracketed(sentence.linked, sentence.attended_alone)}" for sentence in self.sentences
        ] or ["    (none written)"]
        lines += [f"  {BRACKETS}"] if self.has_brackets else []
        lines += ["  Boxes (x, y, width, height in original pixels):" if self.boxes else "  Boxes: none"]
        for number, box in self.numbered:
            place = ", ".join(f"{value:.0f}" for value in box.xywh)
            image = f" in image {box.image + 1}" if len(self.images) > 1 else ""
            lines.append(f"    {number:2d} {box.label:20s} {box.score:.2f}  {place}{image}{', yours' if box.own else ''}")
        lines += [f"       {self.weaker_boxes}: in the JSON file"] if self.weaker_boxes else []
        lines += ["  For your boxes:"] if self.for_own_boxes else []
        lines += [f"    {place + 1:2d} {text}" for place, texts in self.own_box_texts().items() for text in texts]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return what a notebook shows of it: the page."""
        from d2rnet.reading.page import notebook_frame
        from d2rnet.reading.radiograph_page import page_text

        return notebook_frame(page_text(self))

    def save(self, folder: str | Path) -> dict[str, Path]:
        """Write ``<name>.json``, ``<name>.png`` (boxes drawn on the image) and ``<name>.html`` (one self-contained page).

        Args:
            folder: made if needed; a name with "/" leads to a folder below it.

        Returns:
            ``json``, ``png`` and ``html`` -> file.

        Raises:
            OSError: a file cannot be written; no half file remains.
        """
        from d2rnet.reading.overlay import write_overlay  # draws with matplotlib's colours, which take time to load
        from d2rnet.reading.radiograph_page import page_text

        files = {kind: Path(folder) / f"{self.name}.{kind}" for kind in KINDS}
        write_overlay(self, files["png"])
        write_text(files["html"], page_text(self))
        write_json(files["json"], self.to_json())
        return files


def stem_of(file: Path) -> str:
    """Return a file's name without the suffix of an image or volume; ``1.2.840.113`` of a DICOM file stays whole."""
    suffix = next((suffix for suffix in VOLUME_SUFFIXES if file.name.lower().endswith(suffix)), "")
    if suffix and len(file.name) > len(suffix):
        return file.name[: -len(suffix)]
    return file.stem if file.suffix.lower() in IMAGE_SUFFIXES else file.name


def printable(path: Path) -> str:
    """Return a path as text that can be written; bytes of a name that are not UTF-8 become ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def readable(tokens: str) -> str:
    """Write tokens separated by spaces as a sentence: no space before punctuation, a capital first."""
    text = _BEFORE_PUNCTUATION.sub("", tokens)
    return text[:1].upper() + text[1:]
