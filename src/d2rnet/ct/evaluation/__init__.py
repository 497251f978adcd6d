"""Evaluation of chest CT reports: words, the 18 abnormalities, CRG, baselines."""
