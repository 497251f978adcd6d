"""Chest CT: from volumes and reports to structure-wise training data."""
