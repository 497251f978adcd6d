"""Scores of generated reports: numbers worked out by hand, controls, bad input."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from d2rnet.errors import ConfigError, DatasetError, ToolError
from d2rnet.evaluation import captioning
from d2rnet.evaluation.caption_scores import Scorer, open_meteor, single_spaced
from d2rnet.evaluation.captioning import evaluate_reports
from d2rnet.evaluation.degeneracy import text_statistics
from d2rnet.evaluation.report_pairs import commonest_answer, derangement
from d2rnet.evaluation.settings import NoBoxSettings
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.report.annotation_file import write_annotation
from d2rnet.report.text.vocabulary import count_vocabulary

NO_METEOR = NoBoxSettings(meteor=False)


def entry(name: str, split: str, report: str, study: str | None = None) -> dict[str, Any]:
    return {
        "id": name,
        "study_id": study or name,
        "subject_id": f"p{name}",
        "split": split,
        "report": report,
        "image_path": [f"{name}.jpg"],
        "height": 10,
        "width": 10,
        "boxes": [],
        "scores": [],
        "labels": [],
    }


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """Arguments of evaluate_reports on 4 test images of 3 studies; two training reports are equal after cleaning."""
    reports = {"a": "heart is big .", "b": "lungs are clear .", "c": "no acute effusion seen ."}
    test = [entry("a", "test", "x"), entry("b1", "test", "x", "b"), entry("b2", "test", "x", "b"), entry("c", "test", "x")]
    train = [
        entry("t1", "train", "Lungs are clear."),
        entry("t2", "train", "LUNGS are clear.\n"),
        entry("t3", "train", "Normal."),
    ]
    write_annotation(tmp_path / "annotation.json", {"train": train, "test": test})
    vocabulary = count_vocabulary(["lungs are clear ."], protocol="r2gen", section="findings", min_token_count=1)
    vocabulary.save(tmp_path / "model" / "vocabulary.json")
    lines = [
        {"id": "a", "reference": reports["a"], "hypothesis": "heart is big .", "log_prob": -1.0, "sentences": []},
        {"id": "b1", "reference": reports["b"], "hypothesis": "lungs are clear .", "log_prob": -1.0, "sentences": []},
        {"id": "b2", "reference": reports["b"], "hypothesis": "lungs are clear .", "log_prob": -1.0, "sentences": []},
        {"id": "c", "reference": reports["c"], "hypothesis": "", "log_prob": -1.0, "sentences": []},
    ]
    write_jsonl(tmp_path / "test.jsonl", lines)
    return {
        "generated": tmp_path / "test.jsonl",
        "annotation": tmp_path / "annotation.json",
        "model": tmp_path / "model",
        "output": tmp_path / "out",
        "settings": NO_METEOR,
    }


def test_bleu_and_rouge_by_hand() -> None:
    """Precisions 3/4, 2/3, 1/2, 0/1, no brevity penalty; longest common subsequence 3 of 4 and 4."""
    scores = Scorer(None).score(["a b c e", "w"], ["a b c d", "w"], what="test").corpus
    assert scores["bleu_1"] == pytest.approx(4 / 5)
    assert scores["bleu_2"] == pytest.approx(math.sqrt(4 / 5 * 2 / 3))
    assert scores["bleu_3"] == pytest.approx((4 / 5 * 2 / 3 * 1 / 2) ** (1 / 3))
    assert scores["bleu_4"] == pytest.approx(0, abs=1e-3)
    assert scores["rouge_l"] == pytest.approx((0.75 + 1) / 2)


def test_brevity_penalty_of_the_corpus() -> None:
    scores = Scorer(None).score(["a b c d", "e f g h"], ["a b c d", ""], what="test").corpus
    assert scores["bleu_1"] == pytest.approx(math.exp(1 - 8 / 4))
    assert scores["rouge_l"] == pytest.approx(0.5)


def test_cider_of_one_right_and_one_wrong_report() -> None:
    """Every word occurs in one of two references: an equal report has cosine 1 for each order, times 10."""
    scores = Scorer(None).score(["a b c d", "e f g h"], ["a b c d", "i j k l"], what="test").corpus
    assert scores["cider"] == pytest.approx(5.0)


def test_cider_of_one_pair_is_undefined_not_zero() -> None:
    scorer = Scorer(None)
    assert scorer.score(["a b c d"], ["a b c d"], what="test").corpus["cider"] is None
    assert "at least 2 pairs" in scorer.notes["cider"]


def test_all_hypotheses_empty_scores_zero() -> None:
    scores = Scorer(None).score(["a b c d", "e f g h"], ["", ""], what="test").corpus
    assert [scores[key] for key in ("bleu_1", "bleu_4", "rouge_l", "cider")] == pytest.approx([0, 0, 0, 0])


def test_white_space_does_not_change_scores() -> None:
    assert single_spaced(" a\r\nb  c\td ") == "a b c d"
    plain = Scorer(None).score(["a b c d", "e f g h"], ["a b c d", "e f x y"], what="test").corpus
    odd = Scorer(None).score(["a  b\nc d", "e f g h"], ["a b\r\nc d ", "e f\rx  y"], what="test").corpus
    assert odd == plain


def test_text_statistics() -> None:
    found = text_statistics(["a b c", "a", "a"], ["x y", "x y", ""])
    assert found["unique_report_rate"] == pytest.approx(2 / 3)
    assert found["unique_reference_rate"] == pytest.approx(2 / 3)
    assert found["empty_hypotheses"] == 1
    assert found["mean_tokens"] == {"hypothesis": pytest.approx(4 / 3), "reference": pytest.approx(5 / 3)}


@pytest.mark.parametrize("groups", ["ab", "aabb", "abcabcabcabc", "aaabcdef", "abcdefghij"])
@pytest.mark.parametrize("seed", range(5))
def test_derangement_pairs_no_study_with_itself(groups: str, seed: int) -> None:
    partner = derangement(list(groups), seed)
    assert partner is not None
    assert sorted(partner) == list(range(len(groups)))
    assert all(groups[index] != groups[other] for index, other in enumerate(partner))


def test_derangement_follows_its_seed() -> None:
    names = [str(index) for index in range(50)]
    assert derangement(names, 1) == derangement(names, 1) != derangement(names, 2)


@pytest.mark.parametrize("groups", ["", "a", "aab"])
def test_derangement_that_cannot_be(groups: str) -> None:
    assert derangement(list(groups), 0) is None


def test_most_frequent_report() -> None:
    entries = {name: entry(name, "train", f"{name}.") for name in "abc"}
    found = commonest_answer([entries[name] for name in "babc"], "r2gen")
    assert found == {"report": "b .", "training_count": 2, "training_reports": 4}
    assert commonest_answer([entries["b"], entries["a"]], "r2gen")["report"] == "a ."
    for empty in ([], [entry("x", "train", " ")]):
        with pytest.raises(DatasetError, match="training split has no report"):
            commonest_answer(empty, "r2gen")


def test_metrics_file(run: dict[str, Any]) -> None:
    evaluate_reports(**run)
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    protocol = metrics["protocol"]
    asked = ("text", "references", "section", "split", "n", "references_per_report", "shuffle_seed")
    assert {key: protocol[key] for key in asked} == {
        "text": "r2gen",
        "references": "full",
        "section": "findings",
        "split": "test",
        "n": 4,
        "references_per_report": 1,
        "shuffle_seed": 0,
    }
    assert protocol["scorer"].startswith("pycocoevalcap 1.")
    assert metrics["scores"]["bleu_1"] == pytest.approx(math.exp(1 - 17 / 12))  # 12 words, all right, of 17
    assert metrics["scores"]["rouge_l"] == pytest.approx(0.75)
    assert metrics["shuffled"]["rouge_l"] < 0.3  # only full stops are left in common
    assert metrics["most_frequent_report"]["report"] == "lungs are clear ."
    assert metrics["most_frequent_report"]["training_count"] == 2
    assert metrics["most_frequent_report"]["training_reports"] == 3
    assert metrics["most_frequent_report"]["cider"] > 0
    assert metrics["unique_report_rate"] == pytest.approx(3 / 4)
    assert metrics["empty_hypotheses"] == 1
    assert metrics["scores"]["meteor"] is None
    assert metrics["notes"]["meteor"] == "not run: evaluation.meteor is false"
    record = json.loads((run["output"] / "run.json").read_text())
    assert record["command"] == "evaluate-reports"
    assert record["counts"] == {"reports": 4, "entries_without_report": 0, "empty_hypotheses": 1}
    assert record["seeds"] == {"shuffle": 0, "bootstrap": 0}
    assert set(record["inputs"]) == {"generated", "annotation", "vocabulary"}


def test_missing_java_leaves_everything_else_as_it_is(
    run: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_reports(**run)
    without = json.loads((run["output"] / "metrics.json").read_text())
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    evaluate_reports(**{**run, "settings": NoBoxSettings(meteor="auto")})
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    assert metrics["notes"]["meteor"].startswith("not run: Java is not on PATH. Install Java")
    for section in ("scores", "shuffled", "most_frequent_report", "unique_report_rate"):
        assert metrics[section] == without[section]


def test_meteor_insisted_on_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="Java is not on PATH"):
        open_meteor(True, timeout_seconds=10)


def test_part_of_the_split_is_counted(run: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    lines = run["generated"].read_text().splitlines()
    run["generated"].write_text("\n".join(lines[:3]) + "\n")
    evaluate_reports(**run)
    assert json.loads((run["output"] / "run.json").read_text())["counts"]["entries_without_report"] == 1
    assert "1 of 4 test entries have no generated report" in caplog.text


def test_shuffled_control_is_the_mean_over_orders(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    orders = {0: [1, 0, 3, 2], 1: [2, 3, 0, 1], 2: [3, 2, 1, 0]}

    def control(taken: dict[int, list[int]]) -> dict[str, float]:
        monkeypatch.setattr(captioning, "derangement", lambda groups, seed: taken[seed])
        evaluate_reports(**run)
        return json.loads((run["output"] / "metrics.json").read_text())["shuffled"]

    alone = [control(dict.fromkeys(orders, order)) for order in orders.values()]
    assert len({scores["bleu_1"] for scores in alone}) > 1
    mean = control(orders)
    for key in ("bleu_1", "rouge_l", "cider"):
        assert mean[key] == pytest.approx(sum(scores[key] for scores in alone) / 3), key
    assert mean["meteor"] is None


def test_one_study_only_has_no_shuffled_control(run: dict[str, Any]) -> None:
    lines = run["generated"].read_text().splitlines()
    run["generated"].write_text("\n".join(lines[1:3]) + "\n")
    evaluate_reports(**run)
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    assert set(metrics["shuffled"].values()) == {None}
    assert "more than half" in metrics["notes"]["shuffled"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ({"id": "a", "reference": "x .", "hypothesis": "x ."}, r"report 5 \(id a\).*a second time"),
        ({"id": "zz", "reference": "x .", "hypothesis": "x ."}, r"report 5 \(id zz\).*an id of annotation\.json"),
        ({"id": "t1", "reference": "x .", "hypothesis": "x ."}, r"4 of test, 1 of train"),
        ({"reference": "x .", "hypothesis": "x ."}, r"report 5 \(id missing\).*string under 'id'"),
        ({"id": "t1", "reference": "x .", "hypothesis": None}, r"hypothesis None"),
        ({"id": "t1", "reference": " ", "hypothesis": "x"}, r"empty reference"),
    ],
)
def test_bad_lines_are_named(run: dict[str, Any], line: dict[str, Any], complaint: str) -> None:
    with run["generated"].open("a") as stream:
        stream.write(json.dumps(line) + "\n")
    with pytest.raises(DatasetError, match=complaint):
        evaluate_reports(**run)
    assert not (run["output"] / "metrics.json").exists()


def test_no_generated_report(run: dict[str, Any]) -> None:
    run["generated"].write_text("")
    with pytest.raises(DatasetError, match="holds no report"):
        evaluate_reports(**run)


def test_annotation_of_another_schema(run: dict[str, Any]) -> None:
    write_json(run["annotation"], {"images": [], "annotations": []})
    with pytest.raises(DatasetError, match="expected an object with the keys train, val, test"):
        evaluate_reports(**run)


@pytest.mark.parametrize("option", ["generated", "annotation", "model"])
def test_missing_file_is_named(run: dict[str, Any], option: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent.*: no such file"):
        evaluate_reports(**{**run, option: run["output"] / "absent"})


def baseline(run: dict[str, Any], name: str, texts: dict[str, str]) -> Path:
    path = run["output"].parent / f"{name}.jsonl"
    write_jsonl(path, [{"id": key, "hypothesis": text} for key, text in texts.items()])
    return path


def test_intervals_baselines_and_lesions(run: dict[str, Any]) -> None:
    """Reports against references: cardiomegaly said and there; "no acute effusion" is left out, which costs nothing."""
    nearest = baseline(
        run, "nearest", {"a": "clear .", "b1": "clear .", "b2": "clear .", "c": "left effusion .", "other": "x ."}
    )
    no_box = baseline(run, "no_box", {"a": "heart is big .", "b1": "clear .", "b2": "clear .", "c": "clear ."})
    settings = NO_METEOR.replaced(no_box_reports=str(no_box), bootstrap_samples=100)
    evaluate_reports(**{**run, "settings": settings, "nearest": [nearest]})
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    assert set(metrics["against"]) == {
        "most_frequent_report",
        "lesion_set_report",
        "nearest_training_report",
        "no_box_model",
    }
    lesions = metrics["clinical"]["lesion22_uncertain_positive"]
    assert {name: found["micro_f1"] for name, found in lesions.items()} == {
        "generated": 1.0,
        "most_frequent_report": 0.0,
        "lesion_set_report": 0.0,
        "nearest_training_report": 0.0,
        "no_box_model": 1.0,
    }
    assert lesions["generated"]["per_class"]["Cardiomegaly"]["true"] == 1
    assert "per_class" not in lesions["no_box_model"]
    assert metrics["clinical"]["against_boxes_uncertain_positive"]["hypothesis"]["micro_precision"] == 0.0
    low, high = metrics["intervals"]["rouge_l"]
    assert low <= metrics["scores"]["rouge_l"] <= high
    assert metrics["nearest_training_report"]["rouge_l"] < metrics["no_box_model"]["rouge_l"]
    keys = {row["metric"]: row for row in metrics["table"]}
    assert keys["rouge_l"]["key"] == "rouge_l[text=r2gen,references=full,section=findings,split=test,n=4]"
    assert keys["rouge_l"]["value"] == metrics["scores"]["rouge_l"] and keys["rouge_l"]["interval"] == [low, high]
    assert keys["lesion22_uncertain_positive_micro_f1"]["value"] == 1.0
    lines = [json.loads(line) for line in (run["output"] / "per_report.jsonl").read_text().splitlines()]
    assert [(line["id"], line["study_id"]) for line in lines] == [("a", "a"), ("b1", "b"), ("b2", "b"), ("c", "c")]
    assert lines[0]["rouge_l"] == 1.0 and lines[3]["rouge_l"] == 0.0
    assert lines[0]["hypothesis_lesions"] == {"Cardiomegaly": "present"}
    assert lines[3]["reference_lesions"] == {"Pleural effusion": "absent"}


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        ({"a": "x .", "b1": "x ."}, "no report for 2 of 4 entries; expected one for each, such as b2"),
        ({"a": None, "b1": "x .", "b2": "x .", "c": "x ."}, r"report 1 \(id a\): got None; expected a string"),
    ],
)
def test_baselines_of_other_entries_are_refused(run: dict[str, Any], texts: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DatasetError, match=complaint):
        evaluate_reports(**run, nearest=[baseline(run, "nearest", texts)])


def test_baseline_of_another_protocol_is_refused(run: dict[str, Any]) -> None:
    path = run["output"].parent / "nearest.jsonl"
    write_jsonl(path, [{"id": name, "reference": "Other .", "hypothesis": "x ."} for name in ("a", "b1", "b2", "c")])
    with pytest.raises(DatasetError, match=r"got reference 'Other \.'; expected 'heart is big \.'"):
        evaluate_reports(**run, nearest=[path])
    with pytest.raises(FileNotFoundError, match="reports of a baseline"):
        evaluate_reports(**run, nearest=[run["output"] / "absent.jsonl"])


def test_references_as_r2gen_scores_them(run: dict[str, Any]) -> None:
    """Of max_report_tokens 4 R2Gen scores 3 words; those outside the vocabulary are <unk>, and baselines are cut alike."""
    write_text(run["model"] / "config.yaml", "training: {max_report_tokens: 4}\n")
    evaluate_reports(**{**run, "settings": NO_METEOR.replaced(references="r2gen_exact")})
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    lines = [json.loads(line) for line in (run["output"] / "per_report.jsonl").read_text().splitlines()]
    assert [line["reference"] for line in lines] == ["<unk> <unk> <unk>", *["lungs are clear"] * 2, "<unk> <unk> <unk>"]
    assert lines[1]["hypothesis"] == "lungs are clear ."  # what the model wrote stays
    assert metrics["most_frequent_report"]["bleu_1"] == pytest.approx(6 / 12)  # its answer is "lungs are clear"
    assert metrics["protocol"]["references"] == "r2gen_exact" and metrics["protocol"]["max_report_tokens"] == 4
    assert metrics["table"][0]["key"] == "bleu_1[text=r2gen,references=r2gen_exact,section=findings,split=test,n=4]"


@pytest.mark.parametrize("config", [None, "training: {}\n", "- 1\n", "training: [\n"])
def test_r2gens_references_ask_for_the_length_that_the_model_was_trained_on(run: dict[str, Any], config: str | None) -> None:
    if config is not None:
        write_text(run["model"] / "config.yaml", config)
    error = FileNotFoundError if config is None else ConfigError
    with pytest.raises(error, match=r"config\.yaml"):
        evaluate_reports(**{**run, "settings": NO_METEOR.replaced(references="r2gen_exact")})


def test_r2gens_references_are_of_its_own_text_protocol(run: dict[str, Any]) -> None:
    vocabulary = count_vocabulary(["a ."], protocol="faithful", section="findings", min_token_count=1)
    vocabulary.save(run["model"] / "vocabulary.json")
    with pytest.raises(ConfigError, match=r"text protocol 'faithful'; expected 'r2gen'.*Set evaluation\.references to full"):
        evaluate_reports(**{**run, "settings": NO_METEOR.replaced(references="r2gen_exact")})


def test_labellers_that_fail_leave_everything_else_as_it_is(run: dict[str, Any], tmp_path: Path) -> None:
    evaluate_reports(**run)
    without = json.loads((run["output"] / "metrics.json").read_text())
    assert without["notes"]["chexbert"] == "not run: evaluation.chexbert_weights is null"
    assert without["notes"]["radgraph"] == "not run: evaluation.radgraph_weights is null"
    absent = str(tmp_path / "absent.pth")
    evaluate_reports(**{**run, "settings": NO_METEOR.replaced(chexbert_weights=absent, radgraph_weights=str(tmp_path))})
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    reason = f"evaluation.chexbert_weights: {absent}: no such file; expected chexbert.pth."
    assert metrics["notes"]["chexbert"] == f"not run: {reason}"
    assert "holds no radgraph-xl/weights.th" in metrics["notes"]["radgraph"]
    assert {key: value for key, value in metrics.items() if key != "notes"} == {
        key: value for key, value in without.items() if key != "notes"
    }


def test_labels_of_chexbert_stand_beside_those_of_the_baselines(run: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in reads "heart" as cardiomegaly, "clear" as no finding, "effusion" as a doubted effusion."""

    def classify(texts: Sequence[str]) -> NDArray[Any]:
        states = np.zeros((len(texts), 14), dtype=int)
        for row, text in enumerate(texts):
            states[row, [1, 13]] = "heart" in text, "clear" in text
            states[row, 9] = 3 * ("effusion" in text)
        return states

    monkeypatch.setattr("d2rnet.evaluation.chexbert._open", lambda weights: classify)
    evaluate_reports(**run)
    metrics = json.loads((run["output"] / "metrics.json").read_text())
    found = metrics["clinical"]["chexbert14_uncertain_positive"]
    assert found["generated"]["micro_recall"] == pytest.approx(3 / 4)  # the last report is empty
    assert found["generated"]["per_class"]["Pleural Effusion"]["true"] == 1
    assert metrics["clinical"]["chexbert14_uncertain_negative"]["generated"]["micro_recall"] == 1.0
    assert found["most_frequent_report"]["micro_precision"] == pytest.approx(2 / 4)
    assert metrics["clinical"]["chexbert5_uncertain_negative"]["generated"]["example_f1"] == 1.0
    rows = {row["metric"]: row for row in metrics["table"]}
    key = "chexbert14_uncertain_positive_example_f1"
    assert rows[key]["key"] == f"{key}[text=r2gen,references=full,section=findings,split=test,n=4]"
    assert rows[key]["value"] == pytest.approx(3 / 4) and rows[key]["interval"][1] == 1.0
    assert key in metrics["against"]["most_frequent_report"]
    assert "chexbert" not in metrics["notes"]
