"""Set-up: prerequisites are named first, interrupted runs start afresh, finished ones are left alone."""

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
Usage = namedtuple("Usage", "total used free")


def load() -> ModuleType:
    """Import envs/bootstrap.py, which is no package."""
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "envs" / "bootstrap.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, working on a project folder under tmp_path, with every command recorded instead of run."""
    module = load()
    root = tmp_path / "project"
    (root / "envs").mkdir(parents=True)
    for name in ("pyproject.toml", module.CONSTRAINTS, module.DETECTRON2_WHEEL):
        shutil.copy(ROOT / name, root / name)
    for name, path in {"ROOT": "", "VENV": ".venv", "STAMP": ".venv/.ready", "STATE": ".setup"}.items():
        monkeypatch.setattr(module, name, root / path)
    module.commands = []

    def record(*command: str, constrained: bool = False) -> None:
        module.commands.append((command, constrained))
        if command[1:3] == ("-m", "venv"):
            shutil.rmtree(root / ".venv", ignore_errors=True)
            (root / ".venv" / "bin").mkdir(parents=True)
            (root / ".venv" / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(module, "run", record)
    monkeypatch.setattr(module, "imports_detectron2", lambda: False)
    monkeypatch.setattr(module, "install_detectron2_wheel", lambda: module.commands.append((("the wheel",), True)))
    monkeypatch.setattr(module, "check_disk", lambda: None)
    for name in ("DETECTRON2_SPEC", "PYTHON", "TORCH_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return module


def steps(module: ModuleType) -> list[str]:
    """The recorded commands in short: what each one does."""
    words = [" ".join(command) for command, _ in module.commands]
    marks = {
        "-m venv": "venv",
        "--editable": "project",
        "--only-deps": "dependencies",
        "install torch": "torch",
        "uninstall": "uninstall",
        "the wheel": "wheel",
        "isolation": "spec",
        "detectron2_origin": "origin",
        "import torch": "check",
    }
    return [next((name for mark, name in marks.items() if mark in text), "") for text in words]


def fake_python(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def test_fresh_set_up_then_nothing(bootstrap: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert bootstrap.main() == 0
    done = [step for step in steps(bootstrap) if step]
    assert done[:3] == ["venv", "torch", "project"] and done[-2:] == ["origin", "check"]
    out = capsys.readouterr().out
    assert "1/5 virtual environment" in out and "set-up finished in " in out
    assert not (bootstrap.STATE / "unfinished").exists()

    bootstrap.commands.clear()
    assert bootstrap.main() == 0
    assert bootstrap.commands == []


def test_packages_are_installed_under_the_pins(bootstrap: ModuleType) -> None:
    bootstrap.main()
    installs = [(command, constrained) for command, constrained in bootstrap.commands if "install" in command]
    assert len(installs) == 3
    assert all(constrained for _, constrained in installs)
    assert ".[data,ct,ct-encoders,detector,report,llm,dicom,evaluation,workflow,slurm,test]" in installs[-1][0]


def test_layers_of_an_image_dependencies_then_the_project(bootstrap: ModuleType) -> None:
    assert bootstrap.main(["--only-dependencies", "--without", "test"]) == 0
    assert [step for step in steps(bootstrap) if step] == ["venv", "torch", "dependencies", "wheel"]
    asked = next(command[-1] for command, _ in bootstrap.commands if "--only-deps" in command)
    assert asked == ".[data,ct,ct-encoders,detector,report,llm,dicom,evaluation,workflow,slurm]"
    assert not bootstrap.STAMP.exists()  # an environment without d2rnet is not finished

    bootstrap.commands.clear()
    assert bootstrap.main(["--without", "test"]) == 0
    assert [step for step in steps(bootstrap) if step] == ["torch", "project", "wheel", "origin", "check"]
    assert bootstrap.commands and bootstrap.is_ready("", tuple(extra for extra in bootstrap.EXTRAS if extra != "test"))
    assert not bootstrap.is_ready("", bootstrap.EXTRAS)


def test_an_index_of_pytorch_is_asked_for_pytorch_alone(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    index = "https://example.org/cpu"
    monkeypatch.setenv("TORCH_INDEX", index)
    bootstrap.main()
    asked = [command for command, _ in bootstrap.commands if index in command]
    assert [command[-4:] for command in asked] == [("--extra-index-url", index, "torch", "torchvision")]


def test_changed_pins_refresh_without_clearing(bootstrap: ModuleType) -> None:
    bootstrap.main()
    bootstrap.commands.clear()
    with (bootstrap.ROOT / bootstrap.CONSTRAINTS).open("a") as stream:
        stream.write("new-package==1\n")
    bootstrap.main()
    assert "venv" not in steps(bootstrap) and "project" in steps(bootstrap)


def test_interrupted_set_up_starts_afresh(bootstrap: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    real = bootstrap.install_packages

    def interrupted(extras: object, *, only_dependencies: bool) -> None:
        raise KeyboardInterrupt

    bootstrap.install_packages = interrupted
    with pytest.raises(KeyboardInterrupt):
        bootstrap.main()
    (bootstrap.VENV / "half-installed").touch()
    assert not bootstrap.is_ready("", bootstrap.EXTRAS)

    bootstrap.install_packages = real
    bootstrap.commands.clear()
    bootstrap.main()
    assert steps(bootstrap)[0] == "venv"
    assert "interrupted: starting afresh" in capsys.readouterr().out
    assert not (bootstrap.VENV / "half-installed").exists()
    assert bootstrap.is_ready("", bootstrap.EXTRAS)


def test_moved_project_gets_a_new_environment(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.main()
    moved = bootstrap.ROOT.rename(bootstrap.ROOT.with_name("moved"))
    for name, path in {"ROOT": "", "VENV": ".venv", "STAMP": ".venv/.ready", "STATE": ".setup"}.items():
        monkeypatch.setattr(bootstrap, name, moved / path)
    bootstrap.commands.clear()
    assert not bootstrap.is_ready("", bootstrap.EXTRAS)
    monkeypatch.setattr(bootstrap, "make_venv", lambda unfinished: bootstrap.commands.append((("-m venv",), False)))
    bootstrap.main()
    assert steps(bootstrap)[0] == "venv"


def test_environment_of_somebody_else_is_added_to(bootstrap: ModuleType) -> None:
    """A .venv that was not made here (with an own detectron2, for instance) is never cleared."""
    (bootstrap.VENV / "bin").mkdir(parents=True)
    (bootstrap.VENV / "bin" / "python").symlink_to(sys.executable)
    (bootstrap.VENV / "mine").touch()
    bootstrap.main()
    assert "venv" not in steps(bootstrap)
    assert (bootstrap.VENV / "mine").exists()


def test_importable_detectron2_is_kept(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "imports_detectron2", lambda: True)
    bootstrap.install_detectron2("")
    assert steps(bootstrap) == []


def test_wheel_if_detectron2_is_missing(bootstrap: ModuleType) -> None:
    bootstrap.install_detectron2("")
    assert steps(bootstrap) == ["wheel"]


def test_detectron2_spec_overrides_and_is_remembered(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap.main()
    monkeypatch.setenv("DETECTRON2_SPEC", "git+https://example.org/d2@abc")
    bootstrap.commands.clear()
    bootstrap.main()
    assert any(command[-2:] == ("--no-build-isolation", "git+https://example.org/d2@abc") for command, _ in bootstrap.commands)
    assert "uninstall" in steps(bootstrap) and "spec" in steps(bootstrap)
    assert json.loads(bootstrap.STAMP.read_text())["detectron2_spec"] == "git+https://example.org/d2@abc"

    monkeypatch.delenv("DETECTRON2_SPEC")
    bootstrap.commands.clear()
    bootstrap.main()
    assert bootstrap.commands == []


def test_wheel_goes_past_its_tag_and_loses_the_compiled_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load()
    packages = tmp_path / "site-packages"
    (packages / "detectron2").mkdir(parents=True)
    compiled = packages / "detectron2" / "_C.cpython-310-x86_64-linux-gnu.so"
    compiled.touch()
    (packages / "detectron2" / "__init__.py").touch()
    asked = subprocess.CompletedProcess((), 0, stdout=f"{packages}\n")
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: asked)
    commands: list[tuple[str, ...]] = []
    monkeypatch.setattr(module, "run", lambda *command, constrained=False: commands.append(command))
    module.install_detectron2_wheel()
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} < set(commands[0])
    assert commands[0][commands[0].index("--target") + 1] == str(packages)
    assert not compiled.exists() and (packages / "detectron2" / "__init__.py").exists()


def test_wheel_is_pinned_by_hash() -> None:
    lines = [line for line in (ROOT / "envs" / "detectron2.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 1
    name, _, digest = lines[0].partition(" --hash=sha256:")
    assert name == "sal-detectron2==0.7.2"
    assert digest == "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"


def test_wrong_python_names_what_was_found(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = fake_python(tmp_path / "old", "python3.12", "3 10")
    monkeypatch.setenv("PATH", str(old.parent))
    monkeypatch.setattr(bootstrap.sys, "_base_executable", str(old))
    with pytest.raises(SystemExit) as stopped:
        bootstrap.find_python()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert f"found: {old} is 3.10" in said and "remedy:" in said and "python3-venv" in said


def test_supported_python_on_path_is_taken(bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = fake_python(tmp_path / "bin", "python3", "3 14")
    shim = fake_python(tmp_path / "bin", "python3.11", "oops")
    good = fake_python(tmp_path / "bin", "python3.13", "3 13")
    monkeypatch.setenv("PATH", f"{shim.parent}:/usr/bin:/bin")
    monkeypatch.setattr(bootstrap.sys, "_base_executable", str(old))
    if Path("/usr/bin/python3.12").exists():
        pytest.skip("this machine's own python3.12 would be found first")
    assert bootstrap.find_python() == str(good)


def test_named_python_that_is_absent(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHON", "python9.9")
    with pytest.raises(SystemExit):
        bootstrap.find_python()
    assert "found: none" in capsys.readouterr().err


def test_missing_venv_module_names_the_package(
    bootstrap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho \"ModuleNotFoundError: No module named 'ensurepip'\" >&2\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(SystemExit) as stopped:
        bootstrap.check_venv_module(str(python))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "No module named 'ensurepip'" in said and "apt-get install python3-venv" in said


@pytest.mark.parametrize(("root_gb", "temporary_gb", "complaint"), [(11.9, 100, "12 GB are needed"), (50, 3, "TMPDIR=")])
def test_full_disk_is_named_before_anything_is_downloaded(
    root_gb: float, temporary_gb: float, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    module = load()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    free = {tmp_path: root_gb, Path(module.tempfile.gettempdir()): temporary_gb}
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(0, 0, free[Path(path)] * 1e9))
    with pytest.raises(SystemExit) as stopped:
        module.check_disk()
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_failing_command_stops_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = load()
    with pytest.raises(SystemExit) as stopped:
        module.run(sys.executable, "-c", "raise SystemExit(7)")
    assert stopped.value.code == 2
    assert "failed with exit code 7" in capsys.readouterr().err


def test_readable_by_old_pythons() -> None:
    """A newcomer's Python 3.8 must get the remedy, not a syntax error."""
    tree = ast.parse((ROOT / "envs" / "bootstrap.py").read_text(), feature_version=(3, 8))
    assert isinstance(tree.body[1], ast.ImportFrom) and tree.body[1].module == "__future__"


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "-C", str(ROOT), "--no-print-directory", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_make_lists_its_targets() -> None:
    listed = [line.split()[1] for line in make("help").stdout.splitlines() if line.startswith("make ")]
    assert listed == ["help", "setup", "demo", "demo-ct", "test", "test-slow", "envs", "docs", "constraints", "clean"]


def test_make_without_python_names_the_remedy() -> None:
    done = make("setup", "PYTHON=python9.9")
    assert done.returncode == 2
    assert "python9.9 is not on PATH" in done.stderr and "remedy: apt-get install python3" in done.stderr


def test_continuous_integration_runs_what_a_contributor_runs() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"
    assert "pytest" in make("--dry-run", "test").stdout
