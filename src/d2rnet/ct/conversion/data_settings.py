"""What each data command of the CT wing reads."""

from d2rnet.ct.conversion.settings import CtConversionSettings
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.volumes.settings import VolumeSettings
from d2rnet.settings import Section, setting


class CtVolumeConversionSettings(Section):
    """Reading and conversion of one volume: what convert-ct-shard reads."""

    place = "ct.data"

    volumes: VolumeSettings = VolumeSettings()
    conversion: CtConversionSettings = CtConversionSettings()


class CtSourceDataSettings(CtVolumeConversionSettings):
    """The source, its reading and conversion: what verify-ct-inputs and convert-ct read."""

    reports: CtSourceSettings = CtSourceSettings()
    max_bad_fraction: float = setting(0.01, ge=0, le=1)
    """Share of the volumes that may be unreadable or no chest, those set aside by the check and by the conversion together;
    more stops the run."""
