"""What is on the screen of ``make demo``: a line a job, then the tables and where the gallery is, and nothing else."""

import os
import re
import subprocess
import sys

import pytest
import yaml
from warm_snakemake import warm_snakemake

SUMMARY = """# Results

The data is the synthetic demo cohort.

| metric | result |
|--------|--------|
| AP50   | 0.5    |

- a legend | with a bar

Counts other than 0 (all of them: summary.json):

- labelled: images in 38
"""
CT_SUMMARY = SUMMARY.replace("| metric", "Stage 1, the structures: section\nfindings.\n\n| metric", 1)
TABLE = ["| metric | result |", "|--------|--------|", "| AP50   | 0.5    |"]


@pytest.mark.parametrize(
    ("target", "variable", "summary", "tables", "gallery"),
    [
        ("demo", "SUMMARY", SUMMARY, TABLE, "results/cxr/render_gallery/index.html"),
        (
            "demo-ct",
            "CT_SUMMARY",
            CT_SUMMARY,
            ["Stage 1, the structures: section", "findings.", "", *TABLE],
            "results/ct/render_ct_gallery/index.html",
        ),
    ],
)
def test_a_demo_ends_with_its_tables_and_its_gallery(repository, tmp_path, target, variable, summary, tables, gallery):
    (tmp_path / "summary.md").write_text(summary)
    snakemake = tmp_path / "snakemake"
    snakemake.write_text('#!/bin/sh\necho called with "$@"\n')
    snakemake.chmod(0o755)
    values = [f"BIN={tmp_path}", f"{variable}={tmp_path}/summary.md", "CORES=2"]
    call = ["make", "--no-print-directory", "--old-file=setup", target, *values]
    lines = subprocess.run(call, cwd=repository, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("About ") and "minutes" in lines[0]
    assert "--logger d2rnet --cores 2" in lines[1]
    assert lines[2:-2] == ["", *tables, ""]
    assert lines[-2].endswith(f"{tmp_path}/summary.md") and gallery in lines[-1]


def test_a_job_is_a_line_and_what_it_says_is_in_its_log(repository, tmp_path):
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(yaml.safe_dump({"cxr": {"data": {"demo": {"report_train_studies": 20}}}}))
    tiny = repository / "workflow/presets/cxr/tiny.yaml"
    words = ("-s", repository / "Snakefile", "-d", tmp_path / "run", "--cores", "1", "--configfile", tiny, overlay)
    done = warm_snakemake(
        "convert_labelled",
        "--logger",
        "d2rnet",
        *words,
        environment=os.environ | {"OMP_NUM_THREADS": "1"},
        one_stream=True,
    )
    lines = [re.sub(r"\d+:\d\d", "m:ss", line) for line in done.stdout.splitlines()]
    first = lines.index("4 jobs to do; what they say is in logs/")
    assert done.returncode == 0 and first <= 1, done.stdout
    lines = [line for line in lines if not line.lstrip().startswith("...")]  # progress, where the machine is slow
    rules = ("make_demo_cohort", "verify_inputs", "convert_images_shard", "convert_labelled")
    told = [line for line in lines if line.startswith("[")]
    assert [line.split()[1:3] for line in told] == [["m:ss", rule] for rule in rules]
    assert lines[-1] == "done in m:ss" and lines[first + 1].startswith("Trying") and len(lines) - first == len(rules) + 3, (
        done.stdout
    )
    for name in ("make_demo_cohort", "verify_inputs", "convert_labelled"):
        assert re.match(r"\d\d:\d\d:\d\d \w", (tmp_path / "run/logs/cxr" / f"{name}.log").read_text()), name


TERMINAL = """
import pty, sys
sys.exit(pty.spawn(sys.argv[1:]) >> 8)
"""


def test_progress_on_a_terminal_leaves_no_line_behind(repository, tmp_path):
    """A job that prints and warns, on a pseudo-terminal: its warning stays, its progress is wiped away."""
    snakefile = tmp_path / "Snakefile"
    job = tmp_path / "job.py"
    job.write_text(
        "import logging, pathlib, time\n"
        "from d2rnet.cli.logs import set_up_logging\n"
        "set_up_logging(pathlib.Path('job.log'), command='a-job')\n"
        "logging.getLogger('d2rnet').info('step 1/2, ETA 0:00:02')\n"
        "print('noise')\n"
        "time.sleep(2.5)\n"
        "logging.getLogger('d2rnet').warning('odd data')\n"
        "pathlib.Path('made.txt').touch()\n"
    )
    snakefile.write_text(
        f"rule a_job:\n    output: 'made.txt'\n    log: 'job.log'\n    message: 'Do it'\n    shell: '{sys.executable} {job}'\n"
    )
    call = [sys.executable, "-m", "snakemake", "-s", snakefile, "-d", tmp_path, "--logger", "d2rnet", "--cores", "1"]
    environment = os.environ | {"PYTHONPATH": str(repository / "src"), "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", TERMINAL, *map(str, call)]
    done = subprocess.run(command, capture_output=True, env=environment, stdin=subprocess.DEVNULL)
    written = done.stdout.decode()  # not as text, which has no carriage returns
    assert done.returncode == 0, written
    assert "a_job: step 1/2, ETA 0:00:02" in written and "noise" not in written
    left = [re.sub(r"\d+:\d\d", "m:ss", line) for line in seen(written)]
    told = left.index("1 job to do; what they say is in logs/")
    assert left[told + 1 :] == ["a-job: odd data", f"[1/1]    m:ss  {'a_job':<28} Do it", "done in m:ss"]


def seen(written: str) -> list[str]:
    """Return the lines that a terminal shows of what was written to it: what a line was cleared of is gone."""
    lines = written.replace("\r\n", "\n").split("\n")
    return [line.rpartition("\x1b[K")[2] for line in lines[:-1]]
