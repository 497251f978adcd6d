"""Faults of a cluster in the middle of a run: Snakemake ends with 0 and the results are those of a run without them.

``python tests/robustness.py slurm`` runs these tests and puts what they record into docs/reference/robustness.md.
"""

import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from finished_run import differences, jobs_of, rewind
from slurm_cluster import Cluster, Job, wait_until
from slurm_runs import QUICK, assert_submitted_as_configured, option, rule_of, run_locally, said, start, write_overlay

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
SECONDS = 2400
SHARDS = 4  # of the predictions, in the runs with a fault
# Long enough to be hit; only a stop signal saves its state.
LONG_TRAINING = {"detector": {"training": {"total_iters": 300, "checkpoint_every_iters": 100_000}}}
RESUMED = re.compile(r"resuming (?:after|at step) (\d+) of (\d+)(?: iterations)?")
SNAKEMAKE_SAID = re.compile(r"(?:SLURM-job|Job) '\d+' (failed[^.\n]*)")


def unequal_outputs(reference: Path, directory: Path) -> list[str]:
    """Declared outputs of a finished run that another one lacks or has otherwise; see finished_run for what is left out."""
    return differences(reference, directory, tuple(name for job in jobs_of(reference) for name in job.outputs))


class Trial:
    """A run on the cluster into which a fault is put while one of its rules runs."""

    def __init__(self, cluster: Cluster, rule: str, reference: Path, directory: Path) -> None:
        self.cluster, self.rule, self.reference, self.directory = cluster, rule, reference, directory
        first = next(job for job in jobs_of(reference) if job.command == rule.replace("_", "-"))
        rewind(reference, first, directory)
        self.process: subprocess.Popen[str] = start(cluster, directory, SECONDS, *QUICK)

    def jobs(self) -> list[Job]:
        """Jobs of the rule so far."""
        return [job for job in self.cluster.jobs(self.directory) if job.rule == self.rule]

    def running(self) -> Job | None:
        """The first job of the rule that runs now."""
        return next((job for job in self.jobs() if job.state == "RUNNING"), None)

    def log(self) -> str:
        """What the rule's command has told."""
        path = self.directory / "logs" / "cxr" / f"{self.rule}.log"
        return path.read_text() if path.exists() else ""

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait for the moment of the fault; a run that has ended will never reach it."""

        def reached() -> bool:
            assert self.process.poll() is None, said(self.directory)
            return bool(condition())

        wait_until(reached, what, SECONDS)

    def finish(self, fault: str, record: Callable[[str, object], None]) -> None:
        """Wait for the end, which must be a good one, and note what everybody said of the fault."""
        assert self.process.wait() == 0, said(self.directory)
        ends = Counter(job.state + ", queued again by SLURM" * bool(job.restarts) for job in self.jobs())
        found = RESUMED.search(self.log())
        told = dict.fromkeys(SNAKEMAKE_SAID.findall((self.directory / "snakemake.log").read_text()))
        record("fault", fault)
        record("snakemake", "; ".join(told) or "nothing")
        record("slurm", "; ".join(f"{count} {state}" for state, count in ends.items()))
        record("resumed", f"{found[1]} of {found[2]}" if found else "its beginning")
        assert unequal_outputs(self.reference, self.directory) == []


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run of this machine alone, one job at a time, for each kind of training; made when it is first asked for."""
    made: dict[str, Path] = {}

    def run(training: str) -> Path:
        if training not in made:
            made[training] = tmp_path_factory.mktemp(f"undisturbed_{training}")
            write_overlay(made[training], {"prediction_shards": SHARDS}, **(LONG_TRAINING if training == "long" else {}))
            run_locally(made[training], cores=1)
        return made[training]

    return run


@pytest.fixture
def trial(cluster: Cluster, undisturbed: Callable[[str], Path], tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    """Start a run on the cluster as the undisturbed one was before a rule: ``trial(rule, training)``."""
    begun: list[Trial] = []

    def begin(rule: str, training: str = "short") -> Trial:
        begun.append(Trial(cluster, rule, undisturbed(training), tmp_path / "run"))
        return begun[-1]

    yield begin
    for one in begun:
        one.process.terminate()
        one.process.wait()


def test_whole_workflow_with_eight_shards_and_two_gpus_for_training(cluster, tmp_path, record_property):
    runtime = {"gpus": 2, "conversion_shards": 8, "prediction_shards": 8, "generation_shards": 8}
    local, directory = tmp_path / "local", tmp_path / "cluster"
    for folder in (local, directory):
        write_overlay(folder, runtime)
    run_locally(local)
    assert start(cluster, directory, SECONDS, *QUICK).wait() == 0, said(directory)
    assert unequal_outputs(local, directory) == []
    jobs = cluster.jobs(directory)
    assert_submitted_as_configured(cluster, directory, jobs)
    counts = Counter(job.rule for job in jobs)
    assert {rule: count for rule, count in counts.items() if count > 1} == {
        "convert_images_shard": 16,
        "predict_boxes_shard": 8,
        "generate_reports_shard": 8,
    }
    tasks = {job.number: [task.gpus for task in cluster.tasks() if (task.job, task.step) == (job.number, "0")] for job in jobs}
    for rule in ("train_detector", "train_report_model"):
        assert [tasks[job.number] for job in jobs if job.rule == rule] == [["0,1"]], "one command, two GPUs"
    record_property("fault", "none: the whole workflow, eight shards of each kind, two GPUs for each training")
    record_property("snakemake", "nothing")
    record_property("slurm", f"{len(jobs)} {'/'.join({job.state for job in jobs})}")
    record_property("resumed", "")


@pytest.mark.parametrize("rule", ["train_detector", "train_report_model"])
def test_cancelled_training_goes_on(trial, rule, record_property):
    run = trial(rule)
    run.wait_for(lambda: list((run.directory / "work" / rule).glob("*/fingerprint.json")), f"{rule} to begin")
    run.cluster.run("scancel", run.running().number)
    run.finish(f"`scancel` of `{rule}`", record_property)
    assert [job.state for job in run.jobs()] in (["CANCELLED", "COMPLETED"], ["FAILED", "COMPLETED"])


def test_node_that_loses_power(trial, record_property):
    run = trial("train_detector")
    run.wait_for(lambda: "iteration 8" in run.log(), "eight iterations, a checkpoint after five")
    job = run.running()
    run.cluster.cut_power(job.node)
    try:
        run.finish("power loss of the node of `train_detector`", record_property)
    finally:
        run.cluster.start_node(job.node)
    (ended,) = run.jobs()
    assert (ended.number, ended.state, ended.restarts) == (job.number, "COMPLETED", 1)
    assert ended.node != job.node
    assert RESUMED.search(run.log()).groups() >= ("5", "12")


def test_end_of_the_time_limit_is_used_to_save(trial, record_property):
    run = trial("train_detector", "long")
    run.wait_for(lambda: "iteration 12" in run.log(), "twelve iterations")
    job = run.running()
    minutes = int(time.time() - job.start) // 60 + 3  # SIGTERM comes five minutes before the end: now
    run.cluster.run("scontrol", "update", f"JobId={job.number}", f"TimeLimit={minutes}")
    run.finish("time limit of `train_detector`, no checkpoint yet", record_property)
    assert [one.state for one in run.jobs()] == ["FAILED", "COMPLETED"], "saved and left before it was killed"
    done, total = map(int, RESUMED.search(run.log()).groups())
    assert 12 <= done < total == 300


def test_job_that_ran_out_of_memory_gets_more(trial, record_property):
    run = trial("predict_boxes_shard")
    run.wait_for(run.running, "a shard to run")
    job = run.running()
    run.wait_for(lambda: run.cluster.processes_of(job.number, "predict-boxes-shard"), "the shard's command")
    os.kill(run.cluster.processes_of(job.number, "predict-boxes-shard")[0], signal.SIGKILL)  # as when memory runs out
    run.finish("`predict_boxes_shard` killed as when memory runs out", record_property)
    asked = [words for words in run.cluster.submissions(run.directory) if rule_of(words) == run.rule]
    assert sorted(int(option(words, "--mem")) for words in asked) == [24_000] * SHARDS + [48_000]
