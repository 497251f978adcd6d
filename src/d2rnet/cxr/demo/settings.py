"""Settings of the demo cohort."""

from d2rnet.settings import Section, setting


class DemoSettings(Section):
    """The synthetic demo cohort."""

    place = "cxr.data.demo"

    enabled: bool = setting(True)
    """Draw the demo cohort before anything else."""
    seed: int = setting(20260, ge=0)
    """Seed of the cohort."""
    labelled_train_images: int = setting(440, ge=4)
    """VinDr-style training images."""
    labelled_test_images: int = setting(120, ge=2)
    """VinDr-style test images."""
    report_train_studies: int = setting(860, ge=4)
    """MIMIC-style training studies."""
    report_val_studies: int = setting(60, ge=2)
    """MIMIC-style validation studies."""
    report_test_studies: int = setting(170, ge=2)
    """MIMIC-style test studies."""
    size_px: int = setting(384, ge=128, le=3072)
    """Mean longer side of the drawn radiographs, pixels."""
    follow_ups: bool = setting(False)
    """Whether a patient's later studies go on from the one before (unchanged, increased, decreased, new, gone; the reports say
    so) and indications fit the findings; for cxr.report.model.prior and indication."""
    difficulty: float = setting(0.15, ge=0, le=1)
    """Contrast and regularity of the lesions: 0 easy to 1 hard."""
