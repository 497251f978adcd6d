"""The whole workflow for real on a tiny cohort: one run, looked at from every side."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from test_dag import other_value, planned_jobs, snakemake

from d2rnet.config import RuntimeSettings
from d2rnet.cxr.boxes.coco import load_coco
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import load_annotation

pytestmark = pytest.mark.e2e
TINY = "workflow/presets/cxr/tiny.yaml"


def test_every_result_folder_says_how_it_was_made(run):
    for record in (
        "train_detector",
        "evaluate_detector",
        "build_annotation",
        "build_vocabulary",
        "train_report_model",
        "retrieve_reports",
        "evaluate_reports",
        "render_gallery",
        "draw_figures",
    ):
        content = read_json(run / "results" / "cxr" / record / "run.json")
        assert content["command"] == record.replace("_", "-")
        assert {"code", "settings", "versions", "seeds", "hardware", "counts", "inputs"} <= content.keys()


@pytest.mark.parametrize(
    ("file", "depth"),
    [
        ("resources/cxr/demo_cohort/cohort.json", 2),
        ("resources/cxr/demo_cohort/truth.jsonl", 2),
        ("resources/cxr/verify_inputs/summary.json", 1),
        ("resources/cxr/labelled/train.json", 2),
        ("resources/cxr/labelled/counts.json", 1),
        ("resources/cxr/verify_inputs/unlabelled_images.jsonl", 1),
        ("resources/cxr/convert_images/labelled/1-of-1.jsonl", 1),
        ("resources/cxr/convert_images/labelled/1-of-1.manifest.jsonl", 1),
        ("resources/cxr/unlabelled.json", 2),
        ("resources/cxr/convert_unlabelled/counts.json", 1),
        ("resources/cxr/reports.jsonl", 1),
        ("results/cxr/train_detector/metrics.jsonl", 1),
        ("results/cxr/train_detector/labelled_split.json", 1),
        ("results/cxr/train_detector/run.json", 1),
        ("results/cxr/evaluate_detector/metrics.json", 2),
        ("results/cxr/predict_boxes/predictions.json", 1),
        ("results/cxr/build_annotation/annotation.json", 2),
        ("results/cxr/build_annotation/counts.json", 2),
        ("results/cxr/build_vocabulary/vocabulary.json", 1),
        ("results/cxr/train_report_model/config.yaml", 1),
        ("results/cxr/train_report_model/metrics.jsonl", 1),
        ("results/cxr/train_report_model/run.json", 1),
        ("results/cxr/generate_reports/test.jsonl", 2),
        ("results/cxr/retrieve_reports/test.jsonl", 1),
        ("results/cxr/evaluate_reports/metrics.json", 2),
        ("results/cxr/evaluate_reports/per_report.jsonl", 1),
        ("results/cxr/evaluate_reports/run.json", 1),
        ("results/cxr/render_gallery/run.json", 1),
        ("results/cxr/summarize/summary.json", 1),
    ],
)
def test_every_key_is_documented(repository, run, file, depth):
    pages = [repository / "docs" / "reference" / name for name in ("formats.md", "metrics.md")]
    page = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    documented = {word for span in re.findall(r"`([^`\n]+)`", page) for word in re.findall(r"\w+", span)}
    readers = {
        ".json": read_json,
        ".jsonl": lambda path: list(read_jsonl(path)),
        ".yaml": lambda path: yaml.safe_load(path.open()),
    }
    found = keys(readers[Path(file).suffix](run / file), depth)
    assert found and sorted(found - documented) == []


def keys(value: object, depth: int) -> set[str]:
    """Names of the keys down to a depth; lists do not count, and neither do settings, which docs/reference/config.md names."""
    if isinstance(value, list):
        return set().union(*(keys(item, depth) for item in value))
    if not isinstance(value, dict) or depth == 0:
        return set()
    return set(value).union(*(keys(item, depth - 1) for key, item in value.items() if key != "settings"))


def test_second_run_has_nothing_to_do(repository, run):
    assert planned_jobs(snakemake(repository, run, "-n", "--cores", "1", "--configfile", str(repository / TINY))) == set()


def test_nothing_of_section_runtime_plans_a_job(repository, run, tmp_path):
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump({"runtime": {key: other_value(key) for key in RuntimeSettings.model_fields}}))
    overlays = ("--configfile", str(repository / TINY), str(path))
    assert planned_jobs(snakemake(repository, run, "-n", "--cores", "1", *overlays)) == set()


def test_splits_are_disjoint_and_test_is_never_trained_on(run):
    splits = {name: load_coco(run / "resources" / "cxr" / "labelled" / f"{name}.json") for name in ("train", "val", "test")}
    ids = {name: {image["source_id"] for image in coco["images"]} for name, coco in splits.items()}
    assert not ids["train"] & ids["val"] and not ids["train"] & ids["test"] and not ids["val"] & ids["test"]
    images = load_coco(run / "resources" / "cxr" / "unlabelled.json")["images"]
    subjects = {
        split: {image["subject_id"] for image in images if image["split"] == split} for split in ("train", "val", "test")
    }
    assert all(subjects.values())
    assert not subjects["train"] & subjects["test"] and not subjects["val"] & subjects["test"]


def test_annotation_is_in_original_pixels(run):
    images = {image["source_id"]: image for image in load_coco(run / "resources" / "cxr" / "unlabelled.json")["images"]}
    annotation = load_annotation(run / "results" / "cxr" / "build_annotation" / "annotation.json")
    entries = [entry for split in annotation.values() for entry in split]
    assert sum(len(entry["boxes"]) for entry in entries) > 0
    scaled = 0
    for entry in entries:
        image = images[entry["id"]]
        assert (entry["height"], entry["width"]) == (image["source_height"], image["source_width"])
        assert (run / "resources/cxr/demo_cohort/mimic" / entry["image_path"][0]).is_file()
        for x, y, width, height in entry["boxes"]:
            assert x >= 0 and y >= 0 and x + width <= entry["width"] + 1e-3 and y + height <= entry["height"] + 1e-3
            scaled += x + width > image["width"]
    assert scaled > 0, "no box lies beyond the small PNG's frame: boxes were not scaled to original pixels"


def test_reports_follow_the_order_of_the_annotation(run):
    annotation = load_annotation(run / "results" / "cxr" / "build_annotation" / "annotation.json")
    generated = list(read_jsonl(run / "results" / "cxr" / "generate_reports" / "test.jsonl"))
    assert [record["id"] for record in generated] == [entry["id"] for entry in annotation["test"]]
    assert all(set(record) >= {"reference", "hypothesis", "log_prob", "sentences"} for record in generated)


def test_gallery_shows_every_generated_report_and_what_was_drawn(run):
    folder = run / "results" / "cxr" / "render_gallery"
    counts = read_json(folder / "run.json")["counts"]
    generated = list(read_jsonl(run / "results" / "cxr" / "generate_reports" / "test.jsonl"))
    assert counts["shown"] == counts["images"] == counts["true_boxes_known"] == len(generated)
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert all(page.count(f'"{report["id"]}"') == 2 and f'"i":"{report["id"]}"' in page for report in generated)


def test_summary_names_protocol_section_and_n(run):
    summary = (run / "results" / "cxr" / "summarize" / "summary.md").read_text()
    assert "findings" in summary and "r2gen" in summary and "synthetic" in summary
    generated = list(read_jsonl(run / "results" / "cxr" / "generate_reports" / "test.jsonl"))
    assert f"n {len(generated)}" in summary


def test_an_image_of_the_cohort_is_read_as_the_workflow_read_it(run):
    from d2rnet import load_models

    models = load_models(
        run / "results" / "cxr" / "train_detector", run / "results" / "cxr" / "train_report_model", device="cpu"
    )
    entries = load_annotation(run / "results" / "cxr" / "build_annotation" / "annotation.json")["test"][:3]
    generated = {line["id"]: line for line in read_jsonl(run / "results" / "cxr" / "generate_reports" / "test.jsonl")}
    assert any(entry["boxes"] for entry in entries)
    for entry in entries:
        reading = models.read(run / "resources/cxr/demo_cohort/mimic" / entry["image_path"][0])
        assert reading.hypothesis == generated[entry["id"]]["hypothesis"]
        assert [box.label for box in reading.boxes] == entry["labels"]
        assert [list(box.xywh) for box in reading.boxes] == [pytest.approx(box, abs=0.05) for box in entry["boxes"]]
        assert [box.score for box in reading.boxes] == pytest.approx(entry["scores"], abs=2e-5)


@pytest.mark.parametrize(
    ("card", "fact"),
    [
        ("resources/cxr/labelled/data_card.md", "| labelled.source | vindr |"),
        ("resources/cxr/convert_unlabelled/data_card.md", "| reports.section | findings |"),
        ("results/cxr/train_detector/model_card.md", "| iterations | 12 |"),
        ("results/cxr/train_report_model/model_card.md", "| training.epochs | 2 |"),
    ],
)
def test_weights_and_data_have_their_card(run, card, fact):
    assert fact in (run / card).read_text(encoding="utf-8")


def test_inputs_are_left_as_they_were(repository, run, tmp_path):
    """Drawing the cohort again gives the same bytes: nothing downstream wrote into it."""
    from d2rnet.cli.entry import main
    from d2rnet.files.hashes import sha256_file

    config = read_json(run / "resources" / "cxr" / "demo_cohort" / "run.json")["settings"]
    assert main(["make-demo-cohort", "--output", str(tmp_path / "again"), "--settings", json.dumps(config)]) == 0
    first, again = run / "resources" / "cxr" / "demo_cohort", tmp_path / "again"
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file() and path.name != "run.json")
    assert names == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file() and path.name != "run.json")
    different = [name for name in names if sha256_file(first / name) != sha256_file(again / name)]
    assert different == []


def test_threshold_change_reuses_everything_before(repository, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, symlinks=True)
    before = (copy / "results/cxr/predict_boxes/predictions.json").stat().st_mtime_ns
    overlay = copy / "overlay.yaml"
    overlay.write_text("cxr: {annotation: {score_threshold: 0.9}}\n")
    target = "results/cxr/build_annotation/annotation.json"
    done = snakemake(repository, copy, "--cores", "1", "--configfile", str(repository / TINY), str(overlay), "--", target)
    assert done.returncode == 0, done.stderr[-3000:]
    annotation = load_annotation(copy / target)
    assert all(not entry["boxes"] for split in annotation.values() for entry in split)
    assert (copy / "results/cxr/predict_boxes/predictions.json").stat().st_mtime_ns == before


def test_calibrated_thresholds_come_from_the_validation_split_and_reach_the_annotation(repository, run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, symlinks=True)
    overlay = copy / "overlay.yaml"
    overlay.write_text(
        "cxr:\n  annotation: {thresholds: calibrated}\n  detector: {calibration: {wanted_precision: 0.01, min_boxes: 1}}\n"
    )
    target = "results/cxr/build_annotation/annotation.json"
    done = snakemake(repository, copy, "--cores", "1", "--configfile", str(repository / TINY), str(overlay), "--", target)
    assert done.returncode == 0, done.stderr[-3000:]
    thresholds = read_json(copy / "results/cxr/calibrate_thresholds/thresholds.json")
    page = (repository / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in keys(thresholds, 1))
    assert thresholds["n_images"] == len(load_coco(copy / "resources/cxr/labelled/val.json")["images"])
    record = read_json(copy / "results/cxr/build_annotation/run.json")
    assert record["thresholds"]["source"] == "calibrated"
    by_class = {name: choice["threshold"] for name, choice in thresholds["classes"].items()}
    assert record["thresholds"]["by_class"] == by_class
    for entry in (entry for split in load_annotation(copy / target).values() for entry in split):
        assert all(score >= by_class[label] for score, label in zip(entry["scores"], entry["labels"], strict=True))


def test_snakemake_report_is_one_page_with_the_tables(repository, run, tmp_path):
    page = tmp_path / "report.html"
    done = snakemake(repository, run, "--configfile", str(repository / TINY), "--report", str(page))
    assert done.returncode == 0, done.stderr[-3000:]
    text = page.read_text()
    for expected in (
        "summary.md",
        "from box annotations to written reports",
        "shuffled references",
        "Pseudo boxes",
        "froc.svg",
    ):
        assert expected in text
