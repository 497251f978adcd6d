"""Thresholds with which boxes agree best with the training reports: the best of all, by hand, and what is refused."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2rnet.cxr.annotation.fit_thresholds import fit_thresholds
from d2rnet.cxr.annotation.settings import AnnotationSettings
from d2rnet.errors import DatasetError
from d2rnet.evaluation.agreement import class_thresholds, micro_f1, pooled_threshold
from d2rnet.files.documents import read_json, write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.findings.classes import CATEGORY_IDS, CATEGORY_NAMES

CLASSES = len(CATEGORY_NAMES)


def drawn_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of ten images and what their reports name: two classes of many reports and of unlike scores, one of a single."""
    rng = np.random.default_rng(seed)
    named = np.zeros((10, CLASSES), dtype=bool)
    named[:, :2] = rng.random((10, 2)) < 0.5
    named[0, 2] = True
    best = np.zeros((10, CLASSES))
    best[:, :3] = (rng.random((10, 3)) * 0.6 + 0.3 * named[:, :3]) * [0.5, 1, 1]
    return best.round(1), named


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_by_class_have_the_best_f1_of_all(seed: int) -> None:
    best, named = drawn_case(seed)
    least = class_thresholds(best, named, min_reports=2)
    free = [place for place in range(2) if named[:, place].sum() >= 2]
    reached = 0.0
    for cuts in itertools.product(*([*np.unique(best[:, place][best[:, place] > 0]), 2.0] for place in free)):
        other = least.copy()
        other[free] = cuts
        reached = max(reached, micro_f1(named, best >= other))
    assert micro_f1(named, best >= least) == pytest.approx(reached)


def test_a_class_that_few_reports_name_keeps_the_threshold_of_all() -> None:
    best, named = drawn_case(4)
    pooled = pooled_threshold(best, named)
    least = class_thresholds(best, named, min_reports=2)
    assert set(least[2:]) == {pooled} and least[0] != pooled
    assert set(class_thresholds(best, named, min_reports=11)) == {pooled}


def test_a_class_whose_boxes_are_never_right_gets_none() -> None:
    best, named = np.zeros((4, CLASSES)), np.zeros((4, CLASSES), dtype=bool)
    best[:, 0], named[:, 0] = [0.9, 0.8, 0.7, 0.1], [True, True, True, False]
    best[:2, 1], named[2:, 1] = 0.95, True
    least = class_thresholds(best, named, min_reports=1)
    assert least[0] == 0.7 and least[1] == 1.0


TEXTS = {
    "a": "Cardiomegaly. Small left pleural effusion.",
    "b": "Cardiomegaly is possible.",
    "c": "No cardiomegaly. Pleural effusion on the right.",
    "d": "The lungs are clear.",
}
BOXES = {
    "a": [("Cardiomegaly", 0.4), ("Cardiomegaly", 0.3), ("Pleural effusion", 0.9), ("Edema", 0.85)],
    "b": [("Cardiomegaly", 0.35)],
    "c": [("Cardiomegaly", 0.2), ("Cardiomegaly", 0.19), ("Pleural effusion", 0.8)],
    "d": [("Pleural effusion", 0.6)],
}


@pytest.fixture
def source(inputs: Any) -> Any:
    """A report source of four training studies of one image each, TEXTS, with the BOXES of one shard."""
    inputs.images = [
        inputs.images[0] | {"id": number, "source_id": name, "study_id": name, "subject_id": name}
        for number, name in enumerate(TEXTS, start=1)
    ]
    some = inputs.reports[-1]
    inputs.reports = [
        some | {"study_id": name, "subject_id": name, "report": text, "images": [name]} for name, text in TEXTS.items()
    ]
    inputs.shards = [[box for number, name in enumerate(TEXTS, start=1) for box in boxes_of(number, BOXES[name])]]
    return inputs


def boxes_of(number: int, found: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """COCO results of one image: class and score of each box."""
    return [
        {"image_id": number, "category_id": CATEGORY_IDS[name], "bbox": [10, 10, 20, 20], "score": score}
        for name, score in found
    ]


def add(source: Any, text: str, found: list[tuple[str, float]], split: str = "train", view: str = "PA") -> None:
    """Add a study of one image to a source."""
    number = len(source.images) + 1
    own = {"study_id": f"s{number}", "subject_id": f"p{number}", "split": split}
    source.images.append(source.images[0] | own | {"id": number, "source_id": f"i{number}", "view": view})
    source.reports.append(source.reports[0] | own | {"report": text, "images": [f"i{number}"]})
    source.shards[0] += boxes_of(number, found)


def fitted(source: Any, **settings: Any) -> dict[str, Any]:
    """Run fit_thresholds and return what thresholds.json holds."""
    output = source.folder / "out"
    fit_thresholds(**source.write(), output=output, settings=AnnotationSettings.read({"min_reports": 2, **settings}))
    return read_json(output / "thresholds.json")


def record(source: Any, shard: int, sha256: str, views: tuple[str, ...] = ()) -> None:
    """Write the run record of predict-boxes beside a shard."""
    inputs = {"unlabelled": {"file": "unlabelled.json", "sha256": sha256_file(source.write()["unlabelled"])}}
    detector = {"file": "model_final.pth", "sha256": sha256}
    content = {"command": "predict-boxes", "inputs": inputs, "detector": detector, "views": [*views]}
    write_json(source.folder / f"shard_{shard}.run.json", content)


def test_doubt_is_named_denial_is_not_and_rare_classes_take_the_pooled_threshold(source: Any) -> None:
    """Pooled: at 0.35 four hits of four named and six kept, F1 8/10; at 0.4 three of five, 6/9; at 0.8 two of three, 4/7."""
    found = fitted(source)
    assert (found["split"], found["n_entries"], found["min_reports"]) == ("train", 4, 2)
    assert found["pooled"] == {"threshold": 0.35, "precision": 4 / 6, "recall": 1, "f1": 0.8, "named": 4, "kept": 6}
    heart, fluid, edema = (found["classes"][name] for name in ("Cardiomegaly", "Pleural effusion", "Edema"))
    sure = {"precision": 1, "recall": 1, "f1": 1, "named": 2, "kept": 2, "own": True}
    assert (heart, fluid) == ({"threshold": 0.35, **sure}, {"threshold": 0.8, **sure})
    wrong = {"precision": 0, "recall": None, "f1": 0, "named": 0, "kept": 1, "own": False}
    assert edema == {"threshold": 0.35, **wrong}
    assert found["pooled_classes"] == [name for name in CATEGORY_NAMES if name not in ("Cardiomegaly", "Pleural effusion")]
    assert found["together"] == {"precision": 0.8, "recall": 1, "f1": 8 / 9, "named": 4, "kept": 5}
    run = read_json(source.folder / "out" / "run.json")
    assert run["counts"] == {"entries": 4, "classes_with_the_pooled_threshold": 20}


def test_each_key_is_in_the_page_of_formats(source: Any, repository: Path) -> None:
    page = (repository / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    section = page.partition("## results/cxr/fit_thresholds/thresholds.json")[2].partition("\n## ")[0]
    found = fitted(source)
    assert all(f"`{key}`" in section for key in [*found, *found["pooled"], *found["classes"]["Edema"], *found["detector"]])


def test_reports_of_other_splits_and_images_of_other_views_choose_nothing(source: Any) -> None:
    before = fitted(source)
    add(source, "Cardiomegaly.", [("Cardiomegaly", 0.1)], split="val")
    add(source, "The lungs are clear.", [("Cardiomegaly", 0.95)], split="test")
    add(source, "Cardiomegaly.", [("Cardiomegaly", 0.1)], view="LATERAL")
    assert fitted(source, box_views=["PA"]) == before
    assert fitted(source)["n_entries"] == 5


def test_an_entry_of_a_study_has_the_boxes_of_all_its_images(source: Any) -> None:
    """The fourth image becomes one of the first study, whose heart it shows, and an effusion that was too weak there."""
    source.images[3] |= {"study_id": "a", "subject_id": "a"}
    source.reports[0]["images"] = ["a", "d"]
    del source.reports[3]
    source.shards[0] = [*boxes_of(1, [("Pleural effusion", 0.1)]), *boxes_of(2, BOXES["b"]), *boxes_of(3, BOXES["c"])]
    source.shards[0] += boxes_of(4, [("Cardiomegaly", 0.5), ("Pleural effusion", 0.85)])
    found = fitted(source, entry="study")
    assert found["n_entries"] == 3
    heart, fluid = (found["classes"][name] for name in ("Cardiomegaly", "Pleural effusion"))
    assert (heart["threshold"], heart["recall"], fluid["threshold"], fluid["recall"]) == (0.35, 1, 0.8, 1)


def test_the_detector_is_that_of_the_run_records(source: Any) -> None:
    assert fitted(source)["detector"] == {"file": None, "sha256": None}
    record(source, 0, "abc")
    assert fitted(source)["detector"] == {"file": "model_final.pth", "sha256": "abc"}


def test_shards_of_two_detectors_are_refused(source: Any) -> None:
    source.shards.append([])
    record(source, 0, "abc")
    record(source, 1, "def")
    with pytest.raises(DatasetError, match=r"predicted by 2 detectors, .* \(abc\), model_final.pth \(def\); expected one"):
        fitted(source)


def test_images_that_were_not_looked_at_choose_nothing(source: Any) -> None:
    source.images[3]["view"] = "LATERAL"
    record(source, 0, "abc", views=("PA",))
    assert fitted(source, box_views=["PA"])["n_entries"] == 3
    with pytest.raises(DatasetError, match=r"predicted on images of view PA alone.* LATERAL \(1\)"):
        fitted(source)


def test_boxes_that_never_show_what_reports_name_are_refused(source: Any) -> None:
    source.shards = [boxes_of(4, [("Edema", 0.9)])]
    with pytest.raises(DatasetError, match=r"reports\.jsonl: no box shows what its report names, in 4 training entries"):
        fitted(source)
