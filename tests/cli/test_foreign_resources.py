"""Resources of another run are compared with the configuration; Snakemake knows nothing of them."""

import base64
from pathlib import Path
from typing import Any

import pytest

from d2rnet.cli.foreign_resources import check_resources, settings_of
from d2rnet.config import Config
from d2rnet.errors import ConfigError
from d2rnet.files.documents import write_json

PLACES = {"convert-labelled": "cxr/labelled/run.json", "convert-images-shard": "cxr/convert_images/labelled/1-of-1.run.json"}


def configuration(side: int, **labelled: Any) -> Config:
    return Config.read({"cxr": {"data": {"conversion": {"max_side_px": side}, "labelled": labelled}}})


def write_resources(folder: Path, config: Config) -> Path:
    """Write the run records that two rules leave."""
    for command, place in PLACES.items():
        write_json(folder / "resources" / place, {"command": command, "settings": settings_of(config, command)})
    return folder


@pytest.fixture(params=["copied", "linked", "one folder linked"])
def borrowed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A working directory with the resources of another, of 128 px."""
    there = write_resources(tmp_path / "A", configuration(128))
    if request.param == "copied":
        return there
    here = tmp_path / "B"
    place = here / ("resources" if request.param == "linked" else "resources/cxr/labelled")
    place.parent.mkdir(parents=True)
    place.symlink_to(there / place.relative_to(here))
    return here


def test_other_settings_are_named(borrowed: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.json: labelled was made by .* cxr\.data\.conversion\.max_side_px 128, not 96\."
    ):
        check_resources(borrowed, configuration(96))
    check_resources(borrowed, configuration(128))


def test_where_sources_lie_and_keys_of_one_version_do_not_count(tmp_path: Path) -> None:
    write_resources(tmp_path, configuration(128))
    check_resources(tmp_path, configuration(128, root="/elsewhere/vindr"))
    path = tmp_path / "resources" / PLACES["convert-labelled"]
    settings = settings_of(configuration(128), "convert-labelled")
    del settings["labelled"]["consensus"]
    write_json(path, {"command": "convert-labelled", "settings": settings | {"of_old": 1}})
    check_resources(tmp_path, configuration(128))


def test_what_snakemake_made_here_it_makes_again_itself(tmp_path: Path) -> None:
    write_resources(tmp_path, configuration(128))
    metadata = tmp_path / ".snakemake" / "metadata"
    metadata.mkdir(parents=True)
    for name in ("resources/cxr/labelled/train.json", "resources/cxr/convert_images/labelled/1-of-1.jsonl"):
        (metadata / base64.urlsafe_b64encode(name.encode()).decode()).write_text("{}")
    check_resources(tmp_path, configuration(96))


@pytest.mark.parametrize("text", ["{", "[]", '{"command": "gone", "settings": {}}', '{"command": "convert-labelled"}'])
def test_a_record_that_cannot_be_compared_is_left_to_who_reads_what_lies_beside_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "resources" / PLACES["convert-labelled"]
    path.parent.mkdir(parents=True)
    path.write_text(text)
    check_resources(tmp_path, configuration(96))


def test_a_demo_cohort_that_nothing_reads_now_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "resources" / "cxr" / "demo_cohort" / "run.json"
    settings = settings_of(configuration(128), "make-demo-cohort")
    write_json(path, {"command": "make-demo-cohort", "settings": settings | {"seed": settings["seed"] + 1}})
    with pytest.raises(ConfigError, match=r"cxr\.data\.demo\.seed"):
        check_resources(tmp_path, Config.read({"cxr": {"data": {"demo": {"enabled": True}}}}))
    check_resources(tmp_path, Config.read({"cxr": {"data": {"demo": {"enabled": False}}}}))
