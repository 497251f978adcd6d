"""One threshold a class; unknown names are refused with the closest known one."""

import numpy as np
import pytest

from d2rnet.annotation.thresholds import threshold_table
from d2rnet.data.categories import CATEGORY_IDS, CATEGORY_NAMES
from d2rnet.errors import ConfigError
from d2rnet.settings import complete, section_schema


def test_global_threshold_fills_every_class_and_a_class_threshold_overrides_it() -> None:
    table = threshold_table(0.5, {"Cardiomegaly": 0.8, "Rib fracture": 0.0})
    assert table.shape == (23,)
    assert table[CATEGORY_IDS["Cardiomegaly"]] == 0.8
    assert table[CATEGORY_IDS["Rib fracture"]] == 0.0
    assert np.count_nonzero(table == 0.5) == 21


def test_every_unknown_class_is_named_with_the_closest_known_one() -> None:
    with pytest.raises(ConfigError) as caught:
        threshold_table(0.5, {"cardiomegaly": 0.8, "Pleural efusion": 0.1, "Edema": 0.2})
    message = str(caught.value)
    assert "2 unknown class name(s)" in message
    assert "'cardiomegaly': did you mean 'Cardiomegaly'?" in message
    assert "'Pleural efusion': did you mean 'Pleural effusion'?" in message


def test_schema_lists_our_class_names_so_that_a_misspelling_is_refused_before_any_rule_runs() -> None:
    schema = section_schema("annotation")["properties"]["class_score_thresholds"]
    assert tuple(schema["propertyNames"]["enum"]) == CATEGORY_NAMES
    with pytest.raises(
        ConfigError, match=r"annotation\.class_score_thresholds: 'Atelektasis' .* did you mean 'Atelectasis'\?"
    ):
        complete({"class_score_thresholds": {"Atelektasis": 0.3}}, "annotation")
