"""Vocabulary: threshold, special ids, truncation, file."""

import json
from pathlib import Path

import pytest

from d2rnet.errors import DatasetError
from d2rnet.report.settings import TextSettings
from d2rnet.report.text.vocabulary import (
    BOS_ID,
    EOS_ID,
    PAD_ID,
    UNK_ID,
    Vocabulary,
    build_vocabulary,
    count_vocabulary,
    load_vocabulary,
)

REPORTS = ["No effusion.", "No effusion. Heart normal.", "No mass."]


@pytest.fixture
def vocabulary() -> Vocabulary:
    return count_vocabulary(REPORTS, protocol="r2gen", section="findings", min_token_count=2)


def test_threshold_order_and_counts(vocabulary: Vocabulary) -> None:
    # no 3, effusion 2, . 4 are kept; heart, normal, mass occur once.
    assert vocabulary.tokens == ("<pad>", "<bos>", "<eos>", "<unk>", ".", "effusion", "no")
    assert vocabulary.counts == (0, 0, 0, 3, 4, 2, 3)


def test_special_ids_are_distinct() -> None:
    assert len({PAD_ID, BOS_ID, EOS_ID, UNK_ID}) == 4


def test_encode_and_decode(vocabulary: Vocabulary) -> None:
    ids = vocabulary.encode("No mass. No effusion", max_tokens=10)
    assert ids == [BOS_ID, 6, UNK_ID, 4, 6, 5, 4, EOS_ID]
    assert vocabulary.decode([*ids, PAD_ID, 6]) == ["no", "<unk>", ".", "no", "effusion", "."]


@pytest.mark.parametrize(("max_tokens", "ends"), [(2, False), (3, True), (4, True)])
def test_truncated_report_gets_no_false_end(vocabulary: Vocabulary, max_tokens: int, ends: bool) -> None:
    ids = vocabulary.encode("No effusion.", max_tokens=max_tokens)
    assert (ids[-1] == EOS_ID) is ends
    assert len(ids) == 1 + min(max_tokens, 3) + ends


def test_file_round_trip(vocabulary: Vocabulary, tmp_path: Path) -> None:
    vocabulary.save(tmp_path / "vocabulary.json")
    assert load_vocabulary(tmp_path / "vocabulary.json") == vocabulary


def test_build_reads_the_training_split_only(cohort: Path, tmp_path: Path) -> None:
    content = json.loads((cohort / "annotation.json").read_text())
    content["test"][0]["report"] = "Unheardof word."
    (cohort / "annotation.json").write_text(json.dumps(content))
    settings = TextSettings(min_token_count=1)
    build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path / "out", settings=settings)
    built = load_vocabulary(tmp_path / "out" / "vocabulary.json")
    assert "unheardof" not in built.tokens and "cardiomegaly" in built.tokens
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["counts"]["training_reports"] == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "got format 'other'"),
        ({"tokens": ["a", "b"]}, "begin with <pad>"),
        ({"tokens": ["<pad>", "<bos>", "<eos>", "<unk>", "x", "y", "z"]}, "the file was edited"),
        ({"tokens": ["<pad>", "<bos>", "<eos>", "<unk>", "x"]}, "counts are no list of 5 whole numbers"),
        ({"protocol": "unknown"}, "protocol 'unknown'"),
        ({"counts": None}, None),
    ],
)
def test_damaged_file_is_refused(vocabulary: Vocabulary, tmp_path: Path, change: dict, message: str | None) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary.save(path)
    content = json.loads(path.read_text()) | change
    content = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=message or "lacks counts"):
        load_vocabulary(path)


def test_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build-vocabulary"):
        load_vocabulary(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("reports", "least", "message"), [([], 1, "training split is empty"), (["one two"], 9, "occurs 9 times")]
)
def test_nothing_to_build_from(cohort: Path, tmp_path: Path, reports: list[str], least: int, message: str) -> None:
    content = json.loads((cohort / "annotation.json").read_text())
    content["train"] = [entry | {"report": text} for entry, text in zip(content["train"], reports, strict=False)]
    (cohort / "annotation.json").write_text(json.dumps(content))
    settings = TextSettings(min_token_count=least)
    with pytest.raises(DatasetError, match=message):
        build_vocabulary(annotation=cohort / "annotation.json", output=tmp_path, settings=settings)
