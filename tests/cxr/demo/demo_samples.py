"""The small cohort that the tests of this folder draw."""

from d2rnet.cxr.demo.settings import DemoSettings

SMALL = DemoSettings(
    labelled_train_images=24,
    labelled_test_images=10,
    report_train_studies=30,
    report_val_studies=4,
    report_test_studies=6,
    size_px=128,
    seed=7,
)
