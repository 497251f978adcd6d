"""The lists of images that are to be converted: which files, in which order, under which name.

verify_inputs writes them, convert-images-shard converts runs of them, and convert_labelled and convert_unlabelled, which read
the tables again, expect just these images. So the shards of a conversion need no table and no report. One object a line:
``source``, the file; ``file_name``, its PNG, relative to the folder of the COCO json that will name it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from d2rnet.cxr.conversion.input_checks import leave_out_quarantined
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.conversion.unlabelled_images import join_sources, leave_out_overlaps
from d2rnet.cxr.sources.tables import LabelledTable, ReportTable
from d2rnet.files.documents import write_jsonl

IMAGE_FOLDER = "unlabelled_images"


def labelled_file_name(source_id: str) -> str:
    """Return the PNG of a labelled image, relative to the folder of ``{train,val,test}.json``."""
    return f"images/{source_id}.png"


def unlabelled_file_name(source_id: str) -> str:
    """Return the PNG of an image of the report source, relative to the folder of ``unlabelled.json``.

    The images are spread over 256 folders by a hash of the id: file systems are slow with 377,110 files in one.
    """
    folder = hashlib.md5(source_id.encode(), usedforsecurity=False).hexdigest()[:2]
    return f"{IMAGE_FOLDER}/{folder}/{source_id}.png"


def write_image_list(target: Path, files: Iterable[str], file_names: Iterable[str]) -> None:
    """Write one list: the files in their order, and the PNG of each."""
    write_jsonl(target, ({"source": file, "file_name": name} for file, name in zip(files, file_names, strict=True)))


def write_image_lists(
    output: Path, *, quarantine: Path, labelled: LabelledTable, reports: Sequence[ReportTable], settings: DataSettings
) -> None:
    """Write ``labelled_images.jsonl`` and ``unlabelled_images.jsonl``.

    Args:
        output: folder for both.
        quarantine: images to leave out, JSON lines with ``path``.
        labelled: of ``cxr.data.labelled``, nothing wrong with it.
        reports: of ``cxr.data.reports``, then of each part of ``cxr.data.extra_unlabelled``.
        settings: section ``data``.

    Raises:
        DatasetError: a labelled test image would be trained on.
    """
    images = leave_out_quarantined(labelled.images, labelled.images["path"], quarantine, {})
    write_image_list(output / "labelled_images.jsonl", images["path"], map(labelled_file_name, images["source_id"]))
    images = leave_out_overlaps(join_sources(reports, settings).images, labelled.images, {})
    images = leave_out_quarantined(images, images["file"], quarantine, {})
    write_image_list(output / "unlabelled_images.jsonl", images["file"], map(unlabelled_file_name, images["source_id"]))
