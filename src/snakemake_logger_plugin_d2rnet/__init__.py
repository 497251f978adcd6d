"""Snakemake's logger plugin ``--logger d2rnet``: a run told in one line a job. Snakemake finds it by this package's name."""

from d2rnet.cli.run_screen import LogHandler

__all__ = ["LogHandler"]
