"""What training and generation ask of the tokens of a report, whoever made them."""

from collections.abc import Iterable
from typing import Protocol


class ReportTokens(Protocol):
    """Report <-> ids; ids 0 to 3 are those of :mod:`d2rnet.report.text.vocabulary`."""

    @property
    def protocol(self) -> str:
        """Text protocol of what is decoded."""

    def encode(self, report: str, *, max_tokens: int) -> list[int]:
        """Turn a report into ids, from ``<bos>`` to ``<eos>``; a longer one is cut and gets no ``<eos>``."""

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Turn ids into the words of a cleaned report; nothing after ``<eos>`` is read."""
