"""The configuration: shipped file, schema and presets agree; mistakes are named."""

import pytest
import yaml

from d2rnet import settings
from d2rnet.errors import ConfigError


def test_shipped_config_equals_the_schema_defaults(repository):
    shipped = yaml.safe_load((repository / "config.yaml").read_text())
    assert shipped == settings.default_settings(), "config.yaml and the defaults in config.schema.yaml differ"


def test_every_setting_has_a_description():
    def walk(schema, path):
        assert schema.get("description"), f"{path}: no description in config.schema.yaml"
        if schema.get("type") == "object" and "properties" in schema:
            assert schema.get("additionalProperties") is False, f"{path}: must refuse unknown keys"
            for key, sub in schema["properties"].items():
                walk(sub, f"{path}.{key}")
        else:
            assert "default" in schema, f"{path}: no default in config.schema.yaml"

    walk(settings.load_schema(), "config")


@pytest.mark.parametrize("preset", ["d2rnet", "utv2", "open_data", "tiny"])
def test_presets_are_valid_overlays(repository, preset):
    overlay = yaml.safe_load((repository / "workflow" / "presets" / "cxr" / f"{preset}.yaml").read_text())
    assert settings.merge(settings.complete(overlay), overlay) == settings.complete(overlay)


def test_misspelled_key_is_named_with_the_closest_one():
    with pytest.raises(ConfigError, match=r"annotation\.score_treshold: unknown key; did you mean 'score_threshold'"):
        settings.complete({"annotation": {"score_treshold": 0.5}})


def test_all_problems_are_listed_with_their_path():
    with pytest.raises(ConfigError) as caught:
        settings.complete({"annotation": {"score_threshold": 2, "max_boxes": -1}, "dataa": {}})
    message = str(caught.value)
    assert "3 problem(s)" in message
    assert "annotation.score_threshold: 2 is greater than the maximum of 1" in message
    assert "annotation.max_boxes: -1 is less than the minimum of 0" in message
    assert "dataa: unknown key; did you mean 'data'?" in message


def test_section_problems_carry_the_full_path():
    with pytest.raises(ConfigError, match=r"data\.labelled\.consensus"):
        settings.complete({"labelled": {"consensus": "mean"}}, "data")


def test_assignments_override_a_settings_file(tmp_path):
    path = tmp_path / "annotation.yaml"
    path.write_text("score_threshold: 0.7\nmax_boxes: 3\n")
    read = settings.parse_settings(str(path), ["max_boxes=5"], "annotation")
    assert (read["score_threshold"], read["max_boxes"], read["entry"]) == (0.7, 5, "image")
    nested = settings.parse_settings('{"labelled": {"root": "x"}}', ["labelled.source=nih"], "data")
    assert (nested["labelled"]["root"], nested["labelled"]["source"]) == ("x", "nih")


@pytest.mark.parametrize(
    ("text", "assignments", "message"),
    [
        ("nowhere.yaml", [], "no such file"),
        ("max_boxes: 3" + " " * 5000, [], "no such file; expected a YAML file or an inline JSON object"),
        ("a\0b", [], "no such file"),
        (None, ["max_boxes"], "expected key=value"),
        (None, ["a." * 20_000 + "b=3"], "expected key=value, with a key"),
        ("{bad", [], "not a JSON object"),
    ],
    ids=["absent", "inline_yaml", "nul", "no_value", "deep_key", "bad_json"],
)
def test_bad_command_line_settings(text, assignments, message):
    with pytest.raises(ConfigError, match=message):
        settings.parse_settings(text, assignments, "annotation")


def test_merge_does_not_touch_its_arguments():
    base = {"a": {"b": 1, "c": [1]}}
    merged = settings.merge(base, {"a": {"c": [2]}})
    assert merged == {"a": {"b": 1, "c": [2]}}
    assert base == {"a": {"b": 1, "c": [1]}}


def test_braces_are_refused_before_snakemake_reads_them():
    with pytest.raises(ConfigError, match=r"data\.reports\.root: '/data/\{x\}'; expected no brace"):
        settings.complete({"data": {"reports": {"root": "/data/{x}"}}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(ConfigError, match=r"annotation\.score_threshold: (nan|inf); expected a finite number"):
        settings.complete({"score_threshold": value}, "annotation")


def test_sections_that_contradict_each_other_are_refused():
    with pytest.raises(ConfigError, match=r"report\.text\.section: 'findings', but data\.reports\.section is 'impression'"):
        settings.complete({"data": {"reports": {"section": "impression"}}})
