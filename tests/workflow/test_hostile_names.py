"""No shell command is built from data: folders and images of any name go through every rule, and nothing of a name is run."""

import ast
import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_dag import planned_jobs, snakemake

from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.report.annotation_file import load_annotation

TINY = "workflow/presets/cxr/tiny.yaml"
FOLDER = "-rf we ird'na\"me $(touch pwned) `touch pwned`;touch pwned & é\n%s\\n"
IMAGE = "-x $(touch pwned) 'y' \"z\" ;é&#"
# Numbers, and options whose files option() has quoted; everything else is quoted by Snakemake.
OWN_WORDS = {
    "threads",
    "params.shard",
    "params.shown_score",
    "resources.kept_side",
    "resources.options",
    "resources.processes",
    "params.masks",
    "params.nearest",
    "params.oracle",
    "params.sure",
    "params.thresholds",
    "params.true_boxes",
    "params.truth",
    "params.warm_start",
}


def shell_commands(repository: Path) -> dict[str, str]:
    """Rule -> the text of its shell command."""
    commands = {}
    for path in sorted((repository / "workflow" / "rules").rglob("*.smk")):
        text = path.read_text(encoding="utf-8")
        for rule in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
            name, _, body = rule.partition(":")
            shell = re.search(r"^    shell:\n((?:        .*\n?)+)", body, flags=re.MULTILINE)
            commands[name] = "".join(re.findall(r'"([^"]*)"', shell[1])) if shell else ""
    return commands


def test_every_path_in_a_command_is_quoted(repository):
    commands = shell_commands(repository)
    assert sum(command.startswith("python -m d2rnet ") for command in commands.values()) >= 18
    for name, command in commands.items():
        for placeholder in re.findall(r"\{([^{}]+)\}", command):
            assert placeholder.endswith(":q") or placeholder in OWN_WORDS, f"{name}: {{{placeholder}}} is not quoted"
        for option in re.findall(r"--[\w-]+ \{params\.(?:image_root)", command):
            pytest.fail(f"{name}: {option}: give a configured path with '=', it may begin with a dash")


def test_nothing_is_imported_from_the_working_directory(repository, tmp_path):
    """A study's own random.py, or anybody's, took the place of Python's in every job."""
    text = (repository / "workflow/rules/common.smk").read_text(encoding="utf-8")
    arguments = re.search(r"^shell\.prefix\(\n(.*?)^\)", text, flags=re.MULTILINE | re.DOTALL)[1]
    prefix = eval(f"({arguments})", {"shlex": shlex, "workflow": SimpleNamespace(basedir=repository)})
    (tmp_path / "argparse.py").write_text("raise SystemExit('taken from the working directory')\n")
    show = f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.path[:2])'; echo $PYTHONPATH"
    for given, path in ((None, []), ("", []), ("/a b:/c", ["/a b"])):
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment |= {} if given is None else {"PYTHONPATH": given}
        command = f"{prefix}{shlex.quote(sys.executable)} -m d2rnet --version; {show}"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        version, paths, exported = done.stdout.splitlines()
        assert version.startswith("d2rnet ") and ast.literal_eval(paths)[: 1 + len(path)] == [f"{repository}/src", *path]
        assert exported == f"{repository}/src" + (f":{given}" if given else "")


def rename_image(root: Path) -> None:
    """Give the first labelled training image a hostile id, in its file and in every table."""
    table = root / "vindr" / "annotations" / "annotations_train.csv"
    first = next(path for path in sorted((root / "vindr" / "train").iterdir()))
    first.rename(first.with_name(IMAGE + first.suffix))
    for path in (table, table.with_name("image_labels_train.csv")):
        if not path.is_file():
            continue
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        column = rows[0].index("image_id")
        for row in rows[1:]:
            row[column] = IMAGE if row[column] == first.stem else row[column]
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)


@pytest.mark.slow
@pytest.mark.e2e
def test_whole_workflow_among_hostile_names(repository, tmp_path):
    tiny = ("--cores", "2", "--configfile", str(repository / TINY))
    made = snakemake(repository, tmp_path / "made", *tiny, "--", "make_demo_cohort")
    assert made.returncode == 0, made.stderr[-3000:]
    run = tmp_path / FOLDER.replace("\n", " ")
    cohort = run / FOLDER  # below the working directory, so that the path in the configuration begins with a dash
    shutil.copytree(tmp_path / "made" / "resources" / "cxr" / "demo_cohort", cohort)
    rename_image(cohort)
    overlay = {
        "cxr": {
            "data": {
                "demo": {"enabled": False},
                "labelled": {"root": f"{FOLDER}/vindr"},
                "reports": {"root": f"{FOLDER}/mimic"},
            }
        },
        "runtime": {"delete_after_success": ["stale", "finished", "caches", "shards"]},
    }
    (tmp_path / "overlay.json").write_text(json.dumps(overlay))
    done = snakemake(repository, run, *tiny, str(tmp_path / "overlay.json"))
    assert done.returncode == 0, done.stderr[-6000:]
    assert not list(tmp_path.rglob("pwned"))
    sources = [
        image["source_id"]
        for split in ("train", "val")
        for image in load_coco(run / "resources" / "cxr" / "labelled" / f"{split}.json")["images"]
    ]
    assert IMAGE in sources
    annotation = load_annotation(run / "results" / "cxr" / "build_annotation" / "annotation.json")
    generated = (run / "results" / "cxr" / "generate_reports" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(generated) == len(annotation["test"]) > 0
    assert not list((run / "work").rglob("fingerprint.json")) and not list((run / "results").glob("*/*/shards"))
    again = snakemake(repository, run, "-n", *tiny, str(tmp_path / "overlay.json"))
    assert planned_jobs(again) == set(), "what was deleted is not made again"
