"""What a run on the cluster is told, and what it said."""

from pathlib import Path
from typing import Any

import yaml

ONE_CORE = {"device": "cpu", "gpus": 1, "threads": 1, "workers": 1}


def write_overlay(directory: Path, runtime: dict[str, Any], **sections: Any) -> None:
    """Write what a run changes of the tiny preset."""
    directory.mkdir(parents=True, exist_ok=True)
    overlay = {"runtime": ONE_CORE | runtime, **sections}
    (directory / "overlay.yaml").write_text(yaml.safe_dump(overlay))


def said(directory: Path) -> str:
    """What Snakemake said at the end, for a message of failure."""
    return (directory / "snakemake.log").read_text()[-3000:]
