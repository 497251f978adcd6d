"""Numbers of counts.json that later rules reckon with."""

import pytest

from d2rnet.errors import DatasetError
from d2rnet.files.checked_tables import count_of


def test_a_number_of_records():
    assert count_of({"images_quarantined": 3}, "images_quarantined") == 3


@pytest.mark.parametrize("counts", [{}, {"n": None}, {"n": -1}, {"n": "3"}, {"n": 3.0}, {"n": True}])
def test_no_number_of_records(counts):
    with pytest.raises(
        DatasetError, match=r"counts.json: got .* under 'n'; expected a number. Run 'd2rnet verify-inputs' again"
    ):
        count_of(counts, "n")
