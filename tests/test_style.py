"""House rules that a tool can check: style, types, spelling, sizes, docstrings, imports, nothing of one machine."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
FOLDERS = (".ci", "docs", "envs", "profiles", "src", "tests", "workflow")
ROOT_FILES = ("*.md", "*.toml", "*.yaml", "*.cff", "Makefile", "Snakefile", "NOTICE", ".gitignore", "benchmarks/*.py")
MAX_FUNCTION_LINES = 65
MAX_FILE_LINES = 400
# Rooms from the ground up: a module imports its own room and those below it. The wings stand side by side.
LAYERS = (
    {"errors", "exit_codes"},
    {"files"},
    {"settings"},
    {"runs"},
    {"findings"},
    {"figures"},
    {"training"},
    {"report"},
    {"evaluation"},
    {"cxr", "ct"},
    {"gallery"},
    {"config"},
    {"reading"},
    {"export"},
    {"cli", "detector", ""},
    {"__main__"},
)
LOOSE = {"", "__main__", "config", "errors", "exit_codes", "settings"}  # modules at the root of the package
# What others import or type, and may go on to.
PINNED = ("d2rnet.cli:main", "d2rnet:load_models", "d2rnet.report:load_r2gen_decoder", "d2rnet.detector:")
# The environments of these modules' rules hold no torch, so nothing that they import may need it.
WITHOUT_TORCH = (
    "cli",
    "config",
    "ct.ablation.",
    "ct.annotation.",
    "ct.demo.",
    "ct.evaluation.evaluate",
    "ct.evaluation.settings",
    "ct.report_model.kept",
    "ct.report_model.settings",
    "ct.settings",
    "ct.sources.",
    "ct.structure_model.settings",
    "ct.structures.",
    "cxr.ablation",
    "cxr.annotation.",
    "cxr.conversion.",
    "cxr.demo.",
    "cxr.detector.results",
    "cxr.detector.settings",
    "cxr.images.",
    "cxr.report_model.settings",
    "cxr.sources.",
    "cxr.summary.",
    "ct.conversion.",
    "ct.volumes.",
    "evaluation.",
    "export.annotated_images",
    "export.coco",
    "export.label_studio",
    "export.radeval",
    "gallery.",
    "reading.cxr_settings",
    "reading.dicom.",
    "report.text.",
)
DEEP_LEARNING = {"torch", "torchvision", "detectron2", "lightning", "safetensors"}
NOT_PORTABLE = {
    "path of one machine": r"(?<![\w.])/(?:home|root|Users|work)/\w",
    "package index": r"pypi[.]|pythonhosted[.]|anaconda[.](?:org|com)|index[-_]url\W{1,4}(?:https?|file):",
}


def text_files(repository: Path) -> list[Path]:
    """Files that people write or read: no pictures, no caches."""
    found = [path for folder in FOLDERS for path in (repository / folder).rglob("*") if "__pycache__" not in path.parts]
    found += [path for pattern in ROOT_FILES for path in repository.glob(pattern)]
    return sorted(path for path in found if path.is_file() and path.suffix not in (".png", ".svg", ".pyc"))


@pytest.fixture(scope="module")
def modules(repository) -> dict[str, ast.Module]:
    """Module name below d2rnet, such as "data.coco", -> its syntax tree; "" is the package itself."""
    package = repository / "src" / "d2rnet"
    trees = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text(encoding="utf-8"))
    return trees


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "--quiet", "."), ("ruff", "format", "--check", "--quiet", "."), ("mypy", "--no-error-summary")],
    ids=["ruff check", "ruff format", "mypy"],
)
def test_tool_is_content(repository, command):
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_spelling(repository):
    names = [str(path.relative_to(repository)) for path in text_files(repository)]
    done = subprocess.run([BIN / "codespell", *names], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sizes_of_files_and_functions(repository):
    too_long = []
    for path in sorted((repository / "src").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            too_long.append(f"{path.name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
                too_long.append(f"{path.name}: {node.name} has {node.end_lineno - node.lineno + 1} lines")
    assert too_long == []


def test_public_names_have_docstrings(modules):
    without = [f"{name} (module)" for name, tree in modules.items() if not ast.get_docstring(tree)]
    for name, tree in modules.items():
        without += [f"{name}.{public}" for public, node in public_definitions(tree) if not ast.get_docstring(node)]
    assert without == []


def public_definitions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield functions, classes and methods whose names do not begin with an underscore."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
            yield prefix + child.name, child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{child.name}.")


def imported(node: ast.AST) -> set[str]:
    """Modules that an import statement names; ``from a import b`` names ``a`` and, should it be a module, ``a.b``."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return set()


def own_imports(modules) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, at its top or in a function."""
    found = {}
    for name, tree in modules.items():
        others = {
            other.removeprefix("d2rnet.") for node in ast.walk(tree) for other in imported(node) if other.startswith("d2rnet.")
        }
        found[name] = (others & modules.keys()) - {name}
    return found


def test_imports_point_down(modules):
    heights = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
    wrong = []
    for name, others in own_imports(modules).items():
        room = name.split(".")[0]
        for other in others:
            below = other.split(".")[0]
            if below != room and heights[below] >= heights[room]:
                wrong.append(f"{name} imports {other}")
    assert sorted(wrong) == []


def test_no_module_imports_itself_through_others(modules):
    waiting = own_imports(modules)

    def ends() -> list[str]:
        """Modules that import none of the others, or that none of them imports: they are in no circle."""
        imported_ones = set().union(*waiting.values())
        return [name for name, others in waiting.items() if name not in imported_ones or not others & waiting.keys()]

    while free := ends():
        for name in free:
            del waiting[name]
    assert sorted(waiting) == [], "these modules form circles, or lie between two"


def test_no_module_lies_loose_at_the_root(repository):
    package = repository / "src" / "d2rnet"
    assert {path.stem.replace("__init__", "") for path in package.glob("*.py")} == LOOSE
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms | LOOSE <= set().union(*LAYERS)


@pytest.mark.parametrize("name", PINNED)
def test_names_that_others_use_stay(name):
    module, _, attribute = name.partition(":")
    found = importlib.import_module(module)
    assert not attribute or callable(getattr(found, attribute))


def test_detector_registers_its_architecture():
    importlib.import_module("d2rnet.detector")
    from detectron2.modeling import META_ARCH_REGISTRY

    assert "UnbiasedTeacherRCNN" in META_ARCH_REGISTRY


def test_stages_without_torch_import_none(modules):
    direct = {name: set().union(*map(imported, tree.body)) for name, tree in modules.items()}

    def needs(name: str, seen: set[str]) -> Iterator[str]:
        seen.add(name)
        for other in direct[name]:
            if other.split(".")[0] in DEEP_LEARNING:
                yield f"{name} imports {other}"
            own = other.removeprefix("d2rnet.")
            if own != other and own in direct and own not in seen:
                yield from needs(own, seen)

    checked = [name for name in modules if name.startswith(WITHOUT_TORCH)]
    assert len(checked) > 40
    assert [line for name in checked for line in needs(name, set())] == []


@pytest.mark.parametrize("kind", NOT_PORTABLE)
def test_nothing_of_one_machine(repository, kind):
    pattern = re.compile(NOT_PORTABLE[kind], flags=re.IGNORECASE)
    found = [
        f"{path.relative_to(repository)}:{number}: {line.strip()}"
        for path in text_files(repository)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert found == []


def test_ci_runs_what_a_contributor_runs(repository):
    script = repository / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "exec make test"
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^test:.*\n\t(.*)", makefile, flags=re.MULTILINE)
    assert recipe and "$(PYTEST)" in recipe[1]
    assert re.search(r"^PYTEST := .*-m pytest ", makefile, flags=re.MULTILINE)
