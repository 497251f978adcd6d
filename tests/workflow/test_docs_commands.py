"""The pages are followed: each command and each piece of Python in them is run, in the order of its page, in a fresh clone."""

import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from newcomer import make_clone
from report_items import assert_report_holds, report_items
from warm_snakemake import warm_snakemake

from d2rnet.cli import entry as cli

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "workflow/presets/cxr/tiny.yaml"
# README repeats commands of the other pages; what came before is not run again.
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "profiles/README.md", ROOT / "CONTRIBUTING.md", ROOT / "README.md"]
# Beginning of a command, or of a piece of Python -> why it is not run here; tests/test_docs.py parses it.
NOT_RUN = {
    "make ": "sets up an environment, or is this test suite, or the demo of eight minutes",
    "git clone": "needs the address of the repository",
    "DETECTRON2_SPEC=": "builds detectron2",
    "python3 -m venv": "makes an environment",
    ".venv/bin/python -m pip": "installs packages",
    "python -m pip": "likewise; tests/reading/test_read_extra.py does it in a fresh environment",
    ".venv/bin/snakemake --cores all --sdm conda": "needs conda; test_conda.py has a stand-in",
    ".venv/bin/python benchmarks/": "minutes to hours; each benchmark has its own tests",
    ".venv/bin/python tests/mutants.py": "an hour; test_mutants.py tries it",
    ".venv/bin/python docs/screenshots.py": "needs Chromium and the demo's 175 reports",
    ".venv/bin/python docs/notebooks/execute.py": "writes the committed notebook; test_notebook.py executes it",
    ".venv/bin/snakemake --report report.html cxr ablation": "needs a finished ablation",
    ".venv/bin/snakemake --report report.html ct": "needs a finished run of the target ct; test_ct_end_to_end.py makes one",
    ".venv/bin/d2rnet score-ct-": "needs tables that may not be passed on; tests/ct/structures draws some of their layout",
    ".venv/bin/tensorboard": "a server, which does not end",
    '"""Labelled source': "test_added_source.py puts it into a copy of the project",
    "LabelledName = Literal": "likewise",
    '"""Word F1': "test_metric_names.py puts it into a copy of the project",
    "from d2rnet.evaluation.word_f1": "likewise",
    "import fiftyone": "needs FiftyOne, which the project does not",
    ".venv/bin/d2rnet read scan.nii.gz": "needs a finished run of the target ct; tests/reading/test_ct.py makes a small one",
    ".venv/bin/d2rnet read dicom_folder/": "likewise",
    ".venv/bin/d2rnet describe-ct-reading": "likewise",
    ".venv/bin/d2rnet read chest.dcm --dicom-sr": "needs a file of a study; tests/reading/dicom draws some",
    "dcmsend ": "needs an archive; tests/reading/dicom/test_orthanc.py has one",
    "from pathlib import Path\n\nfrom dicomweb_client": "likewise",
    "import d2rnet\n\nmodels = d2rnet.load_ct_models": "likewise",
    ".venv/bin/d2rnet export rexrank": "needs ReXrank's images; tests/export/test_rexrank.py has copies of its layout",
    '"""inference.py': "likewise",
    ".venv/bin/d2rnet export hub --modality ct": "needs a run of the target ct; tests/export/test_hub.py has a small one",
    "wget ": "needs a network, and an account of PhysioNet",
    "docker ": "needs a container engine; docs/how-to/containers.md says what was run by hand",
    "podman ": "likewise",
    "apptainer ": "likewise",
    ".venv/bin/snakemake --cores all --sdm apptainer": "likewise; test_apptainer.py has a stand-in",
    ".venv/bin/snakemake --profile profiles/slurm --sdm apptainer": "likewise",
}
# Beginning of a command of Snakemake -> why only its plan is made.
PLANNED = {
    ".venv/bin/snakemake --profile profiles/slurm": "needs a cluster; tests/cluster has one",
    ".venv/bin/snakemake --profile profiles/workstation --configfile": "needs a GPU and open data",
    ".venv/bin/snakemake --profile profiles/workstation --directory runs/hospital": "GPU days, at the published settings",
    ".venv/bin/snakemake --cores all ct": "minutes; tests/ct converts a smaller cohort",
    ".venv/bin/snakemake --cores all verify_ct_inputs": "needs CT-RATE; tests/ct checks drawn copies",
}
# Whole runs of the workflow, a minute each and more: planned, and run by the slow tests.
SLOW = (
    ".venv/bin/snakemake --cores all --directory",
    ".venv/bin/snakemake --profile profiles/workstation --directory",
    ".venv/bin/snakemake --cores all ablation",
)


@dataclass(frozen=True)
class Step:
    """A command, or a block of Python, of a page."""

    text: str
    is_python: bool = False

    def __str__(self) -> str:
        return self.text


def steps_of(page: str) -> Iterator[Step]:
    """Yield what a reader types: lines of bash blocks, commands in the text, blocks of Python."""
    pattern = r"^ *```(bash|python)\n(.*?)^ *```|`(\.venv/bin/[^`\n]+)`"
    for language, block, inline in re.findall(pattern, page, flags=re.MULTILINE | re.DOTALL):
        if language == "python":
            yield Step(textwrap.dedent(block), is_python=True)
        elif language == "bash":
            yield from (Step(line.strip()) for line in block.replace("\\\n", " ").splitlines() if line.strip())
        elif "..." not in inline:
            yield Step(inline)


def plan() -> dict[str, list[Step]]:
    """Page -> its steps, each step once."""
    seen: set[Step] = set()
    steps = {}
    for page in PAGES:
        new = [step for step in steps_of(page.read_text(encoding="utf-8")) if step not in seen]
        seen.update(new)
        steps[str(page.relative_to(ROOT))] = new
    return steps


def planned(steps: list[Step], beginnings: tuple[str, ...]) -> list[Step]:
    """Make plans of the commands of Snakemake that begin so."""
    return [
        Step(step.text.replace("snakemake", "snakemake -n", 1)) if step.text.startswith(beginnings) else step for step in steps
    ]


PLAN = plan()
RUN = {page: [step for step in steps if not step.text.startswith(tuple(NOT_RUN))] for page, steps in PLAN.items()}
WHOLE = {page: planned(steps, tuple(PLANNED)) for page, steps in RUN.items()}
FAST = {page: planned(steps, SLOW) for page, steps in WHOLE.items()}


def follow(step: Step, clone: Path) -> None:
    """Do what a step says: a command of this package in this process, Snakemake's in a fork of one with all imported."""
    if step.is_python:
        exec(compile(step.text, "page", "exec"), {"__name__": "page"})
        return
    words = shlex.split(step.text, comments=True)
    is_simple = not {">", "|", ">>"} & {*words}
    if words[0] == ".venv/bin/d2rnet" and is_simple:
        assert cli.main(words[1:]) == 0, step
        return
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(clone / "home"),
        "OMP_NUM_THREADS": "1",
    }
    script = step.text.replace(".venv/bin/", "")
    if words[0] == ".venv/bin/snakemake" and is_simple:
        done = warm_snakemake(*words[1:], environment=environment)
    else:
        done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture
def clone(request, repository, run, tmp_path, monkeypatch) -> Path:
    """The clone in which a page is followed; the parameter is the page."""
    folder = tmp_path / "fresh clone"
    make_clone(folder, repository, run, (ROOT / request.param).read_text(encoding="utf-8"))
    (folder / "home").mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(("clone", "page"), [(page, page) for page, steps in FAST.items() if steps], indirect=["clone"])
def test_page_can_be_followed(clone, page):
    for step in FAST[page]:
        follow(step, clone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clone", "page"), [(page, page) for page, steps in WHOLE.items() if steps != FAST[page]], indirect=["clone"]
)
def test_page_with_whole_runs_can_be_followed(clone, page):
    for step in WHOLE[page]:
        follow(step, clone)


def test_most_commands_are_run_and_the_others_have_a_reason():
    steps = [step for found in PLAN.values() for step in found]
    assert sum(map(len, FAST.values())) >= 40
    for beginning in (*NOT_RUN, *PLANNED, *SLOW):
        assert any(step.text.startswith(beginning) for step in steps), f"{beginning}: no page says so any more"


@pytest.mark.parametrize("clone", ["docs/getting-started.md"], indirect=True)
def test_clone_is_a_finished_run(clone):
    """Else the pages would be followed in a place that no reader has."""
    done = warm_snakemake("-n", environment=os.environ)
    assert "Nothing to be done" in done.stdout + done.stderr, done.stdout[-3000:]


def test_report_page_holds_every_item_with_its_caption(repository, run, tmp_path):
    page = tmp_path / "report.html"
    words = ("-s", repository / "Snakefile", "-d", run, "--configfile", TINY, "--report", page)
    done = warm_snakemake(*words, environment=os.environ)
    assert done.returncode == 0, done.stderr[-4000:]
    items = report_items("cxr")
    assert len(items) >= 12  # pseudo boxes stand in the figure of the detector's training
    assert_report_holds(page, items)
