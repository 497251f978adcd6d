"""Yesterday's configuration: one clear message, and a file in today's keys with its comments."""

import pytest
import yaml

from d2rnet.cli.entry import main
from d2rnet.cli.migrate import migrated, migrated_text
from d2rnet.config import MOVED, Config, moved_keys, new_place
from d2rnet.errors import ConfigError
from d2rnet.settings import leaves, read_overlay

OLD_TINY = """\
# The whole workflow in little more than a minute on two CPU cores, for tests: everything runs for real, nothing is learnt.
data:
  demo:
    labelled_train_images: 28
    labelled_test_images: 10
    report_train_studies: 24
    report_val_studies: 4
    report_test_studies: 8
    size_px: 192
  conversion:
    max_side_px: 96

detector:
  model:
    backbone_width: 16
    fpn_channels: 16
    roi_fc_dim: 32
    anchor_sizes_px: [12, 24, 48, 96]
    train_shortest_px: [96, 96]
    test_shortest_px: 96
    longest_px: 96
    rpn_pre_nms_train: 100
    rpn_post_nms_train: 50
    rpn_pre_nms_test: 100
    rpn_post_nms_test: 50
    roi_batch_per_image: 32
  training:
    total_iters: 12
    burn_in_iters: 8
    labelled_batch: 4
    unlabelled_batch: 2
    warm_up_iters: 2
    pseudo_score_threshold: 0.1
    log_every_iters: 4
    checkpoint_every_iters: 5

annotation:
  score_threshold: 0.0 # every box above the floor of the predictions

report:
  text:
    min_token_count: 1
  model:
    input_size_px: 64
    patch_channels: 16
    d_model: 32
    d_ff: 32
    num_heads: 2
    num_layers: 1
    memory_heads: 2
  training:
    epochs: 2
    batch_size: 8
    max_report_tokens: 40
    validate_every_epochs: 1
  generation:
    batch_size: 4
    beam_size: 2
    max_tokens: 20

runtime:
  prediction_shards: 2
  generation_shards: 2
"""
OLD_UTV2 = """\
# Unbiased Teacher v2
detector:
  training:
    total_iters: 180000 # published
    loader_workers: 4
    cache_images_mb: 0 # far more than fits
    checkpoint_every_iters: 1000
  prediction: # nothing else
    loader_workers: 4

# what is written
report:
  training:
    workers: 4 # processes
    alignment:
      local: lesions # LAB
      global: patches
      local_weight: 2.0
evaluation:
  # patience
  meteor_timeout_seconds: 600
  shuffle_seed: 3
"""
NEW_UTV2 = """\
# Unbiased Teacher v2
cxr:
  detector:
    training:
      total_iters: 180000 # published

  # what is written
  report:
    training:
      alignment:
        lab: lesions # LAB
        gab: patches
        lab_weight: 2.0
evaluation:
  shuffle_seed: 3

runtime:
  loader_workers: 4
  cache_images_mb: 0 # far more than fits
  checkpoint_every_iters: 1000
  # patience
  meteor_timeout_seconds: 600
"""


def test_the_preset_tiny_of_before_migrates_to_todays(repository, tmp_path):
    (tmp_path / "old.yaml").write_text(OLD_TINY)
    assert main(["migrate-config", str(tmp_path / "old.yaml")]) == 0
    today = read_overlay(repository / "workflow" / "presets" / "cxr" / "tiny.yaml")
    del today["cxr"]["report"]["model"]["backbone_width"], today["evaluation"]  # of later
    written = read_overlay(tmp_path / "old.new.yaml")
    assert written == today and Config.read(written) == Config.read(today)
    assert (tmp_path / "old.yaml").read_text() == OLD_TINY
    text = (tmp_path / "old.new.yaml").read_text()
    assert text.startswith("# The whole workflow") and "0.0 # every box above the floor" in text


def test_comments_stay_and_lines_move():
    assert migrated_text(OLD_UTV2) == NEW_UTV2
    assert yaml.safe_load(NEW_UTV2) == migrated(yaml.safe_load(OLD_UTV2))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("annotation: {score_threshold: 0.5} # mine", "cxr:\n  annotation: {score_threshold: 0.5} # mine\n"),
        (
            "detector: {training: {base_lr: 0.1, loader_workers: 2, seed: 3}}",
            "cxr:\n  detector: {training: {base_lr: 0.1, seed: 3}}\n\nruntime:\n  loader_workers: 2\n",
        ),
        ("report: {training: {workers: 2}}", "\nruntime:\n  loader_workers: 2\n"),
        (
            "data: {reports: {root: resources/demo_cohort/mimic}}",
            "cxr:\n  data: {reports: {root: resources/cxr/demo_cohort/mimic}}\n",
        ),
    ],
    ids=["flow", "flow, one key moves", "all moves", "demo cohort"],
)
def test_text_in_braces(old, new):
    assert migrated_text(old).strip() == new.strip()
    assert yaml.safe_load(new) == migrated(yaml.safe_load(old))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"annotation": # top\n  max_boxes: 3 # few\n', 'cxr:\n  "annotation": # top\n    max_boxes: 3 # few\n'),
        (
            "cxr:\n  annotation:\n    max_boxes: 3 # few\n\n# old\ndetector:\n  training:\n    base_lr: 0.1\n",
            "cxr:\n  annotation:\n    max_boxes: 3 # few\n\n  # old\n  detector:\n    training:\n      base_lr: 0.1\n",
        ),
        ("# mine\nreport: # x\n  training:\n    workers: 2\n", "# mine\n\nruntime:\n  loader_workers: 2\n"),
        ("---\nannotation:\n  max_boxes: 3 # few\n", "---\ncxr:\n  annotation:\n    max_boxes: 3 # few\n"),
    ],
    ids=["quoted", "half in today's keys", "head of the file", "document mark"],
)
def test_comments_stay(old, new):
    assert migrated_text(old) == new
    assert yaml.safe_load(new) == migrated(yaml.safe_load(old))


def test_a_value_that_has_no_place_any_more_is_named(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("detector: {training: {loader_workers: 2}}\nreport: {training: {workers: 5}}\n")
    assert main(["migrate-config", str(tmp_path / "a.yaml")]) == 0
    assert "report.training.workers: 5 is left out; runtime.loader_workers is 2" in capsys.readouterr().err


def test_what_cannot_be_changed_place_by_place_is_written_without_comments(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(
        "{annotation: {max_boxes: 3}, runtime: {threads: 1}, report: {training: {workers: 3}}} # x\n"
    )
    assert main(["migrate-config", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "new.yaml")]) == 0
    assert "comments are lost" in capsys.readouterr().err
    expected = {"cxr": {"annotation": {"max_boxes": 3}}, "runtime": {"threads": 1, "loader_workers": 3}}
    assert read_overlay(tmp_path / "new.yaml") == expected


def test_one_message_lists_old_and_new_keys():
    with pytest.raises(ConfigError) as caught:
        Config.read(yaml.safe_load(OLD_UTV2), source="mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: keys of an earlier version. 'd2rnet migrate-config FILE'")
    assert "detector -> cxr.detector\n" in message and "report.training.workers -> runtime.loader_workers\n" in message
    assert "report.training.alignment.local -> cxr.report.training.alignment.lab\n" in message and "data ->" not in message


def test_nothing_is_overwritten_and_todays_keys_stay(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("annotation: {max_boxes: 3}\n")
    assert main(["migrate-config", str(tmp_path / "a.yaml"), "--output", str(tmp_path / "a.yaml")]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    (tmp_path / "a.new.yaml").symlink_to(tmp_path / "nowhere")
    assert main(["migrate-config", str(tmp_path / "a.yaml")]) == 2
    assert "is not overwritten" in capsys.readouterr().err
    (tmp_path / "b.yaml").write_text(NEW_UTV2)
    assert main(["migrate-config", str(tmp_path / "b.yaml")]) == 0
    assert "has today's keys" in capsys.readouterr().out and not (tmp_path / "b.new.yaml").exists()


def test_another_mistake_is_named_after_the_file_was_written(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("annotation: {max_box: 3}\n")
    assert main(["migrate-config", str(tmp_path / "a.yaml")]) == 2
    assert (
        "a.new.yaml: 1 problem(s)\n  cxr.annotation.max_box: unknown key; did you mean 'max_boxes'?" in capsys.readouterr().err
    )


def test_every_new_place_exists():
    today = {key for key, _ in leaves(Config)}
    for new in MOVED.values():
        assert new in today or any(key.startswith(f"{new}.") for key in today), new
    assert new_place("detector.training.base_lr") == "cxr.detector.training.base_lr"
    assert new_place("runtime.threads") == "runtime.threads"
    assert moved_keys({"cxr": {}, "evaluation": {"shuffle_seed": 1}}) == {}
