"""The data cards of both converters."""

from pathlib import Path

from d2rnet.runs.cards import Card

VERSIONS = ("python", "numpy", "pydicom", "opencv-python-headless", "ensemble-boxes")
LABELLED_CARD = Card("data_card.md", Path(__file__).with_name("labelled_card.md.template"), versions=VERSIONS)
UNLABELLED_CARD = Card(
    "data_card.md",
    Path(__file__).with_name("unlabelled_card.md.template"),
    versions=VERSIONS,
    sections=("reports", "extra_unlabelled", "conversion"),
)
