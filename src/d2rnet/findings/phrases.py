"""Phrases of words looked up in normalised sentences: thousands of them at the price of one pass over the words.

A phrase is words with single spaces between them; ``*`` at the end of a word stands for any letters or none, at its beginning
likewise. No pattern language beyond that, so that whoever writes a table of words cannot write one that never ends.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_PLAIN = re.compile(r"\*?[a-z0-9]+\*?(?: \*?[a-z0-9]+\*?)*")
_END = ""  # key of a node under which the meanings of the phrase that ends there lie


@dataclass(frozen=True)
class PhraseMatch:
    """Characters [start, end) of a normalised sentence that a phrase covers, and what it stands for, in the order given."""

    start: int
    end: int
    meanings: tuple[str, ...]


def phrases(words: str) -> tuple[str, ...]:
    """Return the white-space separated phrases of a text, in which ``_`` stands for a space."""
    return tuple(word.replace("_", " ") for word in words.split())


class PhraseIndex:
    """Phrases with what each stands for. Of phrases that overlap, the leftmost and then the longest is found."""

    def __init__(self, phrases: Mapping[str, Iterable[str]]) -> None:
        """Build the index.

        Args:
            phrases: meaning -> its phrases; a phrase may stand for several meanings.

        Raises:
            ValueError: a phrase holds something other than lower-case letters, digits, single spaces and asterisks at the
                ends of words.
        """
        self._root: dict[str, object] = {}
        words: dict[str, None] = {}
        for meaning, listed in phrases.items():
            for phrase in listed:
                if not _PLAIN.fullmatch(phrase):
                    raise ValueError(f"{phrase!r} under {meaning}: expected lower-case words, each with * at its ends at most")
                node = self._root
                for word in phrase.split():
                    words[word] = None
                    node = node.setdefault(word, {})  # type: ignore[assignment]
                ends = node.setdefault(_END, {})
                ends[meaning] = None  # type: ignore[index]
        self._plain = frozenset(word for word in words if "*" not in word)
        self._starred = [(word, re.compile(word.replace("*", "[a-z0-9]*")), word.strip("*")) for word in words if "*" in word]
        self._patterns_of = lru_cache(maxsize=1 << 16)(self._find_patterns)
        self._kept = lru_cache(maxsize=1 << 16)(self._search)

    def find(self, sentence: str) -> tuple[PhraseMatch, ...]:
        """Find phrases in a sentence that mention_text.normalise_sentence returned, from left to right; results are kept."""
        return self._kept(sentence)

    def _search(self, sentence: str) -> tuple[PhraseMatch, ...]:
        words = sentence.split()
        patterns = [self._patterns_of(word) for word in words]
        starts = _starts(words)
        found = []
        place = 0
        while place < len(words):
            end, meanings = self._longest(patterns, place) if patterns[place] else (place, ())
            if meanings:
                found.append(PhraseMatch(starts[place], starts[end - 1] + len(words[end - 1]), meanings))
            place = max(end, place + 1)
        return tuple(found)

    def _find_patterns(self, word: str) -> tuple[str, ...]:
        """Return the words of phrases that fit a word of a sentence."""
        fitting = [starred for starred, pattern, core in self._starred if core in word and pattern.fullmatch(word)]
        return (word, *fitting) if word in self._plain else tuple(fitting)

    def _longest(self, patterns: list[tuple[str, ...]], place: int) -> tuple[int, tuple[str, ...]]:
        """Return where the longest phrase that begins at a word ends, and its meanings; the word itself and () for none."""
        best: tuple[int, dict[str, None]] = (place, {})
        waiting = [(place, self._root)]
        while waiting:
            at, node = waiting.pop()
            meanings = node.get(_END)
            if meanings:
                longer = at > best[0]
                if longer:
                    best = (at, dict(meanings))  # type: ignore[call-overload]
                elif at == best[0]:
                    best[1].update(meanings)  # type: ignore[call-overload]
            if at < len(patterns):
                waiting += [(at + 1, node[word]) for word in patterns[at] if word in node]  # type: ignore[misc]
        return best[0], tuple(best[1])


def _starts(words: list[str]) -> list[int]:
    """Return the first character of each word in the sentence, which begins with a space."""
    starts = []
    at = 1
    for word in words:
        starts.append(at)
        at += len(word) + 1
    return starts
