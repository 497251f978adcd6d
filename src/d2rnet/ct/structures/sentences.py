"""A report cut into its sentences; their concatenation is the report, letter by letter.

Cut at full stops, question and exclamation marks, at the quotation marks that CT-RATE's impressions are listed with, at list
marks, and at line ends that end a statement. Not cut: decimals, abbreviations ("approx.", "im. 45"), ordinals ("the 5. rib"),
initials ("M. tuberculosis"), marks of numbered lists ("1. "), and lines that go on below.
"""

import re

_WORD = re.compile(r"\w")
# Abbreviations whose stop ends no sentence: always, and where a number or a small letter follows.
_ALWAYS = frozenset(("vs", "approx", "ca", "cf", "dr", "prof", "st", "eg", "e.g", "i.e", "ie", "fig", "resp", "incl"))
_BEFORE_MORE = frozenset(
    ("mm", "cm", "ml", "cc", "hu", "no", "nr", "se", "ser", "series", "im", "ima", "img", "image", "sl", "slice", "sec")
)
_STOP = re.compile(r"[.!?]+[)\]'\u201d]*")
_LIST_MARK = re.compile(r"(?:(?<=\s)|^)(?:\d{1,2}[.)]|[-*\u2022\u00b7\u2013])(?=\s+[A-Z(])")
_QUOTE_MARK = re.compile(r"(?:(?<=[\s.])|^)\"+(?=\s|[A-Z])|(?<=\w)\"+(?=\s*[A-Z])")
_LINE_END = re.compile(r"[^\S\n]*\n\s*")
# A line that ends so goes on below.
_OPEN_END = re.compile(
    r"(?:[,:\-\u2013(/]|\b(?:a|an|the|of|in|on|at|to|and|or|with|without|no|is|are|was|were|has|have|by|for|from|than|as|both|left|right|upper|"
    r"lower|middle|not|which|that|up|near|between|into|its|mild|minimal|bilateral|approximately|measuring))\s*$",
    flags=re.IGNORECASE,
)
_NEW_LINE = re.compile(r"[A-Z\"(\u2022*\-\u2013]|\d{1,2}[.)]\s")


def split_sentences(report: str) -> list[str]:
    """Cut a report into sentences.

    Args:
        report: raw text of a section.

    Returns:
        Sentences with the white space that follows them, so that ``"".join(...)`` is the report. Each holds a letter or digit,
        unless the report holds none: then it is returned whole ([] for "").
    """
    cuts = sorted({*_stops(report), *_marks(report), *_line_ends(report)} - {0, len(report)})
    pieces = [report[start:end] for start, end in zip([0, *cuts], [*cuts, len(report)], strict=True)]
    sentences: list[str] = []
    waiting = ""
    for piece in pieces:
        if _WORD.search(waiting + piece) and not _is_mark(waiting + piece):
            sentences.append(waiting + piece)
            waiting = ""
        elif sentences and not _WORD.search(waiting + piece):
            sentences[-1] += waiting + piece
        else:
            waiting += piece
    if waiting:
        sentences[-1:] = [sentences[-1] + waiting] if sentences else [waiting]
    return sentences


def _is_mark(piece: str) -> bool:
    """Whether a piece is no more than the mark of a list item, which belongs to what follows."""
    return re.fullmatch(r"\W*\d{1,2}[.)]\W*", piece) is not None


def _stops(report: str) -> list[int]:
    """Return where the sentences begin that follow a full stop, question or exclamation mark."""
    cuts = []
    for stop in _STOP.finditer(report):
        after = re.compile(r"\s*").match(report, stop.end())
        follows = after.end() if after else stop.end()
        if follows == len(report):
            continue
        gap = follows > stop.end()
        if _ends_sentence(report, stop, gap=gap, following=report[follows : follows + 2]):
            cuts.append(follows)
    return cuts


def _ends_sentence(report: str, stop: re.Match[str], *, gap: bool, following: str) -> bool:
    """Whether a stop ends its sentence: by the word before it and what follows."""
    before = re.search(r"[^\s(\[]*$", report[max(0, stop.start() - 24) : stop.start()])
    word = before[0].lower() if before else ""
    if not gap:  # "seen.No effusion", but "e.g", "3.5"
        glued = re.match(r"[A-Z][a-z]|\d?[A-Z][a-z]|\"", following) is not None
        return glued and len(word) > 1 and word[-1:].isalpha() and "." not in word
    if stop[0].startswith("?") and (following[0].islower() or following[0] in ",;)"):
        return False
    if not stop[0].startswith("."):
        return True
    if word in _ALWAYS or (len(stop[0]) == 1 and following[0] in ",;"):
        return False
    small = following[0].islower()
    if word in _BEFORE_MORE and (small or (following[0].isdigit() and not word.endswith(("mm", "cm", "ml", "cc", "hu")))):
        return False
    if re.fullmatch(r"[a-z]", word) and small:  # "M. tuberculosis"
        return False
    ordinal = re.fullmatch(r"(?:[cdtl]|th)?\d{1,2}", word) is not None  # "the 5. rib", "T5. vertebra"
    return not (ordinal and (small or following[0].isdigit()))


def _marks(report: str) -> list[int]:
    """Return where items of a list begin, in front of their marks."""
    found = [match.start() for match in _QUOTE_MARK.finditer(report)]
    for match in _LIST_MARK.finditer(report):
        before = report[: match.start()].rstrip(" \t")
        if not before or before[-1] in '.;:\n"?!)' or match[0][0] not in "-\u2013":
            if match[0][0].isdigit() and before and before[-1] not in '.;:\n"?!':
                continue  # "type 2) Aorta", "segment 6. Spleen": a number of the sentence
            found.append(match.start())
    return found


def _line_ends(report: str) -> list[int]:
    """Return where the lines begin that open a new statement."""
    cuts = []
    for end in _LINE_END.finditer(report):
        blank = end[0].count("\n") > 1
        line = report[: end.start()].rpartition("\n")[2]
        goes_on = _OPEN_END.search(line) is not None
        if not goes_on and (blank or _NEW_LINE.match(report, end.end())):
            cuts.append(end.end())
    return cuts
