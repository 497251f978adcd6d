"""Settings of the demo cohort."""

from d2rnet.settings import Section, setting

COHORT_FILE = "cohort.json"  # of make-demo-cohort, beside the folders of the cohort: what is there is synthetic


class DemoSettings(Section):
    """The synthetic demo cohort."""

    place = "cxr.data.demo"

    enabled: bool = setting(True, "Draw the demo cohort before anything else.")
    seed: int = setting(20260, "Seed of the cohort.", ge=0)
    labelled_train_images: int = setting(440, "VinDr-style training images.", ge=4)
    labelled_test_images: int = setting(120, "VinDr-style test images.", ge=2)
    report_train_studies: int = setting(860, "MIMIC-style training studies.", ge=4)
    report_val_studies: int = setting(60, "MIMIC-style validation studies.", ge=2)
    report_test_studies: int = setting(170, "MIMIC-style test studies.", ge=2)
    size_px: int = setting(448, "Mean longer side of the drawn radiographs, pixels.", ge=128, le=3072)
    difficulty: float = setting(0.3, "Contrast and regularity of the lesions: 0 easy to 1 hard.", ge=0, le=1)
