"""Fuzz the parsers with atheris, one target after the other. Not collected by pytest.

Inputs that fail are kept in ``tests/fuzz/regressions/<target>/``; the tests run them from then on.

Usage: python tests/fuzz/run.py --minutes 10 [--targets NAME ...] [--write-page]
Exit status 1 if a target failed, 2 if atheris is not installed.
"""

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REGRESSIONS = HERE / "regressions"
MAX_BYTES = 4096
SECONDS_AN_INPUT = 10
REMEDY = "atheris is not installed (pip install -e '.[fuzz]'; wheels exist for Linux and some versions of Python)"


@dataclass(frozen=True)
class Fuzzed:
    """What became of one target: inputs tried, branches reached, and inputs that failed."""

    target: str
    seconds: float
    inputs: int
    branches: int
    failed: list[Path]


def is_installed() -> bool:
    """Say whether atheris can be imported."""
    return importlib.util.find_spec("atheris") is not None


def fuzz(target: str, seeds: Sequence[bytes], seconds: float) -> Fuzzed:
    """Fuzz one target in a process of its own; what fails is added to the regression inputs."""
    known = REGRESSIONS / target
    with tempfile.TemporaryDirectory() as name:
        corpus, artifacts = Path(name, "corpus"), Path(name, "artifacts")
        corpus.mkdir()
        artifacts.mkdir()
        earlier = [path.read_bytes() for path in sorted(known.glob("*.bin"))]
        for number, seed in enumerate([*seeds, *earlier]):
            (corpus / str(number)).write_bytes(seed)
        options = [
            f"-max_total_time={max(1, round(seconds))}",
            f"-max_len={MAX_BYTES}",
            f"-timeout={SECONDS_AN_INPUT}",
            f"-artifact_prefix={artifacts}/",
            "-seed=1",
            "-print_final_stats=1",
        ]
        done = subprocess.run(
            [sys.executable, str(HERE / "fuzz_process.py"), target, *options, str(corpus)],
            capture_output=True,
            text=True,
            errors="replace",
            cwd=name,
        )
        failed = []
        for artifact in sorted(artifacts.iterdir()):
            data = artifact.read_bytes()
            kept = known / f"{hashlib.sha256(data).hexdigest()[:12]}.bin"
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(data)
            failed.append(kept)
    if done.returncode and not failed:
        raise RuntimeError(f"{target}: atheris ended with {done.returncode}\n{done.stderr[-3000:]}")
    if failed:
        print(done.stderr[-3000:], file=sys.stderr)
    return Fuzzed(
        target,
        seconds,
        _last(r"stat::number_of_executed_units:\s+(\d+)", done.stderr),
        _last(r"cov: (\d+)", done.stderr),
        failed,
    )


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def table(results: Sequence[Fuzzed]) -> str:
    """Return the section of docs/reference/robustness.md."""
    rows = [
        f"| {result.target} | {result.seconds / 60:g} | {result.inputs:,} | {result.branches} | {len(result.failed)} |"
        for result in results
    ]
    return "\n".join(["| target | minutes | inputs tried | branches reached | failed |", "|---|---|---|---|---|", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the targets that the command line names; return the exit status."""
    if not is_installed():
        print(REMEDY, file=sys.stderr)
        return 2
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import robustness
    from fuzz_targets import SEEDS, TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="time a target; default 10")
    parser.add_argument("--targets", nargs="+", default=sorted(TARGETS), choices=sorted(TARGETS), metavar="NAME")
    parser.add_argument("--write-page", action="store_true", help="put the table into docs/reference/robustness.md")
    options = parser.parse_args(arguments)
    results = []
    for target in options.targets:
        results.append(fuzz(target, SEEDS[target], 60 * options.minutes))
        print(table(results[-1:]), flush=True)
    if options.write_page:
        robustness.write_section("fuzz", table(results))
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
