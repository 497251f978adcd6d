"""evaluate-ct-reports: values by hand, levels, missing predictions, patients kept whole, and inputs that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest
from ct_evaluation_samples import DOUBT, EFFUSION, NODULE, NORMAL, cleaned, entry, write_run
from pycocoevalcap.bleu.bleu import Bleu

from d2rnet.ct.evaluation.cases import data_version
from d2rnet.ct.evaluation.evaluate import evaluate_ct_reports
from d2rnet.ct.evaluation.metric_table import CT_METRICS
from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_jsonl

PLAIN = {"meteor": False, "bootstrap_samples": 20}
REPORT = "ct18_vs_report_uncertain_positive"
TABLE = "ct18_vs_table_uncertain_positive"


def evaluate(tmp_path, inputs, **changes):
    settings = EvaluateCtSettings.read({**PLAIN, **changes})
    evaluate_ct_reports(**inputs, output=tmp_path / "out", device="cpu", settings=settings)
    return read_json(tmp_path / "out" / "metrics.json")


@pytest.fixture
def inputs(tmp_path):
    """Three patients; the first has two volumes of one scan, one of them answered wrongly."""
    entries = [
        entry("a/1", NODULE, ["Lung nodule"]),
        entry("a/2", NODULE, ["Lung nodule"]),
        entry("b", EFFUSION, ["Pleural effusion"]),
        entry("c", NORMAL),
    ]
    answers = {"a_1": NODULE, "a_2": NORMAL, "b": f"{EFFUSION} {NODULE}", "c": NORMAL}
    return write_run(tmp_path, entries, answers)


def test_volumes_of_a_scan_count_once_together(tmp_path, inputs):
    scores = evaluate(tmp_path, inputs)["scores"]
    assert scores[f"{REPORT}_micro_recall"] == pytest.approx(1.5 / 2)  # half of the nodule, the effusion
    assert scores[f"{REPORT}_micro_precision"] == pytest.approx(1.5 / 2.5)
    assert scores[f"{REPORT}_example_recall"] == pytest.approx((0.5 + 0 + 1) / 2)  # the normal report is left out
    by_volume = evaluate(tmp_path, inputs, level="volume")
    assert by_volume["scores"][f"{REPORT}_micro_recall"] == pytest.approx(2 / 3)
    assert by_volume["scores"][f"{REPORT}_micro_precision"] == pytest.approx(2 / 3)
    assert (by_volume["protocol"]["n"], by_volume["protocol"]["n_volumes"], by_volume["protocol"]["n_patients"]) == (4, 4, 3)


def test_every_number_says_what_it_holds_for(tmp_path, inputs):
    metrics = evaluate(tmp_path, inputs)
    rows = {row["metric"]: row for row in metrics["table"]}
    assert set(rows) == set(metrics["scores"]) == {key for key in CT_METRICS if not key.startswith("radbert")}
    held = "[data=ct_rate/v2,section=findings,text=faithful,split=test,level=scan,n=3,missing=0]"
    assert rows["bleu_4"]["key"] == f"bleu_4{held}"
    assert metrics["protocol"]["no_chest_left_out"] == 3
    assert metrics["protocol"]["labels_from"] == {"table": 4}
    assert metrics["scores"]["meteor"] is None and metrics["notes"]["meteor"].startswith("not run")
    assert metrics["notes"]["radbert18"] == "not run: ct.evaluation.radbert_weights is null"
    assert metrics["labels"]["references_against_table"]["micro_f1"] == 1
    run = read_json(tmp_path / "out" / "run.json")
    assert run["counts"] == {"volumes": 4, "scans": 3, "patients": 3, "missing_predictions": 0}


def test_bleu_of_the_corpus_and_mean_of_reports_have_keys_of_their_own(tmp_path, inputs):
    metrics = evaluate(tmp_path, inputs, level="volume")
    lines = list(read_jsonl(tmp_path / "out" / "per_report.jsonl"))
    mean = np.mean([line["bleu_1"] for line in lines])
    assert metrics["scores"]["bleu_1_report_mean"] == pytest.approx(mean, abs=1e-6)
    texts = [{row: [line[key]] for row, line in enumerate(lines)} for key in ("reference", "hypothesis")]
    corpus, _ = Bleu(4).compute_score(*texts, verbose=0)
    assert [metrics["scores"][f"bleu_{order}"] for order in (1, 2, 3, 4)] == pytest.approx(corpus, abs=1e-9)
    assert metrics["scores"]["bleu_4"] != pytest.approx(metrics["scores"]["bleu_4_report_mean"], abs=1e-3)
    assert lines[2]["hypothesis_abnormalities"] == ["Lung nodule", "Pleural effusion"]
    assert lines[2]["subject_id"] == "pb"


def test_a_doubted_finding_counts_under_one_convention_only(tmp_path):
    inputs = write_run(
        tmp_path,
        [entry("a", NODULE, ["Lung nodule"]), entry("b", DOUBT), entry("c", NORMAL)],
        {"a": DOUBT, "b": NODULE, "c": NORMAL},
    )
    scores = evaluate(tmp_path, inputs)["scores"]
    assert scores["ct18_vs_report_uncertain_positive_micro_f1"] == 1
    assert scores["ct18_vs_report_uncertain_negative_micro_f1"] == 0
    assert scores["ct18_vs_table_uncertain_positive_micro_precision"] == pytest.approx(1 / 2)


def test_truth_of_the_table_and_of_the_report_are_told_apart_and_blanks_count_nowhere(tmp_path):
    labels = [None if name == "Lung nodule" else 0 for name in entry("x", "")["labels"]]
    blank = entry("b", NORMAL) | {"labels": [None] * 18}
    inputs = write_run(
        tmp_path,
        [entry("a", NORMAL, ["Lung nodule"]), blank, entry("c", NORMAL) | {"labels": labels}],
        {"a": NODULE, "b": NODULE, "c": NORMAL},
    )
    scores = evaluate(tmp_path, inputs)["scores"]
    assert scores[f"{REPORT}_micro_f1"] == 0
    assert scores[f"{TABLE}_micro_f1"] == 1  # the invention in b is not judged


def test_without_labels_of_a_table_the_scores_against_it_are_not_run(tmp_path):
    entries = [entry(name, NODULE, ["Lung nodule"], labels_from="report") for name in "ab"]
    metrics = evaluate(tmp_path, write_run(tmp_path, entries, {"a": NODULE, "b": NODULE}))
    assert not any("_vs_table_" in key for key in metrics["scores"])
    assert metrics["notes"]["labels_of_table"].startswith("not run")


def test_missing_predictions_are_counted_and_scored_beside(tmp_path, caplog):
    entries = [entry(name, NODULE, ["Lung nodule"]) for name in "abcd"]
    metrics = evaluate(tmp_path, write_run(tmp_path, entries, {"a": NODULE, "b": NODULE, "c": NODULE}))
    assert metrics["protocol"]["missing"] == 1
    assert metrics["table"][0]["key"].endswith("n=3,missing=1]")
    assert metrics["missing"]["predictions"] == 1 and metrics["missing"]["ids"] == ["d"]
    assert metrics["scores"][f"{TABLE}_micro_recall"] == 1
    assert metrics["missing"]["scores_with_empty_reports"][f"{TABLE}_micro_recall"] == pytest.approx(3 / 4)
    assert metrics["missing"]["scores_with_empty_reports"]["rouge_l"] == pytest.approx(3 / 4)
    assert "1 predictions are missing" in caplog.text


def test_a_complete_run_scores_nothing_beside(tmp_path, inputs):
    assert evaluate(tmp_path, inputs)["missing"] == {"predictions": 0, "ids": []}


def test_volumes_of_a_patient_are_never_split_by_the_bootstrap(tmp_path):
    """Patient a answers all of 40 volumes rightly, b one wrongly: whole draws have a recall of 1, 40/41 or 0."""
    right = [entry(f"a{number}", NODULE, ["Lung nodule"], subject_id="a") for number in range(40)]
    wrong = entry("b", NODULE, ["Lung nodule"], subject_id="b")
    answers = {one["id"]: NODULE for one in right} | {"b": NORMAL}
    metrics = evaluate(tmp_path, write_run(tmp_path, [*right, wrong], answers), bootstrap_samples=400)
    assert metrics["intervals"][f"{TABLE}_micro_recall"] == [0.0, 1.0]
    alone = [one | {"subject_id": one["id"]} for one in [*right, wrong]]
    metrics = evaluate(tmp_path, write_run(tmp_path, alone, answers), bootstrap_samples=400)
    assert metrics["intervals"][f"{TABLE}_micro_recall"][0] > 0.9


def test_baselines_stand_beside(tmp_path):
    training = [
        entry("t1", NORMAL, split="train"),
        entry("t2", NORMAL, split="train"),
        entry("t3", NODULE, ["Lung nodule"], split="train"),
    ]
    entries = [entry("a", NODULE, ["Lung nodule"]), entry("b", NORMAL), entry("c", EFFUSION, ["Pleural effusion"])]
    inputs = write_run(tmp_path, entries, {"a": NODULE, "b": NORMAL, "c": EFFUSION}, training)
    nearest = tmp_path / "nearest.jsonl"
    lines = [{"id": name, "hypothesis": cleaned(NODULE)} for name in "abc"]
    write_jsonl(nearest, lines)
    metrics = evaluate(tmp_path, inputs | {"nearest": [nearest]})
    found = {name: scores[f"{TABLE}_micro_f1"] for name, scores in metrics["baselines"].items()}
    assert found["most_frequent_report"] == 0
    assert found["shuffled"] == 0  # every report is given to another patient
    assert found["nearest_training_report"] == pytest.approx(2 * 1 / (2 + 3))
    assert found["true_label_set_report"] == pytest.approx(2 / 3)  # no training report has an effusion
    assert metrics["scores"][f"{TABLE}_micro_f1"] == 1
    assert metrics["against"]["nearest_training_report"][f"{TABLE}_micro_f1"]["difference"] == pytest.approx(0.6)
    assert metrics["notes"]["label_set_report"].startswith("not run")
    assert metrics["most_frequent_report"]["training_count"] == 2


def test_one_patient_cannot_be_shuffled(tmp_path):
    entries = [entry(name, NODULE, ["Lung nodule"], subject_id="p") for name in "ab"]
    metrics = evaluate(tmp_path, write_run(tmp_path, entries, dict.fromkeys("ab", NODULE)))
    assert "shuffled" not in metrics["baselines"]
    assert metrics["notes"]["shuffled"].startswith("undefined")


def test_identical_and_normal_reports_show(tmp_path):
    entries = [entry(name, text) for name, text in zip("abcd", (NODULE, EFFUSION, NORMAL, DOUBT), strict=True)]
    metrics = evaluate(tmp_path, write_run(tmp_path, entries, dict.fromkeys("abcd", NORMAL)))
    assert metrics["unique_report_rate"] == 1 / 4
    assert metrics["degeneracy"]["hypothesis"]["normal_report_rate"] == 1
    assert metrics["degeneracy"]["reference"]["normal_report_rate"] == 1 / 4


def test_references_of_another_annotation_are_refused(tmp_path, inputs):
    annotation = json.loads(inputs["annotation"].read_text())
    annotation["test"][2]["report"] = NODULE
    inputs["annotation"].write_text(json.dumps(annotation))
    with pytest.raises(DatasetError, match=r"id b.*There is pleural effusion.*nodule of 4 mm.*generate-ct-reports"):
        evaluate(tmp_path, inputs)


def test_counts_of_something_else_are_refused(tmp_path, inputs):
    inputs["counts"].write_text('{"cxr": {}}')
    with pytest.raises(DatasetError, match=r"counts.json: .*verify-ct-inputs"):
        evaluate(tmp_path, inputs)


def test_a_report_that_is_empty_once_cleaned_is_counted_and_not_missing(tmp_path):
    entries = [entry("a", NODULE, ["Lung nodule"]), entry("b", "___"), entry("c", NORMAL)]
    metrics = evaluate(tmp_path, write_run(tmp_path, entries, {"a": NODULE, "c": NORMAL}))
    assert (metrics["protocol"]["missing"], metrics["protocol"]["without_reference"]) == (0, 1)


def test_the_data_is_named_by_the_release_that_was_found():
    reports = {"source": "ct_rate", "release": "auto", "section": "findings", "reconstructions": "one"}
    part = {"settings": {"reports": reports}, "source": {}}
    assert data_version({"ct": {**part, "release": "v1"}}, Path("counts.json"))["data"] == "ct_rate/v1"
    assert data_version({"ct": {**part, "release": ""}}, Path("counts.json"))["data"] == "ct_rate"
    assert data_version({"ct": part}, Path("counts.json"))["data"] == "ct_rate/auto"  # of an earlier version
