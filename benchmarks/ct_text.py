"""How well and how fast chest CT reports are cut into structures: hand-labelled sentences, and reports as many as CT-RATE's.

The sentences are those of the tests (tests/ct/structures): a development half, on which the words were mended, and a
held-out half, on which nothing was. The reports timed are drawn from all of them, 20 sentences each, measures changed so that
many sentences differ.

Usage: python benchmarks/ct_text.py [--reports 25692]
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from pathlib import Path

from d2rnet.ct.structures.rates import one_rate, rate_lines
from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import load_table

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "ct" / "structures"))

from labelled_sentences import FILES, count, read_reports

KINDS = {
    "names": "structure named",
    "abnormal": "structure abnormal",
    "not judged": "structure not judged",
    "label": "abnormality",
}
SENTENCES = 20


def accuracy(file_name: str) -> list[str]:
    """Lines of the tables of one half."""
    lines = []
    counts = count(file_name)
    for kind, header in KINDS.items():
        found = {name.removeprefix(f"{kind} "): entry for name, entry in counts.items() if name.startswith(f"{kind} ")}
        total = sum(found.values(), Counter())
        rows = {
            name: one_rate(entry["hit"], entry["hit"] + entry["missed"], entry["hit"] + entry["invented"])
            for name, entry in {**found, "all": total}.items()
        }
        lines += [*rate_lines(rows, header), ""]
    return lines


def drawn_reports(number: int) -> list[str]:
    """Draw reports of SENTENCES sentences each."""
    rng = random.Random(1)
    texts = [sentence.text for name in FILES.values() for report in read_reports(name) for sentence in report]
    reports = []
    for _ in range(number):
        drawn = [rng.choice(texts) for _ in range(SENTENCES)]
        changed = [
            re.sub(r"\d+(?= mm)", str(rng.randrange(2, 90)), text)
            if place % 3
            else text.replace(" is ", f" of {rng.randrange(2, 90)} x {rng.randrange(2, 90)} mm is ", 1)
            for place, text in enumerate(drawn)
        ]
        reports.append(" ".join(changed))
    return reports


def speed(number: int) -> str:
    """Cut drawn reports into structures; say how long it took."""
    reports = drawn_reports(number)
    table = load_table("ten")
    start = time.process_time()
    for report in reports:
        structures_of(report, table)
    seconds = time.process_time() - start
    different = len({sentence for report in reports for sentence in report.split(". ")})
    return f"{number} reports of {SENTENCES} sentences, {different} of them different: {seconds:.1f} s of processor time"


def main() -> None:
    """Print the tables and the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=25_692, help="reports to time (CT-RATE's number)")
    arguments = parser.parse_args()
    for half, name in FILES.items():
        print(f"{half}: {sum(map(len, read_reports(name)))} sentences\n")
        print("\n".join(accuracy(name)))
    print(speed(arguments.reports))


if __name__ == "__main__":
    main()
