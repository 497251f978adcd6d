"""Faults of a cluster in the middle of a run: Snakemake ends with 0 and the results are those of a run without them."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import Cluster, Job, wait_until
from slurm_runs import said, write_overlay

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SECONDS = 2400
RESULTS = (
    "resources/labelled/train.json", "resources/unlabelled.json", "resources/reports.jsonl",
    "results/predict_boxes/predictions.json", "results/build_annotation/annotation.json",
    "results/generate_reports/test.jsonl", "results/evaluate_detector/metrics.json", "results/evaluate_reports/metrics.json",
)  # fmt: skip
# Long enough to be hit; only a stop signal saves its state.
LONG_TRAINING = {"detector": {"training": {"total_iters": 300, "checkpoint_every_iters": 100_000}}}
RESUMED = re.compile(r"resuming after (\d+) of (\d+) iterations")


def running(cluster: Cluster, rule: str, done: set[str]) -> Job | None:
    """The job of a rule that runs now, among those after ``done``."""
    found = (job for job in cluster.jobs() if job.rule == rule and job.state == "RUNNING" and job.number not in done)
    return next(found, None)


@pytest.fixture(scope="module")
def undisturbed(locally, tmp_path_factory) -> Callable[[str], Path]:
    """A run of this machine alone, finished, for each kind of training; made when it is first asked for."""
    made: dict[str, Path] = {}

    def run(training: str) -> Path:
        if training not in made:
            made[training] = tmp_path_factory.mktemp(f"undisturbed_{training}")
            write_overlay(made[training], {"prediction_shards": 8}, **(LONG_TRAINING if training == "long" else {}))
            locally(made[training])
        return made[training]

    return run


@pytest.fixture
def trial(undisturbed, tmp_path, start) -> Callable[..., tuple[Path, subprocess.Popen[str]]]:
    """Start a run on the cluster that has what the undisturbed one had after the conversion."""

    def begin(training: str = "short") -> tuple[Path, subprocess.Popen[str]]:
        directory = tmp_path / "run"
        source = undisturbed(training)
        directory.mkdir()
        shutil.copy2(source / "overlay.yaml", directory)
        for name in ("resources", ".snakemake/metadata"):
            shutil.copytree(source / name, directory / name, symlinks=True)
        return directory, start(directory, SECONDS)

    return begin


def fault(process: subprocess.Popen[str], directory: Path, condition: Callable[[], bool], what: str) -> None:
    """Wait for the moment of the fault; a run that has ended will never reach it."""

    def reached() -> bool:
        assert process.poll() is None, said(directory)
        return condition()

    wait_until(reached, what, SECONDS)


def assert_equal_results(directory: Path, expected: Path) -> None:
    differing = [name for name in RESULTS if (directory / name).read_bytes() != (expected / name).read_bytes()]
    assert differing == []


def log_of(directory: Path, rule: str) -> str:
    path = directory / "logs" / f"{rule}.log"
    return path.read_text() if path.exists() else ""


def test_whole_workflow_with_eight_shards_and_two_gpus_for_training(cluster, locally, start, tmp_path):
    before = {job.number for job in cluster.jobs()}
    runtime = {"gpus": 2, "conversion_shards": 8, "prediction_shards": 8, "generation_shards": 8}
    for name in ("local", "cluster"):
        write_overlay(tmp_path / name, runtime)
    locally(tmp_path / "local")
    assert start(tmp_path / "cluster", SECONDS).wait() == 0, said(tmp_path / "cluster")
    assert_equal_results(tmp_path / "cluster", tmp_path / "local")
    jobs = [job for job in cluster.jobs() if job.number not in before]
    assert sum(job.rule == "predict_boxes_shard" for job in jobs) == 8
    assert sum(job.rule == "generate_reports_shard" for job in jobs) == 8
    tasks = {job.number: [task.gpus for task in cluster.tasks() if (task.job, task.step) == (job.number, "0")] for job in jobs}
    for rule in ("train_detector", "train_report_model"):
        assert [tasks[job.number] for job in jobs if job.rule == rule] == [["0,1"]], "one command, two GPUs"


@pytest.mark.parametrize("rule", ["train_detector", "train_report_model"])
def test_cancelled_training_goes_on(cluster, trial, undisturbed, rule):
    before = {job.number for job in cluster.jobs()}
    directory, process = trial()
    fault(process, directory, lambda: bool(list((directory / "work" / rule).glob("*/fingerprint.json"))), f"{rule} to begin")
    cluster.run("scancel", running(cluster, rule, before).number)
    assert process.wait() == 0, said(directory)
    states = [job.state for job in cluster.jobs() if job.rule == rule and job.number not in before]
    assert states in (["CANCELLED", "COMPLETED"], ["FAILED", "COMPLETED"])
    assert_equal_results(directory, undisturbed("short"))


def test_node_that_loses_power(cluster, trial, undisturbed):
    before = {job.number for job in cluster.jobs()}
    directory, process = trial()
    fault(process, directory, lambda: "iteration 4" in log_of(directory, "train_detector"), "four iterations")
    job = running(cluster, "train_detector", before)
    cluster.cut_power(job.node)
    try:
        assert process.wait() == 0, said(directory)
    finally:
        cluster.start_node(job.node)
    (ended,) = [one for one in cluster.jobs() if one.number == job.number]
    assert (ended.state, ended.restarts) == ("COMPLETED", 1)
    assert ended.node != job.node
    assert_equal_results(directory, undisturbed("short"))


def test_end_of_the_time_limit_is_used_to_save(cluster, trial, undisturbed):
    before = {job.number for job in cluster.jobs()}
    directory, process = trial("long")
    fault(process, directory, lambda: "iteration 12" in log_of(directory, "train_detector"), "twelve iterations")
    job = running(cluster, "train_detector", before)
    minutes = int(time.time() - job.start) // 60 + 3  # SIGTERM comes five minutes before the end: now
    cluster.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={minutes}")
    assert process.wait() == 0, said(directory)
    first, second = [one for one in cluster.jobs() if one.rule == "train_detector" and one.number not in before]
    assert (first.state, second.state) == ("FAILED", "COMPLETED"), "saved and left before it was killed"
    done, total = map(int, RESUMED.search(log_of(directory, "train_detector")).groups())
    assert 12 <= done < total == 300
    assert_equal_results(directory, undisturbed("long"))


def test_job_that_ran_out_of_memory_gets_more(cluster, trial, undisturbed):
    before = {job.number for job in cluster.jobs()}
    directory, process = trial()
    fault(process, directory, lambda: running(cluster, "predict_boxes_shard", before) is not None, "a shard to run")
    job = running(cluster, "predict_boxes_shard", before)

    fault(process, directory, lambda: bool(cluster.processes_of(job.number, "predict-boxes-shard")), "the shard's command")
    os.kill(cluster.processes_of(job.number, "predict-boxes-shard")[0], signal.SIGKILL)  # as when memory runs out
    assert process.wait() == 0, said(directory)
    asked = [words for words in cluster.submissions(directory) if "rule_predict_boxes_shard_wildcards" in " ".join(words[:12])]
    memory = [int(words[words.index("--mem") + 1]) for words in asked]
    assert sorted(memory) == [24_000] * 8 + [48_000]
    assert_equal_results(directory, undisturbed("short"))
