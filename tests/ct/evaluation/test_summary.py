"""summarize-ct: each score with its baselines, what is missing, and inputs that are something else."""

import pytest
from ct_evaluation_samples import EFFUSION, NODULE, NORMAL, cleaned, entry, structure_scores, write_run, write_trained

from d2rnet.ct.evaluation.evaluate import evaluate_ct_reports
from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.ct.evaluation.summary import summarize_ct
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.runs.cards import ORIGIN_KEY


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
    write_json(folder / "structures" / "metrics.json", structure_scores())
    return folder


def summarize(scored, output, **changes):
    """Call summarize-ct on the run."""
    paths = {
        "structure_metrics": scored / "structures" / "metrics.json",
        "report_metrics": scored / "scores" / "metrics.json",
    }
    summarize_ct(**{**paths, "counts": [], "models": [], "output": output, **changes})


def test_table(scored, tmp_path, capsys):
    write_json(tmp_path / "build" / "counts.json", {"volumes": {"train": 1, "val": 0}})
    write_json(tmp_path / "cohort.json", {})
    counts = [tmp_path / "build" / "counts.json", tmp_path / "cohort.json"]
    summarize(scored, tmp_path, counts=counts)
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
    assert "Stage 2, the reports: data ct_rate/v2, section findings, text faithful, split test, level scan, n 3;" in text
    assert "build: volumes: train 1" in text
    assert read_json(tmp_path / "run.json")["command"] == "summarize-ct"


def test_what_the_structures_observe_stands_above_the_reports(scored, tmp_path, capsys):
    summarize(scored, tmp_path)
    text = capsys.readouterr().out
    words = " ".join(text.split())
    assert text.index("Stage 1, what the structures observe") < text.index("Stage 2, the reports")
    assert "| lung | 3 | 0.75 [0.50, 1.00] | 0.25 | 0.50 | 3.25 [3.00, 3.50] | 1.00 |" in words
    assert "| bone marrow | 1 | - | 0.25 | 0.50 | - | - |" in words
    assert "- COLLAPSED: bone marrow. Embeddings of different volumes" in words
    assert "mean of 1 abnormalities: 0.625; chance 0.500" in words
    document = read_json(tmp_path / "summary.json")
    assert document["structures"] == structure_scores() and document["structure_table"][0]["structure"] == "lung"


def test_without_masks_and_collapse_nothing_is_said_of_them(scored, tmp_path, capsys):
    structures = structure_scores(collapsed=[])
    del structures["structures"]["lung"]
    write_json(tmp_path / "metrics.json", structures)
    summarize(scored, tmp_path, structure_metrics=tmp_path / "metrics.json")
    text = capsys.readouterr().out
    assert "| attention" not in text and "COLLAPSED" not in text


def test_texts_that_are_all_alike_are_named(scored, tmp_path, capsys):
    write_json(tmp_path / "metrics.json", structure_scores(collapsed=[], collapsed_texts=["bone_marrow"]))
    summarize(scored, tmp_path, structure_metrics=tmp_path / "metrics.json")
    text = " ".join(capsys.readouterr().out.split())
    assert "- COLLAPSED TEXTS: bone marrow. Embeddings of different texts" in text and "COLLAPSED:" not in text


def test_cards_have_source_and_scores(scored, tmp_path):
    models = [write_trained(tmp_path / name, name, []) for name in ("train-structures", "train-ct-report-model")]
    counts = tmp_path / "convert" / "counts.json"
    write_json(counts, {"volumes": 4})
    write_json(counts.with_name("run.json"), {"command": "convert-ct", ORIGIN_KEY: "Drawn by code."})
    summarize(scored, tmp_path / "out", counts=[counts], models=models)
    structures, reports = (
        (tmp_path / "out" / name).read_text() for name in ("structure_model_card.md", "report_model_card.md")
    )
    for card in (structures, reports):
        assert "- `ct.data.reports`: Drawn by code." in card and "to be filled in by you" in card
    assert "0.75 [0.50, 1.00]" in structures and "COLLAPSED: bone marrow" in structures and "label set" not in structures
    assert "minus label set, paired" in reports and "own text in 5" not in reports
    with pytest.raises(DatasetError, match=r"a record of 'train-detector'; expected one of train-structures, train-ct"):
        summarize(scored, tmp_path / "out", models=[write_trained(tmp_path / "other", "train-detector", [])])


def test_metrics_of_something_else_are_refused(scored, tmp_path):
    write_json(tmp_path / "metrics.json", {"protocol": {}, "scores": {}})
    with pytest.raises(DatasetError, match=r"metrics.json: lacks baselines.*evaluate-ct-reports"):
        summarize(scored, tmp_path, report_metrics=tmp_path / "metrics.json")
    with pytest.raises(
        DatasetError, match=r"metrics.json: lacks split, section, .*collapsed, collapsed_texts; .*evaluate-structures"
    ):
        summarize(scored, tmp_path, structure_metrics=tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("[]")
    with pytest.raises(DatasetError, match="got a list"):
        summarize(scored, tmp_path, report_metrics=tmp_path / "metrics.json")
    with pytest.raises(FileNotFoundError, match=r"nothing.json"):
        summarize(scored, tmp_path, structure_metrics=tmp_path / "nothing.json")
