"""Settings of the conversion, and what each data command reads."""

from typing import Any

from d2rnet.cxr.sources.settings import LabelledSettings, ReportSourceSettings, UnlabelledSourceSettings
from d2rnet.settings import Section, setting


class ImageConversionSettings(Section):
    """Conversion of one radiograph to 8-bit PNG: what convert-images-shard reads."""

    place = "cxr.data.conversion"

    max_side_px: int = setting(256, ge=64)
    """Longer side of the converted PNG, pixels; never enlarged."""


class ConversionSettings(ImageConversionSettings):
    """Conversion of all radiographs of a source to 8-bit PNG."""

    max_bad_fraction: float = setting(0.01, ge=0, le=1)
    """Share of unreadable images (found by the check or the conversion), and of listed boxes, above which the run stops."""


class LabelledConversionSettings(Section):
    """What convert-labelled reads."""

    place = "cxr.data"

    labelled: LabelledSettings = LabelledSettings()
    conversion: ConversionSettings = ConversionSettings()


class UnlabelledConversionSettings(Section):
    """What convert-unlabelled reads."""

    place = "cxr.data"

    conversion: ConversionSettings = ConversionSettings()
    reports: ReportSourceSettings = ReportSourceSettings()
    extra_unlabelled: tuple[UnlabelledSourceSettings, ...] = setting(())
    """Further images without reports, for the detector's unlabelled stream only: list of {source: folder, root: path}."""


class DataSettings(UnlabelledConversionSettings, LabelledConversionSettings):
    """Sources and conversion: what verify-inputs reads."""


def source_settings(settings: Section, part: type[Section]) -> dict[str, Any]:
    """Return, as JSON values, the settings of the sources that a part of the data is converted from.

    The tables that verify-inputs checks are made with them; those of the conversion decide the PNG files alone.

    Args:
        settings: of any data command that reads ``part``.
        part: LabelledConversionSettings or UnlabelledConversionSettings.
    """
    whole = settings.to_json()
    return {key: whole[key] for key in part.model_fields if key != "conversion"}
