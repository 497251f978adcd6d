"""Source names: each with the module that the contract asks for; unknown ones are refused."""

from collections.abc import Callable
from typing import Any, get_args

import pytest

from d2rnet.cxr.sources.registry import LabelledName, ReportName, UnlabelledName
from d2rnet.cxr.sources.settings import LabelledSettings, ReportSourceSettings, UnlabelledSourceSettings
from d2rnet.cxr.sources.sources import labelled_source, report_source, unlabelled_source
from d2rnet.errors import ConfigError
from d2rnet.runs.cards import origin_line

SOURCES = [
    (find, name)
    for find, names in ((labelled_source, LabelledName), (report_source, ReportName), (unlabelled_source, UnlabelledName))
    for name in get_args(names)
]


@pytest.mark.parametrize(
    ("section", "names"),
    [
        (LabelledSettings, LabelledName),
        (ReportSourceSettings, ReportName),
        (UnlabelledSourceSettings, UnlabelledName),
    ],
)
def test_names_are_those_of_the_schema(section: Any, names: Any) -> None:
    source = section.model_json_schema()["properties"]["source"]
    assert source.get("enum", [source.get("const")]) == list(get_args(names))


@pytest.mark.parametrize(("find", "name"), SOURCES)
def test_every_source_has_what_the_contract_asks_for(find: Callable[[str], Any], name: str) -> None:
    source = find(name)
    assert callable(source.required_files) and callable(source.read_table)
    assert source.TERMS and all(number > 0 for number in source.RELEASE_COUNTS.values())


@pytest.mark.parametrize("find", [labelled_source, report_source, unlabelled_source])
def test_unknown_name_lists_the_known_ones(find: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match=r"unknown source 'vindrr'; expected one of "):
        find("vindrr")


def test_origin_names_terms_or_the_demo_cohort(tmp_path: Any) -> None:
    source = labelled_source("nih")
    assert origin_line(source.TERMS, "nih", str(tmp_path / "nih")) == f"`nih`. Terms: {source.TERMS}."
    (tmp_path / "cohort.json").touch()
    assert "**Synthetic**" in origin_line(source.TERMS, "nih", str(tmp_path / "nih"))
