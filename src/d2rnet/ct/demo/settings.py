"""Settings of the CT demo cohort."""

from d2rnet.settings import Section, setting


class CtDemoSettings(Section):
    """The synthetic chest CT cohort, in the layout of CT-RATE."""

    place = "ct.data.demo"

    enabled: bool = setting(True)
    """Draw the demo cohort before anything else."""
    seed: int = setting(20261, ge=0)
    """Seed of the cohort."""
    train_patients: int = setting(900, ge=4)
    """Patients of the part train; about one in twelve has a second scan."""
    valid_patients: int = setting(140, ge=2)
    """Patients of the part valid, which is the test split."""
    unreadable_volumes: int = setting(2, ge=0, le=2)
    """Volumes that cannot be read, to show that they are set aside."""
    in_plane_voxels: int = setting(104, ge=48, le=512)
    """Rows and columns of the drawn volumes, voxels; they cover 370 mm of an average patient."""
    slice_mm: float = setting(5.0, ge=1.0, le=10.0)
    """Mean distance of slices, mm."""
