"""Write sections of docs/reference/robustness.md from what the tests find. Not collected by pytest.

Each section stands between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; the others are left as they are.

Usage: python tests/robustness.py battery | guards [--jobs N]
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import mutants

PAGE = mutants.REPOSITORY / "docs" / "reference" / "robustness.md"
GUARDS = "robustness"


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
    from d2rnet.io import write_text  # not above: processes that try a guard import this module before the changed package

    write_text(PAGE, replace_section(PAGE.read_text(encoding="utf-8"), name, text))


def battery() -> str:
    """Run the battery of malformed inputs and return its section."""
    sys.path.insert(0, str(Path(__file__).with_name("hostile")))
    import hostile_battery

    return hostile_battery.section(hostile_battery.run_all())


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
    parser.add_argument("section", choices=("battery", "guards"))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="guards tried at a time; default 1")
    options = parser.parse_args(arguments)
    mutants.PROCESSES.set_forkserver_preload(mutants.PRELOADED)
    text = battery() if options.section == "battery" else guards(options.jobs)
    write_section(options.section, text)
    return 1 if mutants.SURVIVED in text else 0


if __name__ == "__main__":
    sys.exit(main())
