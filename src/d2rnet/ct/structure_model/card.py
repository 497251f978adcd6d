"""The model card of stage 1."""

from pathlib import Path

from d2rnet.runs.cards import Card

STRUCTURE_CARD = Card(
    "model_card.md",
    Path(__file__).with_name("model_card.md.template"),
    versions=("python", "torch", "nibabel", "SimpleITK"),
    weights=("model.safetensors", "text_tower.safetensors"),
)
