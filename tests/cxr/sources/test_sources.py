"""Source names: those of the schema, each with the two functions of the contract; unknown ones are refused."""

from collections.abc import Callable

import pytest

from d2rnet.cxr.sources.sources import (
    LABELLED_SOURCES,
    REPORT_SOURCES,
    UNLABELLED_SOURCES,
    labelled_source,
    report_source,
    unlabelled_source,
)
from d2rnet.errors import ConfigError
from d2rnet.settings import section_schema


def test_names_are_those_of_the_schema() -> None:
    assert list(LABELLED_SOURCES) == section_schema("data.labelled.source")["enum"]
    assert list(REPORT_SOURCES) == section_schema("data.reports.source")["enum"]
    extra = section_schema("data.extra_unlabelled")["items"]["properties"]["source"]
    assert list(UNLABELLED_SOURCES) == extra["enum"]


@pytest.mark.parametrize(
    ("find", "name"),
    [(labelled_source, name) for name in LABELLED_SOURCES]
    + [(report_source, name) for name in REPORT_SOURCES]
    + [(unlabelled_source, name) for name in UNLABELLED_SOURCES],
)
def test_every_source_has_both_functions(find: Callable[[str], object], name: str) -> None:
    source = find(name)
    assert callable(source.required_files) and callable(source.read_table)  # type: ignore[attr-defined]


@pytest.mark.parametrize("find", [labelled_source, report_source, unlabelled_source])
def test_unknown_name_lists_the_known_ones(find: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown source 'vindrr'; expected one of "):
        find("vindrr")
