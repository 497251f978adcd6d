"""The configuration: shipped file, sections and presets agree; mistakes are named."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from d2rnet.cli.commands import COMMANDS
from d2rnet.cli.given_settings import given_settings, part_of
from d2rnet.config import Config, RuntimeSettings, check_order
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.detector.config import build_cfg
from d2rnet.cxr.detector.trainer import check_batches, check_schedule
from d2rnet.cxr.report_model.settings import DETECTOR
from d2rnet.cxr.warm_start import check_warm_start
from d2rnet.errors import ConfigError
from d2rnet.settings import Section, leaves, merge, read_overlay, subsection, values_in


def test_shipped_config_equals_the_defaults(repository):
    shipped = yaml.safe_load((repository / "config.yaml").read_text())
    assert shipped == Config().to_json(), "config.yaml and the defaults of the sections differ"


def test_every_setting_has_a_description():
    assert [key for key, field in leaves(Config) if not field.description] == []


def test_every_section_says_where_it_stands_and_refuses_unknown_keys():
    def walk(section: type[Section], place: str) -> None:
        assert section.__doc__ and section.place == place
        assert section.model_config["extra"] == "forbid"
        for name, field in section.model_fields.items():
            if (inner := subsection(field.annotation)) is not None:
                walk(inner, f"{place}.{name}" if place else name)

    walk(Config, "")


def preset_overlay(repository: Path, preset: str) -> dict[str, Any]:
    """What a preset changes; the two that are given after d2rnet.yaml laid over it."""
    folder = repository / "workflow" / "presets" / "cxr"
    overlay = read_overlay(folder / f"{preset}.yaml")
    return merge(read_overlay(folder / "d2rnet.yaml"), overlay) if preset in ("utv2", "recommended") else overlay


@pytest.mark.parametrize("preset", ["d2rnet", "utv2", "recommended", "open_data", "tiny"])
def test_presets_are_valid_overlays(repository, preset):
    overlay = preset_overlay(repository, preset)
    complete = Config.read(overlay).to_json()
    assert merge(complete, overlay) == complete


def test_every_preset_is_listed_in_the_readme(repository):
    readme = (repository / "README.md").read_text()
    for preset in (repository / "workflow" / "presets" / "cxr").glob("*.yaml"):
        assert f"`workflow/presets/cxr/{preset.name}`" in readme


@pytest.mark.parametrize("preset", ["d2rnet", "utv2", "recommended", "open_data", "tiny"])
def test_the_detector_of_a_preset_can_be_trained_on_its_gpus(repository, preset):
    """Batches can be shared, the network built, the schedule kept; the last step of the learning rate is no surprise."""
    config = Config.read(preset_overlay(repository, preset))
    training = config.cxr.detector.training
    check_batches(max(1, config.runtime.gpus), training)
    check_schedule(training)
    assert build_cfg(config.cxr.detector).SOLVER is not None
    assert (training.burn_in_iters in training.lr_step_iters) == (preset == "d2rnet")


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_the_preset_for_eight_gpus_runs_on_fewer(repository, gpus):
    check_batches(gpus, Config.read(preset_overlay(repository, "utv2")).cxr.detector.training)


def test_what_the_recommended_preset_differs_in(repository):
    settings = Config.read(preset_overlay(repository, "recommended")).cxr
    training = settings.detector.training
    assert training.unlabelled_views == settings.annotation.box_views == ("PA", "AP")
    assert 0 < training.max_negative_share < 1
    assert training.lr_schedule == "cosine"
    report = settings.report
    check_warm_start(settings.detector.model, report.model)
    assert report.model.backbone_weights == DETECTOR
    assert (report.model.lesion_branch, report.model.lesion_enhancement) == ("roi_align", "none")
    assert report.model.lesion_class and report.model.lesion_score and report.model.lesion_position
    assert not report.training.alignment.is_on and report.training.precision == "bf16-mixed"


@pytest.mark.parametrize("preset", ["d2rnet", "utv2", "recommended"])
def test_weights_are_selected_by_the_references_that_the_test_has(repository, preset):
    config = Config.read(preset_overlay(repository, preset))
    assert (config.cxr.report.training.selection, config.evaluation.references) == ("bleu_4", "r2gen_exact")


def test_misspelled_key_is_named_with_the_closest_one():
    with pytest.raises(ConfigError, match=r"cxr\.annotation\.score_treshold: unknown key; did you mean 'score_threshold'"):
        Config.read({"cxr": {"annotation": {"score_treshold": 0.5}}})


def test_all_problems_are_listed_with_their_path():
    with pytest.raises(ConfigError) as caught:
        Config.read({"cxr": {"annotation": {"score_threshold": 2, "max_boxes": -1}}, "runtim": {}})
    message = str(caught.value)
    assert "3 problem(s)" in message
    assert "cxr.annotation.score_threshold: 2 is greater than the maximum of 1" in message
    assert "cxr.annotation.max_boxes: -1 is less than the minimum of 0" in message
    assert "runtim: unknown key; did you mean 'runtime'?" in message


def test_section_problems_carry_the_full_path():
    with pytest.raises(ConfigError, match=r"cxr\.data\.labelled\.consensus"):
        DataSettings.read({"labelled": {"consensus": "mean"}})


def test_assignments_override_a_settings_file(tmp_path):
    path = tmp_path / "annotation.yaml"
    path.write_text("score_threshold: 0.7\nmax_boxes: 3\n")
    read = given_settings(AnnotationSettings, (), str(path), ["max_boxes=5"])
    assert (read.score_threshold, read.max_boxes, read.entry) == (0.7, 5, "image")
    nested = given_settings(DataSettings, (), '{"labelled": {"root": "x"}}', ["labelled.source=nih"])
    assert (nested.labelled.root, nested.labelled.source) == ("x", "nih")


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
        given_settings(AnnotationSettings, (), text, assignments)


@pytest.mark.parametrize(
    ("text", "source"), [(None, "--set: 1 problem"), ('{"max_boxes": 3}', "configuration with --set: 1 problem")]
)
def test_a_wrong_assignment_is_said_to_be_one(text, source):
    with pytest.raises(ConfigError, match=source):
        given_settings(AnnotationSettings, (), text, ["max_boxes=-1"])


def test_a_whole_configuration_is_understood_where_a_section_is_expected(repository, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("cxr: {annotation: {max_boxes: 3}, detector: {model: {backbone_width: 16}}}\nruntime: {gpus: 2}\n")
    assert given_settings(AnnotationSettings, (), str(mine), []) == AnnotationSettings(max_boxes=3)
    assert given_settings(AnnotationSettings, (), '{"cxr": {"annotation": {"max_boxes": 3}}}', []).max_boxes == 3
    shipped = str(repository / "config.yaml")
    assert given_settings(AnnotationSettings, (), shipped, ["max_boxes=5"]) == AnnotationSettings(max_boxes=5)
    mine.write_text("cxr: {annotation: {max_box: 3}}")
    with pytest.raises(ConfigError, match=r"--settings .*mine.yaml: 1 problem.*\n.*cxr.annotation.max_box: unknown key; did"):
        given_settings(AnnotationSettings, (), str(mine), [])
    mine.write_text("annotation: {max_boxes: 3}")
    with pytest.raises(ConfigError, match=r"cxr\.annotation\.annotation: unknown key"):
        given_settings(AnnotationSettings, (), str(mine), [])


def test_what_is_given_last_counts(tmp_path):
    first, second, own = (tmp_path / name for name in ("first.yaml", "second.yaml", "own.yaml"))
    first.write_text("cxr: {annotation: {max_boxes: 3, score_threshold: 0.1}}")
    second.write_text("cxr: {annotation: {max_boxes: 4, score_threshold: 0.2}}")
    own.write_text("max_boxes: 5")
    files = [first, second]
    read = [
        given_settings(AnnotationSettings, files[:1], None, []),
        given_settings(AnnotationSettings, files, None, []),
        given_settings(AnnotationSettings, files, str(own), []),
        given_settings(AnnotationSettings, files, str(own), ["max_boxes=6"]),
    ]
    assert [(one.max_boxes, one.score_threshold) for one in read] == [(3, 0.1), (4, 0.2), (5, 0.2), (6, 0.2)]
    own.write_text("cxr: {annotation: {score_threshold: 0.5}}")  # the rest of a configuration stays as it was given before
    read = given_settings(AnnotationSettings, files, str(own), [])
    assert (read.max_boxes, read.score_threshold) == (4, 0.5)
    with pytest.raises(ConfigError, match=r"first.yaml with .*second.yaml with --set: 1 problem"):
        given_settings(AnnotationSettings, files, None, ["max_boxes=-1"])
    second.write_text("cxr: {annotation: {max_box: 4}}")
    with pytest.raises(ConfigError, match=r"first.yaml with .*second.yaml: 1 problem"):
        given_settings(AnnotationSettings, files, None, [])


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.section])
def test_every_command_finds_its_part_of_the_whole(name):
    section = COMMANDS[name].settings_class()
    assert section.read(part_of(Config().to_json(), section)) == section()


def test_values_of_nested_settings_keep_sections_without_keys():
    nested = {"a": {"b": 1, "c": {}}, "d": [], "e": {"f": {"g": None}}, "h": {}}
    assert list(values_in(nested)) == [("a.b", 1), ("a.c", {}), ("d", []), ("e.f.g", None), ("h", {})]
    assert list(values_in({})) == []


def test_merge_does_not_touch_its_arguments():
    base = {"a": {"b": 1, "c": [1]}}
    merged = merge(base, {"a": {"c": [2]}})
    assert merged == {"a": {"b": 1, "c": [2]}}
    assert base == {"a": {"b": 1, "c": [1]}}


def test_braces_are_refused_before_snakemake_reads_them():
    with pytest.raises(ConfigError, match=r"cxr\.data\.reports\.root: '/data/\{x\}'; expected no brace"):
        Config.read({"cxr": {"data": {"reports": {"root": "/data/{x}"}}}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(ConfigError, match=r"annotation\.score_threshold: (nan|inf); expected a finite number"):
        AnnotationSettings.read({"score_threshold": value})


def test_sections_that_contradict_each_other_are_refused():
    message = r"cxr\.report\.text\.section: 'findings', but cxr\.data\.reports\.section is 'impression'"
    with pytest.raises(ConfigError, match=message):
        Config.read({"cxr": {"data": {"reports": {"section": "impression"}}}})


def test_a_section_cannot_be_changed_and_its_copy_is_checked():
    settings = AnnotationSettings()
    with pytest.raises(ValueError, match="frozen"):
        settings.max_boxes = 3
    assert settings.replaced(max_boxes=3).max_boxes == 3 and settings.max_boxes == 20
    with pytest.raises(ConfigError, match="max_boxes: -1"):
        settings.replaced(max_boxes=-1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("evaluation.meteor", 1, "evaluation.meteor: 1; expected auto, true or false"),
        ("cxr.annotation", None, "cxr.annotation: None; expected keys with their values"),
        ("cxr.annotation.max_boxes", True, "max_boxes: True; expected an integer"),
        ("cxr.annotation.max_boxes", 3.0, "max_boxes: 3.0; expected an integer"),
        ("cxr.annotation.score_threshold", "1e-3", "score_threshold: '1e-3' is a text; expected a number; YAML wants 1.0e-3"),
        ("cxr.annotation.score_threshold", "high", "score_threshold: 'high' is a text; expected a number ["),
        ("cxr.detector.training.amp", False, "'fp16'; YAML reads off without quotes as false, write \"off\""),
        ("cxr.data.demo.enabled", 1, "enabled: 1; expected true or false"),
        ("cxr.data.labelled.root", 3, "root: 3; expected a text"),
        ("cxr.data.labelled.coco_json", 3, "1 problem(s)\n  cxr.data.labelled.coco_json: 3; expected text or object or null"),
        ("cxr.data.extra_unlabelled", [{"source": "folder"}], "extra_unlabelled.0.root: missing"),
        ("cxr.ablation.seeds", [1, 1], "seeds: [1, 1]; expected each item once"),
        ("cxr.ablation.seeds", 1, "seeds: 1; expected a list"),
        ("ct.ablation.side_seeds", [], "side_seeds: []"),
        ("ct.ablation.arms", ["a", "a"], "arms: ['a', 'a']; expected each item once"),
        ("ct.ablation.arms", ["a/b"], "arms.0: 'a/b'"),
        ("cxr.detector.model.anchor_sizes_px", [1, 2], "anchor_sizes_px: [1, 2]; expected at least 4 items"),
        ("cxr.detector.model.train_shortest_px", [99, 99, 99], "train_shortest_px: [99, 99, 99]; expected at most 2 items"),
        ("cxr.annotation.class_score_thresholds", {"Nodul": 0.5}, "class_score_thresholds.Nodul: 'Nodul'; unknown class; did"),
    ],
)
def test_what_is_wrong_is_said_in_words_of_a_yaml_file(key, value, message):
    for part in reversed(key.split(".")):
        value = {part: value}
    with pytest.raises(ConfigError) as caught:
        Config.read(value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overlay",
    [
        {"cxr": {"ablation": {"seeds": [1, 1]}}},
        {"ct": {"ablation": {"side_seeds": [1, 1]}}},
        {"ct": {"ablation": {"arms": ["a", "a"]}}},
        {"cxr": {"annotation": {"class_score_thresholds": {"Nodul": 0.5}}}},
        {"runtime": {"delete_after_success": ["stale", "stale"]}},
        {"evaluation": {"meteor": 1}},
        {"cxr": {"detector": {"model": {"anchor_sizes_px": [1, 2]}}}},
    ],
    ids=["seeds", "side seeds", "arms", "class", "deleted twice", "meteor", "too few"],
)
def test_editors_refuse_what_the_sections_refuse(repository, overlay):
    schema = json.loads((repository / "workflow/schemas/config.schema.json").read_text())
    assert not Draft202012Validator(schema).is_valid(overlay)
    with pytest.raises(ConfigError):
        Config.read(overlay)


ORDERED = {
    "presets/whole.yaml": {"cxr": {"data": {"root": "a"}, "detector": {"iters": 1}, "report": {"width": 1}}},
    "presets/part.yaml": {"cxr": {"data": {"root": "a"}, "detector": {"iters": 2}}},
    "presets/further.yaml": {"cxr": {"detector": {"iters": 3}, "report": {"width": 2}}},
    "mine.yaml": {"cxr": {"data": {"root": "b"}}},
    "gpu.yaml": {"runtime": {"gpus": 1}},
}


@pytest.mark.parametrize(
    "order",
    [
        ("whole", "part", "mine"),
        ("whole", "part"),
        ("whole", "further", "mine"),
        ("whole", "mine", "gpu"),
        ("gpu", "whole"),
        ("mine", "gpu"),
        ("gpu",),
        ("mine",),
        (),
    ],
    ids=str,
)
def test_orders_in_which_nothing_is_undone(order, tmp_path):
    check_order(files_in(order, tmp_path), tmp_path / "presets")


@pytest.mark.parametrize(
    ("order", "complaint", "right"),
    [
        (("part", "whole", "mine"), r"whole\.yaml: undoes cxr\.detector\.iters of .*part\.yaml", "whole part mine"),
        (("further", "whole"), r"whole\.yaml: undoes cxr\.detector\.iters, cxr\.report\.width of .*further", "whole further"),
        (("whole", "mine", "part"), r"part\.yaml: undoes cxr\.data\.root of .*mine\.yaml", "whole part mine"),
        (("gpu", "mine", "whole"), r"whole\.yaml: undoes cxr\.data\.root of .*mine\.yaml", "whole gpu mine"),
    ],
)
def test_a_preset_that_undoes_what_was_given_before_it_is_refused_with_the_right_order(order, complaint, right, tmp_path):
    files = files_in(order, tmp_path)
    with pytest.raises(ConfigError, match=complaint) as refused:
        check_order(files, tmp_path / "presets")
    named = str(refused.value).partition("--configfile ")[2].split()
    assert [name.rpartition("/")[2].removesuffix(".yaml") for name in named] == right.split()
    check_order({path: files[path] for path in map(type(tmp_path), named)}, tmp_path / "presets")


@pytest.mark.parametrize("order", [("part",), ("mine", "part"), ("part", "gpu"), ("further",), ("mine", "further")], ids=str)
def test_a_preset_of_a_part_alone_is_refused_where_the_rest_would_be_the_demo(order, tmp_path):
    files = files_in(order, tmp_path)
    (part,) = set(order) - {"mine", "gpu"}
    with pytest.raises(ConfigError, match=rf"{part}\.yaml: sets a part alone, .* of the demo") as refused:
        check_order(files, tmp_path / "presets")
    named = str(refused.value).partition("--configfile ")[2].split()
    own = [name for name in order if name != part]
    assert [Path(name).stem for name in named] == ["d2rnet", part, *own]
    whole = {tmp_path / "presets/cxr/d2rnet.yaml": ORDERED["presets/whole.yaml"]}
    check_order({Path(name): (files | whole)[Path(name)] for name in named}, tmp_path / "presets")


def files_in(order, folder):
    """Files of ORDERED by their short names."""
    return {folder / name: content for short in order for name, content in ORDERED.items() if f"{short}.yaml" in name}


def test_the_published_presets_have_one_order(repository):
    presets = repository / "workflow" / "presets"
    contents = {path: read_overlay(path) for path in sorted((presets / "cxr").glob("*.yaml"))}
    d2rnet, utv2 = (presets / "cxr" / f"{name}.yaml" for name in ("d2rnet", "utv2"))
    check_order({d2rnet: contents[d2rnet], utv2: contents[utv2]}, presets)
    with pytest.raises(ConfigError, match=r"d2rnet\.yaml: undoes .* of .*utv2\.yaml"):
        check_order({utv2: contents[utv2], d2rnet: contents[d2rnet]}, presets)
    for name in ("utv2", "recommended"):
        part = presets / "cxr" / f"{name}.yaml"
        check_order({d2rnet: contents[d2rnet], part: contents[part]}, presets)
        with pytest.raises(ConfigError, match=rf"{name}\.yaml: sets a part alone, .* {d2rnet} {part}$"):
            check_order({part: contents[part]}, presets)


@pytest.mark.parametrize(
    ("gpus", "workers", "cache", "expected"), [(0, 0, 0, 7000), (1, 0, 0, 7000), (4, 0, 0, 25000), (4, 8, 500, 51000)]
)
def test_memory_of_a_training_grows_with_its_processes(gpus, workers, cache, expected):
    runtime = RuntimeSettings().replaced(gpus=gpus, loader_workers=workers, cache_images_mb=cache)
    assert runtime.training_memory_mb(1000) == expected


@pytest.mark.parametrize("rule", ["train_detector", "train_report_model", "train_ablation_cell", "train_ct_ablation_cell"])
def test_the_slurm_profile_leaves_memory_and_hours_of_trainings_to_the_configuration(repository, rule):
    profile = yaml.safe_load((repository / "profiles" / "slurm" / "config.yaml").read_text())
    assert not {"mem_mb", "runtime"} & profile["set-resources"][rule].keys()
