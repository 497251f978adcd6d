"""The target ct from real volumes with texts of our own to the page of one of them: all of it runs; nothing is learnt."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_dag import snakemake

from d2rnet.cli.entry import main
from d2rnet.files.documents import read_json, read_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
TINY = "workflow/presets/ct/tiny.yaml"
TEXTS = {
    "lung": "There is emphysema in the right lung.",
    "nodule": "There is a nodule of 6 mm in the right lung.",
    "clear": "The lungs are clear.",
    "pleura": "No pleural effusion is seen.",
    "heart": "The heart is of normal size.",
    "trachea": "The trachea is open.",
    "abdomen": "The liver is of normal density.",
    "bone": "No lytic lesion is seen in the bones.",
}
# path -> file or folder of the samples, patient, study, split, what the report says: two scans of one right lung, three others
VOLUMES = {
    "lung_1.mha": ("elastix_right_lung/3DCT_lung_baseline_small.mha", "lung", "lung_1", "train", "heart lung pleura bone"),
    "lung_2.mha": ("elastix_right_lung/3DCT_lung.mha", "lung", "lung_2", "train", "heart nodule pleura abdomen"),
    "torso.nii.gz": ("ts_abdomen_3mm/ct.nii.gz", "torso", "torso", "train", "clear pleura abdomen bone"),
    "series": ("ts_dicom_j2k", "series", "series", "val", "clear pleura abdomen bone"),
    "chest.nii.gz": ("ts_chest_cta_1p5mm/ct.nii.gz", "chest", "chest", "test", "trachea heart clear pleura bone"),
}
CHANGES: dict[str, Any] = {
    "data": {"demo": {"enabled": False}, "volumes": {"min_lung_fraction": 0.0}},  # two of the five show hardly any lung
    "structure_model": {"text": {"min_token_count": 1}, "training": {"epochs": 4, "batch_size": 3, "queue": {"length": 4}}},
    "evaluation": {"meteor": False},
    "report": {"training": {"epochs": 30}, "generation": {"beam_size": 1, "min_tokens": 12, "max_tokens": 40}},
}
PIXELS = """plane => {
  const canvas = document.querySelector(`#${plane} canvas`);
  const {width, height} = canvas;
  return [width, height, [...canvas.getContext("2d").getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0)]];
}"""


def write_source(folder: Path, samples: Path) -> Path:
    """Lay a source of the kind ``folder``; skips where a sample is missing."""
    folder.mkdir()
    rows = []
    for path, (sample, subject, study, split, said) in VOLUMES.items():
        origin = samples / sample
        if not origin.exists():
            pytest.skip(f"{sample} is not on this machine")
        if origin.is_dir():
            shutil.copytree(origin, folder / path, ignore=shutil.ignore_patterns("SOURCE.txt"))
        else:
            shutil.copy(origin, folder / path)
        rows.append([path, subject, study, split, " ".join(TEXTS[one] for one in said.split())])
    with (folder / "studies.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path", "subject_id", "study_id", "split", "report"], *rows])
    return folder


@pytest.fixture(scope="module")
def real_run(repository: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Working directory of a finished run of the target ct; its source is ``source``."""
    directory = tmp_path_factory.mktemp("real ct run")
    source = write_source(directory / "source", shared_data / "ct_real")
    changes = json.loads(json.dumps(CHANGES))
    changes["data"]["reports"] = {"source": "folder", "root": str(source), "table": "studies.csv"}
    (directory / "real.yaml").write_text(yaml.safe_dump({"ct": changes}), encoding="utf-8")
    settings = ("--configfile", str(repository / TINY), str(directory / "real.yaml"))
    done = snakemake(repository, directory, "--cores", "2", *settings, "--", "ct")
    assert done.returncode == 0, done.stderr[-6000:]
    return directory


@pytest.fixture(scope="module")
def reading(real_run: Path) -> Path:
    """Folder of the reading of the test volume by the run's own models."""
    results = real_run / "results" / "ct"
    options = ["--structures", str(results / "train_structures"), "--ct-report-model", str(results / "train_ct_report_model")]
    scan = str(real_run / "source" / "chest.nii.gz")
    assert main(["read", scan, *options, "--device", "cpu", "--output", str(real_run / "readings")]) == 0
    return real_run / "readings"


def history(folder: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(folder / "metrics.jsonl"))


def test_every_volume_is_converted_and_both_stages_train(real_run: Path) -> None:
    volumes = list(read_jsonl(real_run / "resources/ct/convert_ct/volumes.jsonl"))
    assert {line["study_id"]: line["split"] for line in volumes} == {row[2]: row[3] for row in VOLUMES.values()}
    assert {line["file_format"] for line in volumes} == {"MetaImage", "NIfTI-1", "DICOM series"}
    results = real_run / "results" / "ct"
    for rule, epochs in (("train_structures", 4), ("train_ct_report_model", 30)):
        rows = history(results / rule)
        assert rows[-1]["epoch"] == epochs and "val_loss" in rows[-1]
        assert np.isfinite([value for row in rows for value in row.values() if isinstance(value, float)]).all()
    assert read_json(results / "extract_ct_features" / "features.json")["volumes"] == len(VOLUMES)
    (line,) = read_jsonl(results / "generate_ct_reports" / "test.jsonl")
    assert line["id"] == "chest" and len(line["hypothesis"].split()) > 4


def test_scores_of_one_volume_say_how_many_they_are_of(real_run: Path) -> None:
    results = real_run / "results" / "ct"
    protocol = read_json(results / "evaluate_ct_reports" / "metrics.json")["protocol"]
    assert (protocol["n"], protocol["n_patients"], protocol["missing"]) == (1, 1, 0)
    structures = read_json(results / "evaluate_structures" / "metrics.json")
    assert structures["volumes"] == 1 and structures["structures"]["lung"]["distinct_texts"] == 1
    assert structures["zero_shot_auroc_macro"] is None  # one volume has no finding and no other to compare with


def test_the_reading_says_what_the_workflow_wrote(real_run: Path, reading: Path) -> None:
    document = read_json(reading / "chest.json")
    (line,) = read_jsonl(real_run / "results/ct/generate_ct_reports/test.jsonl")
    assert document["hypothesis"] == line["hypothesis"] and document["format"] == "d2rnet-ct-reading-1"
    assert {"findings", "sentences", "structures", "volume", "models", "settings", "notice", "warnings"} <= document.keys()
    volume = document["volume"]
    assert volume["source_shape_zyx"] == [164, 126, 120] and volume["source_spacing_mm"] == [1.5, 1.5, 1.5]
    assert document["grid_zyx"] == [5, 15, 15] and len(document["structures"]) == 10
    for name, one in document["structures"].items():
        attention = np.array(one["attention"])
        assert attention.shape == (5 * 15 * 15,) and np.isfinite(attention).all(), name
        assert attention.min() >= 0 and 0.99 < attention.sum() < 2.01, name  # the greater of two heads, whose shares sum to 1


def test_the_page_shows_three_planes_the_right_way_round(reading: Path, open_file: Any) -> None:
    """The aorta beside the spine lies on the patient's left, the spine behind, the liver below the lungs."""
    tab = open_file(reading / "chest.html")
    tab.wait_for_selector("body.ready")
    tab.keyboard.press("1")  # lung window: air is dark, all else bright
    marks = {plane: tab.locator(f"#{plane} .side").all_inner_texts() for plane in ("axial", "coronal", "sagittal")}
    assert marks == {"axial": ["R", "L", "A", "P"], "coronal": ["R", "L", "H", "F"], "sagittal": ["A", "P", "H", "F"]}
    pictures = {}
    for plane in marks:
        width, height, red = tab.evaluate(PIXELS, plane)
        pictures[plane] = np.array(red).reshape(height, width)
    coronal = pictures["coronal"]
    shown = coronal[:, (coronal > 0).any(axis=0)]
    shown = shown[(shown > 0).any(axis=1)]
    upper, lower = np.array_split(shown, 2)
    assert (lower > 200).mean() > 1.3 * (upper > 200).mean()
    tab.keyboard.press("3")  # bone window
    width, height, red = tab.evaluate(PIXELS, "sagittal")
    bone = np.array(red).reshape(height, width) > 160
    assert bone[:, width // 2 :].sum() > bone[:, : width // 2].sum()
    tab.locator("li button").first.click()
    assert tab.locator('li button[aria-pressed="true"]').count() == 1
