"""The model card of the report model of chest CT."""

from pathlib import Path

from d2rnet.runs.cards import Card

CT_REPORT_CARD = Card(
    "model_card.md",
    Path(__file__).with_name("model_card.md.template"),
    versions=("python", "torch"),
    weights=("model.safetensors",),
)
