"""Scores of generated reports, beside baselines, with intervals; of any modality."""
