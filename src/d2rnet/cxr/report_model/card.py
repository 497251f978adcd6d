"""The model card of the report model."""

from pathlib import Path

from d2rnet.runs.cards import Card

REPORT_CARD = Card(
    "model_card.md",
    Path(__file__).with_name("model_card.md.template"),
    versions=("python", "torch", "detectron2", "sal-detectron2"),
    weights=("model.safetensors",),
)
