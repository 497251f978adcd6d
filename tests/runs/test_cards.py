"""Model and data cards: the facts of the run record, and what people must fill in."""

import pytest

from d2rnet.errors import DatasetError
from d2rnet.runs.cards import ORIGIN_KEY, TO_FILL, write_card
from d2rnet.runs.provenance import write_run_record
from d2rnet.settings import default_settings

COMMANDS = {
    "train-detector": ("detector", "model_card.md", "results/cxr/evaluate_detector/metrics.json"),
    "train-report-model": ("report", "model_card.md", "results/cxr/evaluate_reports/metrics.json"),
    "import-r2gen": ("report.model", "model_card.md", "Nowhere in this workflow"),
    "convert-labelled": ("data", "data_card.md", "counts.json"),
    "convert-unlabelled": ("data", "data_card.md", "counts.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_card_tells_the_run(tmp_path, command):
    section, name, metrics = COMMANDS[command]
    (tmp_path / "images.json").write_text("{}")
    write_run_record(
        tmp_path / "run.json",
        command=command,
        settings=default_settings(section),
        inputs={"labelled": tmp_path / "images.json"},
        counts={"images": 396, "splits": {"train": {"images": 352}, "val": {"images": 44}}},
        seeds={"split": 7},
        extra={"device": "cpu", "selected": {"epoch": 12, "train_loss": 0.2, "val_loss": 1.2345678}},
    )
    card = write_card(tmp_path)
    assert card == tmp_path / name
    text = card.read_text(encoding="utf-8")
    for row in (
        "| images | 396 |",
        "| count | train | val |\n|---|---|---|\n| images | 352 | 44 |",
        "| seed: split | 7 |",
        "| device | cpu |",
        "| weights are those after | epoch 12, the best on validation data: val_loss 1.235 |",
        "| input: labelled | images.json, SHA-256 44136fa355b3678a |",
    ):
        assert row in text, row
    assert metrics in text and text.count(TO_FILL) == (6 if command == "import-r2gen" else 5)
    assert ("Not a medical device" in text) == (name == "model_card.md")


def test_settings_are_listed_by_their_dotted_names(tmp_path):
    write_run_record(tmp_path / "run.json", command="train-detector", settings=default_settings("detector"))
    text = write_card(tmp_path).read_text(encoding="utf-8")
    assert "| model.backbone_depth | 18 |" in text and "| training.strong.erasing | true |" in text
    assert "prediction." not in text


def test_text_cannot_break_the_table(tmp_path):
    write_run_record(
        tmp_path / "run.json", command="convert-labelled", settings=default_settings("data"), counts={"source": "a|b"}
    )
    assert "| source | a\\|b |" in write_card(tmp_path).read_text(encoding="utf-8")


def test_card_tells_where_the_data_are_from(tmp_path):
    origin = {ORIGIN_KEY: "`nih`. Terms: free use."}
    write_run_record(tmp_path / "run.json", command="convert-labelled", settings=default_settings("data"), extra=origin)
    assert "## Data\n\n`nih`. Terms: free use.\n" in write_card(tmp_path).read_text(encoding="utf-8")


def test_damaged_run_record_is_named(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DatasetError, match=r"run\.json"):
        write_card(tmp_path)
