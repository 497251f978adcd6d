"""Figures and tables of a run: what is drawn, what is escaped, which input is refused and how."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from figure_size import breaks_the_rule
from PIL import Image

from d2rnet.cxr.summary import run_figures
from d2rnet.cxr.summary.run_tables import read_summary, write_tables
from d2rnet.cxr.summary.sample_readings import MOST_LINES, Sample, draw_samples
from d2rnet.cxr.summary.training_figures import DETECTOR_PANELS, draw_detector_training, draw_report_training
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.evaluation.metric_names import Group, keys_of
from d2rnet.figures.curves import read_history
from d2rnet.figures.tables import Table, html_page
from d2rnet.files.atomic import write_text
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.report.annotation_file import write_annotation

DETECTOR = [
    {"iterations_done": 10, "loss_cls": 0.8, "learning_rate": 0.01},
    {"iterations_done": 10, "labelled_boxes_per_image_by_class": {"ILD": 0.1}},
    {"iterations_done": 20, "loss_cls": 0.4, "learning_rate": 0.005, "loss_cls_pseudo": 0.3},
]
REPORT = [
    {"epoch": 1, "step": 5, "train_loss": 3.0, "learning_rate": 0.01},
    {"epoch": 2, "step": 10, "train_loss": 2.0, "learning_rate": 0.001, "val_loss": 2.5, "val_bleu_4": 0.2},
]


def entry(name: str, **other) -> dict:
    return {
        "id": name,
        "study_id": f"s-{name}",
        "subject_id": "p",
        "image_path": [f"{name}.png"],
        "split": "test",
        "report": "The heart is enlarged.",
        "height": 40,
        "width": 60,
        "boxes": [[10.0, 5.0, 20.0, 20.0]],
        "scores": [0.9],
        "labels": ["Cardiomegaly"],
        **other,
    }


def svg_texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


def scores(value: float) -> dict[str, float]:
    return dict.fromkeys(keys_of(Group.WORDS), value)


def summary() -> dict:
    network = {
        "boxes_per_class": {"ILD": 3, "Edema": 7},
        "per_class_AP50": {"ILD": 0.25, "Edema": None},
        "per_class_AP": {"ILD": 0.125, "Edema": 0.5},
        "per_class_voc_AP40": {"ILD": 0.375, "Edema": 0.75},
    }
    lesions = {"ILD": {"true": 4, "claimed": 0, "precision": None, "recall": 0.0, "f1": 0.0}}
    return {
        "synthetic": True,
        "table": [{"metric": "AP50 <b>", "result": "0.5", "baseline": "student 0.4", "measured_on": "10 images"}],
        "detector": {"ema_teacher": network, "student": network | {"per_class_AP50": {"ILD": 0.2, "Edema": 0.1}}},
        "reports": {
            "protocol": {"section": "findings", "n": 8},
            "scores": scores(0.5) | {"meteor": None},
            "shuffled": scores(0.25),
            "intervals": {"bleu_4": [0.45, 0.55]},
            "clinical": {"lesion22_uncertain_positive": {"generated": {"per_class": lesions}}},
        },
        "counts": {
            "build_annotation": {
                "boxes": {
                    "predicted": 1200,
                    "kept": 9,
                    "below_threshold": 1191,
                    "on_images_without_report": 0,
                    "above_max_boxes": 0,
                    "kept_by_class": {"Edema": 8, "ILD": 1},
                    "below_threshold_by_class": {"Edema": 1191},
                }
            }
        },
    }


@pytest.fixture
def run(tmp_path) -> dict[str, Path]:
    """A finished run in little: what draw_figures reads."""
    write_jsonl(tmp_path / "detector" / "metrics.jsonl", DETECTOR)
    write_json(tmp_path / "detector" / "run.json", {"settings": {"training": {"burn_in_iters": 10}}})
    truth = [{"image_id": "a", "boxes": [{"class": "ILD", "bbox_xyxy": [31.0, 7.0, 52.0, 33.0]}]}]
    write_jsonl(tmp_path / "truth.jsonl", truth)
    write_jsonl(tmp_path / "model" / "metrics.jsonl", REPORT)
    write_text(tmp_path / "model" / "config.yaml", "selected: {epoch: 2}\n")
    write_annotation(tmp_path / "annotation.json", {"test": [entry("a"), entry("b", boxes=[], scores=[], labels=[])]})
    sentences = [{"text": "the heart is enlarged .", "boxes": [0]}, {"text": "no effusion .", "boxes": []}]
    texts = {"reference": "the heart is enlarged .", "hypothesis": "the heart is enlarged . no effusion ."}
    write_jsonl(tmp_path / "test.jsonl", [{"id": name, **texts, "sentences": sentences} for name in ("a", "b")])
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 60), 90, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    write_json(tmp_path / "summary.json", summary())
    return {
        "detector": tmp_path / "detector",
        "report_model": tmp_path / "model",
        "annotation": tmp_path / "annotation.json",
        "generated": tmp_path / "test.jsonl",
        "image_root": tmp_path,
        "summary": tmp_path / "summary.json",
        "true_boxes": tmp_path / "truth.jsonl",
        "output": tmp_path / "out",
    }


def test_whole_run(run):
    run_figures.draw_figures(**run, samples=6)
    output = run["output"]
    figures = ("detector_training", "report_training", "pseudo_box_statistics", "sample_readings")
    pages = ("summary", "detector_classes", "pseudo_box_counts", "report_scores", "report_classes", "sample_readings")
    expected = {f"{name}.{suffix}" for name in figures for suffix in ("svg", "png")} | {f"{name}.html" for name in pages}
    assert {path.name for path in output.iterdir()} == expected | {"run.json"}
    assert read_json(output / "run.json")["counts"] == {"samples": 2, "reports": 2}
    shown = svg_texts(output / "sample_readings.svg")
    assert {"Cardiomegaly 0.90", "1", "Boxes of the detector; dashed: true ones"} <= set(shown)
    dashed = re.findall(r"stroke-dasharray:[^\"]*?stroke: (#\w+)", (output / "sample_readings.svg").read_text())
    assert dashed == ["#ff3300"], "the true box alone, in the colour of its class"
    assert "end of burn-in" in svg_texts(output / "detector_training.svg")
    png = base64.b64encode((output / "sample_readings.png").read_bytes()).decode()
    assert png in (output / "sample_readings.html").read_text()
    assert "1 boxes, 2 entries" in svg_texts(output / "pseudo_box_statistics.svg")
    assert "weights kept: epoch 2" in svg_texts(output / "report_training.svg")


def test_figures_follow_the_rule_of_sizes(run):
    run_figures.draw_figures(**run, samples=1)
    every_panel = {key: 0.1 for panel in DETECTOR_PANELS for key in panel.curves}
    draw_detector_training(run["output"] / "six_panels", [{"iterations_done": 1, **every_panel}], None)
    for name in ("detector_training", "report_training", "pseudo_box_statistics", "sample_readings", "six_panels"):
        assert breaks_the_rule(run["output"] / f"{name}.svg") == [], name


def test_weak_boxes_are_drawn_where_a_sentence_speaks_of_them(run):
    boxes = [[10, 10, 20, 10], [5, 5, 9, 9], [30, 5, 20, 20]]
    named = entry("a", boxes=boxes, scores=[0.4, 0.35, 0.3], labels=["Cardiomegaly", "Edema", "ILD"])
    write_annotation(run["annotation"], {"test": [named, entry("b", boxes=[], scores=[], labels=[])]})
    run_figures.draw_figures(**run, samples=2, shown_score=0.4)
    shown = svg_texts(run["output"] / "sample_readings.svg")
    assert {"Cardiomegaly 0.40", "and 2 below 0.40", "1"} <= set(shown) and not {"Edema 0.35", "2", "3"} & set(shown)
    run_figures.draw_figures(**run, samples=2, shown_score=0.5)
    shown = svg_texts(run["output"] / "sample_readings.svg")
    assert "Cardiomegaly 0.40" in shown, "it is linked to the first sentence"
    assert read_json(run["output"] / "run.json")["settings"] == {"samples": 2, "shown_score": 0.5}
    with pytest.raises(ConfigError, match=r"--shown-score: got 1.5; expected a score from 0 to 1"):
        run_figures.draw_figures(**run, samples=1, shown_score=1.5)


@pytest.mark.parametrize("samples", [0, 25])
def test_number_of_samples_is_bounded(run, samples):
    with pytest.raises(ConfigError, match=f"--samples: got {samples}; expected 1 to 24"):
        run_figures.draw_figures(**run, samples=samples)
    assert not run["output"].exists()


def test_curves_that_a_training_lacks_get_no_panel(tmp_path):
    draw_detector_training(tmp_path / "detector", DETECTOR, None)
    found = svg_texts(tmp_path / "detector.svg")
    assert {"unweighted loss, labelled images", "unweighted loss, pseudo boxes", "learning rate"} <= set(found)
    assert "AP50, validation split" not in found
    draw_report_training(tmp_path / "report", REPORT, None)
    found = svg_texts(tmp_path / "report.svg")
    assert "BLEU-4, greedy, validation split" in found and "alignment loss, weight included" not in found
    assert not any("weights kept" in text for text in found)


def test_empty_history_says_so(tmp_path):
    draw_detector_training(tmp_path / "none", [], 10)
    assert "The training wrote no history:" in " ".join(svg_texts(tmp_path / "none.svg"))


@pytest.mark.parametrize(
    ("line", "message"),
    [({"epoch": 1}, "line 1 lacks 'iterations_done'"), ({"iterations_done": 1, "loss_cls": "x"}, "loss_cls is 'x'")],
)
def test_other_history_is_refused(tmp_path, line, message):
    write_jsonl(tmp_path / "metrics.jsonl", [line])
    with pytest.raises(DatasetError, match=message):
        read_history(tmp_path / "metrics.jsonl", "iterations_done")


def test_sample_of_two_views_shows_the_boxes_of_the_first(tmp_path):
    views = {"image_path": ["a.png", "gone.png"], "heights": [40, 40], "widths": [60, 60], "box_image": [1]}
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "a.png")
    sample = Sample(entry("a", **views), "costs $5 and $6", "word " * 400, ())
    draw_samples(tmp_path / "out", [sample], tmp_path)
    found = svg_texts(tmp_path / "out.svg")
    assert "study s-a, view 1 of 2" in found and found.count("1") == 1 and "Cardiomegaly 0.90 (view 2)" in found
    assert "costs $5 and $6" in found  # no mathematics
    assert found.count("(goes on)") == 1 and sum("word word" in text for text in found) == MOST_LINES - 1


def test_numbers_of_boxes_lie_apart_and_inside_the_picture(tmp_path):
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "a.png")
    boxes = {"boxes": [[50.0, 0.0, 10.0, 9.0]] * 3, "scores": [0.9] * 3, "labels": ["Lung Opacity", "Edema", "ILD"]}
    draw_samples(tmp_path / "out", [Sample(entry("a", **boxes), "normal", "normal", ())], tmp_path)
    text = (tmp_path / "out.svg").read_text(encoding="utf-8")
    assert {"1", "2", "3", "Lung Opacity 0.90", "Edema 0.90", "ILD 0.90"} <= set(svg_texts(tmp_path / "out.svg"))
    places = re.findall(r'x="([\d.]+)" y="([\d.]+)"[^>]*>[123]</text>', text)
    assert len(set(places)) == 6, "on the picture and in the list"
    assert all(Image.open(tmp_path / "out.png").width / 300 * 72 > float(x) for x, _ in places)


def test_sample_without_its_image_says_why(tmp_path):
    draw_samples(tmp_path / "out", [Sample(entry("a"), "normal", "normal", ())], tmp_path)
    assert "cannot be shown" in " ".join(svg_texts(tmp_path / "out.svg"))


def test_sentences_name_their_boxes(tmp_path):
    Image.fromarray(np.zeros((40, 60), dtype=np.uint8)).save(tmp_path / "a.png")
    sentences = [
        {"text": "the heart is enlarged .", "boxes": [1, 0], "attended": 1, "linked": [1]},
        {"text": "clear .", "boxes": [0], "attended": 0, "linked": []},
    ]
    draw_samples(tmp_path / "out", [Sample(entry("a"), "normal", "the heart is enlarged . clear .", sentences)], tmp_path)
    found = svg_texts(tmp_path / "out.svg")
    assert found.index("the heart is enlarged . [2] (attended: 1)") + 1 == found.index("clear .")


def rows(page: Path) -> list[list[str]]:
    return [
        re.findall(r"<t[hd](?: scope=.\w+.)?>(.*?)</t[hd]>", line)
        for line in page.read_text().splitlines()
        if "<tr><th" in line
    ]


def test_tables(tmp_path):
    write_tables(tmp_path, summary())
    assert rows(tmp_path / "summary.html")[0] == ["metric", "result", "baseline", "measured on"]
    assert rows(tmp_path / "summary.html")[1:] == [["AP50 &lt;b&gt;", "0.5", "student 0.4", "10 images"]]
    classes = rows(tmp_path / "detector_classes.html")[1:]
    assert classes == [["Edema", "7", "-", "0.100", "0.500", "0.750"], ["ILD", "3", "0.250", "0.200", "0.125", "0.375"]]
    reports = rows(tmp_path / "report_scores.html")
    assert reports[0] == ["metric", "generated", "shuffled references"]
    assert reports[4:6] == [["BLEU-4", "0.500 [0.450,\N{NO-BREAK SPACE}0.550]", "0.250"], ["METEOR", "-", "0.250"]]
    assert rows(tmp_path / "report_classes.html")[1:] == [["ILD", "4", "0", "-", "0.000", "0.000"]]
    kept = rows(tmp_path / "pseudo_box_counts.html")[1:]
    assert kept[:2] == [["Edema", "8", "1,191"], ["ILD", "1", "0"]] and len(kept) == 22
    assert "synthetic" in (tmp_path / "summary.html").read_text()


def test_summary_of_something_else_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps({"table": []}))
    with pytest.raises(DatasetError, match="lacks synthetic, detector, reports, counts"):
        read_summary(tmp_path / "summary.json")


def test_page_escapes_everything_and_leaves_out_empty_tables():
    full = Table("<h>", ("<c>", "d"), [["<script>", "a&b"]])
    page = html_page("<t>", [full, Table("nothing here", ("e",), [])], ["<n>"])
    assert "<script>" not in page and "&lt;script&gt;" in page and "a&amp;b" in page
    assert "<t>" not in page and "<n>" not in page and "<c>" not in page and "nothing here" not in page
