"""The mutation script: its tables fit the code, and it tells caught from surviving and from unusable mutations."""

from collections import Counter
from pathlib import Path

import mutants
import pytest
import yaml
from mutants import Mutation, TableError

DOUBLED = Mutation("area", "doubled", "y = 2 x", "double.py", "2 * x", "3 * x", ("test_double.py",))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A package with one function and a test that looks at 2 but not at 0."""
    (tmp_path / mutants.PACKAGE).mkdir(parents=True)
    (tmp_path / mutants.PACKAGE / "__init__.py").touch()
    (tmp_path / mutants.PACKAGE / "double.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "tests").mkdir()
    test = "from d2rnet.double import double\n\n\ndef test_two():\n    assert double(2) == 4\n"
    (tmp_path / "tests" / "test_double.py").write_text(test)
    return tmp_path


def test_every_mutation_fits_the_code_and_names_tests_that_exist(repository: Path) -> None:
    mutations = mutants.read_tables()
    assert len(mutants.places(mutations)) == len(mutations)
    assert Counter(mutation.area for mutation in mutations)["detector"] >= 30
    for mutation in mutations:
        assert mutation.tests
        for test in mutation.tests:
            assert (repository / "tests" / test.partition("::")[0]).is_file(), mutation.name


def test_caught_and_surviving(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    power = Mutation("area", "power", "y = 2 x", "double.py", "2 * x", "x**2", ("test_double.py",))  # the same at 2
    assert mutants.judge_all([DOUBLED, power], 1, project) == ["test_double.py::test_two", mutants.SURVIVED]
    assert (project / mutants.PACKAGE / "double.py").read_text() == "def double(x):\n    return 2 * x\n"
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["doubled", "double.py:2", "test_double.py::test_two"]
    assert shown[1].strip() == "y = 2 x"


def test_a_test_that_fails_anyway_judges_nothing(project: Path) -> None:
    (project / "tests" / "test_double.py").write_text("def test_two():\n    assert False\n")
    with pytest.raises(TableError, match=r"test_double.py::test_two fails without any mutation"):
        mutants.judge_all([DOUBLED], 1, project)


def test_slow_tests_are_not_taken_for_failing_ones(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutants, "TIME_LIMIT_SECONDS", 0)
    with pytest.raises(TableError, match=r"test_double.py: not done after 0 s; fewer --jobs"):
        mutants.judge_all([DOUBLED], 1, project)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("2 + x", "3 * x", r"'2 \+ x' is 0 times in double.py; expected once. The code has changed"),
        ("x", "y", "'x' is 2 times in double.py"),
        ("2 * x", "2 * x", "old and new are the same"),
        ("2 * x", "2 * (x", "the changed file is no Python"),
    ],
)
def test_unusable_mutations_are_named(project: Path, old: str, new: str, complaint: str) -> None:
    unusable = Mutation("area", "unusable", "y = 2 x", "double.py", old, new, ("test_double.py",))
    with pytest.raises(TableError, match=f"area.yaml: unusable: {complaint}"):
        mutants.judge_all([DOUBLED, unusable], 1, project)


@pytest.mark.parametrize(("verdicts", "status"), [(["test_a"], 0), ([mutants.SURVIVED], 1)])
def test_exit_status(monkeypatch: pytest.MonkeyPatch, verdicts: list[str], status: int) -> None:
    monkeypatch.setattr(mutants, "judge_all", lambda mutations, jobs: verdicts)
    assert mutants.main(["--only", "box-sign"]) == status


@pytest.mark.parametrize("arguments", [["--area", "detectors"], ["--only", "box-sin"]])
def test_unknown_names(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert mutants.main(arguments) == 2
    assert f"{arguments[1]}; expected some of" in capsys.readouterr().err


def test_names_are_given_once(tmp_path: Path) -> None:
    group = {"file": "a.py", "tests": ["test_a.py"]}
    entry = {"name": "twice", "formula": "f", "old": "a", "new": "b"}
    (tmp_path / "area.yaml").write_text(yaml.safe_dump([{**group, "mutations": [entry, entry]}]))
    with pytest.raises(TableError, match="names given twice: twice"):
        mutants.read_tables(tmp_path)
