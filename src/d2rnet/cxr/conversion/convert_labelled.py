"""convert-labelled: the labelled source becomes three COCO json files.

Reads the tables that verify_inputs has checked and the records of convert-images-shard, which has written the PNG files.
Writes ``{train,val,test}.json``, ``counts.json``, ``run.json`` and ``data_card.md``.
Frames: source boxes are in pixels of the original radiograph (``source_height``, ``source_width``); COCO boxes are in pixels
of the converted PNG (``height``, ``width``).
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.cxr.boxes.coco import Coco, assert_disjoint, write_coco
from d2rnet.cxr.boxes.geometry import xyxy_to_xywh
from d2rnet.cxr.conversion.box_limits import check_boxes
from d2rnet.cxr.conversion.cards import LABELLED_CARD
from d2rnet.cxr.conversion.checked_tables import LABELLED_BOXES, LABELLED_IMAGES
from d2rnet.cxr.conversion.consensus import fuse_readers
from d2rnet.cxr.conversion.image_shards import SIZES, join_shards
from d2rnet.cxr.conversion.settings import ConversionSettings, LabelledConversionSettings, source_settings
from d2rnet.cxr.sources.box_tables import CORNERS
from d2rnet.cxr.sources.settings import LabelledSettings
from d2rnet.cxr.sources.sources import labelled_source
from d2rnet.errors import DatasetError
from d2rnet.files.checked_tables import count_of, read_counts, read_table
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems
from d2rnet.files.splits import three_way_split, validation_split
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.runs.cards import ORIGIN_KEY, origin_line, write_card
from d2rnet.runs.provenance import write_run_record

log = logging.getLogger(__name__)

STAGE = "convert-labelled"
SPLITS = ("train", "val", "test")


def convert_labelled(
    *,
    images: Path,
    boxes: Path,
    counts: Path,
    shards: Sequence[Path],
    output: Path,
    settings: LabelledConversionSettings,
) -> None:
    """Convert the labelled source.

    Args:
        images: ``labelled_images.jsonl`` of verify-inputs.
        boxes: ``labelled_boxes.jsonl`` of verify-inputs.
        counts: ``counts.json`` of verify-inputs.
        shards: records of convert-images-shard, all of them.
        output: folder for the json files; that of ``images/``.
        settings: sections ``cxr.data.labelled`` and ``cxr.data.conversion``.

    Raises:
        DatasetError: a table is not the one that was checked, or was checked with other settings; a box is wrong, too many
            images are unreadable, a shard is missing or of another size, or a split would be empty.
    """
    labelled = settings.labelled
    problems = Problems()
    made_with = source_settings(settings, LabelledConversionSettings)
    counted, checked = read_counts(counts, "labelled", settings=made_with, images=images, boxes=boxes)
    listed = read_table(images, LABELLED_IMAGES)
    converted = _with_frames(listed, shards, settings.conversion, counted)
    documents, table_counts = build_coco(converted, read_table(boxes, LABELLED_BOXES), labelled, problems)
    problems.raise_if_any(details=output / "problems.jsonl")
    counted |= table_counts
    for step in ("source", "boxes", "consensus"):
        log.info("%s: %s", step, ", ".join(f"{name} {count}" for name, count in counted[step].items()))
    for split, document in documents.items():
        write_coco(output / f"{split}.json", document["images"], document["annotations"])
        log.info("%s: %d images, %d boxes", split, len(document["images"]), len(document["annotations"]))
    write_json(output / "counts.json", counted)
    write_run_record(
        output / "run.json",
        command=STAGE,
        settings=settings,
        inputs=checked,
        counts=counted,
        seeds={"split": labelled.split_seed},
        extra={ORIGIN_KEY: origin_line(labelled_source(labelled.source).TERMS, labelled.source, labelled.root)},
    )
    write_card(LABELLED_CARD, output)


def _with_frames(
    images: pd.DataFrame,
    shards: Sequence[Path],
    conversion: ConversionSettings,
    counts: dict[str, Any],
) -> pd.DataFrame:
    """Return the images that were readable with SIZES (a size the source states wins over the file's)."""
    frames, readable = join_shards(shards, images, conversion, quarantined=count_of(counts, "images_quarantined"))
    counts["images_unreadable"] = int((~readable).sum())
    stated = (images["source_height"] > 0).to_numpy()
    for name in ("source_height", "source_width"):
        frames[name] = np.where(stated, images[name], frames[name])
    converted = images.drop(columns=["source_height", "source_width"]).join(frames)
    return converted[readable].reset_index(drop=True)


def build_coco(
    images: pd.DataFrame, boxes: pd.DataFrame, labelled: LabelledSettings, problems: Problems
) -> tuple[dict[str, Coco], dict[str, Any]]:
    """Check, fuse, split and scale: from tables to the three COCO documents. No pixel is read.

    Args:
        images: columns of LABELLED_IMAGES, with SIZES all > 0.
        boxes: columns of LABELLED_BOXES: the readers' boxes in the source frame.
        labelled: section ``cxr.data.labelled``.
        problems: grows by boxes outside their image.

    Returns:
        Split name -> document (images and annotations), and counts.

    Raises:
        DatasetError: a split would be empty, or two splits share an image or a patient.
    """
    sizes = dict(zip(images["source_id"], zip(images["source_height"], images["source_width"], strict=True), strict=True))
    checked = check_boxes(boxes, sizes, labelled, problems)
    fused, consensus_counts = fuse_readers(
        checked.boxes, images, method=labelled.consensus, iou=labelled.consensus_iou, min_readers=labelled.min_readers
    )
    images = images.assign(split=assign_splits(images, labelled))
    images["split"] = pd.Categorical(images["split"], categories=list(SPLITS), ordered=True)
    images = images.sort_values(["split", "source_id"], ignore_index=True)
    images["id"] = range(1, len(images) + 1)
    annotations = _annotations(images, fused)
    documents = {}
    for split in SPLITS:
        chosen = images[images["split"] == split]
        records = [_image_record(row) for row in chosen.to_dict("records")]
        ids = set(chosen["id"])
        documents[split] = {"images": records, "annotations": [record for record in annotations if record["image_id"] in ids]}
    assert_disjoint(documents["train"], documents["val"], documents["test"])
    counts = {"boxes": dict(checked.counts), "consensus": dict(consensus_counts), "splits": _split_counts(documents)}
    return documents, counts


def assign_splits(images: pd.DataFrame, labelled: LabelledSettings) -> list[str]:
    """Return the split of each image: the source's own test split, else a seeded one by patient (by image where unknown).

    A source with a training and a test split, but no ``val``, has ``val_fraction`` of the training split set aside.

    Raises:
        DatasetError: a split would be empty.
    """
    groups = images["subject_id"].where(images["subject_id"] != "", images["source_id"])
    splits = images["split"]
    seed = labelled.split_seed
    if (splits == "").all():
        assigned = three_way_split(groups, seed=seed)
        return [assigned[group] for group in groups]
    if not (splits == "val").any():
        chosen = validation_split(groups[splits == "train"], val_fraction=labelled.val_fraction, seed=seed)
        splits = splits.where(splits != "train", groups.map(chosen))
    empty = [split for split in SPLITS if not (splits == split).any()]
    if empty:
        raise DatasetError(
            f"cxr.data.labelled: no readable image in split {', '.join(empty)} of {len(images)} image(s); expected at least "
            "one each. Check cxr.data.labelled.root and the quarantine list."
        )
    return splits.tolist()


def _image_record(row: Mapping[str, Any]) -> dict[str, Any]:
    record = {"id": row["id"], "file_name": row["file_name"]}
    record |= {name: row[name] for name in SIZES}
    record |= {"source_id": row["source_id"], "split": row["split"]}
    return record | ({"subject_id": row["subject_id"]} if row["subject_id"] else {})


def _annotations(images: pd.DataFrame, fused: pd.DataFrame) -> list[dict[str, Any]]:
    """Scale boxes to the PNG frame and number them in the order of the images."""
    rows = fused.merge(images[["source_id", "id", *SIZES]], on="source_id").sort_values("id", kind="stable")
    scale_x = (rows["width"] / rows["source_width"]).to_numpy()
    scale_y = (rows["height"] / rows["source_height"]).to_numpy()
    boxes_xywh = xyxy_to_xywh(rows[CORNERS].to_numpy() * np.stack([scale_x, scale_y, scale_x, scale_y], axis=1))
    records = []
    columns = (rows["id"], rows["category_id"], rows["readers"], rows["agreement"])
    lists = (column.tolist() for column in columns)
    for number, (box, image_id, category_id, readers, agreement) in enumerate(
        zip(boxes_xywh.tolist(), *lists, strict=True), start=1
    ):
        record = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box}
        record |= {"area": box[2] * box[3], "iscrowd": 0}
        records.append(record | ({"readers": readers, "agreement": agreement} if readers else {}))
    return records


def _split_counts(documents: Mapping[str, Coco]) -> dict[str, Any]:
    counts = {}
    for split, document in documents.items():
        boxed = {record["image_id"] for record in document["annotations"]}
        per_class = Counter(record["category_id"] for record in document["annotations"])
        counts[split] = {
            "images": len(document["images"]),
            "images_without_box": len(document["images"]) - len(boxed),
            "boxes": len(document["annotations"]),
            "boxes_per_class": {name: per_class[index] for name, index in CATEGORY_IDS.items()},
        }
    return counts
