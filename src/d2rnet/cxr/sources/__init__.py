"""Data sets that can be read."""
