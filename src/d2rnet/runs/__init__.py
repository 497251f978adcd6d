"""Runs: work folders, run records, shards, cards, progress, devices."""
