"""Collect everything that is wrong with an input before stopping, instead of one complaint a run.

Shows the first ten of each kind and counts the rest; the list goes to a JSON lines file, at most MAX_LISTED of a kind: what is
wrong with a million records is one thing.
"""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_jsonl

SHOWN_PER_KIND = 10
MAX_LISTED = 1_000  # of a kind; a list of 377,110 would fill 287 MB
MAX_CHARACTERS = 2_000  # of each part of a problem: a box may be a list of a million numbers, an id a whole file


@dataclass(frozen=True)
class Problem:
    """One thing wrong in one record: kind is a snake_case word, record an id or 'row 17'."""

    kind: str
    file: str
    record: str
    got: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.record}: got {self.got}; expected {self.expected}. {self.remedy}"


class Problems:
    """A growing list of problems, grouped by kind."""

    def __init__(self) -> None:
        self._by_kind: dict[str, list[Problem]] = defaultdict(list)
        self._counts = Counter[str]()

    def add(self, kind: str, *, file: str | Path, record: str, got: object, expected: str, remedy: str) -> None:
        """Note one problem; beyond MAX_LISTED of a kind it is counted alone."""
        self._counts[kind] += 1
        if self._counts[kind] > MAX_LISTED:
            return
        self._by_kind[kind].append(Problem(kind, *map(_shortened, (str(file), record, str(got), expected, remedy))))

    def __len__(self) -> int:
        return self._counts.total()

    def all(self) -> list[Problem]:
        """Every listed problem, kind by kind, in the order noted; behind a list that is cut one that says how many more."""
        found = []
        for kind, listed in sorted(self._by_kind.items()):
            found += listed
            if more := self._counts[kind] - len(listed):
                found.append(
                    Problem(kind, listed[-1].file, f"and {more} more", "the same kind", "none", "See those before it.")
                )
        return found

    def counts(self) -> dict[str, int]:
        """Kind -> number of problems."""
        return dict(sorted(self._counts.items()))

    def text(self) -> str:
        """A readable summary: each kind with its count and the first ten."""
        lines = []
        for kind, found in sorted(self._by_kind.items()):
            lines.append(f"{kind}: {self._counts[kind]}")
            lines.extend(f"  {problem}" for problem in found[:SHOWN_PER_KIND])
            if self._counts[kind] > SHOWN_PER_KIND:
                lines.append(f"  ... and {self._counts[kind] - SHOWN_PER_KIND} more")
        return "\n".join(lines)

    def raise_if_any(self, *, details: str | Path | None = None) -> None:
        """Raise if anything was noted, after writing the whole list to ``details``.

        The message does not say which step failed: the command line puts its command before every error.

        Args:
            details: JSON lines file for all problems; None to write nothing.

        Raises:
            DatasetError: with the summary of :meth:`text`.
        """
        if not len(self):
            return
        where = ""
        if details is not None:
            write_jsonl(details, (asdict(problem) for problem in self.all()))
            where = f"\nOne a line, at most {MAX_LISTED} of a kind: {details}"
        raise DatasetError(f"{len(self)} problem(s) in the input.\n{self.text()}{where}")


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}... ({len(text)} characters)"
