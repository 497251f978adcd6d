"""envs/<rule>.yaml: in step with pyproject.toml, readable by conda and pip, and enough for what each rule imports."""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement

from d2rnet.cli.commands import COMMANDS, FOR_PEOPLE

ROOT = Path(__file__).resolve().parents[1]
RULES = sorted(name.replace("-", "_") for name in COMMANDS.keys() - FOR_PEOPLE)

# Extras that set-up leaves to the user.
NOT_SET_UP = {"text-encoder", "colipri", "fuzz", "read"}
# Import name -> name on the Python index, where they differ.
DISTRIBUTIONS = {
    "SimpleITK": "simpleitk",
    "yaml": "pyyaml",
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "ensemble_boxes": "ensemble-boxes",
}
# pylibjpeg and its plug-ins are loaded by pydicom; these come with a package that is listed.
BROUGHT_ALONG = {"openjpeg": "pylibjpeg-openjpeg", "libjpeg": "pylibjpeg-libjpeg"}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """envs/generate.py, which is no package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "envs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def dependencies(rule: str) -> tuple[list[str], list[str]]:
    """Conda specs and pip specs of an environment file."""
    content = yaml.safe_load((ROOT / "envs" / f"{rule}.yaml").read_text())
    assert content["channels"] == ["conda-forge", "nodefaults"]
    conda = [item for item in content["dependencies"] if isinstance(item, str)]
    pip = [spec for item in content["dependencies"] if isinstance(item, dict) for spec in item["pip"]]
    return conda, pip


def test_every_rule_has_a_file_and_no_file_is_left_over(generate: ModuleType) -> None:
    assert sorted(generate.EXTRAS) == RULES
    assert sorted(path.stem for path in (ROOT / "envs").glob("*.yaml")) == RULES


@pytest.mark.parametrize("rule", RULES)
def test_file_is_what_the_generator_writes(generate: ModuleType, rule: str) -> None:
    written = (ROOT / "envs" / f"{rule}.yaml").read_text()
    assert written == generate.environment_text(rule), "run 'make envs' and commit the result"


@pytest.mark.parametrize("rule", RULES)
def test_conda_specs_are_strictly_valid(rule: str) -> None:
    rattler = pytest.importorskip("rattler")
    conda, _ = dependencies(rule)
    names = [rattler.MatchSpec(spec, strict=True).name.normalized for spec in conda]
    assert "python" in names and len(set(names)) == len(names)


@pytest.mark.parametrize("rule", RULES)
def test_pip_specs_are_the_pins(generate: ModuleType, rule: str) -> None:
    pins = dict(generate.read_pins())
    conda, pip = dependencies(rule)
    assert ("pip" in conda) == bool(pip)
    for spec in pip:
        requirement = Requirement(spec)
        assert str(requirement.specifier) == f"=={pins[requirement.name]}"


def test_detectron2_and_java_where_they_are_needed() -> None:
    with_detectron2 = {rule for rule in RULES if "detectron2 =0.6" in dependencies(rule)[0]}
    assert with_detectron2 == {
        "train_detector",
        "evaluate_detector",
        "calibrate_thresholds",
        "predict_boxes",
        "predict_boxes_shard",
    }
    assert [rule for rule in RULES if any(spec.startswith("openjdk") for spec in dependencies(rule)[0])] == [
        "ablation",
        "ct_ablation",
        "evaluate_ct_reports",
        "evaluate_reports",
    ]
    assert not any(spec.startswith("pytorch") for spec in dependencies("convert_labelled")[0])


def test_packages_that_a_setting_asks_for_are_where_they_are_imported() -> None:
    """They are imported by name where a setting wants them, so that the imports of the code do not show them."""
    rules_of = {
        package: {rule for rule in RULES if any(spec.split()[0] == package for spec in dependencies(rule)[0])}
        for package in ("transformers", "peft", "monai", "einops")
    }
    language_model = {"train_ct_report_model", "generate_ct_reports_shard"}
    stage_one = {"train_structures", "evaluate_structures"}
    radiographs = {"train_report_model", "generate_reports_shard", "retrieve_reports"}
    assert rules_of["peft"] == language_model
    assert rules_of["transformers"] == language_model | stage_one | radiographs | {"evaluate_ct_reports"}
    assert rules_of["monai"] == rules_of["einops"] == stage_one | {"extract_ct_features_shard"}


def test_pins_fit_the_bounds_of_the_project(generate: ModuleType) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(generate.read_pins())
    extras = {name: items for name, items in project["optional-dependencies"].items() if name not in NOT_SET_UP}
    bounds = [*project["dependencies"], *(item for items in extras.values() for item in items)]
    for text in bounds:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[requirement.name]), f"{text}: constraints.txt has {pins[requirement.name]}"


def test_set_up_installs_every_extra_but_those_left_to_the_user() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tree = ast.parse((ROOT / "envs" / "bootstrap.py").read_text(encoding="utf-8"))
    assigned = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}
    assert set(ast.literal_eval(assigned["EXTRAS"])) == set(project["optional-dependencies"]) - NOT_SET_UP


def test_pins_name_no_folder_and_no_address() -> None:
    lines = (ROOT / "envs" / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert len(pinned) > 100
    assert [line for line in pinned if line.count("==") != 1 or "@" in line or "/" in line] == []


def test_pins_of_what_is_not_installed_are_kept_and_told(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of an extra that this environment lacks; one that is installed has one line, of its version here."""
    pins = tmp_path / "constraints.txt"
    pins.write_text("# Heading.\nPy_Yaml==0.1\nzz-not.installed==1.5\n")
    monkeypatch.setattr(generate, "CONSTRAINTS", pins)
    monkeypatch.setattr(generate, "installed_versions", lambda: {"py-yaml": "6.0", "Torch": "2.9", "d2rnet": "0.1"})
    monkeypatch.setattr(sys, "argv", ["generate.py", "--constraints"])
    for _ in range(2):
        generate.main()
        assert pins.read_text() == "# Heading.\npy-yaml==6.0\nTorch==2.9\nzz-not.installed==1.5\n"
        assert "not installed here, so kept as they are: zz-not.installed. Remove by hand" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "expected"),
    [("pandas>=2.2", ("pandas", ">=2.2")), ("snakemake >=9.16, <10", ("snakemake", ">=9.16,<10")), ("tqdm", ("tqdm", ""))],
)
def test_requirement_is_split(generate: ModuleType, text: str, expected: tuple[str, str]) -> None:
    assert generate.split_requirement(text) == expected


@pytest.mark.parametrize("text", ["torch[extra]>=2", "d2 @ git+https://example.org/d2", "a>=1; python_version<'3.12'"])
def test_requirement_that_conda_cannot_carry(generate: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="expected a name with version bounds only"):
        generate.split_requirement(text)


def imports_of(path: Path) -> set[str]:
    """Names that a module imports anywhere in it, but for type checking only."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for node in ast.walk(branch)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def third_party_of(module: str) -> set[str]:
    """Top-level packages that a module of d2rnet, its packages and all modules it imports need."""
    pending, seen, outside = [module], set(), set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.split(".")[0] != "d2rnet":
            outside.add(name.split(".")[0])
            continue
        base = ROOT / "src" / Path(*name.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        if path.is_file():
            pending += [*imports_of(path), name.rpartition(".")[0] or name]
    return outside - set(sys.stdlib_module_names)


def test_imports_are_followed() -> None:
    assert {"pandas", "numpy", "tqdm"} <= third_party_of("d2rnet.cxr.sources.mimic")
    assert "torch" not in third_party_of("d2rnet.cxr.conversion.convert_labelled")
    assert "pydantic" in third_party_of("d2rnet.settings")


@pytest.mark.parametrize("rule", RULES)
def test_environment_has_what_the_rule_imports(generate: ModuleType, rule: str) -> None:
    conda, pip = dependencies(rule)
    listed = {spec.split()[0] for spec in conda} | {Requirement(spec).name for spec in pip}
    module = COMMANDS[rule.replace("_", "-")].target.split(":")[0]
    needed = {DISTRIBUTIONS.get(name, BROUGHT_ALONG.get(name, name)) for name in third_party_of(module)}
    missing = {name for name in needed if generate.CONDA_NAMES.get(name, name) not in listed}
    assert not missing, f"{module} imports {missing}; add the extra to {rule} in envs/generate.py"
