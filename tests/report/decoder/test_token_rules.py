"""Which tokens may come next."""

import pytest
import torch

from d2rnet.report.decoder.token_rules import NEVER, TokenRules
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, UNK_ID, SpecialIds

FREE = SpecialIds(padding=0, start=0, end=0, never_written=())


def forbidden(rules: TokenRules, written: list[list[int]], num_tokens: int = 9) -> list[set[int]]:
    """Forbidden tokens of each beam of one source; the others must keep their value."""
    rows = torch.tensor([written]).view(1, len(written), -1).long()
    given = torch.arange(-num_tokens, 0.0).repeat(1, len(written), 1)
    found = rules.restrict(given.clone(), rows)[0]
    assert torch.equal(found[found != NEVER], given[0][found != NEVER])
    return [set(row.isneginf().nonzero().flatten().tolist()) for row in found]


def test_special_tokens_are_never_written() -> None:
    assert forbidden(TokenRules(), [[]]) == [{PAD_ID, BOS_ID, UNK_ID}]
    assert forbidden(TokenRules(ids=FREE), [[]]) == [set()]


@pytest.mark.parametrize(("written", "held"), [(0, True), (2, True), (3, False), (4, False)])
def test_no_end_before_min_tokens(written: int, held: bool) -> None:
    found = forbidden(TokenRules(min_tokens=3), [[5] * written])[0]
    assert (EOS_ID in found) == held


def test_the_limit_is_stronger_than_min_tokens() -> None:
    rules = TokenRules(min_tokens=5, max_tokens=3)
    assert EOS_ID in forbidden(rules, [[5]])[0]
    assert EOS_ID not in forbidden(rules, [[5, 6]])[0]


@pytest.mark.parametrize(
    ("size", "written", "expected"),
    [
        (1, [5, 6, 5], {5, 6}),
        (2, [5, 6, 5], {6}),
        (2, [5, 6, 7], set()),
        (2, [5, 6, 5, 7, 5], {6, 7}),
        (3, [5, 6, 7, 8, 5, 6], {7}),
        (3, [5, 6, 7, 8, 6, 5], set()),
        (2, [5, 5], {5}),
        (2, [5], set()),
        (3, [5, 5], set()),
        (0, [5, 5, 5], set()),
    ],
)
def test_no_ngram_comes_twice(size: int, written: list[int], expected: set[int]) -> None:
    assert forbidden(TokenRules(no_repeat_ngram=size, ids=FREE), [written]) == [expected]


def test_each_beam_has_its_own_history() -> None:
    rules = TokenRules(no_repeat_ngram=2, ids=FREE)
    assert forbidden(rules, [[5, 6, 5], [5, 7, 5], [5, 7, 8]]) == [{6}, {7}, set()]
