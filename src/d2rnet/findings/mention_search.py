"""Search of a lexicon in a normalised sentence: which classes it names, where and in which state. The same for every lexicon.

Reads patterns as data (mention_lexicon.py, ct_lexicon.py) and the scopes of mention_context.py.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from d2rnet.findings.mention_context import Scope, State, end_lists, state_of

Span = tuple[str, int, int]  # class, first character, one past the last


def _compiled(patterns: Mapping[str, Sequence[str]]) -> dict[str, re.Pattern[str]]:
    return {
        name: re.compile("|".join(rf"(?<= )(?:{pattern})(?= )" for pattern in listed)) for name, listed in patterns.items()
    }


@dataclass(frozen=True)
class Found:
    """A class named at characters [start, end) of a normalised sentence."""

    category: str
    state: State
    start: int
    end: int


class Lexicon:
    """Patterns of classes, compiled; all are searched between spaces of a normalised sentence."""

    def __init__(
        self,
        patterns: Mapping[str, Sequence[str]],
        *,
        blocked: Mapping[str, Sequence[str]],
        normal: Mapping[str, Sequence[str]],
        signs: Mapping[str, Sequence[str]],
        stems: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Compile a lexicon.

        Args:
            patterns: class -> what names it.
            blocked: class -> longer wordings with another meaning; a match that touches one is no mention.
            normal: class -> statements that it is absent without naming it in the negative.
            signs: class -> what makes it possible where it is not named.
            stems: class -> letters of which every pattern of the class holds some; sentences without them are not searched.
        """
        self._patterns = _compiled(patterns)
        self._blocked = _compiled(blocked)
        self._normal = _compiled(normal)
        self._signs = _compiled(signs)
        self._stems = dict(stems or {})

    def search(self, sentence: str, scopes: list[Scope]) -> list[Found]:
        """Return what a sentence names, in reading order.

        Args:
            sentence: as mention_text.normalise_sentence returns it.
            scopes: of the sentence, from mention_context.find_scopes.
        """
        spans = list(self._spans(sentence, self._patterns, self._blocked))
        scopes = end_lists(sentence, [(start, end) for _, start, end in spans], scopes)
        found = [Found(name, state_of(start, end, scopes), start, end) for name, start, end in spans]
        named = {mention.category for mention in found}
        for name, start, end in self._spans(sentence, self._signs, {}):
            if name not in named:
                state = state_of(start, end, scopes)
                found.append(Found(name, State.UNCERTAIN if state is State.PRESENT else state, start, end))
        named = {mention.category for mention in found}
        normal = self._spans(sentence, self._normal, {})
        found += [Found(name, State.ABSENT, start, end) for name, start, end in normal if name not in named]
        return sorted(found, key=lambda mention: (mention.start, mention.end))

    def _spans(self, text: str, patterns: dict[str, re.Pattern[str]], blocked: dict[str, re.Pattern[str]]) -> Iterator[Span]:
        """Yield class, start and end of each match that is not part of a blocked one."""
        for name, pattern in patterns.items():
            if name in self._stems and not any(stem in text for stem in self._stems[name]):
                continue
            matches = list(pattern.finditer(text))
            if not matches:
                continue
            taken = [found.span() for found in blocked[name].finditer(text)] if name in blocked else []
            for found in matches:
                if not any(start < found.end() and found.start() < end for start, end in taken):
                    yield name, found.start(), found.end()
