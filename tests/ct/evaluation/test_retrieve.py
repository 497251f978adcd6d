"""retrieve-ct-reports: nearest by cosine, labels from features, and features that are missing, damaged or of another model."""

import numpy as np
import pytest
from ct_evaluation_samples import EFFUSION, NODULE, NORMAL, cleaned, entry, write_run, write_vector

from d2rnet.ct.evaluation.retrieve import nearest, retrieve_ct_reports
from d2rnet.ct.evaluation.settings import LabelSetSettings
from d2rnet.ct.report_model.features import feature_path
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.report.annotation_file import write_annotation

DIRECTIONS = {NODULE: [3, 0], EFFUSION: [0, 3], NORMAL: [-2, -2]}
NAMED = {NODULE: ["Lung nodule"], EFFUSION: ["Pleural effusion"], NORMAL: []}


@pytest.fixture(params=["observations", "mean"])
def kind(request):
    """What the baselines look at; the files hold nothing else."""
    return request.param


@pytest.fixture
def inputs(tmp_path, kind):
    """The features of a volume tell what its report names."""
    splits = {}
    for split, count in (("train", 12), ("val", 6), ("test", 3)):
        texts = [list(DIRECTIONS)[number % 3] for number in range(count)]
        splits[split] = [entry(f"{split}{n}", text, NAMED[text], split=split) for n, text in enumerate(texts)]
        for number, one in enumerate(splits[split]):
            vector = [value + 0.01 * number for value in DIRECTIONS[one["report"]]]
            write_vector(tmp_path / "features", one, vector, kind=kind)
    inputs = write_run(tmp_path, splits["test"], {one["id"]: NORMAL for one in splits["test"]})
    write_annotation(inputs["annotation"], splits)
    del inputs["counts"]
    return inputs | {"features": tmp_path / "features", "settings": LabelSetSettings(features=kind)}


def retrieve(tmp_path, inputs):
    retrieve_ct_reports(**inputs, output=tmp_path / "out")
    return [
        {line["id"]: line for line in read_jsonl(tmp_path / "out" / name)} for name in ("nearest.jsonl", "label_set.jsonl")
    ]


def test_both_baselines_answer_what_the_features_tell(tmp_path, inputs):
    looked_up, by_labels = retrieve(tmp_path, inputs)
    for lines in (looked_up, by_labels):
        assert [line["hypothesis"] for line in lines.values()] == [cleaned(text) for text in DIRECTIONS]
        assert [line["reference"] for line in lines.values()] == [cleaned(text) for text in DIRECTIONS]
    assert looked_up["test0"]["nearest"].startswith("train") and looked_up["test0"]["cosine"] > 0.99
    assert [line["labels"] for line in by_labels.values()] == list(NAMED.values())
    classifier = read_json(tmp_path / "out" / "classifier.json")
    assert classifier["labels"]["Lung nodule"]["f1"] == 1 and classifier["labels"]["Lung nodule"]["true"] == 2
    assert classifier["labels"]["Emphysema"]["f1"] is None
    assert read_json(tmp_path / "out" / "run.json")["counts"]["different_label_sets"] == 3


def test_labels_that_nobody_taught_are_not_claimed(tmp_path, inputs):
    splits = read_json(inputs["annotation"])
    for one in splits["train"]:
        one["labels"][0] = None
    write_annotation(inputs["annotation"], splits)
    _, by_labels = retrieve(tmp_path, inputs)
    assert not any("Medical material" in line["labels"] for line in by_labels.values())


def test_the_answered_volumes_decide_nothing(tmp_path, inputs):
    first = retrieve(tmp_path, inputs)
    splits = read_json(inputs["annotation"])
    for one in splits["test"]:
        one["labels"] = [1] * 18
    write_annotation(inputs["annotation"], splits)
    assert retrieve(tmp_path, inputs) == first


def test_nearest_by_cosine_by_hand():
    queries = np.array([[1, 1], [0, 0], [-1, 0]], np.float32)
    places, cosines = nearest(queries, np.array([[9, 0], [2, 2.1], [0, 1]], np.float32))
    assert places.tolist() == [1, 0, 2]
    assert cosines == pytest.approx([0.9997, 0, 0], abs=1e-3)


def test_missing_features_are_named(tmp_path, inputs):
    feature_path(inputs["features"], "key", "arrays/val3.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"val3.*extract-ct-features"):
        retrieve(tmp_path, inputs)


@pytest.mark.parametrize(
    ("vector", "key", "message"),
    [
        ([1, 2, 3], "key", r"shape \(.*3,?\)"),
        ([1, float("nan")], "key", "finite"),
        ([1, 2], "other", "extraction other"),
    ],
)
def test_features_that_do_not_fit_are_named(tmp_path, inputs, kind, vector, key, message):
    write_vector(inputs["features"], entry("train4", NORMAL), vector, kind=kind, key=key)
    with pytest.raises(DatasetError, match=rf"train4.*{message}"):
        retrieve(tmp_path, inputs)


def test_a_damaged_file_is_named(tmp_path, inputs):
    feature_path(inputs["features"], "key", "arrays/test1.npy").write_bytes(b"no safetensors")
    with pytest.raises(DatasetError, match=r"test1.*not a readable file"):
        retrieve(tmp_path, inputs)
