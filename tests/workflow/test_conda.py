"""``--sdm conda``: Snakemake creates a rule's environment from its file, activates it and runs the rule inside.

A channel of the test's own offers packages of the names and versions that the environment file asks for; its ``python`` hands
over to the Python of the tests and leaves a mark. So Snakemake's path and our files are tested, not conda-forge's packages.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

rattler = pytest.importorskip("rattler")
from rattler.index import index_fs  # noqa: E402 (after the check that it is there)

from d2rnet.report.annotation_file import write_annotation  # noqa: E402

RULE = "build_vocabulary"
TARGET = f"results/cxr/{RULE}/vocabulary.json"
ACTIVATE = """export CONDA_PREFIX="$1"; export PATH="$1/bin:$PATH"\n"""
PYTHON = """#!/bin/sh
touch "$CONDA_PREFIX/python-was-here"
exec {python} "$@"
"""


def write_package(channel: Path, spec: str, files: dict[str, str]) -> None:
    """Put a noarch package into the channel, at the lowest version that a spec such as ``numpy >=1.26`` allows."""
    name, bounds = spec.split(" ", 1)
    version = re.search(r"[0-9][0-9a-z.]*", bounds)[0]
    content = channel / "content" / name
    index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": []}
    metadata = {
        "index.json": index | {"subdir": "noarch", "noarch": "generic"},
        "paths.json": {"paths": [{"_path": path, "path_type": "hardlink"} for path in files], "paths_version": 1},
    }
    for file, value in metadata.items():
        path = content / "info" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    for file, text in files.items():
        path = content / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (channel / "noarch").mkdir(parents=True, exist_ok=True)
    with tarfile.open(channel / "noarch" / f"{name}-{version}-0.tar.bz2", "w:bz2") as archive:
        for file in ("info/index.json", "info/paths.json", *files):
            archive.add(content / file, file)


@pytest.fixture
def conda(repository: Path, tmp_path: Path) -> dict[str, str]:
    """Environment variables with a conda on PATH that knows the packages of the rule's environment file."""
    channel = tmp_path / "channel"
    environment = yaml.safe_load((repository / "envs" / f"{RULE}.yaml").read_text())
    for spec in environment["dependencies"]:
        files = {"bin/python": PYTHON.format(python=sys.executable)} if spec.startswith("python ") else {}
        write_package(channel, spec, files)
    asyncio.run(index_fs(str(channel)))
    root = tmp_path / "conda"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "activate").write_text(ACTIVATE)
    program = root / "bin" / "conda"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("conda_shim.py")} "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SHIM_ROOT": str(root), "SHIM_CHANNEL": channel.as_uri()}


def run_rule(repository: Path, directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "-d", str(directory), "--cores", "1"]
    command += ["--sdm", "conda", "--allowed-rules", RULE, "--", TARGET]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def write_input(directory: Path) -> None:
    entries = [
        {
            "id": f"a{number}",
            "study_id": f"s{number}",
            "subject_id": "p",
            "split": "train",
            "report": "Lungs are clear.",
            "image_path": ["a.jpg"],
            "height": 8,
            "width": 8,
            "boxes": [],
            "scores": [],
            "labels": [],
        }
        for number in range(12)
    ]
    write_annotation(directory / "results" / "cxr" / "build_annotation" / "annotation.json", {"train": entries})


def test_rule_runs_in_its_own_environment(repository: Path, tmp_path: Path, conda: dict[str, str]) -> None:
    write_input(tmp_path / "run")
    done = run_rule(repository, tmp_path / "run", conda)
    assert done.returncode == 0, done.stderr
    assert "lungs" in json.loads((tmp_path / "run" / TARGET).read_text())["tokens"]
    made = [path for path in (tmp_path / "run" / ".snakemake" / "conda").iterdir() if path.is_dir()]
    assert len(made) == 1
    assert (made[0] / "python-was-here").is_file()
    installed = {json.loads(path.read_text())["name"] for path in (made[0] / "conda-meta").glob("*.json")}
    wanted = yaml.safe_load((repository / "envs" / f"{RULE}.yaml").read_text())["dependencies"]
    assert installed == {spec.split()[0] for spec in wanted}


def test_unsolvable_environment_names_the_package(repository: Path, tmp_path: Path, conda: dict[str, str]) -> None:
    write_input(tmp_path / "run")
    channel = tmp_path / "channel"
    next((channel / "noarch").glob("pydantic-*")).unlink()
    asyncio.run(index_fs(str(channel), force=True))
    done = run_rule(repository, tmp_path / "run", conda)
    assert done.returncode != 0
    assert "pydantic" in done.stderr
    assert not (tmp_path / "run" / TARGET).exists()
