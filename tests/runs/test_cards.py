"""Model and data cards: the facts of the run record, and what people must fill in."""

from pathlib import Path

import pytest

from d2rnet.cxr.conversion.cards import LABELLED_CARD, UNLABELLED_CARD
from d2rnet.cxr.conversion.settings import DataSettings, LabelledConversionSettings
from d2rnet.cxr.detector.card import DETECTOR_CARD
from d2rnet.cxr.detector.settings import TrainDetectorSettings
from d2rnet.cxr.report_model.card import REPORT_CARD
from d2rnet.cxr.report_model.settings import TrainReportModelSettings
from d2rnet.errors import DatasetError
from d2rnet.runs.cards import ORIGIN_KEY, Card, write_card
from d2rnet.runs.provenance import write_run_record

TO_FILL = "**to be filled in by you**"
COMMANDS = {
    "train-detector": (DETECTOR_CARD, TrainDetectorSettings(), "model_card.md", "results/cxr/evaluate_detector/metrics.json"),
    "train-report-model": (
        REPORT_CARD,
        TrainReportModelSettings(),
        "model_card.md",
        "results/cxr/evaluate_reports/metrics.json",
    ),
    "convert-labelled": (LABELLED_CARD, LabelledConversionSettings(), "data_card.md", "counts.json"),
    "convert-unlabelled": (UNLABELLED_CARD, DataSettings(), "data_card.md", "counts.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_card_tells_the_run(tmp_path, command):
    card, settings, name, metrics = COMMANDS[command]
    (tmp_path / "images.json").write_text("{}")
    write_run_record(
        tmp_path / "run.json",
        command=command,
        settings=settings,
        inputs={"labelled": tmp_path / "images.json"},
        counts={"images": 396, "splits": {"train": {"images": 352}, "val": {"images": 44}}},
        seeds={"split": 7},
        extra={"device": "cpu", "selected": {"epoch": 12, "train_loss": 0.2, "val_loss": 1.2345678}},
    )
    write_card(card, tmp_path)
    text = (tmp_path / name).read_text(encoding="utf-8")
    for row in (
        "| images | 396 |",
        "| count | train | val |\n|---|---|---|\n| images | 352 | 44 |",
        "| seed: split | 7 |",
        "| device | cpu |",
        "| weights are those after | epoch 12, the best on validation data: val_loss 1.235 |",
        "| input: labelled | images.json, SHA-256 44136fa355b3678a |",
    ):
        assert row in text, row
    assert metrics in text and text.count(TO_FILL) == 5
    assert ("Not a medical device" in text) == (name == "model_card.md")
    headings = [line.removeprefix("## ") for line in text.splitlines() if line.startswith("## ")]
    assert headings == [
        "Facts of the run",
        "Data",
        "Intended use",
        "Limitations",
        "Scores",
        "Known to people only",
        "Settings",
    ]


def written(folder: Path, card: Card, settings: object, **record) -> str:
    """The card of a run record."""
    write_run_record(folder / "run.json", command="test", settings=settings, **record)
    write_card(card, folder)
    return (folder / card.name).read_text(encoding="utf-8")


def test_settings_are_listed_by_their_dotted_names(tmp_path):
    text = written(tmp_path, DETECTOR_CARD, TrainDetectorSettings())
    assert "| model.backbone_depth | 18 |" in text and "| training.strong.erasing | true |" in text
    text = written(tmp_path, UNLABELLED_CARD, DataSettings())
    assert "| reports.source | mimic |" in text and "| labelled." not in text


def test_text_cannot_break_the_table(tmp_path):
    assert "| source | a\\|b |" in written(tmp_path, LABELLED_CARD, LabelledConversionSettings(), counts={"source": "a|b"})


def test_card_tells_where_the_data_are_from(tmp_path):
    origin = {ORIGIN_KEY: "`nih`. Terms: free use."}
    text = written(tmp_path, LABELLED_CARD, LabelledConversionSettings(), extra=origin)
    assert "## Data\n\n`nih`. Terms: free use.\n" in text


def test_scores_take_the_place_of_where_to_find_them(tmp_path):
    write_run_record(tmp_path / "run.json", command="test", settings=TrainDetectorSettings(), counts={"$facts": "$$"})
    write_card(DETECTOR_CARD, tmp_path, output=tmp_path / "scored.md", scores=["AP $5 \\1"], sources=["- a source"])
    text = (tmp_path / "scored.md").read_text(encoding="utf-8")
    assert "## Scores\n\nAP $5 \\1\n\n## Known to people only\n" in text and "metrics.json" not in text
    assert "## Data\n\n- a source\n" in text and "| $facts | $$ |" in text


def test_damaged_run_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DatasetError, match=r"run\.json"):
        write_card(DETECTOR_CARD, tmp_path)
