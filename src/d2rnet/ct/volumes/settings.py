"""Settings of the volume reader: which numbers are Hounsfield units, and what passes for a chest."""

from d2rnet.ct.volumes.hounsfield import HounsfieldChoice
from d2rnet.settings import Section, setting


class VolumeSettings(Section):
    """Reading of a CT volume and the gate that it passes."""

    place = "ct.data.volumes"

    hu: HounsfieldChoice = setting("auto")
    """Whether the stored values are Hounsfield units. auto decides per volume, from values and header, and records it; raw
    applies slope and intercept of the metadata table (CT-RATE's first release); already takes the values as they are (its
    second). A choice that the values contradict sets the volume aside."""
    min_slices: int = setting(16, ge=2)
    """Fewest slices of a volume; fewer are set aside. Own choice: 250 mm of chest in slices of 15 mm."""
    min_lung_fraction: float = setting(0.035, ge=0, lt=1)
    """Least share of the body that is lung; less is no chest and set aside, up to three times as much is noted. Chests have
    0.15 to 0.5, a whole torso about 0.06 (docs/reference/ct-volumes.md)."""
