"""The notebook runs from top to bottom on a finished run, and what is committed of it is what it shows."""

import importlib.util
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

pytestmark = pytest.mark.e2e
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "notebooks"
MOST_BYTES = 200_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed() -> NotebookNode:
    notebook = nbformat.read(FOLDER / "read_and_look.ipynb", as_version=4)
    nbformat.validate(notebook)
    return notebook


def kinds(notebook: NotebookNode) -> list[list[tuple[str, list[str]]]]:
    """Kind and content types of each output of each cell of code."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [[(output.output_type, sorted(output.get("data", {}))) for output in cell.outputs] for cell in cells]


def test_every_cell_runs_and_shows_what_the_committed_one_does(script, committed, run):
    executed = script.execute(run)
    assert kinds(executed) == kinds(committed)
    assert {path.name for path in (run / "readings").glob("chosen.*")} == {"chosen.json", "chosen.png", "chosen.html"}


def test_what_is_committed_was_executed_in_order_and_is_small(committed):
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert (FOLDER / "read_and_look.ipynb").stat().st_size < MOST_BYTES
    assert all(output.get("name") != "stderr" for cell in committed.cells for output in cell.get("outputs", []))


def test_a_folder_without_a_run_stops_the_notebook(script, tmp_path):
    with pytest.raises(CellExecutionError, match="train_detector"):
        script.execute(tmp_path)
