"""Images converted in shards, as the workflow does before convert_labelled and convert_unlabelled."""

from collections.abc import Mapping
from pathlib import Path

from d2rnet.cxr.conversion.image_shards import convert_images_shard
from d2rnet.cxr.conversion.settings import ImageConversionSettings
from d2rnet.files.documents import write_jsonl


def write_list(target: Path, jobs: Mapping[str, str]) -> Path:
    """Write a list of images: file -> PNG, relative to the folder of the conversion."""
    write_jsonl(target, ({"source": source, "file_name": name} for source, name in jobs.items()))
    return target


def convert_shards(jobs: Mapping[str, str], folder: Path, settings: ImageConversionSettings, *, shards: int = 2) -> list[Path]:
    """Convert files to PNGs below a folder; return the shards' records.

    Args:
        jobs: file -> PNG, relative to ``folder``.
        folder: of the COCO json.
        settings: size of the PNGs.
        shards: number of shards.
    """
    images = write_list(folder.with_name(f"{folder.name}_shards") / "images.jsonl", jobs)
    return convert_list(images, folder, settings, shards=shards)


def convert_list(images: Path, folder: Path, settings: ImageConversionSettings, *, shards: int = 2) -> list[Path]:
    """Convert a list of images, such as verify_inputs writes; see :func:`convert_shards`."""
    work = folder.with_name(f"{folder.name}_shards")
    records = [work / f"{shard}-of-{shards}.jsonl" for shard in range(1, shards + 1)]
    for shard, record in enumerate(records, start=1):
        convert_images_shard(
            images=images, folder=folder, shard=shard, shards=shards, output=record, workers=1, settings=settings
        )
    return records
