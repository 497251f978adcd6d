"""draw-ct-figures: what is drawn, with which numbers, what fits the Snakemake report, and inputs that are something else."""

import re

import pytest
from ct_evaluation_samples import EFFUSION, NODULE, NORMAL, entry, structure_scores, write_run, write_trained
from figure_size import breaks_the_rule

from d2rnet.ct.evaluation.abnormality_figure import draw_abnormalities, named_abnormalities
from d2rnet.ct.evaluation.evaluate import evaluate_ct_reports
from d2rnet.ct.evaluation.run_figures import REPORT_PANELS, STRUCTURE_PANELS, draw_ct_figures
from d2rnet.ct.evaluation.settings import EvaluateCtSettings
from d2rnet.ct.evaluation.summary import summarize_ct
from d2rnet.ct.structure_model.figure import draw_structures
from d2rnet.errors import DatasetError
from d2rnet.figures.curves import draw_curves
from d2rnet.files.documents import read_json, write_json

STAGE_ONE = [
    {"epoch": 1, "step": 5, "contrast_loss": 6.0, "queue_fill": 0.5, "queue_normal_share": 0.4, "learning_rate": 0.01},
    {
        "epoch": 2,
        "step": 10,
        "contrast_loss": 5.0,
        "queue_fill": 1.0,
        "queue_normal_share": 0.2,
        "val_recall_at_1": 0.3,
        "queue_normal_share_greatest": 0.9,
        "queue_distinct_texts_least": 2.0,
    },
]
STAGE_TWO = [{"epoch": 1, "step": 5, "train_loss": 3.0}, {"epoch": 2, "step": 10, "train_loss": 2.0, "val_loss": 2.5}]


@pytest.fixture
def run(tmp_path):
    """What draw_ct_figures reads, of a run whose second report invents an effusion."""
    texts = {"a": NODULE, "b": NORMAL, "c": EFFUSION}
    labels = {NODULE: ["Lung nodule"], NORMAL: [], EFFUSION: ["Pleural effusion"]}
    inputs = write_run(tmp_path, [entry(name, text, labels[text]) for name, text in texts.items()], texts | {"b": EFFUSION})
    settings = EvaluateCtSettings(meteor=False, bootstrap_samples=20)
    evaluate_ct_reports(**inputs, output=tmp_path / "scores", device="cpu", settings=settings)
    write_json(tmp_path / "structures.json", structure_scores())
    write_json(tmp_path / "cohort.json", {})
    summarize_ct(
        structure_metrics=tmp_path / "structures.json",
        report_metrics=tmp_path / "scores" / "metrics.json",
        counts=[tmp_path / "cohort.json"],
        models=[],
        output=tmp_path / "summary",
    )
    return {
        "structures": write_trained(tmp_path / "stage_one", "train-structures", STAGE_ONE),
        "report_model": write_trained(tmp_path / "stage_two", "train-ct-report-model", STAGE_TWO),
        "summary": tmp_path / "summary" / "summary.json",
        "output": tmp_path / "out",
    }


def svg_texts(path):
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def test_whole_run(run):
    draw_ct_figures(**run)
    output = run["output"]
    figures = ("structure_training", "report_training", "abnormalities")
    expected = {f"{name}.{suffix}" for name in figures for suffix in ("svg", "png")}
    assert {path.name for path in output.iterdir()} == expected | {"summary.html", "abnormality_scores.html", "run.json"}
    found = svg_texts(output / "structure_training.svg")
    assert {"contrast (nats per observation)", "normal texts", "weights kept: epoch 2"} <= set(found)
    assert "temperature" not in found  # no line has it
    assert not {"with queue", "without"} & set(found), "there may be no queue"
    assert "BLEU-4, greedy, validation split" not in svg_texts(output / "report_training.svg")
    assert {"Pleural effusion (1)", "Lung nodule (1)"} <= set(svg_texts(output / "abnormalities.svg"))
    summary = (output / "summary.html").read_text()
    assert "bone marrow" in summary and "abnormality F1, micro, against table" in summary and "synthetic" in summary
    table = (output / "abnormality_scores.html").read_text()
    assert '<th scope="row">Pleural effusion</th><td>1</td><td>2</td><td>0.500</td><td>1.000</td><td>0.667</td>' in table


def test_figures_follow_the_rule_of_sizes(run, tmp_path):
    draw_ct_figures(**run)
    taught = {key: 0.1 for panel in REPORT_PANELS for key in panel.curves}
    draw_curves(tmp_path / "taught", [{"epoch": 1, **taught}], REPORT_PANELS, clock="epoch", x_label="epochs")
    every_panel = {key: 0.1 for panel in STRUCTURE_PANELS for key in panel.curves}
    draw_curves(tmp_path / "six", [{"epoch": 1, **every_panel}], STRUCTURE_PANELS, clock="epoch", x_label="epochs")
    structures = structure_scores(similarity_image_to_text=[[0.5, 0.1], [0.1, 0.5]])
    draw_structures(tmp_path / "structures", structures)
    figures = [*run["output"].glob("*.svg"), *tmp_path.glob("*.svg")]
    assert len(figures) == 6
    for path in figures:
        assert breaks_the_rule(path) == [], path.name


def test_the_most_frequent_abnormality_comes_first(run):
    metrics = read_json(run["summary"])["reports"]
    (classes,) = [part["per_class"] for name, part in metrics["labels"].items() if name == "ct18_vs_report_uncertain_positive"]
    classes["Emphysema"] = classes["Lung nodule"] | {"true": 9}
    assert list(named_abnormalities(metrics)) == ["Emphysema", "Lung nodule", "Pleural effusion"]


def test_reports_without_abnormalities_are_drawn_as_such(run, tmp_path):
    metrics = read_json(run["summary"])["reports"]
    metrics["labels"]["ct18_vs_report_uncertain_positive"]["per_class"] = {}
    draw_abnormalities(tmp_path / "none", metrics)
    assert "No report, generated or reference," in svg_texts(tmp_path / "none.svg")


def test_summary_of_something_else_is_refused(run):
    write_json(run["summary"], {"synthetic": True, "table": []})
    with pytest.raises(DatasetError, match=r"lacks structure_table, reports; expected summary.json of 'd2rnet summarize-ct'"):
        draw_ct_figures(**run)
