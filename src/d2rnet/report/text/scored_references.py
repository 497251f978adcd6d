"""References as R2Gen scores them: through its own tokens, and cut.

R2Gen (Chen et al., EMNLP 2020) keeps the first ``max_seq_length`` ids of a report, of which one is the start token, and turns
them back into words to score against. So a published score compares with at most ``max_seq_length - 1`` words, in which a word
outside the vocabulary is ``<unk>``. Validation scores greedy reports so (report/validation.py); the test does, if it is asked
to (``evaluation.references: r2gen_exact``).
"""

from collections.abc import Sequence

from d2rnet.report.text.vocabulary import SPECIAL_TOKENS, UNK_ID, Vocabulary


def r2gen_cut(words: Sequence[str], *, max_tokens: int) -> Sequence[str]:
    """Return the words of a report that R2Gen keeps under ``max_seq_length`` = ``max_tokens``."""
    return words[: max_tokens - 1]


def r2gen_exact(report: str, vocabulary: Vocabulary, *, max_tokens: int) -> str:
    """Return a cleaned report as R2Gen scores it.

    Args:
        report: cleaned by the vocabulary's text protocol, words separated by single spaces.
        vocabulary: of the model that is scored.
        max_tokens: its ``training.max_report_tokens``.
    """
    unknown = SPECIAL_TOKENS[UNK_ID]
    words = (word if word in vocabulary.ids else unknown for word in report.split())
    return " ".join(r2gen_cut(list(words), max_tokens=max_tokens))
