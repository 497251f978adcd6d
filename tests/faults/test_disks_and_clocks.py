"""Full and read-only disks, deleted files and wrong clocks: a clear message, and nothing lost."""

import os
import subprocess
import time

import pytest
from battery import resume
from finished_run import differences, jobs_of, rewind
from killing import CORES, run_snakemake

from d2rnet.cli.entry import main

DAY_SECONDS = 86400
COMMANDS = {  # commands that join and write files in less than a second; their inputs, below the run's folder
    "build-vocabulary": ["--annotation", "results/cxr/build_annotation/annotation.json", "--output", "{disk}"],
    "predict-boxes": [
        *("--unlabelled", "resources/cxr/unlabelled.json", "--output", "{disk}/predictions.jsonl", "--shards"),
        *("results/cxr/predict_boxes/shards/1-of-2.jsonl", "results/cxr/predict_boxes/shards/2-of-2.jsonl"),
    ],
    "make-demo-cohort": ["--output", "{disk}/cohort", "--set", "size_px=192"],
}


@pytest.fixture
def disk(tmp_path):
    """A file system of 1 MiB in memory, and how to mount it again with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)

    try:
        done = mount("size=1m")
    except FileNotFoundError:
        pytest.skip("there is no program 'mount'")
    if done.returncode:
        pytest.skip(f"no file system can be mounted: {done.stderr.strip()}")
    yield place, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(place):
    """Leave no free byte."""
    with (place / "filler").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            return


def arguments(command, place):
    return [command, *(word.format(disk=place) for word in COMMANDS[command])]


@pytest.mark.e2e
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_named_and_nothing_half_written_stays(run, disk, command, monkeypatch, capsys):
    place, _ = disk
    fill(place)
    monkeypatch.chdir(run)
    assert main(arguments(command, place)) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and ("No space left on device" in shown or "with free space" in shown)
    assert str(place) in shown, "which file"
    assert [path.name for path in place.rglob("*") if path.is_file() and path.stat().st_size] == ["filler"]


@pytest.mark.e2e
@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_named(run, disk, command, monkeypatch, capsys):
    place, remount = disk
    assert remount("ro").returncode == 0
    monkeypatch.chdir(run)
    assert main(arguments(command, place)) == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and "Read-only file system" in shown and "mend access" in shown


@pytest.mark.e2e
def test_a_training_that_fills_the_disk_goes_on_once_there_is_space(run, disk):
    """The workflow on a disk with room for half of what the training writes."""
    place, remount = disk
    job = next(job for job in jobs_of(run) if job.command == "train-detector")
    assert remount("size=64m").returncode == 0
    folder = rewind(run, job, place / "run")
    used = sum(path.stat().st_blocks * 512 for path in place.rglob("*"))
    assert remount(f"size={used + 3_000_000}").returncode == 0
    done = run_snakemake(folder, job.outputs[0], cores=CORES)
    assert done.returncode == 1 and "No space left on device" in done.stdout, done.stdout[-3000:]
    assert "Traceback" not in done.stdout
    assert remount("size=64m").returncode == 0
    assert resume(folder, job.outputs[0], cores=CORES) == (False, [])
    assert differences(run, folder, job.outputs) == []


@pytest.mark.e2e
def test_a_deleted_file_in_the_middle_comes_back_and_repeats_nothing_after_it(run, tmp_path):
    folder = rewind(run, jobs_of(run)[-1], tmp_path / "run")
    name = "results/cxr/build_vocabulary/vocabulary.json"
    model = folder / "results/cxr/train_report_model/model.safetensors"
    before = model.stat().st_mtime_ns
    (folder / name).unlink()
    assert run_snakemake(folder, name, cores=CORES).returncode == 0
    assert differences(run, folder, (name,)) == []
    done = run_snakemake(folder, "results/cxr/generate_reports/test.jsonl", cores=CORES)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout and model.stat().st_mtime_ns == before


@pytest.mark.e2e
@pytest.mark.parametrize("days", [2, -2])
def test_a_clock_that_jumped_repeats_nothing_that_is_right(run, tmp_path, days):
    """An input from the future, or outputs from long ago: the contents are as they were."""
    folder = rewind(run, jobs_of(run)[-1], tmp_path / "run")
    moved = "resources/cxr/reports.jsonl" if days > 0 else "results/cxr/build_annotation/annotation.json"
    when = time.time() + days * DAY_SECONDS
    os.utime(folder / moved, (when, when))
    done = run_snakemake(folder, "results/cxr/build_annotation/annotation.json", cores=CORES)
    assert done.returncode == 0, done.stdout
    assert differences(run, folder, ("results/cxr/build_annotation/annotation.json",)) == []
    assert "Nothing to be done" in done.stdout
