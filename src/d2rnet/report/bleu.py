"""Corpus BLEU-4 of tokens, to pick weights on the validation split; published scores come from d2rnet.evaluation.

Source: Papineni et al., ACL 2002, with the smoothing of pycocoevalcap (1e-15 over 1e-9), so that both give the same number.
"""

import math
from collections import Counter
from collections.abc import Sequence

ORDERS = (1, 2, 3, 4)
TINY, SMALL = 1e-15, 1e-9


def corpus_bleu_4(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Score hypotheses against one reference each.

    Args:
        hypotheses: tokens of each generated report.
        references: tokens of each written report, in the same order.

    Returns:
        BLEU-4 in [0, 1].
    """
    matched, total = dict.fromkeys(ORDERS, 0), dict.fromkeys(ORDERS, 0)
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        for order in ORDERS:
            found, wanted = _ngrams(hypothesis, order), _ngrams(reference, order)
            matched[order] += (found & wanted).total()
            total[order] += found.total()
    precision = math.prod((matched[order] + TINY) / (total[order] + SMALL) for order in ORDERS) ** (1 / len(ORDERS))
    ratio = (sum(map(len, hypotheses)) + TINY) / (sum(map(len, references)) + SMALL)
    return precision * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[start : start + order]) for start in range(len(tokens) - order + 1))
