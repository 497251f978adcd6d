"""The state of a run from Snakemake's records alone; tests/faults looks at runs that were really killed."""

import base64
import json
import os
import shlex
import subprocess
import sys

import pytest

from d2rnet.cli.entry import main
from d2rnet.cli.run_lock import called_as
from d2rnet.cli.run_report import report_lines
from d2rnet.cli.run_state import RunState, read_run_state
from d2rnet.errors import D2RNetError
from d2rnet.runs.workdir import hold_lock

LOG = """
  Command: {command}
  Run directory: /project
Job stats:
{end}
"""
DONE = "4 of 4 steps (100%) done"


@pytest.fixture
def folder(tmp_path):
    for name in ("metadata", "incomplete", "locks", "log"):
        (tmp_path / ".snakemake" / name).mkdir(parents=True)
    return tmp_path


def write_log(folder, command, started=1, end="1 of 4 steps (25%) done"):
    text = LOG.format(command=command, end=end)
    (folder / ".snakemake" / "log" / f"2026-01-01T00000{started}.000000.snakemake.log").write_text(text)


def coded(name):
    return base64.urlsafe_b64encode(name.encode()).decode()


def advice(state: RunState) -> list[str]:
    lines = list(report_lines(state))
    return [line.strip() for line in lines[lines.index("next:") + 1 :]]


def test_unfinished_outputs_are_named_with_what_to_type(folder):
    write_log(folder, "snakemake --cores all")
    (folder / ".snakemake" / "incomplete" / coded("results/cxr/predict_boxes/shards/2-of-2.json")).write_text("{}")
    state = read_run_state(folder / "results")
    assert state.folder == folder and not state.invocation.is_complete
    assert state.incomplete == ["results/cxr/predict_boxes/shards/2-of-2.json"]
    assert advice(state) == ["cd /project && snakemake --cores all"]
    assert "last start: snakemake --cores all; not complete" in "\n".join(report_lines(state))


@pytest.mark.parametrize("end", [DONE, "Nothing to be done (all requested files are present and up to date)."])
def test_a_start_that_did_all_is_complete(folder, end):
    write_log(folder, "snakemake --cores all", end=end)
    assert advice(read_run_state(folder)) == ["# nothing: what was asked for last is complete"]


def test_json_says_the_same(folder, capsys):
    write_log(folder, "snakemake --cores all")
    (folder / ".snakemake" / "incomplete" / coded("results/cxr/predict_boxes/shards/2-of-2.json")).write_text("{}")
    lock = folder / "work" / "cxr" / ".lock"
    lock.parent.mkdir(parents=True)
    with hold_lock(lock, what=lock, doing="training"):
        assert main(["doctor", "--run", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    held = document.pop("locks")
    assert [(item["path"], item["stale"], item["pid"]) for item in held] == [("work/cxr/.lock", False, os.getpid())]
    assert document.pop("next")[-1] == "cd /project && snakemake --cores all"
    assert document.pop("leftovers") == document.pop("processes") == []
    assert document == {
        "folder": str(folder),
        "complete": False,
        "unfinished": ["results/cxr/predict_boxes/shards/2-of-2.json"],
        "checkpoints": [],
        "converted": {},
        "snakemake_lock": False,
    }


def test_looks_and_unlocking_are_no_starts(folder):
    write_log(folder, "snakemake --cores all --configfile mine.yaml")
    for later, command in enumerate(("snakemake --unlock", "snakemake -n", "snakemake --cores 1 --dry-run"), start=1):
        write_log(folder, command, 1 + later)
    assert read_run_state(folder).invocation.command == "snakemake --cores all --configfile mine.yaml"


def test_a_lock_that_nobody_holds_is_to_be_taken_off_first(folder):
    (folder / ".snakemake" / "locks" / "0.output.lock").write_text("x")
    assert advice(read_run_state(folder)) == ["# give the command that you gave before"]
    write_log(folder, "snakemake --cores all", end=DONE)
    state = read_run_state(folder)
    assert advice(state) == ["cd /project && snakemake --cores all --unlock", "cd /project && snakemake --cores all"]
    assert any("no Snakemake of this machine works here" in line for line in report_lines(state))


def test_long_names_are_read_over_several_folders(folder):
    name = "results/" + "x" * 300 + ".json"
    code = coded(name)
    path = folder / ".snakemake" / "incomplete" / f"@{code[:254]}" / code[254:]
    path.parent.mkdir()
    path.write_text("{}")
    assert read_run_state(folder).incomplete == [name]


def test_temporary_files_of_killed_processes_are_listed(folder):
    place = folder / "results" / "cxr" / "train_detector"
    place.mkdir(parents=True)
    (place / ".model_final.a1b2.part.pth").write_bytes(bytes(2_000_000))
    assert "leftovers: 1 temporary file(s), 2.0 MB; no reader looks at them" in report_lines(read_run_state(folder))


def test_a_folder_without_a_run_is_refused_by_name(tmp_path, capsys):
    with pytest.raises(D2RNetError, match=r"no folder \.snakemake here or above"):
        read_run_state(tmp_path)
    assert main(["doctor", "--run", str(tmp_path)]) == 2 and ".snakemake" in capsys.readouterr().err


def test_odd_files_beside_the_records_do_not_end_the_report(folder):
    (folder / ".snakemake" / "incomplete" / "\u00e9").write_text("{}")
    (folder / "work" / "cxr" / "manifest.jsonl").mkdir(parents=True)
    (folder / ".snakemake" / "incomplete" / coded("good")).write_text("{}")
    state = read_run_state(folder)
    assert state.incomplete == ["good"] and state.converted == {}


def test_a_log_that_is_none_is_passed_over(folder):
    write_log(folder, "snakemake --cores all", end=DONE)
    (folder / ".snakemake" / "log" / "odd.snakemake.log").write_text("cut off")
    invocation = read_run_state(folder).invocation
    assert invocation is not None and invocation.command == "snakemake --cores all" and invocation.is_complete


def test_a_checkpoint_with_a_text_for_a_number_is_called_unreadable(folder):
    torch = pytest.importorskip("torch")
    work = folder / "work" / "cxr" / "train_detector" / "0123456789ab"
    work.mkdir(parents=True)
    (work / "fingerprint.json").write_text('{"settings": {"training": {"total_iters": 9}}}')
    torch.save({"iterations_done": "many"}, work / "checkpoint.pth")
    (found,) = read_run_state(folder).work_folders
    assert found.progress.startswith("unreadable: ") and not found.is_finished


def test_how_far_a_chest_ct_run_is(folder):
    torch = pytest.importorskip("torch")
    work = folder / "work" / "ct" / "train_structures" / "0123456789ab"
    work.mkdir(parents=True)
    (work / "fingerprint.json").write_text('{"settings": {"structure_model": {"training": {"epochs": 3}}}}')
    (work / "metrics.jsonl").write_text('{"epoch": 1, "step": 5}\n{"epoch": 2, "step": 10}\n')
    torch.save({"finished_steps": 9}, work / "last.pt")
    for name in ("resources/ct/convert_ct/volumes/0a/scan.npy", "results/ct/extract_ct_features/features/key/volumes/0a/scan"):
        (folder / name).parent.mkdir(parents=True)
        (folder / f"{name}.json").touch()
        (folder / f"{name}.safetensors").touch()
    lines = list(report_lines(read_run_state(folder)))
    assert any(line.startswith("checkpoint work/ct/train_structures/0123456789ab: epoch 1 of 3 (step 9);") for line in lines)
    assert "conversion resources/ct/convert_ct/volumes: 1 volume(s) need not be made again" in lines
    assert "conversion results/ct/extract_ct_features/features: 1 volume(s) need not be made again" in lines


def test_a_lock_of_another_machine_went_with_it(folder):
    (folder / "work" / "cxr").mkdir(parents=True)
    holder = {"pid": 7, "host": "node-that-is-down", "command": "train-detector", "since_utc": "2026-01-01T00:00:00+00:00"}
    (folder / "work" / "cxr" / "x.lock").touch()
    (folder / "work" / "cxr" / "x.lock.holder.json").write_text(json.dumps(holder))
    assert advice(read_run_state(folder))[0].endswith(
        "or end it there; if that machine was switched off, its lock went with it"
    )


def test_doctor_asked_in_the_runs_folder_does_not_wait_for_itself(folder):
    """As docs/how-to/resume.md says to ask: it told people to end it."""
    write_log(folder, "snakemake --cores all", end=DONE)
    command = [sys.executable, "-m", "d2rnet", "doctor", "--run", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "process " not in done.stdout and "kill" not in done.stdout
    assert done.stdout.endswith("next:\n  # nothing: what was asked for last is complete\n")


def test_the_last_command_can_be_pasted(folder):
    """Snakemake's log joins the words by bare spaces."""
    words = ["/some where/snakemake", "--config", 'cxr={"a": 1}', "--directory", "/my runs/one"]
    write_log(folder, " ".join(words))
    (folder / ".snakemake" / "d2rnet.command.json").write_text(
        json.dumps({"text": " ".join(words), "command": called_as(words)})
    )
    (line,) = advice(read_run_state(folder))
    assert shlex.split(line) == ["cd", "/project", "&&", *words]
    write_log(folder, "snakemake --cores 3", 2)
    assert advice(read_run_state(folder)) == ["cd /project && snakemake --cores 3"]


def test_a_module_that_was_run_is_called_as_one():
    assert shlex.split(called_as(["/site-packages/snakemake/__main__.py", "-n"])) == [sys.executable, "-m", "snakemake", "-n"]


@pytest.mark.parametrize("text", ["[]", "{}", "{", '{"text": "snakemake -c 1"}'])
def test_a_damaged_note_of_the_command_is_passed_over(folder, text):
    write_log(folder, "snakemake --cores 1")
    (folder / ".snakemake" / "d2rnet.command.json").write_text(text)
    assert advice(read_run_state(folder)) == ["cd /project && snakemake --cores 1"]
