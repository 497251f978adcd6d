"""Images converted in shards, as the workflow does before convert_labelled and convert_unlabelled."""

from collections.abc import Mapping
from pathlib import Path

from d2rnet.cxr.conversion.image_lists import write_image_list
from d2rnet.cxr.conversion.image_shards import convert_images_shard
from d2rnet.cxr.conversion.settings import ImageConversionSettings


def convert_shards(jobs: Mapping[str, str], folder: Path, settings: ImageConversionSettings, *, shards: int = 2) -> list[Path]:
    """Convert files to PNGs below a folder; return the shards' records.

    Args:
        jobs: file -> PNG, relative to ``folder``.
        folder: of the COCO json.
        settings: size of the PNGs.
        shards: number of shards.
    """
    work = folder.with_name(f"{folder.name}_shards")
    write_image_list(work / "images.jsonl", jobs.keys(), jobs.values())
    records = [work / f"{shard}-of-{shards}.jsonl" for shard in range(1, shards + 1)]
    for shard, record in enumerate(records, start=1):
        convert_images_shard(
            images=work / "images.jsonl",
            folder=folder,
            shard=shard,
            shards=shards,
            output=record,
            workers=1,
            settings=settings,
        )
    return records
