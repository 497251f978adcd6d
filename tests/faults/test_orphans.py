"""A job that outlives Snakemake, two Snakemakes at once, and what doctor tells about a run that was really killed."""

import signal

import pytest
from battery import resume
from finished_run import differences, documented_commands, jobs_of, rewind
from killing import CORES, Workflow, end_all, run_snakemake, wait_until_alone

from d2rnet.cli.run_report import report_lines
from d2rnet.cli.run_state import read_run_state

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def training(run):
    return next(job for job in jobs_of(run) if job.command == "train-detector")


@pytest.fixture
def begun(run, training, tmp_path):
    """The workflow with the training's first checkpoint written, and the training's process, which stands still."""
    folder = tmp_path / "run"
    rewind(run, training, folder)
    workflow = Workflow(folder, training.outputs[0], cores=CORES)
    process = workflow.wait_for_job(training.command)
    workflow.wait_for(lambda: any(folder.glob("work/cxr/train_detector/*/checkpoint.pth")))
    process.send_signal(signal.SIGSTOP)
    yield workflow, process
    end_all(folder)
    workflow.process.wait()


def test_a_job_that_outlived_snakemake_is_named_by_the_next_and_by_doctor(run, training, begun):
    workflow, orphan = begun
    folder = workflow.folder
    workflow.kill("snakemake")
    report = "\n".join(report_lines(read_run_state(folder)))
    assert f"process    {orphan.pid}: train-detector" in report
    assert f"held, process {orphan.pid} on " in report and f"or end it:\n  kill {orphan.pid}\n" in report
    for arguments in documented_commands():
        done = run_snakemake(folder, *arguments, training.outputs[0], cores=CORES)
    assert done.returncode == 1
    assert done.stdout.endswith("then run again.\n")
    assert f"process {orphan.pid} (train-detector) still works here" in done.stdout and f"('kill {orphan.pid}';" in done.stdout
    orphan.send_signal(signal.SIGCONT)
    assert wait_until_alone(folder) == []
    assert resume(folder, training.outputs[0], cores=CORES) == (False, [])
    assert differences(run, folder, training.outputs) == []


def test_a_second_snakemake_is_refused_and_harms_nothing(run, training, begun):
    workflow, job = begun
    second = run_snakemake(workflow.folder, training.outputs[0], cores=CORES)
    assert second.returncode == 1 and "is running the workflow here" in second.stdout
    job.send_signal(signal.SIGCONT)
    assert workflow.process.wait(600) == 0, workflow.output.read_text()[-2000:]
    assert differences(run, workflow.folder, training.outputs) == []


def test_doctor_tells_where_a_killed_run_resumes_and_what_to_type(training, begun, tmp_path):
    workflow, job = begun
    workflow.kill("group")
    assert wait_until_alone(workflow.folder) == []
    state = read_run_state(workflow.folder)
    assert state.incomplete == sorted(training.outputs) and not state.is_locked and state.processes == []
    (work,) = state.work_folders
    assert work.progress in ("iteration 5 of 12", "iteration 10 of 12") and not work.is_finished
    whole, lock = state.locks
    assert whole.is_stale and whole.file.name == "d2rnet.lock"
    assert lock.is_stale and lock.holder.pid == job.pid and lock.holder.command == "train-detector"
    assert state.invocation is not None and not state.invocation.is_complete
    lines = list(report_lines(state))
    assert f"checkpoint {work.path.relative_to(state.folder)}: {work.progress}; resumes here" in "\n".join(lines)
    (again,) = lines[lines.index("next:") + 1 :]
    assert (
        again.startswith("  cd ") and " -m snakemake -s " in again and f"--directory {workflow.folder} --configfile" in again
    )
    assert resume(workflow.folder, training.outputs[0], cores=CORES) == (False, [])
    state = read_run_state(workflow.folder)
    assert list(report_lines(state))[-1] == "  # nothing: what was asked for last is complete"
    assert state.locks == [] and state.work_folders[0].is_finished
