"""A small report source for build_annotation: four studies of three patients, with one image of an extra folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.annotation.build import build_annotation
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.findings.classes import coco_categories


def image(number: int, source_id: str, study_id: str, subject_id: str, split: str) -> dict[str, Any]:
    """A 100 x 50 (h x w) PNG of an original of 400 x 100: factors 4 along y and 2 along x."""
    return {
        "id": number, "file_name": f"unlabelled_images/{source_id}.png", "height": 100, "width": 50,
        "source_height": 400, "source_width": 100, "source_id": source_id, "split": split, "study_id": study_id,
        "subject_id": subject_id, "view": "PA", "source_path": f"files/{source_id}.jpg",
    }  # fmt: skip


def report(study_id: str, subject_id: str, split: str, images: list[str]) -> dict[str, Any]:
    """One line of reports.jsonl."""
    text = f"Heart size normal in {study_id}."
    ids = {"study_id": study_id, "subject_id": subject_id}
    return ids | {"split": split, "section": "findings", "report": text, "images": images}


def box(image_id: int, score: float, bbox: list[float], category_id: int = 4) -> dict[str, Any]:
    """One record of a COCO results list, xywh in PNG pixels; category 4 is Cardiomegaly."""
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


@dataclass
class Inputs:
    """Contents of the input files, to be changed by a test before ``build``."""

    folder: Path
    images: list[dict[str, Any]]
    reports: list[dict[str, Any]]
    shards: list[list[dict[str, Any]]]

    def build(self, *, thresholds_file: Path | None = None, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Write the files, run build_annotation, return annotation.json and counts.json.

        Args:
            thresholds_file: thresholds.json of calibrate-thresholds or fit-thresholds.
            settings: keys of the section ``annotation``; boxes below 0.5 are dropped where they do not say otherwise.
        """
        paths = self.write()
        build_annotation(
            **paths,
            thresholds=thresholds_file,
            output=self.folder / "out",
            settings=AnnotationSettings.read({"score_threshold": 0.5, **settings}),
        )
        return read_json(self.folder / "out" / "annotation.json"), read_json(self.folder / "out" / "counts.json")

    def write(self) -> dict[str, Any]:
        """Write the files and return the arguments that name them."""
        coco = {"images": self.images, "annotations": [], "categories": coco_categories()}
        write_json(self.folder / "unlabelled.json", coco)
        write_jsonl(self.folder / "reports.jsonl", self.reports)
        paths = [self.folder / f"shard_{number}.jsonl" for number in range(len(self.shards))]
        for path, shard in zip(paths, self.shards, strict=True):
            path.write_text(
                "".join(json.dumps(record) + "\n" for record in shard)
            )  # NaN allowed, as a broken detector would write it
        return {
            "unlabelled": self.folder / "unlabelled.json",
            "reports": self.folder / "reports.jsonl",
            "predictions": paths,
        }


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Subject 10: studies s1 (two images, train) and s2 (no report); 20: s3 (val); 30: s4 (test, image not converted)."""
    extra = image(5, "extra", "", "", "train") | {"source_path": None}
    return Inputs(
        tmp_path,
        [
            image(1, "a", "s1", "10", "train"),
            image(2, "b", "s1", "10", "train"),
            image(3, "c", "s2", "10", "train"),
            image(4, "d", "s3", "20", "val"),
            extra,
        ],
        [report("s3", "20", "val", ["d"]), report("s4", "30", "test", ["gone"]), report("s1", "10", "train", ["b", "a"])],
        [[box(1, 0.9, [10, 10, 20, 30]), box(1, 0.4, [0, 0, 5, 5])], [box(2, 0.6, [0, 0, 50, 100], 16)]],
    )
