"""What an entry tells beside images, boxes and report: the study before, and an indication that holds no answer."""

from pathlib import Path
from typing import Any

import pytest

from d2rnet.cxr.annotation.context import priors_of
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_jsonl, write_json
from d2rnet.report.annotation_file import load_annotation

EVERYTHING = ["views", "indication", "prior"]


def report(study_id: str, subject_id: str, time: str, split: str = "train") -> dict[str, Any]:
    return {"study_id": study_id, "subject_id": subject_id, "split": split, "study_time": time, "report": study_id}


def priors(*reports: dict[str, Any], without_image: str = "") -> dict[str, str]:
    found = priors_of([(item, [] if item["study_id"] == without_image else [0]) for item in reports])
    return {study_id: before["study_id"] for study_id, (before, _) in found.items()}


def test_the_latest_earlier_study_of_the_patient() -> None:
    first, second, third = (report(name, "1", f"2180050{day}080000.000000") for name, day in (("a", 1), ("b", 2), ("c", 3)))
    assert priors(third, first, second) == {"b": "a", "c": "b"}
    assert priors(first, report("d", "2", third["study_time"])) == {}  # of another patient
    assert priors(third, first, second, without_image="b") == {"c": "a"}


def test_times_that_do_not_order() -> None:
    same = "21800501080000.000000"
    assert priors(report("a", "1", same), report("b", "1", same)) == {}
    late = report("c", "1", "21800501080000.000001")
    assert priors(report("a", "1", same), late, report("b", "1", same)) == {"c": "b"}
    assert priors(report("a", "1", ""), late) == {} and priors(report("a", "1", same), report("b", "1", "")) == {}


def test_never_across_splits() -> None:
    """A patient in two splits stops the build; here not even then is a study of the other split taken."""
    assert priors(report("a", "1", "1", "train"), report("b", "1", "2", "test")) == {}


@pytest.fixture
def told(inputs: Any) -> Any:
    """The small source with a follow-up, s5, of its patient 10, whose study s1 has two images."""
    follow_up = {**inputs.images[0], "id": 6, "source_id": "e", "study_id": "s5", "source_path": "files/e.jpg"}
    inputs.images.append(follow_up)
    inputs.reports.append({**inputs.reports[2], "study_id": "s5", "images": ["e"], "report": "Unchanged."})
    times = {"s1": "21800501080000.000000", "s3": "21800501080000.000000", "s4": "", "s5": "21800502080000.000000"}
    for item in inputs.reports:
        item |= {"indication": f"Cough in {item['study_id']}.", "study_time": times[item["study_id"]]}
    inputs.images[0]["view"] = "AP"  # image a; b is PA
    return inputs


def test_keys_of_entries_by_hand(told: Any) -> None:
    annotation, counts = told.build(context=EVERYTHING)
    by_id = {entry["id"]: entry for entry in annotation["train"]}
    assert by_id["e"]["views"] == ["PA"] and by_id["e"]["indication"] == "Cough in s5."
    assert by_id["e"]["prior"] == {  # PA, though a has the better box
        "study_id": "s1", "report": "Heart size normal in s1.", "image_id": "b", "height": 400, "width": 100,
        "boxes": [[0.0, 0.0, 100.0, 400.0]], "scores": [0.6], "labels": ["Nodule/Mass"],
    }  # fmt: skip
    assert [entry["prior"] for entry in (by_id["a"], by_id["b"], *annotation["val"])] == [None] * 3
    assert counts["context"] == {
        "studies_with_indication": 3, "indications_refused": 0, "studies_with_prior": 1, "studies_without_time": 0,
        "priors_of_the_same_report": 0,
    }  # fmt: skip
    assert load_annotation(told.folder / "out" / "annotation.json") == annotation


@pytest.mark.parametrize(("of_a", "of_b"), [("ap", "pa"), ("AP", "Pa"), ("AP AXIAL", "PA"), ("LATERAL", "ap"), ("", "AP")])
def test_the_view_of_the_study_before_counts_however_it_is_written(told: Any, of_a: str, of_b: str) -> None:
    """b's view comes first in each case; a has the better box."""
    told.images[0]["view"], told.images[1]["view"] = of_a, of_b
    assert [told.images[row]["source_id"] for row in (0, 1)] == ["a", "b"]
    annotation, _ = told.build(context=EVERYTHING)
    (entry,) = (entry for entry in annotation["train"] if entry["id"] == "e")
    assert entry["prior"]["scores"] == [0.6]


def test_an_indication_that_tells_a_finding_of_the_target_is_refused(told: Any) -> None:
    for item in told.reports:
        if item["study_id"] == "s5":
            item |= {"report": "There is a small effusion on the left.", "indication": "Cough. Small left pleural effusion."}
    annotation, counts = told.build(context=["indication"], entry="study")
    assert [entry["indication"] for entry in annotation["train"]] == ["Cough in s1.", ""]
    assert counts["context"]["indications_refused"] == 1
    (refused,) = read_jsonl(told.folder / "out" / "refused_indications.jsonl")
    assert refused == {"study_id": "s5", "sentences": ["Small left pleural effusion."]}


def test_without_the_setting_entries_are_what_they_were(told: Any) -> None:
    full, _ = told.build(context=EVERYTHING)
    assert (told.folder / "out" / "refused_indications.jsonl").is_file()
    annotation, counts = told.build()
    for split, entries in full.items():
        for entry in entries:
            for key in EVERYTHING:
                del entry[key]
        assert entries == annotation[split]
    assert "context" not in counts and not (told.folder / "out" / "refused_indications.jsonl").exists()


def test_an_indication_that_holds_the_target_is_refused_and_counted(told: Any) -> None:
    for item in told.reports:
        if item["study_id"] == "s1":
            item["indication"] = "Fever; heart size NORMAL in s1"
    annotation, counts = told.build(context=["indication"], entry="study")
    assert [entry["indication"] for entry in annotation["train"]] == ["", "Cough in s5."]
    assert counts["context"] == {"studies_with_indication": 2, "indications_refused": 1}
    (refused,) = read_jsonl(told.folder / "out" / "refused_indications.jsonl")
    assert refused == {"study_id": "s1", "sentences": ["Heart size normal in s1."]}


def test_a_part_that_no_study_tells_is_warned_of(told: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Such as studies before with Open-i, which tells no times."""
    told.build(context=EVERYTHING)
    assert "no study tells" not in caplog.text
    for item in told.reports:
        item["study_time"] = ""
    told.build(context=EVERYTHING)
    assert "annotation.json: no study tells 'prior': leave it out of cxr.annotation.context" in caplog.text
    assert "'indication'" not in caplog.text


@pytest.mark.parametrize(("part", "key"), [("indication", "indication"), ("prior", "study_time")])
def test_reports_that_do_not_tell_name_the_setting(inputs: Any, part: str, key: str) -> None:
    with pytest.raises(DatasetError, match=rf"3 of 3 reports, such as .*'{key}'.*cxr.data.reports.context to true"):
        inputs.build(context=[part])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study_id": "s3"}, r"train \(e\): prior is study s3 of patient 20, split val; expected .* patient 10, split train"),
        ({"study_id": "s5"}, "of another study"),
        ({"report": None}, "expected texts under study_id and report"),
        ({"scores": []}, "no lists of one length"),
        ({"boxes": [[0.0, 0.0, 500.0, 5.0]]}, "prior: box 0 is .*outside its image"),
        ({"height": 0}, "prior: height and width"),
    ],
)
def test_a_broken_study_before_is_refused(told: Any, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    annotation, _ = told.build(context=EVERYTHING)
    (entry,) = (entry for entry in annotation["train"] if entry["id"] == "e")
    entry["prior"] |= change
    write_json(tmp_path / "edited.json", annotation)
    with pytest.raises(DatasetError, match=message):
        load_annotation(tmp_path / "edited.json")
