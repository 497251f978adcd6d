"""summarize-ct: each score with its baselines, what is missing, and inputs that are something else."""

import pytest
from ct_evaluation_samples import EFFUSION, NODULE, NORMAL, cleaned, entry, write_run

from d2rnet.ct.evaluation.evaluate import evaluate_ct_reports
from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.ct.evaluation.summary import summarize_ct
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, write_json, write_jsonl


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run of three answered volumes and a missing one, beside a baseline."""
    folder = tmp_path_factory.mktemp("scored")
    texts = {"a": NODULE, "b": NORMAL, "c": EFFUSION, "d": NODULE}
    labels = {NODULE: ["Lung nodule"], NORMAL: [], EFFUSION: ["Pleural effusion"]}
    entries = [entry(name, text, labels[text]) for name, text in texts.items()]
    inputs = write_run(folder, entries, {name: texts[name] for name in "abc"})
    write_jsonl(folder / "label_set.jsonl", [{"id": name, "hypothesis": cleaned(NODULE)} for name in "abc"])
    settings = EvaluateCtSettings(meteor=False, bootstrap_samples=50)
    evaluate_ct_reports(
        **inputs, label_set=[folder / "label_set.jsonl"], output=folder / "scores", device="cpu", settings=settings
    )
    return folder


def test_table(scored, tmp_path, capsys):
    write_json(tmp_path / "build" / "counts.json", {"volumes": {"train": 1, "val": 0}})
    write_json(tmp_path / "cohort.json", {})
    counts = [tmp_path / "build" / "counts.json", tmp_path / "cohort.json"]
    summarize_ct(report_metrics=scored / "scores" / "metrics.json", counts=counts, output=tmp_path)
    text = capsys.readouterr().out
    assert text == (tmp_path / "summary.md").read_text()
    document = read_json(tmp_path / "summary.json")
    rows = {row["metric"]: row for row in document["table"]}
    assert document["synthetic"] is True and "synthetic CT cohort" in text
    row = rows["abnormality F1, micro, against table"]
    assert row["result"].startswith("1.000 [")
    assert (row["label set"], row["commonest"]) == ("0.400", "0.000")
    assert "nearest" not in row  # was not run
    assert rows["METEOR"]["result"] == "not run"
    assert rows["abnormality CRG against table"]["result"].startswith("1.000 [")
    assert "volumes without a generated report, which are not in the table: 1; with empty reports" in " ".join(text.split())
    assert "minus label set, paired: BLEU-1 +" in " ".join(text.split())
    assert "Every number: data ct_rate/v2, section findings, text faithful, split test, level scan, n 3;" in text
    assert "build: volumes: train 1" in text
    assert read_json(tmp_path / "run.json")["command"] == "summarize-ct"


def test_metrics_of_something_else_are_refused(tmp_path):
    write_json(tmp_path / "metrics.json", {"protocol": {}, "scores": {}})
    with pytest.raises(DatasetError, match=r"metrics.json: lacks baselines.*evaluate-ct-reports"):
        summarize_ct(report_metrics=tmp_path / "metrics.json", counts=[], output=tmp_path)
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(DatasetError, match="got a list"):
        summarize_ct(report_metrics=tmp_path / "metrics.json", counts=[], output=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing.json"):
        summarize_ct(report_metrics=tmp_path / "nothing.json", counts=[], output=tmp_path)
