"""The pieces of a language model's tokenizer as tokens of a report.

The report stage knows padding, start and end by its own ids (0, 1, 2); piece ``p`` of the tokenizer is id ``p + 4`` here, its
end token is ``<eos>``. So nothing is asked of the tokenizer but an end token, and no piece is mistaken for padding.

The model reads and writes reports as people do; what is decoded is cleaned by the text protocol, as references are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from d2rnet.report.text.protocols import clean_report
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, SPECIAL_TOKENS

OFFSET = len(SPECIAL_TOKENS)


@dataclass(frozen=True)
class LlmTokens:
    """Report <-> ids; a :class:`d2rnet.report.text.report_tokens.ReportTokens`.

    Attributes:
        tokenizer: of transformers.
        protocol: text protocol of what is decoded.
    """

    tokenizer: Any
    protocol: str

    def encode(self, report: str, *, max_tokens: int) -> list[int]:
        """Turn a report into ids, from ``<bos>`` to ``<eos>``; line breaks are spaces.

        Args:
            report: text as written.
            max_tokens: a longer report is cut to so many tokens and gets no ``<eos>``, which would be false.
        """
        special = set(self.tokenizer.all_special_ids)  # "</s>" in a report is text of no meaning, not its end
        pieces = self.tokenizer(" ".join(report.split()), add_special_tokens=False)["input_ids"]
        ids = [OFFSET + piece for piece in pieces if piece not in special]
        ending = [EOS_ID] if len(ids) <= max_tokens else []
        return [BOS_ID, *ids[:max_tokens], *ending]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Turn ids into the words of the cleaned report; nothing after ``<eos>`` is read."""
        pieces = []
        for index in ids:
            if index == EOS_ID:
                break
            if index >= OFFSET:
                pieces.append(index - OFFSET)
        text = self.tokenizer.decode(pieces, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return clean_report(text, self.protocol).split()
