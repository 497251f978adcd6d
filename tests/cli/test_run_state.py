"""The state of a run from Snakemake's records alone; tests/faults looks at runs that were really killed."""

import base64
import json
import os
import subprocess
import sys
from datetime import datetime

import pytest

from d2rnet.cli.entry import main
from d2rnet.cli.run_report import report_lines
from d2rnet.cli.run_state import LOG_TIME, RunState, named_files, read_run_state
from d2rnet.errors import D2RNetError
from d2rnet.runs.workdir import hold_lock

BEGUN = 1_700_000_000.0
LOG = """
  Command: {command}
  Run directory: /project
Job stats:
job                    count
-------------------  -------
train_detector             1
predict_boxes_shard        2
all                        1
total                      4
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("metadata", "incomplete", "locks", "log"):
        (tmp_path / ".snakemake" / name).mkdir(parents=True)
    return tmp_path


def write_log(folder, command, started=BEGUN):
    name = datetime.fromtimestamp(started).strftime(LOG_TIME)
    (folder / ".snakemake" / "log" / f"{name}.000000.snakemake.log").write_text(LOG.format(command=command))


def coded(name):
    return base64.urlsafe_b64encode(name.encode()).decode()


def record(folder, name, rule, *, ended=BEGUN + 5, exists=True):
    content = {"rule": rule, "shellcmd": f"make {name}", "incomplete": False, "starttime": ended - 1, "endtime": ended}
    (folder / ".snakemake" / "metadata" / coded(name)).write_text(json.dumps(content))
    if exists:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def advice(state: RunState) -> list[str]:
    lines = list(report_lines(state))
    return [line.strip() for line in lines[lines.index("next:") + 1 :]]


def test_finished_and_unfinished_jobs_are_counted(folder):
    write_log(folder, "snakemake --cores all")
    record(folder, "results/cxr/train_detector/model_final.pth", "train_detector")
    record(folder, "results/cxr/predict_boxes/shards/1-of-2.json", "predict_boxes_shard")
    (folder / ".snakemake" / "incomplete" / coded("results/cxr/predict_boxes/shards/2-of-2.json")).write_text("{}")
    state = read_run_state(folder / "results")
    assert state.folder == folder
    assert state.jobs_done() == {"train_detector": 1, "predict_boxes_shard": 1}
    assert state.jobs_left() == {"predict_boxes_shard": 1}
    assert state.incomplete == ["results/cxr/predict_boxes/shards/2-of-2.json"]
    assert advice(state) == ["in /project: snakemake --cores all --rerun-incomplete"]


def test_json_says_the_same(folder, capsys):
    write_log(folder, "snakemake --cores all")
    record(folder, "results/cxr/train_detector/model_final.pth", "train_detector", exists=False)
    (folder / ".snakemake" / "incomplete" / coded("results/cxr/predict_boxes/shards/2-of-2.json")).write_text("{}")
    lock = folder / "work" / "cxr" / ".lock"
    lock.parent.mkdir()
    with hold_lock(lock, what=lock, doing="training"):
        assert main(["doctor", "--run", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    held = document.pop("locks")
    assert [(item["path"], item["stale"], item["pid"]) for item in held] == [("work/.lock", False, os.getpid())]
    assert document.pop("next")[-1] == "in /project: snakemake --cores all --rerun-incomplete"
    assert document.pop("leftovers") == document.pop("processes") == []
    assert document == {
        "folder": str(folder),
        "jobs_done": {},
        "jobs_left": {"predict_boxes_shard": 2},
        "unfinished": ["results/cxr/predict_boxes/shards/2-of-2.json"],
        "missing": ["results/cxr/train_detector/model_final.pth"],
        "checkpoints": [],
        "converted": {},
        "snakemake_lock": False,
    }


def test_a_job_of_an_earlier_start_does_not_count_as_done_since(folder):
    record(folder, "results/cxr/train_detector/model_final.pth", "train_detector", ended=BEGUN - 100)
    write_log(folder, "snakemake --cores all")
    assert read_run_state(folder).jobs_left()["train_detector"] == 1


def test_a_deleted_output_is_missing_and_its_job_not_complete(folder):
    record(folder, "results/cxr/train_detector/model_final.pth", "train_detector", exists=False)
    state = read_run_state(folder)
    assert state.missing() == ["results/cxr/train_detector/model_final.pth"] and state.jobs_done() == {}


def test_looks_and_unlocking_are_no_starts(folder):
    write_log(folder, "snakemake --cores all --configfile mine.yaml")
    for later, command in enumerate(("snakemake --unlock", "snakemake -n", "snakemake --cores 1 --dry-run"), start=1):
        write_log(folder, command, BEGUN + later)
    assert read_run_state(folder).invocation.command == "snakemake --cores all --configfile mine.yaml"


def test_a_lock_that_nobody_holds_is_to_be_taken_off_first(folder):
    (folder / ".snakemake" / "locks" / "0.output.lock").write_text("x")
    state = read_run_state(folder)
    assert advice(state) == [
        f"snakemake --unlock --directory {folder}",
        "the command that you gave before, with --rerun-incomplete",
    ]
    assert any("no Snakemake of this machine works here" in line for line in report_lines(state))


def test_long_names_are_read_over_several_folders(folder):
    name = "results/" + "x" * 300 + ".json"
    code = coded(name)
    path = folder / ".snakemake" / "incomplete" / f"@{code[:254]}" / code[254:]
    path.parent.mkdir()
    path.write_text("{}")
    assert [found for found, _ in named_files(folder / ".snakemake" / "incomplete")] == [name]


def test_a_record_cut_short_by_a_kill_is_told_and_left_out(folder, caplog):
    record(folder, "results/cxr/train_detector/model_final.pth", "train_detector")
    path = next((folder / ".snakemake" / "metadata").iterdir())
    path.write_text(path.read_text()[:40])
    assert read_run_state(folder).records == [] and "no readable record" in caplog.text


def test_temporary_files_of_killed_processes_are_listed(folder):
    place = folder / "results" / "cxr" / "train_detector"
    place.mkdir(parents=True)
    (place / ".model_final.a1b2.part.pth").write_bytes(bytes(2_000_000))
    assert "leftovers: 1 temporary file(s), 2.0 MB; no reader looks at them" in report_lines(read_run_state(folder))


def test_a_folder_without_a_run_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(D2RNetError, match=r"no folder \.snakemake here or above"):
        read_run_state(tmp_path)
    assert main(["doctor", "--run", str(tmp_path)]) == 2 and ".snakemake" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [{"endtime": None}, {"endtime": "x"}, {"starttime": [1]}, {"rule": ...}, {"shellcmd": [1]}, {"rule": [1]}, {"rule": None}],
    ids=str,
)
def test_records_of_another_type_do_not_end_the_report(folder, change):
    record(folder, "good", "train_detector")
    record(folder, "odd", "predict_boxes_shard")
    path = folder / ".snakemake" / "metadata" / coded("odd")
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    assert any("complete   train_detector" in line for line in report_lines(read_run_state(folder)))


def test_odd_files_beside_the_records_do_not_end_the_report(folder):
    (folder / ".snakemake" / "metadata" / "\u00e9").write_text("{}")
    (folder / "work" / "cxr" / "manifest.jsonl").mkdir(parents=True)
    record(folder, "good", "train_detector")
    state = read_run_state(folder)
    assert state.jobs_done() == {"train_detector": 1} and state.converted == {}


@pytest.mark.parametrize(
    ("name", "row"), [("odd", "train_detector 1"), (None, "train detector 1"), (None, "train_detector one"), (None, "x")]
)
def test_a_log_that_is_none_is_passed_over(folder, caplog, name, row):
    write_log(folder, "snakemake --cores all")
    later = name or datetime.fromtimestamp(BEGUN + 60).strftime(LOG_TIME)
    text = LOG.format(command="snakemake --cores 9").replace("train_detector             1", row)
    (folder / ".snakemake" / "log" / f"{later}.1.snakemake.log").write_text(text)
    invocation = read_run_state(folder).invocation
    assert invocation is not None and invocation.command == "snakemake --cores all"
    assert "not a log of Snakemake that can be read" in caplog.text


def test_a_checkpoint_with_a_text_for_a_number_is_called_unreadable(folder):
    torch = pytest.importorskip("torch")
    work = folder / "work" / "cxr" / "train_detector" / "0123456789ab"
    work.mkdir(parents=True)
    (work / "fingerprint.json").write_text('{"settings": {"training": {"total_iters": 9}}}')
    torch.save({"iterations_done": "many"}, work / "checkpoint.pth")
    (found,) = read_run_state(folder).work_folders
    assert found.progress.startswith("unreadable: ") and not found.is_finished


def test_a_lock_of_another_machine_went_with_it(folder):
    (folder / "work").mkdir()
    holder = {"pid": 7, "host": "node-that-is-down", "command": "train-detector", "since_utc": "2026-01-01T00:00:00+00:00"}
    (folder / "work" / "cxr" / "x.lock").touch()
    (folder / "work" / "cxr" / "x.lock.holder.json").write_text(json.dumps(holder))
    assert advice(read_run_state(folder))[0].endswith(
        "or end it there; if that machine was switched off, its lock went with it"
    )


def test_doctor_asked_in_the_runs_folder_does_not_wait_for_itself(folder):
    """As docs/how-to/resume.md says to ask: it told people to end it."""
    record(folder, "good", "train_detector")
    command = [sys.executable, "-m", "d2rnet", "doctor", "--run", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "process " not in done.stdout and "kill" not in done.stdout
    assert done.stdout.endswith("next:\n  nothing: what was asked for last is complete\n")
