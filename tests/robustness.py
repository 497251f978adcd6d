"""Write sections of docs/reference/robustness.md from what the tests find. Not collected by pytest.

Each section stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; the others are left as they are.

Usage: python tests/robustness.py battery | slurm | guards [--jobs N]
"""

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mutants

PAGE = mutants.REPOSITORY / "docs" / "reference" / "robustness.md"
GUARDS = "robustness"
SLURM_TESTS = Path("tests") / "cluster" / "test_slurm_faults.py"
SLURM_COLUMNS = {"fault": "fault", "snakemake": "Snakemake said", "slurm": "jobs of the rule", "resumed": "resumed from"}
FAILED = "NO"


class PageError(Exception):
    """The page lacks the markers of a section."""


def replace_section(page: str, name: str, text: str) -> str:
    """Return a page with the text between the markers of a section exchanged.

    Raises:
        PageError: the page has no such section.
    """
    pattern = re.compile(rf"(<!-- begin: {re.escape(name)} -->\n).*?(<!-- end: {re.escape(name)} -->)", flags=re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise PageError(f"{PAGE.name}: expected the markers '<!-- begin: {name} -->' and '<!-- end: {name} -->' once")
    return pattern.sub(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", page)


def write_section(name: str, text: str) -> None:
    """Exchange a section of the page."""
    from d2rnet.files.atomic import (
        write_text,  # not above: processes that try a guard import this module before the changed package
    )

    write_text(PAGE, replace_section(PAGE.read_text(encoding="utf-8"), name, text))


def battery() -> str:
    """Run the battery of malformed inputs and return its section."""
    sys.path[:0] = [str(Path(__file__).with_name("hostile")), str(Path(__file__).with_name("ct") / "volumes")]
    import hostile_battery

    return hostile_battery.section(hostile_battery.run_all())


def slurm() -> str:
    """Run the faults of a cluster, which takes half an hour, and return their section."""
    from d2rnet.runs.provenance import code_version  # not above: as in write_section

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = [sys.executable, "-m", "pytest", "-q", "-m", "slow", str(SLURM_TESTS)]
        words += [f"--junitxml={report}", "-o", "junit_family=xunit1"]  # xunit2 has no place for what tests record
        subprocess.run(words, cwd=mutants.REPOSITORY, check=False)
        text = report.read_text(encoding="utf-8")
    return slurm_section(text, str(code_version()["commit"] or "unknown"))


def slurm_section(report: str, commit: str) -> str:
    """Lay out what the tests of :data:`SLURM_TESTS` recorded, from pytest's report in JUnit's XML."""
    cases = list(ET.fromstring(report).iter("testcase"))
    rows = []
    for case in cases:
        told = {item.attrib["name"]: item.attrib["value"] for item in case.iter("property")}
        failed = any(case.find(what) is not None for what in ("failure", "error", "skipped"))
        cells = [told.get(name, case.attrib["name"]) for name in SLURM_COLUMNS]
        rows.append(f"| {' | '.join(cells)} | {FAILED if failed else 'yes'} |")
    minutes = sum(float(case.attrib["time"]) for case in cases) / 60
    head = f"`python tests/robustness.py slurm`, commit {commit[:12]}: {len(cases)} runs, {minutes:.0f} minutes in all."
    titles = [*SLURM_COLUMNS.values(), "equal"]
    return "\n".join([head, "", f"| {' | '.join(titles)} |", "|---" * len(titles) + "|", *rows])


def guards(jobs: int) -> str:
    """Remove one guard after the other and return the table of the tests that notice."""
    found = mutants.chosen(mutants.read_tables(), GUARDS, ())
    verdicts = mutants.judge_all(found, jobs)
    rows = [
        f"| {guard.name} | {guard.formula} | `src/d2rnet/{guard.file}` | {_shown(verdict)} |"
        for guard, verdict in zip(found, verdicts, strict=True)
    ]
    survived = verdicts.count(mutants.SURVIVED)
    head = f"{len(found)} guards removed one at a time (`tests/mutations/{GUARDS}.yaml`); {survived} survived."
    return "\n".join(
        [head, "", "| guard | what it guards | where | first test that fails without it |", "|---|---|---|---|", *rows]
    )


def _shown(verdict: str) -> str:
    return verdict if verdict == mutants.SURVIVED else "`" + verdict.replace("|", "/").replace("`", "'") + "`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the section that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=("battery", "guards", "slurm"))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="guards tried at a time; default 1")
    options = parser.parse_args(arguments)
    mutants.PROCESSES.set_forkserver_preload(mutants.PRELOADED)
    text = {"battery": battery, "slurm": slurm, "guards": partial(guards, options.jobs)}[options.section]()
    write_section(options.section, text)
    return 1 if mutants.SURVIVED in text or f"| {FAILED} |" in text else 0


if __name__ == "__main__":
    sys.exit(main())
