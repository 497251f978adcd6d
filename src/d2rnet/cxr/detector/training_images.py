"""The images of a training: read, checked, chosen, and kept as bytes that all processes share.

Reads: COCO files of the convert rules. Writes: labelled_split.json.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from detectron2.data import DatasetFromList

from d2rnet.cxr.boxes.records import Record, assert_disjoint, load_records
from d2rnet.cxr.detector.settings import DetectorTrainingSettings
from d2rnet.cxr.images.views import shows_view
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json
from d2rnet.files.hashes import ManyFiles
from d2rnet.findings.classes import CATEGORY_NAMES

log = logging.getLogger(__name__)
Item = TypeVar("Item")


@dataclass(frozen=True)
class TrainingImages:
    """What a training sees, as bytes (:func:`compact`).

    Attributes:
        labelled: with boxes that are used.
        unlabelled: without, empty with ``supervised_only``.
        validation: to be scored on.
    """

    labelled: Sequence[Record]
    unlabelled: Sequence[Record]
    validation: Sequence[Record]


def compact(items: Sequence[Item]) -> Sequence[Item]:
    """Keep items as bytes in one tensor, each of them made anew when it is asked for, as detectron2 keeps its data sets.

    Processes that are started with it share the tensor, and so do their loader processes: a list of objects is copied to each
    of the former, and page by page to each of the latter, for looking at an object writes to its count of references.
    """
    return cast(Sequence[Item], DatasetFromList(list(items), copy=False)) if items else []


def load_images(
    inputs: Mapping[str, Path], training: DetectorTrainingSettings
) -> tuple[TrainingImages, dict[str, int], ManyFiles]:
    """Read, check and choose the images of a training.

    Args:
        inputs: COCO files by argument of :func:`d2rnet.cxr.detector.trainer.train_detector`.
        training: ``cxr.detector.training`` settings.

    Returns:
        The images; how many there are by argument, and how many unlabelled ones have boxes or show another view than wanted;
        and the files of those that may be trained on, which decide a run beside the json files: these stay the same where an
        image is exchanged for one of its size.

    Raises:
        DatasetError: bad COCO files, an image in two splits, or none to train on. An unlabelled image that is a labelled one
            of training or validation is left out instead.
    """
    data = {name: load_records(path, split="train" if name == "unlabelled" else None) for name, path in inputs.items()}
    counts = {name: len(records) for name, records in data.items()}
    known = {record.source_id for name in ("labelled_train", "labelled_val") for record in data[name]}
    data["unlabelled"] = [record for record in data["unlabelled"] if record.source_id not in known]
    if repeated := counts["unlabelled"] - len(data["unlabelled"]):
        counts["unlabelled_that_are_labelled"] = repeated
        log.info("%d of %d unlabelled images are labelled ones and left out", repeated, counts["unlabelled"])
    assert_disjoint(data)
    wanted = of_views(data["unlabelled"], training.unlabelled_views)
    if training.unlabelled_views:
        counts["unlabelled_of_other_views"] = len(data["unlabelled"]) - len(wanted)
        log.info(
            "%d of %d unlabelled images show %s; the others are not trained on",
            len(wanted),
            len(data["unlabelled"]),
            " or ".join(training.unlabelled_views),
        )
    labelled, unlabelled = choose_labelled(data["labelled_train"], wanted, training)
    if not unlabelled and not training.supervised_only:
        views = f" and view {' or '.join(training.unlabelled_views)}" if training.unlabelled_views else ""
        raise DatasetError(
            f"{inputs['unlabelled']}: no image of split train{views}; expected some, or training.supervised_only true."
        )
    paths = [record.path for name in ("labelled_train", "unlabelled") for record in data[name]]
    files = ManyFiles(paths[0].parent if paths else Path(), compact(paths))
    unlabelled = [] if training.supervised_only else unlabelled
    return TrainingImages(compact(labelled), compact(unlabelled), compact(data["labelled_val"])), counts, files


def of_views(records: Sequence[Record], views: Sequence[str]) -> Sequence[Record]:
    """Keep the images that show one of some views, such as PA; all of them if no view is named."""
    return [record for record in records if shows_view(record.view, views)]


def choose_labelled(
    labelled: Sequence[Record], unlabelled: Sequence[Record], training: DetectorTrainingSettings
) -> tuple[list[Record], list[Record]]:
    """Keep the labels of ``labelled_percent`` of the images; the others join the unlabelled ones, without their boxes.

    Returns:
        Labelled and unlabelled records. The choice is a function of the image ids and ``labelled_split_seed``.
    """
    keep = max(1, round(len(labelled) * training.labelled_percent / 100))
    order = np.random.default_rng(training.labelled_split_seed).permutation(len(labelled))
    chosen = set(order[:keep].tolist())
    rest = [record for index, record in enumerate(labelled) if index not in chosen]
    return [record for index, record in enumerate(labelled) if index in chosen], [*rest, *unlabelled]


def write_split(path: Path, labelled: Sequence[Record], training: DetectorTrainingSettings) -> None:
    """Write which images were trained on with their boxes."""
    write_json(
        path,
        {
            "labelled_percent": training.labelled_percent,
            "labelled_split_seed": training.labelled_split_seed,
            "source_ids": [record.source_id for record in labelled],
        },
    )


def boxes_per_image(records: Sequence[Record]) -> list[float]:
    """(C,) mean number of boxes of each class on an image, images without boxes included."""
    counts = Counter(category for record in records for category in record.classes.tolist())
    return [counts[index] / len(records) for index in range(len(CATEGORY_NAMES))]
