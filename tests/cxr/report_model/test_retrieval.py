"""Retrieval baseline: the nearest training report by image, with a small model and images that are known to be alike."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d2rnet.cxr.report_model.front_end import facts_of
from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.retrieval import choose_candidates, nearest, retrieve_reports
from d2rnet.cxr.report_model.settings import ReportSettings
from d2rnet.errors import DatasetError
from d2rnet.evaluation.settings import RetrievalSettings
from d2rnet.files.documents import write_jsonl
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.model_files import save_model
from d2rnet.report.text.vocabulary import count_vocabulary

SMALL = {
    "input_size_px": 32,
    "backbone_stages": 2,
    "patch_channels": 16,
    "d_model": 16,
    "d_ff": 32,
    "num_heads": 2,
    "num_layers": 1,
    "memory_heads": 2,
}
SETTINGS = RetrievalSettings()


def entry(name: str, split: str, images: list[str], report: str) -> dict[str, Any]:
    sizes = {"heights": [40] * len(images), "widths": [40] * len(images), "box_image": []} if len(images) > 1 else {}
    return {
        "id": name,
        "study_id": name,
        "subject_id": name,
        "split": split,
        "report": report,
        "image_path": images,
        "height": 40,
        "width": 40,
        "boxes": [],
        "scores": [],
        "labels": [],
        **sizes,
    }


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Test images are copies of training images 2 and 0; training entry 3 has no report; entry 4 has two images."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for number in range(5):
        picture = cv2.resize(rng.integers(0, 255, (5, 5)).astype(np.uint8), (40, 40), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(tmp_path / f"train{number}.png"), picture)
    for name, source in (("x", 2), ("y", 0), ("z", 3), ("u", 4)):
        shutil.copy(tmp_path / f"train{source}.png", tmp_path / f"{name}.png")
    reports = ["Heart is big.", "Lungs are clear.", "Left effusion.", "", "Right nodule."]
    train = [entry(f"t{number}", "train", [f"train{number}.png"], report) for number, report in enumerate(reports)]
    train[4] = entry("t4", "train", ["train4.png", "train1.png"], "Right nodule.")
    test = [entry(name, "test", [f"{name}.png"], "Some report.") for name in ("x", "y", "z")]
    test.append(entry("u", "test", ["u.png", "train1.png"], "Some report."))
    write_annotation(tmp_path / "annotation.json", {"train": train, "test": test})
    write_jsonl(
        tmp_path / "test.jsonl", [{"id": item["id"], "reference": "some report .", "hypothesis": "a ."} for item in test]
    )
    settings = ReportSettings.read({"model": SMALL})
    vocabulary = count_vocabulary(["lungs are clear ."], protocol="r2gen", section="findings", min_token_count=1)
    torch.manual_seed(0)
    network = D2RNet(settings.model, num_tokens=len(vocabulary), num_categories=len(CATEGORY_NAMES))
    save_model(
        tmp_path / "model",
        network.state_dict(),
        settings=settings,
        vocabulary=vocabulary,
        facts=facts_of(CATEGORY_NAMES),
        selected={},
    )
    return {
        "generated": tmp_path / "test.jsonl",
        "annotation": tmp_path / "annotation.json",
        "image_root": tmp_path,
        "model": tmp_path / "model",
        "output": tmp_path / "out" / "test.jsonl",
        "workers": 2,
        "device": "cpu",
        "settings": SETTINGS,
    }


def test_a_copied_image_finds_its_report(run: dict[str, Any]) -> None:
    retrieve_reports(**run)
    rows = [json.loads(line) for line in run["output"].read_text().splitlines()]
    assert [row["id"] for row in rows] == ["x", "y", "z", "u"]
    assert [row["nearest"] for row in rows[:2]] == ["t2", "t0"]
    assert [row["hypothesis"] for row in rows[:2]] == ["left effusion .", "heart is big ."]
    assert [row["cosine"] for row in rows[:2]] == pytest.approx([1, 1], abs=1e-4)
    assert rows[2]["nearest"] != "t3" and rows[2]["cosine"] < 1 - 1e-4  # the entry without a report answers nothing
    assert (rows[3]["nearest"], rows[3]["cosine"]) == ("t4", pytest.approx(1, abs=1e-4))  # mean of two images
    assert {row["reference"] for row in rows} == {"some report ."}
    record = json.loads((run["output"].parent / "run.json").read_text())
    assert record["counts"]["candidates"] == 4 and record["counts"]["reports"] == 4


def test_nearest_goes_on_from_run_to_run_and_takes_the_first_of_equals() -> None:
    queries = torch.eye(3)
    runs = [(0, torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0]])), (2, torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0.6, 0.8]]))]
    places, cosines = nearest(queries, iter(runs))
    assert places.tolist() == [0, 3, 4]
    assert cosines.tolist() == pytest.approx([1, 1, 0.8])


def test_candidates_are_drawn_by_seed_in_their_order() -> None:
    entries = [entry(f"t{number}", "train", ["a.png"], "Clear." if number % 2 else " ") for number in range(20)]
    assert [item["id"] for item in choose_candidates(entries, protocol="r2gen", most=99, seed=0)] == [
        f"t{number}" for number in range(1, 20, 2)
    ]
    drawn = [[item["id"] for item in choose_candidates(entries, protocol="r2gen", most=4, seed=seed)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(drawn[0], key=lambda name: int(name[1:])) and len(drawn[0]) == 4
    with pytest.raises(DatasetError, match="0 training entries with a report"):
        choose_candidates(entries[::2], protocol="r2gen", most=4, seed=0)
