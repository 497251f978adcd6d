"""Kill the tiny workflow at many random moments, resume it as the documentation says, and compare with an undisturbed run.

A trial begins with a copy of the undisturbed run as it was before one of its jobs, kills the workflow during or after it,
resumes it to the end and compares every declared output. Trial 0 kills nothing: two undisturbed runs must be equal, too.
Results go to ``trials.jsonl`` in the folder, one line a trial; a battery that is started again goes on behind the last one.
The code must not change meanwhile: run it in a clone if somebody works in the checkout.

Usage: python tests/faults/battery.py --folder FOLDER [--trials 50] [--seed 1] [--jobs 2] [--targets cxr ct] [--write]
Exit status 1 if a trial's result differs or a process stays behind; ``--write`` puts the table into the documentation.
"""

import argparse
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from finished_run import Job, converted, differences, documented_commands, jobs_of, rewind
from killing import EVERYTHING, WAYS, Killed, NotReachedError, Workflow, end_all, run_snakemake, wait_until_alone

from d2rnet.cli.run_state import read_run_state
from d2rnet.files.atomic import leftovers
from d2rnet.files.documents import read_jsonl_of_killed
from d2rnet.runs.provenance import code_version

TRAININGS = ("train-detector", "train-report-model")
TRAINING_SHARE = 0.6  # of the trials beyond one for each job
RESULTS = "trials.jsonl"
ATTEMPTS = 4  # to resume: a process that outlived Snakemake may refuse the first
WRITE_POLL_SECONDS = 0.0005
MAX_DELAY_SECONDS = 1.5
_append = threading.Lock()


@dataclass(frozen=True)
class Trial:
    """One kill.

    Attributes:
        number: place in the plan; 0 kills nothing.
        seed: of the battery.
        job: place of the job among those of the undisturbed run, during or after which to kill.
        kind: ``time`` (after a share of its duration), ``write`` (while it writes a file) or ``between`` (after its end).
        value: the share, or which of its files; 0 for ``between``.
        delay_seconds: how long after the moment; 0, or some time between two files of a training.
        way: one of WAYS.
    """

    number: int
    seed: int
    job: int
    kind: str
    value: float
    delay_seconds: float
    way: str


@dataclass(frozen=True)
class Outcome:
    """What came of a trial.

    Attributes:
        trial: number.
        seed: of the battery.
        planned: sub-command, kind and value of the moment.
        killed: sub-command that was running; "" between two jobs.
        after_seconds: how long it had run.
        way: what was killed.
        resumed_from: checkpoint or converted images that the resumed run found.
        refused: whether a process that outlived Snakemake made the first attempt to resume end with its name.
        problems: outputs that were half written, or differ at the end; processes that stayed. Empty is good.
        seconds: of the whole trial.
        commit: of the code.
    """

    trial: int
    seed: int
    planned: str
    killed: str
    after_seconds: float
    way: str
    resumed_from: str
    refused: bool
    problems: list[str]
    seconds: float
    commit: str


def plan(jobs: Sequence[Job], trials: int, seed: int) -> list[Trial]:
    """Draw trials: each job once, in random order, then mostly the trainings; a longer plan begins with the shorter one."""
    draw = random.Random(seed)
    order = draw.sample(range(len(jobs)), len(jobs))
    trainings = [place for place, job in enumerate(jobs) if job.command in TRAININGS]
    found = [Trial(0, seed, 0, "none", 0.0, 0.0, "none")]
    for number in range(1, trials + 1):
        place = (
            order[number - 1]
            if number <= len(order)
            else draw.choice(trainings if draw.random() < TRAINING_SHARE and trainings else range(len(jobs)))
        )
        kind = draw.choices(("time", "write", "between"), (3, 6, 1) if place in trainings else (6, 3, 1))[0]
        files = 6 if place in trainings else len(jobs[place].outputs)
        value = {"time": round(draw.uniform(0.02, 1.0), 3), "write": float(draw.randint(1, files)), "between": 0.0}[kind]
        ways = WAYS if kind != "between" else WAYS[1:]
        later = round(draw.uniform(0.0, MAX_DELAY_SECONDS), 2) * draw.randint(0, 1)
        delay = later if kind == "write" and place in trainings else 0.0
        found.append(Trial(number, seed, place, kind, value, delay, ways[number % len(ways)]))
    return found


def run_trial(trial: Trial, jobs: Sequence[Job], reference: Path, folder: Path, targets: Sequence[str]) -> Outcome:
    """Do a trial in ``folder``, which is removed if nothing is wrong; targets are what the workflow makes."""
    start = time.monotonic()
    job = jobs[trial.job]
    products = (*(name for each in jobs for name in each.outputs), *converted(reference))
    shutil.rmtree(folder, ignore_errors=True)
    if trial.way == "none":
        folder.mkdir(parents=True)
        hit, problems, resumed, refused = Killed("", 0.0), _undisturbed(folder, targets), "", False
    else:
        hit, problems = kill(trial, job, rewind(reference, job, folder), *targets)
        existing = [name for name in products if (folder / name).exists()]
        if trial.way != "snakemake" or not hit.command:
            problems += [f"after the kill: {text}" for text in differences(reference, folder, tuple(existing))]
        resumed = progress(folder, hit.command)
        refused, failures = resume(folder, *targets)
        problems += failures
    problems += [f"still running: {text}" for text in wait_until_alone(folder)]
    end_all(folder)
    problems += differences(reference, folder, products)
    if not problems:
        shutil.rmtree(folder)
    return Outcome(
        trial.number,
        trial.seed,
        _moment(trial, job),
        hit.command,
        hit.seconds,
        trial.way,
        resumed,
        refused,
        problems,
        round(time.monotonic() - start, 1),
        code_version()["commit"] or "unknown",
    )


def _moment(trial: Trial, job: Job) -> str:
    if trial.way == "none":
        return "undisturbed"
    text = {
        "time": f"at {trial.value:.0%} of its time",
        "write": f"writing file {trial.value:.0f}" + (f" + {trial.delay_seconds:g} s" if trial.delay_seconds else ""),
        "between": "after its end",
    }
    return f"{job.command} {text[trial.kind]}"


def _undisturbed(folder: Path, targets: Sequence[str]) -> list[str]:
    done = run_snakemake(folder, *targets)
    return [] if done.returncode == 0 else [f"exit status {done.returncode}: {done.stdout[-2000:]}"]


def kill(trial: Trial, job: Job, folder: Path, *targets: str, cores: int = 1) -> tuple[Killed, list[str]]:
    """Start the workflow and kill it at the trial's moment; return what was hit and what is wrong so far."""
    workflow = Workflow(folder, *targets, cores=cores)
    try:
        process = workflow.wait_for_job(job.command)
        if trial.kind == "time":
            end = time.monotonic() + trial.value * (job.ended - job.started)
            workflow.wait_for(lambda: time.monotonic() >= end)
        elif trial.kind == "write":
            files = new_files(folder, job)
            workflow.wait_for(lambda: next(files) >= trial.value or not process.is_running(), every=WRITE_POLL_SECONDS)
            time.sleep(trial.delay_seconds)
        else:
            workflow.wait_for(lambda: not process.is_running())
    except NotReachedError:
        if workflow.process.returncode:
            return Killed("", 0.0), [f"failed before the kill: {workflow.output.read_text()[-2000:]}"]
    hit = workflow.kill(trial.way)
    stayed = wait_until_alone(folder, but=[hit.command] if trial.way == "snakemake" and hit.command else [])
    return hit, [f"outlived the kill: {text}" for text in stayed]


def new_files(folder: Path, job: Job) -> Iterator[int]:
    """Yield how many different temporary files have been seen where a job writes, now and at each later look."""
    seen: set[Path] = set()
    stage = folder / "work" / "cxr" / job.command.replace("-", "_")
    places = {(folder / name).parent for name in job.outputs}
    arrays = folder / "resources" / "ct" / "convert_ct" / "volumes" if job.command == "convert-ct-shard" else stage
    while True:
        for place in [*places, *stage.glob("*"), *arrays.glob("*")]:
            seen |= set(leftovers(place))
        yield len(seen)


def progress(folder: Path, command: str) -> str:
    """Say what a resumed job finds of its own work."""
    state = read_run_state(folder)
    if command in TRAININGS:
        stage = folder / "work" / "cxr" / command.replace("-", "_")
        found = [work.progress for work in state.work_folders if work.path.parent == stage]
        return found[0] if found else "its beginning"
    if command == "convert-ct-shard":
        return f"{len(list(folder.rglob('*.npy.json')))} volumes converted"
    if command == "convert-images-shard":
        return f"{sum(state.converted.values())} images converted"
    return "its beginning" if command else "the next job"


def resume(folder: Path, *targets: str, cores: int = 1) -> tuple[bool, list[str]]:
    """Do what the documentation says, and again once a process that outlived Snakemake has ended.

    Args:
        folder: the run's folder.
        targets: what to make; none for everything.
        cores: for Snakemake.

    Returns:
        Whether that was necessary, and what went wrong.
    """
    output = ""
    for attempt in range(ATTEMPTS):
        for arguments in documented_commands():
            done = run_snakemake(folder, *arguments, *targets, cores=cores)
            output = done.stdout
        if done.returncode == 0:
            return attempt > 0, []
        if "may have outlived a killed Snakemake" not in output:
            break
        wait_until_alone(folder, seconds=600.0)
    return True, [f"not resumed: {output[-3000:]}"]


def run_battery(folder: Path, *, trials: int, seed: int, jobs: int, targets: Sequence[str] = EVERYTHING) -> list[Outcome]:
    """Do the trials of a plan that have not been done yet; return the outcomes of all.

    Args:
        folder: for the undisturbed run, the trials and their results.
        trials: number of kills.
        seed: of the plan.
        jobs: trials at a time, one core each.
        targets: what the workflow makes.
    """
    reference = folder / "undisturbed"
    if not (reference / ".finished").is_file():
        shutil.rmtree(reference, ignore_errors=True)
        reference.mkdir(parents=True)
        failed = _undisturbed(reference, targets)
        if failed:
            raise RuntimeError(failed[0])
        (reference / ".finished").touch()
    known = jobs_of(reference)
    planned = plan(known, trials, seed)
    results = folder / RESULTS
    done = {record["trial"] for record in read_jsonl_of_killed(results) if record["seed"] == seed}

    def work(trial: Trial) -> None:
        outcome = run_trial(trial, known, reference, folder / f"trial_{trial.number:03d}", targets)
        with _append, results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(outcome)) + "\n")
        print(row(outcome), flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, [trial for trial in planned if trial.number not in done]))
    found = [Outcome(**record) for record in read_jsonl_of_killed(results) if record["seed"] == seed]
    return sorted((outcome for outcome in found if outcome.trial <= trials), key=lambda outcome: outcome.trial)


def row(outcome: Outcome) -> str:
    """One line of the table."""
    equal = "yes" if not outcome.problems else "NO: " + "; ".join(outcome.problems)[:400].replace("\n", " ").replace("|", "/")
    where = f"{outcome.killed} at {outcome.after_seconds:.1f} s" if outcome.killed else "between two jobs"
    where = "nothing" if outcome.way == "none" else where
    refused = ", after its orphan" if outcome.refused else ""
    cells = (outcome.trial, outcome.planned, where, outcome.way, f"{outcome.resumed_from}{refused}", equal)
    return "| " + " | ".join(map(str, cells)) + " |"


def section(outcomes: Sequence[Outcome], targets: Sequence[str]) -> str:
    """The table of a battery for the documentation."""
    chosen = "" if tuple(targets) == EVERYTHING else f" --targets {' '.join(targets)}"
    kills = [outcome for outcome in outcomes if outcome.way != "none"]
    good = sum(not outcome.problems for outcome in kills)
    ways = ", ".join(f"{sum(outcome.way == way for outcome in kills)} {way}" for way in WAYS)
    commits = sorted({outcome.commit[:12] for outcome in outcomes})
    head = (
        f"`python tests/faults/battery.py --folder FOLDER --trials {len(kills)} --seed {outcomes[0].seed}{chosen}`, "
        f"commit {', '.join(commits)}: {len(kills)} kills ({ways}), {good} with results equal to the undisturbed run, "
        f"{sum(outcome.refused for outcome in kills)} of them after waiting for a job that outlived Snakemake; "
        f"{sum(outcome.seconds for outcome in outcomes) / 60:.0f} minutes of trials."
    )
    table = ["| trial | planned moment | killed in | way | resumed from | equal |", "|---|---|---|---|---|---|"]
    return "\n".join([head, "", *table, *map(row, outcomes)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is left of a battery; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for the runs and their results")
    parser.add_argument("--trials", type=int, default=50, metavar="N", help="kills; default 50")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the moments; default 1")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="trials at a time; default all cores"
    )
    parser.add_argument("--targets", nargs="+", default=EVERYTHING, metavar="NAME", help="what to make; default both wings")
    parser.add_argument("--write", action="store_true", help="write docs/reference/robustness.md")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    outcomes = run_battery(folder, trials=options.trials, seed=options.seed, jobs=options.jobs, targets=options.targets)
    print(section(outcomes, options.targets).splitlines()[0])
    if options.write:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from robustness import write_section

        name = "-".join(["faults", *(options.targets if tuple(options.targets) != EVERYTHING else [])])
        write_section(name, section(outcomes, options.targets))
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
