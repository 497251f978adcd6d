"""Execute read_and_look.ipynb on a finished demo run, and keep what it shows.

Run: ``python docs/notebooks/execute.py --run RUN``, after ``make demo`` in RUN. Times do not enter the file: it changes only
with what a reader sees.
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from d2rnet.files.atomic import write_text

NOTEBOOK = Path(__file__).resolve().with_name("read_and_look.ipynb")
TIMEOUT_SECONDS = 600  # of a cell


def execute(run: Path) -> NotebookNode:
    """Execute every cell in the notebook's own folder.

    Args:
        run: working directory of a finished run of the demo cohort.

    Returns:
        The notebook with its outputs; execution times are left out.

    Raises:
        CellExecutionError: a cell failed; its traceback is in the message.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    os.environ["D2RNET_RUN"] = str(run.resolve())
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    executed = NotebookClient(notebook, timeout=TIMEOUT_SECONDS, record_timing=False, resources=place).execute()
    for cell in executed.cells:
        if cell.cell_type == "code":
            # warnings of libraries name files of this machine
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return executed


def main() -> None:
    """Parse the command line, execute, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path(), help="working directory of a finished demo run (default: here)")
    executed = execute(parser.parse_args().run)
    write_text(NOTEBOOK, nbformat.writes(executed) + "\n")


if __name__ == "__main__":
    main()
