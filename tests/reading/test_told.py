"""What a person tells of a study: the indication, and the study before, as a reading or as a text."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reading_samples import FILES

from d2rnet.cxr.report_model.model import D2RNet
from d2rnet.cxr.report_model.settings import D2RNetModelSettings
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, write_json
from d2rnet.reading.cxr import Models
from d2rnet.reading.told import NOTHING, Told, read_prior, told_of

READING: dict[str, Any] = {
    "format": "d2rnet-reading-1",
    "name": "earlier",
    "findings": "Small left effusion.",
    "images": [{"height": 50, "width": 100}, {"height": 9, "width": 9}],
    "boxes": [
        {"image": 0, "label": "Pleural effusion", "score": 0.8, "bbox": [1, 2, 30, 40]},
        {"image": 1, "label": "ILD", "score": 0.9, "bbox": [1, 2, 3, 4]},
    ],
}


@pytest.fixture(scope="module")
def curious(loaded: Models) -> Models:
    """The models of the miniature run, the report model with switches that are on."""
    report = loaded.report
    settings = report.settings.replaced(model={"indication": True, "prior": True, "context_buckets": 64})
    torch.manual_seed(5)
    network = D2RNet(settings.model, num_tokens=len(report.vocabulary), num_categories=22).eval()
    missing, unexpected = network.load_state_dict(report.model.state_dict(), strict=False)
    assert not unexpected and all(name.startswith("context.") for name in missing)
    return replace(loaded, report=replace(report, model=network, settings=settings))


def test_a_reading_becomes_the_study_before(tmp_path: Path) -> None:
    write_json(tmp_path / "earlier.json", READING)
    assert read_prior(tmp_path / "earlier.json") == {
        "study_id": "earlier", "report": "Small left effusion.", "height": 50, "width": 100,
        "boxes": [[1.0, 2.0, 30.0, 40.0]], "scores": [0.8], "labels": ["Pleural effusion"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("views", "labels"),
    [
        (("PA", "LATERAL"), ["Pleural effusion"]),
        (("LATERAL", "PA"), ["ILD"]),
        (("AP", "PA"), ["ILD"]),
        (("LATERAL", "ap"), ["ILD"]),
        (("", "LATERAL"), ["Pleural effusion"]),
    ],
)
def test_the_boxes_are_those_of_the_image_that_training_takes(tmp_path: Path, views: list[str], labels: list[str]) -> None:
    images = [image | {"view": view} for image, view in zip(READING["images"], views, strict=True)]
    write_json(tmp_path / "earlier.json", READING | {"images": images})
    prior = read_prior(tmp_path / "earlier.json")
    assert prior["labels"] == labels and prior["width"] == (9 if labels == ["ILD"] else 100)


def test_a_text_becomes_a_study_before_without_boxes(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("Small left\n effusion.\n", encoding="utf-8-sig")
    found = read_prior(tmp_path / "old.txt")
    assert (found["study_id"], found["report"], found["boxes"]) == ("old", "Small left effusion.", [])


@pytest.mark.parametrize(
    ("image", "box", "message"),
    [
        ({"height": 0}, {}, "height and width are .0, 100."),
        ({}, {"label": "Foo"}, "label 0 is 'Foo'"),
        ({}, {"bbox": [1, 2]}, "box 0 is .1.0, 2.0.; expected"),
        ({}, {"bbox": [1, 2, 300, 4]}, "box 0 is .*, outside its image"),
        ({}, {"score": 7}, "score 0 is 7"),
    ],
)
def test_a_reading_that_was_edited_is_named(tmp_path: Path, image: dict[str, Any], box: dict[str, Any], message: str) -> None:
    first, *others = READING["boxes"]
    edited = READING | {"images": [READING["images"][0] | image], "boxes": [first | box, *others]}
    write_json(tmp_path / "edited.json", edited)
    with pytest.raises(DatasetError, match=rf"--prior .*edited\.json: prior: {message}"):
        read_prior(tmp_path / "edited.json")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b'{"format": "d2rnet-ct-reading-1"}', "not a reading of radiographs"),
        ("a.json", b"[1]", "not a reading of radiographs"),
        ("a.json", b'{"format": "d2rnet-reading-1", "boxes": [], "images": []}', "not a reading of radiographs"),
        ("a.txt", b"  \n", "got an empty file"),
        ("a.txt", b"\xff\xfe", "byte 0 is not UTF-8"),
        ("a.txt", b"x" * 1_000_001, "expected a report of at most 1000000"),
    ],
)
def test_what_is_no_study_before(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_prior(tmp_path / name)


def test_options_are_for_one_study() -> None:
    images = [Path("a.png"), Path("b.png")]
    assert told_of(None, None, images, study=False) is NOTHING
    assert told_of("  cough\n fever ", None, images, study=True) == Told("cough fever")
    assert told_of("cough", None, images[:1], study=False) == Told("cough")
    for given, study in ((images, False), ([], True)):
        with pytest.raises(ConfigError, match=rf"got {len(given)} radiographs; expected one, or the views of one study"):
            told_of("cough", None, given, study=study)


def test_a_model_that_was_not_trained_with_it_says_so_and_reads_as_before(finished_run: Path, loaded: Models) -> None:
    file = finished_run / "images" / FILES["front"]
    before = loaded.read(file)
    told = loaded.read(file, told=Told("cough", {"study_id": "s", "report": "Clear."}))
    assert told.log_prob == before.log_prob and told.hypothesis == before.hypothesis
    added = [warning for warning in told.warnings if warning not in before.warnings]
    assert [warning.split()[0] for warning in added] == ["--indication", "--prior"]
    assert "told" not in before.to_json() and told.to_json()["told"] == {"indication": "cough", "prior": "s"}


def test_a_model_that_was_trained_with_it_reads_it(finished_run: Path, curious: Models, tmp_path: Path) -> None:
    file = finished_run / "images" / FILES["front"]
    write_json(tmp_path / "earlier.json", READING)
    prior = read_prior(tmp_path / "earlier.json")
    readings = [curious.read(file, told=told) for told in (NOTHING, Told("cough"), Told(prior=prior), Told("cough", prior))]
    assert len({reading.log_prob for reading in readings}) == 4
    assert all(reading.boxes == readings[0].boxes for reading in readings)
    assert not any(warning.startswith("--") for reading in readings for warning in reading.warnings)
    unread = Told("cough").unread(D2RNetModelSettings(indication=True))
    assert unread == []
    own = readings[0].to_json() | {"findings": "Clear."}
    write_json(tmp_path / "own.json", own)
    assert read_prior(tmp_path / "own.json")["labels"] == [box["label"] for box in read_json(tmp_path / "own.json")["boxes"]]
