"""A stand-in for conda: the sub-commands that Snakemake calls, carried out by py-rattler on channels of the test's own.

Environment: ``SHIM_CHANNEL`` is the address that the channel name conda-forge stands for; ``SHIM_ROOT`` is the folder that
plays conda's installation and holds ``bin/activate``.
"""

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path

import rattler
import yaml

ROOT = Path(os.environ["SHIM_ROOT"])


async def create(file: str, prefix: str) -> None:
    """Solve and install an environment file; a pip section is refused, for the channel has no pip."""
    environment = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    pip = [item for item in environment["dependencies"] if isinstance(item, dict)]
    if pip or environment["channels"] != ["conda-forge", "nodefaults"]:
        sys.exit(f"conda shim: {file}: only conda packages of conda-forge can be installed here, got {pip or environment}")
    specs = [rattler.MatchSpec(spec, strict=True) for spec in environment["dependencies"]]
    records = await rattler.solve([os.environ["SHIM_CHANNEL"]], specs, platforms=["noarch"])
    await rattler.install(records, prefix, cache_dir=ROOT / "cache", show_progress=False)


def main(arguments: list[str]) -> None:
    """Answer one conda command."""
    if arguments == ["--version"]:
        print("conda 24.7.1")
    elif arguments == ["info", "--json"]:
        print(json.dumps({"conda_prefix": str(ROOT), "platform": "linux-64"}))
    elif arguments[:2] == ["config", "--get"]:
        print(json.dumps({"get": {"channel_priority": "strict"}}))
    elif arguments[:2] == ["env", "create"]:
        values = dict(itertools.pairwise(arguments))
        asyncio.run(create(values["--file"], values["--prefix"]))
    elif arguments[:1] != ["clean"]:
        sys.exit(f"conda shim: 'conda {' '.join(arguments)}' is not known here")


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads of py-rattler may crash an interpreter that is being taken down
