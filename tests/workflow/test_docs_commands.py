"""Commands that docs show are run as they stand, on the tiny run: every bash block with the word 'run' behind 'bash'."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "workflow/presets/tiny.yaml"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```bash run\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S), 1)
]


def on_tiny_run(line: str) -> str:
    """Give a line that begins with snakemake its Snakefile, cores and the preset of the run, below the line's own files."""
    if not line.startswith(".venv/bin/snakemake"):
        return line
    line = line.replace("snakemake", f'snakemake -s "{ROOT / "Snakefile"}" --cores 1', 1)
    return (
        line.replace("--configfile", f'--configfile "{TINY}"') if "--configfile" in line else f'{line} --configfile "{TINY}"'
    )


def test_there_are_blocks_to_run():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(run, block, tmp_path):
    """In the folder of a finished run; Snakemake is told where its files are and which preset made the run."""
    script = "\n".join(on_tiny_run(line) for line in block.splitlines()).replace(".venv/bin/", "")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(["bash", "-euc", script], cwd=run, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_report_page_holds_every_item_with_its_caption(repository, run, tmp_path):
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "snakemake", "-s", repository / "Snakefile", "-d", run, "--configfile", TINY]
    done = subprocess.run([*command, "--report", page], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    text = page.read_text(encoding="utf-8")
    rules = "\n".join(path.read_text() for path in (repository / "workflow/rules").glob("*.smk") if path.stem != "ablation")
    items = re.findall(r'report\(\s*"([^"]+)",\s*caption="\.\./report/(\w+)\.rst"', rules)
    assert len(items) >= 13
    for file, caption in items:
        if Path(file).name == "thresholds.json":  # only where thresholds are calibrated
            continue
        assert f'"{file}"' in text, f"{file} is not in the report"
        words = (repository / f"workflow/report/{caption}.rst").read_text(encoding="utf-8").split()[:6]
        assert " ".join(words) in text.replace("\\n", " ").replace("\n", " "), f"caption of {file}"
    assert "fetch(" not in text or "https://cdn" not in text
