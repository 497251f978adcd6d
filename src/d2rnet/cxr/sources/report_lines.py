"""Lines and letters of a report as they were before transport: line ends of any kind, blanks, letters of other widths.

Every change keeps the length of the text, so that indices into one are indices into the other. Pure functions on text; reads
and writes nothing.

Lines end in LF, CRLF, CR, a form feed or a separator of Unicode, or in what stands for one: the two characters ``\\n``, HL7's
``\\.br\\`` and, in a text without any line end, ``~``, HTML's ``<br>`` and ``<p>``, and the closing tag of a section in XML.
No-break spaces and byte-order marks are blanks, full-width letters are letters, soft hyphens are none, and capitals with
blanks between them ("F I N D I N G S :") are a word.
"""

import re

_LINE_END = re.compile(r"\r(?!\n)|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_SECTIONS = r"findings?|impressions?|conclusions?|indications?|history|comparisons?|technique|examination|recommendations?"
_WRITTEN_END = re.compile(rf"(?:\\r)?\\n|\\\.br\\|</?(?:br|p)[ \t]*/?>|</(?:{_SECTIONS})>", re.IGNORECASE)
_TILDE = re.compile(r"~(?=[A-Za-z])")  # "~ 3 cm" is a size
_BLANK = re.compile(r"[\xa0\u2000-\u200b\u202f\u3000\ufeff]")
_SOFT_HYPHENS = re.compile(r"\S*\xad\S*")
_SPACED = re.compile(r"^([ \t]{0,3})((?:[A-Z] ){4,}[A-Z])(?=[ \t]*(?::|\r?$))", re.MULTILINE)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


def restored(text: str) -> str:
    """Return a text of the same length with line feeds, plain blanks and plain letters."""
    text = _LINE_END.sub("\n", text.translate(_FULL_WIDTH))
    text = _WRITTEN_END.sub(lambda match: " " * (len(match[0]) - 1) + "\n", text)
    if "\n" not in text:
        text = _TILDE.sub("\n", text)
    text = _SOFT_HYPHENS.sub(lambda match: match[0].replace("\xad", "").ljust(len(match[0])), _BLANK.sub(" ", text))
    return _SPACED.sub(lambda match: match[1] + match[2].replace(" ", "").ljust(len(match[2])), text)
