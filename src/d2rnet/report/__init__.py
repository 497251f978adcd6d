"""D2R-Net: ``annotation.json`` in, weights and generated reports out."""
