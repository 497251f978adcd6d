"""A small CT demo cohort and its conversion, made once per test run."""

from pathlib import Path

from d2rnet.ct.conversion.convert_ct import convert_ct
from d2rnet.ct.conversion.data_settings import CtSourceDataSettings, CtVolumeConversionSettings
from d2rnet.ct.conversion.verify import verify_ct_inputs
from d2rnet.ct.conversion.volume_shards import convert_ct_shard
from d2rnet.ct.demo.cohort import make_ct_demo_cohort
from d2rnet.ct.demo.settings import CtDemoSettings

COHORT = CtDemoSettings(train_patients=12, valid_patients=2, in_plane_voxels=64, slice_mm=8.0)


def data_settings(cohort: Path, **changes) -> CtSourceDataSettings:
    """Settings for the cohort, whose two unreadable volumes are more than a hundredth."""
    return CtSourceDataSettings.read(
        {
            "reports": {"root": str(cohort / "ct_rate"), "val_fraction": 0.2},
            "conversion": {"spacing_mm": [8.0, 6.0, 6.0], "shape_zyx": [40, 60, 60]},
            "max_bad_fraction": 0.2,
        }
        | changes
    )


def volume_settings(settings: CtSourceDataSettings) -> CtVolumeConversionSettings:
    """What of the settings a shard reads."""
    return CtVolumeConversionSettings(volumes=settings.volumes, conversion=settings.conversion)


def make_cohort(folder: Path) -> Path:
    """Draw the cohort into ``folder/cohort``."""
    make_ct_demo_cohort(output=folder / "cohort", workers=1, settings=COHORT)
    return folder / "cohort"


def convert(cohort: Path, folder: Path, *, shards: int = 1, **changes) -> CtSourceDataSettings:
    """Verify and convert the cohort below ``folder``; return the settings."""
    settings = data_settings(cohort, **changes)
    verify_ct_inputs(output=folder / "verify", workers=1, settings=settings)
    convert_shards(folder, settings, shards)
    join(folder, settings, shards)
    return settings


def convert_shards(folder: Path, settings: CtSourceDataSettings, shards: int) -> None:
    for shard in range(1, shards + 1):
        convert_ct_shard(
            volumes=folder / "verify/volumes.jsonl",
            folder=folder / "convert",
            shard=shard,
            shards=shards,
            output=folder / f"convert/shards/{shard}-of-{shards}.jsonl",
            workers=1,
            settings=volume_settings(settings),
        )


def join(folder: Path, settings: CtSourceDataSettings, shards: int) -> None:
    convert_ct(
        volumes=folder / "verify/volumes.jsonl",
        counts=folder / "verify/counts.json",
        shards=[folder / f"convert/shards/{shard}-of-{shards}.jsonl" for shard in range(1, shards + 1)],
        output=folder / "convert",
        settings=settings,
    )
