"""A rule is added by the files that docs/how-to/add-a-rule.md names: its own example, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from d2rnet.files.documents import read_json, write_json

COPIED = ("src", "workflow", "envs", "Snakefile", "config.yaml", "pyproject.toml")
IMPORTS = """\
\"\"\"Counts the boxes per class.\"\"\"

from collections import Counter
from pathlib import Path

from d2rnet.files.documents import write_json
from d2rnet.report.annotation_file import load_annotation


"""
ENTRY = {
    "study_id": "s", "subject_id": "p", "split": "train", "report": "Clear.", "image_path": ["a.png"], "height": 9, "width": 9,
    "boxes": [[1, 1, 2, 2]], "scores": [0.5], "labels": ["Cardiomegaly"],
}  # fmt: skip


@pytest.fixture(scope="module")
def grown(repository, tmp_path_factory) -> Path:
    """A copy of the project with the rule of the page, put into the files of its table that code stands in."""
    copy = tmp_path_factory.mktemp("grown")
    for name in COPIED:
        source = repository / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    page = (repository / "docs" / "how-to" / "add-a-rule.md").read_text(encoding="utf-8")
    function, command, rule = (textwrap.dedent(block) for block in re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL))
    (copy / "src/d2rnet/cxr/annotation/count_boxes.py").write_text(IMPORTS + function)
    insert(copy / "src/d2rnet/cli/cxr_commands.py", "CXR_COMMANDS: dict[str, Command] = {\n", command)
    insert(copy / "envs/generate.py", "EXTRAS: dict[str, tuple[str, ...]] = {\n", '"count_boxes": (),\n')
    with (copy / "workflow/rules/cxr/annotation.smk").open("a") as rules:
        rules.write(f"\n\n{rule}")
    subprocess.run([sys.executable, copy / "envs/generate.py"], check=True)  # make envs
    return copy


def insert(path: Path, after: str, text: str) -> None:
    """Put a text behind another one, which the file holds once."""
    content = path.read_text(encoding="utf-8")
    assert content.count(after) == 1
    path.write_text(content.replace(after, after + text), encoding="utf-8")


def test_the_rule_of_the_page_runs(grown, tmp_path):
    annotation = {"train": [ENTRY | {"id": "a"}, ENTRY | {"id": "b"}], "val": [], "test": []}
    write_json(tmp_path / "results/cxr/build_annotation/annotation.json", annotation)
    command = [sys.executable, "-m", "snakemake", "-s", grown / "Snakefile", "-d", tmp_path, "--cores", "1"]
    done = subprocess.run(
        [*command, "count_boxes", "--allowed-rules", "count_boxes"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(grown / "src")},
    )
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "results/cxr/count_boxes/counts.json") == {"Cardiomegaly": 2}
    assert (grown / "envs/count_boxes.yaml").is_file() and (tmp_path / "logs/cxr/count_boxes.log").is_file()


def test_the_page_names_at_most_seven_files(repository):
    page = (repository / "docs" / "how-to" / "add-a-rule.md").read_text(encoding="utf-8")
    table = re.search(r"^\|---\|---\|\n(.*?)\n\n", page, flags=re.MULTILINE | re.DOTALL)
    assert table and 6 <= len(table[1].splitlines()) <= 7
