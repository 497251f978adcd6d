"""Make the project's virtual environment: ``make setup``, and the first step of ``make demo`` and ``make test``.

Standard library only, and readable by any Python 3.8 or newer, so that a wrong version gets a remedy instead of a traceback.
What cannot work is said before anything is downloaded. A finished set-up leaves a stamp and is not repeated until
pyproject.toml or the pins change; an interrupted one is started afresh.

Environment: ``PYTHON`` names the interpreter; ``DETECTRON2_SPEC`` is a pip requirement for detectron2 (git address, folder,
wheel) in place of the pinned wheel; ``TORCH_INDEX`` is a package index that is asked, too, when PyTorch is installed: that of
its builds for CPU, or for another CUDA, whose versions (2.14.1+cpu) go before the same ones without an addition.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / ".ready"
STATE = ROOT / ".setup"  # lock and the mark of an unfinished set-up
CONSTRAINTS = "envs/constraints.txt"  # relative to ROOT: pip splits these settings at spaces
DETECTRON2_WHEEL = "envs/detectron2.txt"
EXTRAS = ("data", "ct", "ct-encoders", "detector", "report", "llm", "dicom", "evaluation", "workflow", "slurm", "test")
SUPPORTED = ((3, 11), (3, 12), (3, 13))
NEEDED_GB = 12
NEEDED_TEMPORARY_GB = 4
HEARTBEAT_SECONDS = 15
DETECTRON2_ORIGIN = "from d2rnet.cli.doctor import detectron2_origin; print('     ' + detectron2_origin())"
CHECK = "import torch, torchvision, detectron2, cv2, pydicom, nibabel, SimpleITK, pandas, pycocoevalcap, snakemake, d2rnet.cli"


def main(arguments: Sequence[str] = ()) -> int:
    """Make or refresh the environment; return the exit code."""
    asked = parser().parse_args(arguments)
    extras = tuple(extra for extra in EXTRAS if extra not in asked.without)
    spec = os.environ.get("DETECTRON2_SPEC", "")
    if is_ready(spec, extras):
        return 0
    STATE.mkdir(exist_ok=True)
    with only_one_set_up():
        if is_ready(spec, extras):
            return 0
        start = time.monotonic()
        unfinished = STATE / "unfinished"
        stamp = read_stamp()
        moved = stamp.get("root", str(ROOT)) != str(ROOT)  # the scripts in .venv/bin hold the old path
        if unfinished.exists() or moved or not (VENV / "bin" / "python").exists():
            make_venv(unfinished)
        STAMP.unlink(missing_ok=True)
        install_packages(extras, only_dependencies=asked.only_dependencies)
        install_detectron2(spec)
        if asked.only_dependencies:
            say("5/5 left to the set-up of the project itself")
        else:
            with stage("5/5 check that everything imports"):
                run(venv_python(), "-c", DETECTRON2_ORIGIN)
                run(venv_python(), "-c", CHECK)
            recorded = {"key": key(extras), "root": str(ROOT), "detectron2_spec": spec or stamp.get("detectron2_spec", "")}
            STAMP.write_text(json.dumps(recorded) + "\n", encoding="utf-8")
        unfinished.unlink(missing_ok=True)
        say(f"set-up finished in {clock(time.monotonic() - start)}")
    if shutil.which("java") is None:
        say("note: no Java, so METEOR will be 'not run'. Remedy: apt-get install default-jre-headless, then run again")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the options, which images are built with; ``make setup`` gives none."""
    options = argparse.ArgumentParser(description="Make the project's virtual environment, .venv.")
    options.add_argument(
        "--only-dependencies",
        action="store_true",
        help="leave d2rnet itself to a second call: a layer of an image that a change of the code leaves alone",
    )
    options.add_argument("--without", action="append", default=[], choices=EXTRAS, help="an extra to leave out; repeatable")
    return options


def key(extras: Sequence[str]) -> str:
    """Name the files and extras that the environment is made from."""
    digest = hashlib.sha256(",".join(extras).encode())
    for name in ("pyproject.toml", CONSTRAINTS, DETECTRON2_WHEEL):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp() -> dict[str, str]:
    """Return what a finished set-up recorded; empty if there was none."""
    try:
        return dict(json.loads(STAMP.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def is_ready(spec: str, extras: Sequence[str]) -> bool:
    """Say whether a finished environment of these pins and extras, and of this detectron2 if one is named, is in place."""
    stamp = read_stamp()
    same_detectron2 = not spec or stamp.get("detectron2_spec") == spec
    same_place = stamp.get("root") == str(ROOT) and (VENV / "bin" / "python").exists()
    return stamp.get("key") == key(extras) and same_detectron2 and same_place


@contextlib.contextmanager
def only_one_set_up() -> Iterator[None]:
    """Hold a lock, so that two ``make`` started together do not install into one folder."""
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("another set-up is running; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_venv(unfinished: Path) -> None:
    """Check what is needed, then make an empty environment; ``unfinished`` marks it until the set-up is complete.

    Only an environment made here carries the mark, so that one that somebody else made is added to, never cleared.
    """
    python = find_python()
    check_venv_module(python)
    check_disk()
    again = " (the last set-up was interrupted: starting afresh)" if unfinished.exists() else ""
    unfinished.touch()
    with stage(f"1/5 virtual environment .venv with {describe(python)}{again}"):
        run(python, "-m", "venv", "--clear", str(VENV))


def find_python() -> str:
    """Return a supported interpreter: $PYTHON, else the running one (never one inside .venv), else the first on PATH."""
    names = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    wanted = os.environ.get("PYTHON")
    candidates = [wanted] if wanted else [getattr(sys, "_base_executable", sys.executable), *names]
    found = []
    for name in candidates:
        path = shutil.which(name)
        version = python_version(path) if path else None
        if version in SUPPORTED:
            return str(path)
        if version:
            found.append(f"{path} is {version[0]}.{version[1]}")
    stop(
        f"Python 3.11, 3.12 or 3.13 is needed; found: {'; '.join(found) or 'none'}",
        "install one (Debian 12, Ubuntu 24.04: apt-get install python3 python3-venv) and name it: make PYTHON=python3.12 ...",
    )


def python_version(path: str) -> tuple[int, int] | None:
    """Ask an interpreter for its version; None if it does not run (a version manager's shim, for instance)."""
    try:
        done = subprocess.run(
            [path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, timeout=30, check=True
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def check_venv_module(python: str) -> None:
    """Stop if the interpreter cannot make an environment with pip in it (Debian packs that apart)."""
    done = subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["unknown"])[-1]
        stop(f"{python} cannot make virtual environments ({reason})", "Debian, Ubuntu: apt-get install python3-venv")


def check_disk() -> None:
    """Stop if the environment (about 7 GB) or pip's temporary files would fill the disk."""
    free = shutil.disk_usage(ROOT).free / 1e9 + (NEEDED_GB / 2 if VENV.exists() else 0)
    if free < NEEDED_GB:
        stop(f"{free:.1f} GB free in {ROOT}; {NEEDED_GB} GB are needed", "free some space, or clone the project elsewhere")
    temporary = Path(tempfile.gettempdir())
    free = shutil.disk_usage(temporary).free / 1e9
    if free < NEEDED_TEMPORARY_GB:
        stop(
            f"{free:.1f} GB free in {temporary}; pip unpacks {NEEDED_TEMPORARY_GB} GB there",
            "free some space, or name another folder: TMPDIR=/large/folder make setup",
        )


def install_packages(extras: Sequence[str], *, only_dependencies: bool) -> None:
    """Install the project (editable) with these extras, or what it needs alone; what is there already is left as it is."""
    index = os.environ.get("TORCH_INDEX", "")
    project = f".[{','.join(extras)}]"
    with stage("2/5 PyTorch (the largest part, about 5 GB unpacked)"):
        pip("install", "--upgrade", "pip")
        pip("install", *(("--extra-index-url", index) if index else ()), "torch", "torchvision")
    with stage("3/5 all other packages" + ("" if only_dependencies else " and d2rnet itself")):
        pip("install", *(("--only-deps", project) if only_dependencies else ("--editable", project)))


def install_detectron2(spec: str) -> None:
    """Install what $DETECTRON2_SPEC names, else keep an importable detectron2, else take the pinned, hash-checked wheel."""
    with stage("4/5 detectron2"):
        if spec:
            pip("uninstall", "--yes", "sal-detectron2", "detectron2")  # two names for one folder
            pip("install", "setuptools")
            pip("install", "--no-build-isolation", spec)
        elif not imports_detectron2():
            install_detectron2_wheel()


def imports_detectron2() -> bool:
    """Say whether the environment has a detectron2 already."""
    return subprocess.run([venv_python(), "-c", "import detectron2"], capture_output=True).returncode == 0


def install_detectron2_wheel() -> None:
    """Install the wheel past its Python tag and drop the compiled module, which is for another Python."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([venv_python(), "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    past_tag = ("--no-deps", "--only-binary=:all:", "--python-version", "3.10", "--target", str(packages))
    pip("install", *past_tag, "--require-hashes", "--requirement", DETECTRON2_WHEEL)
    for compiled in (packages / "detectron2").glob("_C.*.so"):
        compiled.unlink()


def venv_python() -> str:
    """Return the environment's interpreter."""
    return str(VENV / "bin" / "python")


def pip(*arguments: str) -> None:
    """Run the environment's pip under the pins, which hold for isolated builds too."""
    run(venv_python(), "-m", "pip", "-qq", "--disable-pip-version-check", *arguments, constrained=True)


def run(*command: str, constrained: bool = False) -> None:
    """Run a command in the project's folder with a sign of life every quarter of a minute; stop on failure."""
    environment = dict(os.environ, PYTHONNOUSERSITE="1")
    environment.pop("PYTHONPATH", None)
    if constrained:
        environment.update(PIP_CONSTRAINT=CONSTRAINTS, PIP_BUILD_CONSTRAINT=CONSTRAINTS)
    start, free = time.monotonic(), shutil.disk_usage(ROOT).free
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL) as process:
        while True:
            try:
                code = process.wait(timeout=HEARTBEAT_SECONDS)
                break
            except subprocess.TimeoutExpired:
                written = max(0.0, (free - shutil.disk_usage(ROOT).free) / 1e9)
                say(f"     ... {clock(time.monotonic() - start)}, {written:.1f} GB on disk")
    if code != 0:
        stop(f"'{' '.join(command[:6])} ...' failed with exit code {code}", "see its message above, then run the same again")


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Announce a stage and say how long it took."""
    say(title)
    start = time.monotonic()
    yield
    say(f"     done in {clock(time.monotonic() - start)}")


def describe(python: str) -> str:
    """Name an interpreter with its version."""
    version = python_version(python)
    return f"{python} ({'.'.join(map(str, version)) if version else 'unknown version'})"


def clock(seconds: float) -> str:
    """Format a duration as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(text: str) -> None:
    """Print one line at once."""
    print(f"[setup] {text}", flush=True)


def stop(problem: str, remedy: str) -> NoReturn:
    """End with what is wrong and what to do."""
    print(f"[setup] stopped: {problem}.\n[setup] remedy: {remedy}.", file=sys.stderr, flush=True)
    raise SystemExit(2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
