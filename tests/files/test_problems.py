"""Problems are collected, shown ten a kind, and written out whole."""

import pytest

from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.files.problems import Problems


def test_first_ten_a_kind_are_shown_and_all_are_written(tmp_path):
    problems = Problems()
    for row in range(12):
        problems.add("zero_area", file="a.csv", record=f"row {row}", got="0 px", expected="> 0", remedy="Drop it.")
    problems.add("unknown_class", file="a.csv", record="row 3", got="'Masss'", expected="a known class", remedy="Mend it.")
    with pytest.raises(DatasetError) as caught:
        problems.raise_if_any(details=tmp_path / "problems.jsonl")
    message = str(caught.value)
    assert "13 problem(s)" in message and "zero_area: 12" in message and "... and 2 more" in message
    assert "row 9:" in message and "row 10:" not in message
    assert len(list(read_jsonl(tmp_path / "problems.jsonl"))) == 13


def test_nothing_noted_nothing_raised(tmp_path):
    Problems().raise_if_any(details=tmp_path / "problems.jsonl")
    assert not (tmp_path / "problems.jsonl").exists()


def test_a_value_without_measure_is_cut():
    problems = Problems()
    problems.add("malformed_box", file="a", record="r" * 2_600, got=list(range(100_000)), expected="four", remedy="Mend it.")
    text = problems.text()
    assert len(text) < 5_000 and "got [0, 1, 2," in text and "(688890 characters)" in text and "(2600 characters)" in text
