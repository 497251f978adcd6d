"""YAML whose aliases stand for far more values than the text has letters."""

import pytest

from d2rnet.files.parsing import ParseError, parse_yaml


def test_aliases_cannot_stand_for_millions_of_values():
    lines = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True)]
    with pytest.raises(ParseError, match="its aliases stand for more than 1000000 values"):
        parse_yaml("\n".join(lines))
