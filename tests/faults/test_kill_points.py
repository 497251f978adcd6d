"""Six kills of the tiny workflow and what becomes of them; all of them are done by the slow battery."""

import shutil
from pathlib import Path

import battery
import pytest
from battery import Trial, kill, plan, resume, run_battery
from finished_run import converted, differences, jobs_of, rewind
from killing import CORES, WAYS, end_all, run_snakemake, wait_until_alone

ATTEMPTS, EARLIER = 4, 0.6


@pytest.fixture(scope="module")
def jobs(run):
    return jobs_of(run)


@pytest.fixture(scope="module")
def ct_run(tmp_path_factory):
    """An undisturbed run of the chest CT wing as far as jobs are killed here; test_ct_end_to_end.py makes all of it."""
    folder = tmp_path_factory.mktemp("ct run")
    done = run_snakemake(folder, "convert_ct")
    assert done.returncode == 0, done.stdout[-3000:]
    return folder


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("command", "kind", "value", "way"),
    [
        ("make-ct-demo-cohort", "time", 0.6, "group"),
        ("convert-ct-shard", "time", 0.7, "job"),
    ],
)
def test_a_killed_run_of_chest_ct_resumes_to_the_same_results(ct_run, tmp_path, command, kind, value, way):
    die_and_resume(ct_run, tmp_path, command, kind, value, way, cores=1)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("command", "kind", "value", "way"),
    [
        ("make-demo-cohort", "time", 0.6, "group"),
        ("convert-images-shard", "write", 1, "job"),
        ("train-detector", "time", 0.7, "group"),
        ("train-report-model", "write", 3, "job"),
        ("build-vocabulary", "between", 0, "snakemake"),
        ("predict-boxes", "time", 0.5, "snakemake"),
    ],
)
def test_a_killed_run_resumes_to_the_same_results(run, tmp_path, command, kind, value, way):
    die_and_resume(run, tmp_path, command, kind, value, way, cores=CORES)


def die_and_resume(run, tmp_path, command, kind, value, way, *, cores):
    """Kill a copy of a run in one of its jobs, resume it, and compare."""
    jobs = jobs_of(run)
    place = next(place for place, job in enumerate(jobs) if job.command == command)
    job, folder = jobs[place], tmp_path / "killed run"
    try:
        for earlier in range(ATTEMPTS):  # the run that the times are from may have had less of the machine
            shutil.rmtree(folder, ignore_errors=True)
            rewind(run, job, folder)
            trial = Trial(1, 0, place, kind, value * EARLIER**earlier if kind == "time" else value, 0.0, way)
            hit, problems = kill(trial, job, folder, job.outputs[0], cores=cores)
            assert problems == []
            if hit.command == ("" if kind == "between" else command):
                break
        else:
            pytest.fail(f"{ATTEMPTS} kills came too late")
        whole = tuple(name for name in job.outputs if (folder / name).exists())
        assert differences(run, folder, whole) == [], "half-written outputs"
        assert resume(folder, job.outputs[0], cores=cores)[1] == []
        assert wait_until_alone(folder) == []
    finally:
        end_all(folder)
    made = tuple(name for name in converted(run) if (folder / name).exists())
    assert differences(run, folder, (*job.outputs, *made)) == []


def test_a_plan_kills_in_every_job_and_mostly_in_the_trainings(run, jobs):
    trials = plan(jobs, 50, seed=1)
    assert len(trials) == 51 and trials[0].way == "none"
    assert {trial.job for trial in trials[1:]} == set(range(len(jobs)))
    trainings = [trial for trial in trials[1:] if jobs[trial.job].command in battery.TRAININGS]
    assert len(trainings) >= 12
    assert {trial.way for trial in trials[1:]} == set(WAYS) and {trial.kind for trial in trainings} >= {"time", "write"}
    assert all(trial.way != "job" for trial in trials if trial.kind == "between"), "there is no job to kill"
    assert plan(jobs, 60, seed=1)[:51] == trials and plan(jobs, 50, seed=2) != trials


def test_differences_are_seen(run, jobs, tmp_path):
    """The battery's judge: it must see a changed digit, a missing file and a changed weight, and no time."""
    training = next(job for job in jobs if job.command == "train-detector")
    folder = tmp_path / "copy"
    rewind(run, jobs[-1], folder)
    assert differences(run, folder, training.outputs) == []
    history = folder / "results/cxr/train_detector/metrics.jsonl"
    history.write_text(history.read_text().replace('"seconds_per_iteration": ', '"seconds_per_iteration": 1'))
    assert differences(run, folder, training.outputs) == []
    history.write_text(history.read_text().replace('"total_loss": ', '"total_loss": 1'))
    weights = folder / "results/cxr/train_detector/model_final.pth"
    weights.write_bytes((folder / "results/cxr/train_detector/student_final.pth").read_bytes())
    (folder / "results/cxr/train_detector/config.yaml").unlink()
    assert differences(run, folder, training.outputs) == [
        "results/cxr/train_detector/config.yaml: missing",
        "results/cxr/train_detector/metrics.jsonl: differs",
        "results/cxr/train_detector/model_final.pth: differs",
    ]


@pytest.mark.slow
def test_the_battery(tmp_path: Path):
    """Fifty kills, about an hour on two cores."""
    outcomes = run_battery(tmp_path, trials=50, seed=1, jobs=2)
    assert {outcome.trial: outcome.problems for outcome in outcomes if outcome.problems} == {}
