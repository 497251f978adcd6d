"""Breaks one formula at a time in a copy of the code and reports which test notices: a test of the tests.

Not collected by pytest. Each mutation replaces a text that occurs exactly once in one file, and names the formula that it
breaks and the tests that should notice (tables in ``tests/mutations/<area>.yaml``). The working tree is never touched.

Usage: python tests/mutants.py [--area AREA] [--only NAME ...] [--jobs N]
Exit status 1 if a mutation survives, 2 if the tables do not fit the code or the tests fail without any mutation.
"""

import argparse
import multiprocessing
import os
import queue
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = Path(__file__).with_name("mutations")
PACKAGE = Path("src/d2rnet")
COPIED = ("src", "tests", "workflow", "config.yaml", "pyproject.toml", "README.md", "profiles", "docs/reference")
TIME_LIMIT_SECONDS = 600
SURVIVED = "SURVIVED"
PYTEST_PASSED, PYTEST_FAILED = 0, 1
# The tests' own imports take most of their time. A server imports them once; every run of pytest is a fork of it.
PROCESSES = multiprocessing.get_context("forkserver")
PRELOADED = ["pytest", "hypothesis", "cv2", "pandas", "pycocotools.cocoeval", "torchvision", "torch.utils.tensorboard"]
PRELOADED += ["detectron2.engine", "detectron2.modeling", "safetensors.torch", "pycocoevalcap.bleu.bleu"]


class TableError(Exception):
    """A table of mutations does not fit the code, or the tests cannot judge it."""


@dataclass(frozen=True)
class Mutation:
    """One change that must be noticed.

    Attributes:
        area: name of its table.
        name: unique within all tables.
        formula: what it breaks.
        file: path below ``src/d2rnet``.
        old: text that occurs exactly once in the file.
        new: what replaces it.
        tests: paths below ``tests``, or pytest node ids.
    """

    area: str
    name: str
    formula: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_tables(folder: Path = TABLES) -> list[Mutation]:
    """Read every ``<area>.yaml``: a list of mappings file -> tests -> mutations; see the tables themselves."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8")):
            for entry in group["mutations"]:
                tests = tuple(entry.pop("tests", group["tests"]))
                found.append(Mutation(area=path.stem, file=group["file"], tests=tests, **entry))
    names = [mutation.name for mutation in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise TableError(f"{folder}: names given twice: {', '.join(twice)}")
    return found


def place(mutation: Mutation, root: Path = REPOSITORY) -> int:
    """Line number, from 1, of the text to be changed.

    Raises:
        TableError: the text is not in the file exactly once, or the change is none, or gives no Python.
    """
    path = root / PACKAGE / mutation.file
    source = path.read_text(encoding="utf-8")
    count = source.count(mutation.old)
    if count != 1:
        raise TableError(
            f"{mutation.area}.yaml: {mutation.name}: {mutation.old!r} is {count} times in {mutation.file}; expected once. "
            "The code has changed: mend the entry so that it breaks the same formula."
        )
    if mutation.old == mutation.new:
        raise TableError(f"{mutation.area}.yaml: {mutation.name}: old and new are the same")
    try:
        compile(source.replace(mutation.old, mutation.new), mutation.file, "exec")
    except SyntaxError as error:
        raise TableError(f"{mutation.area}.yaml: {mutation.name}: the changed file is no Python ({error})") from error
    return source[: source.index(mutation.old)].count("\n") + 1


def places(mutations: Sequence[Mutation], root: Path = REPOSITORY) -> list[int]:
    """Line numbers of all mutations.

    Raises:
        TableError: some do not fit the code; all of these are listed.
    """
    lines, problems = [], []
    for mutation in mutations:
        try:
            lines.append(place(mutation, root))
        except TableError as error:
            problems.append(str(error))
    if problems:
        raise TableError("\n".join(problems))
    return lines


@contextmanager
def applied(mutation: Mutation, root: Path) -> Iterator[None]:
    """Change the file below ``root`` and change it back at the end."""
    path = root / PACKAGE / mutation.file
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(source, encoding="utf-8")


def copy_project(target: Path, root: Path = REPOSITORY) -> Path:
    """Copy what the tests need to ``target`` and return it."""
    target.mkdir()
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, target / name)
    return target


def run_tests(root: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Run tests of a copy up to the first failure, in a process of their own.

    Returns:
        pytest's exit status and the test that failed, "" if none.

    Raises:
        TableError: pytest could not run them.
    """
    output = root / "output.txt"
    process = PROCESSES.Process(target=pytest_process, args=(root, tests, output))
    process.start()
    process.join(TIME_LIMIT_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        raise TableError(f"pytest {' '.join(tests)}: not done after {TIME_LIMIT_SECONDS} s; fewer --jobs, or other tests.")
    text = output.read_text(encoding="utf-8") if output.is_file() else ""
    failed = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S.*?)(?: - .*)?$", text, flags=re.MULTILINE)
    if process.exitcode not in (PYTEST_PASSED, PYTEST_FAILED):
        raise TableError(f"pytest {' '.join(tests)}: exit status {process.exitcode}\n{text[-4000:]}")
    return process.exitcode, failed[1] if failed else ""


def pytest_process(root: Path, tests: Sequence[str], output: Path) -> None:
    """Run pytest on a copy of the project, whose package comes before the installed one; ends the process."""
    import pytest

    # A changed file can have the size and the time stamp of the one before: compiled files would hide the change.
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:0] = [str(root / "src"), str(root)]  # processes of the tests import a test's module by its path
    os.chdir(root)
    multiprocessing.set_start_method(None, force=True)  # of loaders in the tests; a fork of the server would start servers
    options = ["-x", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", f"--basetemp={root / 'temporary'}"]
    with output.open("w", encoding="utf-8") as stream, redirect_stdout(stream), redirect_stderr(stream):
        status = pytest.main([*options, *(f"tests/{test}" for test in tests)])
    sys.exit(int(status))


def judge(mutation: Mutation, root: Path) -> str:
    """Name of the test that notices a mutation, or SURVIVED."""
    with applied(mutation, root):
        status, test = run_tests(root, mutation.tests)
    return SURVIVED if status == PYTEST_PASSED else test


def judge_all(mutations: Sequence[Mutation], jobs: int, root: Path = REPOSITORY) -> list[str]:
    """Judge mutations in ``jobs`` copies of the project, in the order given; prints each as it is done.

    Raises:
        TableError: a mutation does not fit the code, or a test fails without any mutation.
    """
    lines = places(mutations, root)
    with tempfile.TemporaryDirectory() as name:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(jobs):
            copies.put(copy_project(Path(name) / str(number), root))
        first = copies.get()
        status, test = run_tests(first, sorted({test for mutation in mutations for test in mutation.tests}))
        copies.put(first)
        if status != PYTEST_PASSED:
            raise TableError(f"{test} fails without any mutation; mend it first.")

        def work(item: tuple[Mutation, int]) -> str:
            mutation, line = item
            copy = copies.get()
            try:
                verdict = judge(mutation, copy)
            finally:
                copies.put(copy)
            print(f"{mutation.name:<34} {mutation.file}:{line:<5} {verdict}\n    {mutation.formula}", flush=True)
            return verdict

        with ThreadPoolExecutor(jobs) as pool:
            try:
                return list(pool.map(work, zip(mutations, lines, strict=True)))
            except TableError:
                pool.shutdown(cancel_futures=True)
                raise


def chosen(mutations: Sequence[Mutation], area: str | None, only: Sequence[str]) -> list[Mutation]:
    """Mutations of an area, or those named.

    Raises:
        TableError: no such area or name.
    """
    for kind, wanted, known in (("area", [area] if area else [], {m.area for m in mutations}),
                                ("mutation", only, {m.name for m in mutations})):  # fmt: skip
        unknown = sorted(set(wanted) - known)
        if unknown:
            raise TableError(f"no such {kind}: {', '.join(unknown)}; expected some of {', '.join(sorted(known))}")
    return [m for m in mutations if (not area or m.area == area) and (not only or m.name in only)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the mutations that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", help="table to take; default all")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="mutations to try; default all")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at a time; default 1")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected 1 or more")
    PROCESSES.set_forkserver_preload(PRELOADED)
    try:
        mutations = chosen(read_tables(), options.area, options.only)
        verdicts = judge_all(mutations, options.jobs)
    except TableError as error:
        print(error, file=sys.stderr)
        return 2
    survivors = [m.name for m, verdict in zip(mutations, verdicts, strict=True) if verdict == SURVIVED]
    print(f"{len(mutations)} mutations, {len(survivors)} survived{': ' if survivors else ''}{', '.join(survivors)}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
