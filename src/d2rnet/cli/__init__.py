"""Command line: one sub-command per Snakemake rule, plus a few for people."""

from d2rnet.cli.entry import main

__all__ = ["main"]
