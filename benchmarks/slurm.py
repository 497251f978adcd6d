"""The tiny workflow on this machine alone and through ``profiles/slurm``, one after the other, and where the difference goes.

The cluster is that of the tests (``tests/cluster``): a real SLURM of four nodes, all of them on this machine, with SLURM's own
scheduling delay and the profile as it is shipped. Both runs have the same settings: one core a job, ``--cores 2`` locally.

The chain is what decides the duration: from the last job backwards, always the job that had ended last when the next one was
submitted. Its length is the number of levels. Columns, in seconds: *look*, from the end of the job before until Snakemake
looks at the queue and submits; *queue*, from there to the start; *job*, as SLURM sees it; *local*, the same rule's job without
SLURM, whose times are whole seconds. Needs root and SLURM's packages. Usage: ``python benchmarks/slurm.py [--cores 2]``.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from d2rnet.runs.provenance import code_version, hardware

TESTS = Path(__file__).resolve().parents[1] / "tests"
sys.path += [str(TESTS / "cluster"), str(TESTS / "faults")]

from finished_run import jobs_of  # noqa: E402 - the tests are no package
from slurm_cluster import Cluster, Job, why_not  # noqa: E402
from slurm_runs import run_locally, said, start, write_overlay  # noqa: E402

SECONDS = 3600
CLOCK_SECONDS = 1.0  # of SLURM's times


@dataclass(frozen=True)
class Level:
    """A job of the chain: seconds that Snakemake, then SLURM, then the job itself took, and the same job locally."""

    rule: str
    look: float
    queue: float
    job: float
    local: float


def main() -> int:
    """Run both, print the table and the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2, help="of the local run")
    arguments = parser.parse_args()
    reason = why_not()
    if reason:
        print(f"no cluster here: {reason}", file=sys.stderr)
        return 1
    machine = hardware()
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB; commit {code_version()['commit']}")
    with tempfile.TemporaryDirectory() as name:
        local, remote = Path(name) / "local", Path(name) / "slurm"
        for folder in (local, remote):
            write_overlay(folder, {})
        begun = time.time()
        run_locally(local, cores=arguments.cores)
        local_seconds = time.time() - begun
        levels, slurm_seconds = through_slurm(remote, local)
    print(table(levels))
    print(totals(levels, local_seconds, slurm_seconds))
    return 0


def through_slurm(folder: Path, local: Path) -> tuple[list[Level], float]:
    """Run everything on the cluster; return the chain of jobs that decided how long it took, and the seconds."""
    cluster = Cluster()
    try:
        cluster.start()
        begun = time.time()
        process = start(cluster, folder, SECONDS)
        if process.wait():
            raise RuntimeError(said(folder))
        return measure(chain(cluster.jobs(folder)), begun, local), time.time() - begun
    finally:
        cluster.stop()


def chain(jobs: list[Job]) -> list[Job]:
    """Jobs each of which was submitted when the one before had ended, up to the one that ended last."""
    found = [max(jobs, key=lambda job: job.end)]
    while before := [job for job in jobs if job.end <= found[-1].submitted + CLOCK_SECONDS and job.start < found[-1].start]:
        found.append(max(before, key=lambda job: job.end))
    return found[::-1]


def measure(jobs: list[Job], begun: float, local: Path) -> list[Level]:
    """Cut the time of the chain into its parts."""
    seconds: dict[str, list[float]] = {}
    for job in jobs_of(local):
        seconds.setdefault(job.command.replace("-", "_"), []).append(job.ended - job.started)
    ends = [begun, *(job.end for job in jobs)]
    return [
        Level(
            job.rule, max(0.0, job.submitted - end), job.start - job.submitted, job.end - job.start, fmean(seconds[job.rule])
        )
        for job, end in zip(jobs, ends, strict=False)
    ]


def table(levels: list[Level]) -> str:
    """Lay out the chain, one level a line."""
    rows = [f"| `{one.rule}` | {one.look:.0f} | {one.queue:.0f} | {one.job:.0f} | {one.local:.1f} |" for one in levels]
    return "\n".join(["| level | look | queue | job | local |", "|---|---|---|---|---|", *rows])


def totals(levels: list[Level], local_seconds: float, slurm_seconds: float) -> str:
    """Say how long both took, and what a level costs."""
    look, queue, inside = (
        fmean(part) for part in zip(*((one.look, one.queue, one.job - one.local) for one in levels), strict=True)
    )
    return (
        f"local {local_seconds:.0f} s, SLURM {slurm_seconds:.0f} s, {len(levels)} levels: "
        f"{(slurm_seconds - local_seconds) / len(levels):.1f} s more a level. Of the chain, a level: "
        f"{look:.1f} s until Snakemake looks, {queue:.1f} s in the queue, {inside:.1f} s more inside the job."
    )


if __name__ == "__main__":
    sys.exit(main())
