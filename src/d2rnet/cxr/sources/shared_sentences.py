"""Sentences of a report that stand in another text: the check that an indication does not hold the answer.

Pure functions on text; reads and writes nothing. Asked by the sources, of the whole report, and by build_annotation, of the
text that is the target.
"""

import re

SENTENCE_END = re.compile(r"(?<=[.!?;])\s+")
_WORDS = re.compile(r"[a-z0-9]+")
LEAST_WORDS = 3  # of a sentence that counts by itself: "chest pain" can stand in both
MOST_SHORT = 1  # of shorter sentences that may stand in both


def shared_sentences(indication: str, report: str) -> list[str]:
    """Return the sentences of a report that stand in an indication, whatever their case and punctuation.

    Sentences of one or two words count only where there are two of them: "Pneumonia." may be asked for and found. The number
    of an item of a list ("1.") is no sentence.

    Args:
        indication: why the radiograph was taken.
        report: findings or impression.
    """
    given = f" {' '.join(_WORDS.findall(indication.lower()))} "
    found = [sentence for sentence in SENTENCE_END.split(" ".join(report.split())) if _stands_in(sentence, given)]
    distinct = dict.fromkeys(found)
    long = [sentence for sentence in distinct if len(_WORDS.findall(sentence.lower())) >= LEAST_WORDS]
    return list(distinct) if long or len(distinct) > MOST_SHORT else []


def _stands_in(sentence: str, given: str) -> bool:
    words = " ".join(_WORDS.findall(sentence.lower()))
    return any(map(str.isalpha, words)) and f" {words} " in given
