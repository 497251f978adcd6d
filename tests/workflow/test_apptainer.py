"""``--sdm apptainer``: Snakemake runs a rule in the image of runtime.container, where the code of this checkout is seen.

A stand-in for Apptainer records its calls and runs them with the image's ``python``, which hands over to that of the tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_conda import RULE, TARGET, write_input
from warm_snakemake import warm_snakemake

PYTHON = """#!/bin/sh
echo "$PYTHONPATH" >> {mark}
exec {python} "$@"
"""


@pytest.fixture
def apptainer(tmp_path: Path) -> dict[str, str]:
    """Environment variables with an apptainer on PATH; image.sif, with a python, lies in the working directory."""
    program = tmp_path / "programs" / "apptainer"
    python = tmp_path / "run" / "image.sif" / "bin" / "python"
    for path, text in {
        program: f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("apptainer_shim.py")} "$@"\n',
        python: PYTHON.format(mark=tmp_path / "python_was_here", python=sys.executable),
    }.items():
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SHIM_CALLS": str(tmp_path / "calls.jsonl"), "OMP_NUM_THREADS": "1"}


def run_rule(
    repository: Path, directory: Path, environment: dict[str, str], image: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Make the vocabulary, the shortest rule, with an image as setting."""
    overlay = directory / "mine.yaml"
    overlay.write_text(json.dumps({"runtime": {"container": image}}))
    words = ["-s", repository / "Snakefile", "-d", directory, "--cores", "1", *arguments, "--allowed-rules", RULE]
    return warm_snakemake(*words, "--configfile", overlay, "--", TARGET, environment=environment, one_stream=True)


def calls(tmp_path: Path) -> list[dict]:
    path = tmp_path / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_rule_runs_in_the_image_with_the_code_of_this_checkout(
    repository: Path, tmp_path: Path, apptainer: dict[str, str]
) -> None:
    write_input(tmp_path / "run")
    done = run_rule(repository, tmp_path / "run", apptainer, "image.sif", "--sdm", "apptainer", "--apptainer-args=--nv")
    assert done.returncode == 0, done.stdout
    assert "lungs" in json.loads((tmp_path / "run" / TARGET).read_text())["tokens"]
    (call,) = calls(tmp_path)
    assert call["image"].endswith("image.sif") and call["command"][:2] == ["bash", "-c"]
    assert "python -m d2rnet build-vocabulary" in call["command"][2]
    assert ["--nv"] in call["options"]
    assert call["options"].count(["--bind", str(repository)]) == 1
    assert ["--home", str(tmp_path / "run")] in call["options"]
    first = (tmp_path / "python_was_here").read_text().splitlines()[0]
    assert first.split(":")[0] == f"{repository}/src"


def test_without_the_option_the_image_is_left_alone(repository: Path, tmp_path: Path, apptainer: dict[str, str]) -> None:
    write_input(tmp_path / "run")
    done = run_rule(repository, tmp_path / "run", apptainer, "image.sif", "-n")
    assert done.returncode == 0 and RULE in done.stdout, done.stdout
    assert calls(tmp_path) == []


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("", "runtime.container names no image; expected an image file or an address"),
        ("gone.sif", "runtime.container: gone.sif: no such file in "),
    ],
    ids=["none", "gone"],
)
def test_an_image_that_is_not_there_is_named_before_the_first_job(
    repository: Path, tmp_path: Path, apptainer: dict[str, str], image: str, reason: str
) -> None:
    write_input(tmp_path / "run")
    done = run_rule(repository, tmp_path / "run", apptainer, image, "--sdm", "apptainer")
    assert done.returncode == 1 and reason in done.stdout
    assert calls(tmp_path) == [] and not (tmp_path / "run" / TARGET).exists()


def test_an_address_is_pulled(repository: Path, tmp_path: Path, apptainer: dict[str, str]) -> None:
    """By a dry run, which says so and downloads nothing."""
    write_input(tmp_path / "run")
    done = run_rule(repository, tmp_path / "run", apptainer, "docker://example.org/d2rnet:1", "--sdm", "apptainer", "-n")
    assert done.returncode == 0, done.stdout
    assert "Singularity image docker://example.org/d2rnet:1 will be pulled" in done.stdout
