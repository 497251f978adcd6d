"""The two images are one: the same base, files, commands, variables and labels; nothing else gets in; the programs start."""

import json
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "envs" / "container"
SETUP = "envs/container/setup"
PLACE = "/opt/d2rnet"
NOT_IN_AN_IMAGE = ("tests", "docs", "benchmarks", ".git", ".ci", ".venv", "data", "resources", "work", "results", "shared")


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile in their order -> what follows the keyword."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def instructions(keyword: str) -> list[str]:
    """What follows each instruction of one kind."""
    return [rest for name, rest in dockerfile() if name == keyword]


def definition() -> dict[str, list[str]]:
    """Sections of Apptainer.def, "" for its header -> their lines without comments."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in map(str.strip, (FOLDER / "Apptainer.def").read_text().splitlines()):
        if line.startswith("%"):
            name = line.removeprefix("%")
            sections[name] = []
        elif line and not line.startswith("#"):
            sections[name].append(line)
    return sections


def pairs(words: list[str]) -> dict[str, str]:
    """NAME=value, as often as there are some."""
    return dict(word.split("=", 1) for word in words)


def copied() -> set[str]:
    """Files and folders that the Dockerfile copies."""
    return {name for rest in instructions("COPY") for name in rest.split()[:-1]}


def test_both_begin_with_the_same_debian_of_one_day() -> None:
    base = pairs(instructions("ARG"))["BASE"]
    assert re.fullmatch(r"docker\.io/library/debian:bookworm-20\d{6}-slim", base)
    assert instructions("FROM") == ["${BASE}"]
    assert definition()[""] == ["Bootstrap: docker", "From: {{ BASE }}"]
    assert pairs(definition()["arguments"]) == pairs(instructions("ARG")) == {"BASE": base, "TORCH_INDEX": "", "COMMIT": ""}


def test_both_run_the_same_script_with_the_same_arguments_and_nothing_else() -> None:
    runs = instructions("RUN")
    assert runs == [f"{SETUP} system", f"{SETUP} dependencies", f"{SETUP} project"]
    exported, place, *commands = definition()["post"]
    assert place == f"cd {PLACE}" == f"cd {instructions('WORKDIR')[0]}" and commands == runs
    assert pairs(shlex.split(exported)[1:]) == {"TORCH_INDEX": "{{ TORCH_INDEX }}", "COMMIT": "{{ COMMIT }}"}


def test_the_script_lists_no_version_and_calls_the_one_set_up() -> None:
    text = (FOLDER / "setup").read_text()
    assert text.count("python3 envs/bootstrap.py") == 2 and "pip install" not in text and not re.search(r"[=<>]=\d", text)


def test_both_copy_the_same_files_which_exist_and_are_no_tests() -> None:
    names = {line.split()[0] for line in definition()["files"]}
    assert all(line.split()[1] == f"{PLACE}/" for line in definition()["files"])
    assert {name for name in copied() if not any(name.startswith(f"{folder}/") for folder in names)} == names
    assert all((ROOT / name).exists() for name in copied())
    assert not names & {*NOT_IN_AN_IMAGE, "."}


def test_the_build_sees_what_is_copied_and_nothing_else() -> None:
    lines = [line for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*" and lines[-1] == "**/__pycache__"
    assert {line.removeprefix("!/") for line in lines[1:-1]} == {name for name in definition_names() if "/" not in name}


def definition_names() -> set[str]:
    """Files and folders that Apptainer copies."""
    return {line.split()[0] for line in definition()["files"]}


def test_a_change_of_the_code_leaves_the_dependencies_alone() -> None:
    """Before them only what they are made from is copied: what bootstrap's key is of, and what the metadata are made of."""
    before = []
    for keyword, rest in dockerfile():
        before += rest.split()[:-1] if keyword == "COPY" else []
        if rest == f"{SETUP} dependencies":
            break
    inputs = {"pyproject.toml", "envs/bootstrap.py", "envs/constraints.txt", "envs/detectron2.txt"}
    assert set(before) == {SETUP, "README.md", "LICENSE"} | inputs
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} == {"README.md", "LICENSE"}  # without them no metadata is made


def test_both_have_the_same_variables_and_entrypoint() -> None:
    exported = pairs([shlex.split(line)[1] for line in definition()["environment"]])
    assert exported == pairs(shlex.split(instructions("ENV")[0]))
    places = exported["PATH"].split(":")
    assert places[:2] == [f"{PLACE}/envs/container/bin", f"{PLACE}/.venv/bin"]
    (entrypoint,) = json.loads(instructions("ENTRYPOINT")[0])
    assert definition()["runscript"] == [f'exec {entrypoint} "$@"']
    assert os.access(ROOT / entrypoint.removeprefix(f"{PLACE}/"), os.X_OK)


def test_both_have_the_labels_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {key.rpartition(".")[2]: value for key, value in pairs(shlex.split(instructions("LABEL")[0])).items()}
    assert labels["title"] == project["name"] and labels["version"] == project["version"]
    assert labels["licenses"] == project["license"] == "Apache-2.0"
    assert labels["revision"] == "${COMMIT}"
    told = dict(line.split(maxsplit=1) for line in definition()["labels"])
    assert {key.rpartition(".")[2]: value for key, value in told.items()} == labels | {"revision": "{{ COMMIT }}"}


def test_nobody_is_root_when_it_runs() -> None:
    order = [keyword for keyword, _ in dockerfile()]
    assert instructions("USER") == ["d2rnet"] and order.index("USER") > max(
        place for place, keyword in enumerate(order) if keyword in ("RUN", "COPY")
    )
    assert instructions("WORKDIR")[-1] == "/data" and "install -d -m 1777 /data" in (FOLDER / "setup").read_text()


@pytest.mark.parametrize("name", ["setup", "entrypoint", "bin/snakemake"])
def test_scripts_are_executable_and_parse(name: str) -> None:
    script = FOLDER / name
    assert os.access(script, os.X_OK) and script.read_text().startswith("#!/bin/sh\n")
    assert subprocess.run(["sh", "-n", script], capture_output=True, text=True).stderr == ""


def test_the_last_layer_touches_no_dependency() -> None:
    """A file that chmod touches is stored again: 7 GB, found by a real build."""
    project = (FOLDER / "setup").read_text().partition("\nproject() {")[2].partition("\n}")[0]
    (chmod,) = [line for line in project.splitlines() if "chmod" in line and not line.lstrip().startswith("#")]
    assert "find . -path ./.venv -prune -o" in chmod and "! -perm -a=r" in chmod


def test_unknown_stage_is_refused() -> None:
    done = subprocess.run([FOLDER / "setup", "everything"], capture_output=True, text=True)
    assert done.returncode == 2 and "usage:" in done.stderr


def run_entrypoint(*words: str, **variables: str) -> str:
    done = subprocess.run([FOLDER / "entrypoint", *words], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_entrypoint_gives_a_home_and_a_name_to_who_has_none(tmp_path: Path) -> None:
    shown = ("sh", "-c", 'echo "$HOME $USER"')
    assert run_entrypoint(*shown, PATH="/usr/bin:/bin", HOME="/nonexistent") == "/tmp d2rnet\n"
    assert run_entrypoint(*shown, PATH="/usr/bin:/bin", HOME=str(tmp_path), USER="ada") == f"{tmp_path} ada\n"


def test_entrypoint_without_a_command_shows_help(tmp_path: Path) -> None:
    program = tmp_path / "d2rnet"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    assert run_entrypoint(PATH=f"{tmp_path}:/usr/bin:/bin", HOME=str(tmp_path)) == "--help\n"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder laid out as the image is, with a Snakemake that shows its arguments."""
    root = tmp_path / "an image"
    for name, text in {
        "envs/container/bin/snakemake": (FOLDER / "bin" / "snakemake").read_text(),
        ".venv/bin/snakemake": '#!/bin/sh\nprintf "%s\\n" "$@"\n',
    }.items():
        path = root / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)
    return root


def snakemake_arguments(image: Path, folder: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [image / "envs/container/bin/snakemake", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_snakemake_takes_the_workflow_of_the_image_where_there_is_no_other(image: Path, tmp_path: Path) -> None:
    words = ["--cores", "all", "a target"]
    assert snakemake_arguments(image, tmp_path, *words) == ["--snakefile", f"{image}/Snakefile", *words]
    (tmp_path / "Snakefile").touch()
    assert snakemake_arguments(image, tmp_path, *words) == words
