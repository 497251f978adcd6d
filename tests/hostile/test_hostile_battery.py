"""The battery of malformed inputs: each is refused by name or set aside and counted, within stated memory and time.

docs/reference/robustness.md shows what became of each; ``python tests/robustness.py battery`` writes it.
"""

from collections import Counter

import pytest
from hostile_battery import CASES, table_rows
from hostile_case import READ, BatteryError, Case, Outcome, run_case
from hostile_readers import READERS

LEAST_MALFORMED = 150


@pytest.fixture(scope="session")
def page(repository):
    return (repository / "docs" / "reference" / "robustness.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.reader}: {case.name}")
def test_case(case, page, tmp_path):
    result = run_case(case, READERS[case.reader], tmp_path / "case")
    reader_name_outcome = table_rows([result])[0].split(" | ")[:3]
    stale = "docs/reference/robustness.md is stale; run 'python tests/robustness.py battery'"
    assert " | ".join(reader_name_outcome) in page, stale


def test_names_are_given_once_and_every_reader_is_tried():
    counts = Counter((case.reader, case.name) for case in CASES)
    assert [name for name, count in counts.items() if count > 1] == []
    assert {case.reader for case in CASES} == READERS.keys()


def test_page_shows_no_other_cases_and_enough_malformed_ones(page):
    rows = [row for row in page.splitlines() if row.removeprefix("| ").split(" | ")[0] in READERS]
    assert len(rows) == len(CASES)
    assert sum(row.split(" | ")[2] != READ for row in rows) >= LEAST_MALFORMED


def judged(tmp_path, answer, **changes):
    """Run a case of one file with a reader that answers so, or raises it."""

    def make(folder):
        (folder / "a.txt").write_text("x")
        return folder / "a.txt"

    def read(folder):
        if isinstance(answer, BaseException):
            raise answer
        return answer(folder) if callable(answer) else answer

    return run_case(Case("test", "case", make, **changes), read, tmp_path / "case")


def test_the_battery_notices_what_must_not_be(tmp_path):
    from d2rnet.errors import DatasetError

    def writes_outside(folder):
        (folder / "new.txt").write_text("x")
        raise DatasetError("a.txt: refused")

    def fills_memory(folder):
        block = bytearray(1200 << 20)
        block[:: 1 << 12] = b"x" * len(block[:: 1 << 12])
        raise DatasetError(f"a.txt: refused {len(block)}")

    wrong = {
        "KeyError from inside": KeyError("a.txt"),
        "names no a.txt": DatasetError("refused"),
        "does not name row 3": DatasetError("a.txt: refused"),
        "changed input/new.txt": writes_outside,
        "MiB, more than": fills_memory,
        "1 kept and 1 set aside of 3": Outcome("set aside", "a.txt: why", 1, 1),
        "expected refused": Outcome(READ, "read"),
        "comes from the operating system": FileNotFoundError(2, "a.txt"),
    }
    for number, (complaint, answer) in enumerate(wrong.items()):
        more = {"record": "row 3"} if "row 3" in complaint else {}
        more |= {"records": 3, "expected": ("set aside",)} if "kept" in complaint else {}
        with pytest.raises(BatteryError, match=complaint):
            judged(tmp_path / str(number), answer, **more)
    assert judged(tmp_path / "right", DatasetError("a.txt: refused")).outcome.kind == "refused"
