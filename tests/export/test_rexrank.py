"""The answer to a test set of ReXrank: its records unchanged, predictions those of readings, failures tried again."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from reading_samples import FILES

from d2rnet.cli import main
from d2rnet.errors import DatasetError
from d2rnet.export.rexrank import read_test_set
from d2rnet.reading.cxr import Models, load_models

STUDIES = {  # as in ReXRank_MIMICCXR_test.json: a slash in front, NaN where a section is missing
    "50051329": {
        "image_path": [f"/{FILES['second']}", f"/{FILES['front']}"],
        "section_findings": "The lungs are clear.\nNo effusion.",
        "section_impression": float("nan"),
        "frontal_lateral": ["lateral", "antero-posterior"],
        "subject_id": 10046166,
        "context": "Age:50-60.Gender:M.",
        "key_image_path": f"/{FILES['front']}",
        "report": "Findings: The lungs are clear. Impression: None",
    },
    "CXR2279_IM-0865": {"image_path": [FILES["tall"]], "key_image_path": FILES["tall"], "split": "val"},
}


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "in.json"
    path.write_text(json.dumps(STUDIES))
    assert "NaN" in path.read_text()
    return path


def call(run: Path, *words) -> int:
    results = run / "results" / "cxr"
    models = ["--detector", results / "train_detector", "--report-model", results / "train_report_model", "--device", "cpu"]
    return main(["export", "rexrank", *map(str, [*words, *models])])


def test_answers_are_readings_of_the_frontal_image(finished_run, questions, tmp_path):
    out = tmp_path / "out.json"
    assert call(finished_run, questions, out, finished_run / "images") == 0
    answers = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    results = finished_run / "results" / "cxr"
    models = load_models(results / "train_detector", results / "train_report_model", device="cpu")
    expected = {"50051329": "front", "CXR2279_IM-0865": "tall"}
    assert list(answers) == list(expected)
    for study, name in expected.items():
        prediction = answers[study].pop("model_prediction")
        assert prediction == models.read(finished_run / "images" / FILES[name]).findings and len(prediction.split()) > 4
    assert answers["50051329"] == {**STUDIES["50051329"], "section_impression": None}
    assert answers["CXR2279_IM-0865"] == STUDIES["CXR2279_IM-0865"]


def test_all_views_are_read_together(finished_run, questions, tmp_path, monkeypatch):
    read, seen = Models.read_study, []

    def noted(self, paths):
        seen.append([path.name for path in paths])
        return read(self, paths)

    monkeypatch.setattr(Models, "read_study", noted)
    for name, options in (("one.json", []), ("all.json", ["--all-views"])):
        assert call(finished_run, questions, tmp_path / name, finished_run / "images", *options) == 0
    assert seen == [["front.png"], ["tall.png"], ["second.jpg", "front.png"], ["tall.png"]]


def test_failed_study_is_named_and_tried_again_and_answered_ones_are_kept(finished_run, questions, tmp_path, capsys):
    images = tmp_path / "images"
    (images / "s1").mkdir(parents=True)
    (images / FILES["front"]).write_bytes((finished_run / "images" / FILES["front"]).read_bytes())
    out = tmp_path / "out.json"
    assert call(finished_run, questions, out, images) == 3
    assert "study CXR2279_IM-0865" in capsys.readouterr().err and list(json.loads(out.read_text())) == ["50051329"]
    kept = json.loads(out.read_text())
    kept["50051329"]["model_prediction"] = "kept"
    out.write_text(json.dumps(kept))
    assert call(finished_run, questions, out, finished_run / "images") == 0
    answers = json.loads(out.read_text())
    assert answers["50051329"]["model_prediction"] == "kept" and answers["CXR2279_IM-0865"]["model_prediction"]


def test_somebody_elses_file_is_not_replaced(finished_run, questions, tmp_path, capsys):
    out = tmp_path / "out.json"
    out.write_text('{"a": 1}')
    assert call(finished_run, questions, out, finished_run / "images") == 2
    assert "would be replaced" in capsys.readouterr().err and out.read_text() == '{"a": 1}'


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "got a list"),
        ({}, "got an empty object"),
        ({"a": {"image_path": ["x.png"]}}, r"study a: got \[None\]; expected key_image_path"),
        ({"a": {"key_image_path": "../x.png"}}, r"study a: got \['\.\./x\.png'\]"),
        ({"a": 3}, r"study a: got \[\]"),
    ],
)
def test_other_documents_are_refused(tmp_path, document, message):
    (tmp_path / "in.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=message):
        read_test_set(tmp_path / "in.json")


@pytest.mark.parametrize(
    "form",
    [("{}", "{}", "{}"), ("--input_json_file={}", "--save_json_file={}", "--img_root_dir={}")],
    ids=["words", "options"],
)
def test_script_of_the_page_takes_both_signatures(repository, finished_run, questions, tmp_path, monkeypatch, form):
    page = (repository / "docs" / "how-to" / "hand-on-results.md").read_text(encoding="utf-8")
    script = tmp_path / "inference.py"
    script.write_text(re.search(r'```python\n("""inference.py .*?)```', page, flags=re.DOTALL)[1])
    files = (questions, tmp_path / "out.json", finished_run / "images")
    monkeypatch.chdir(finished_run)
    monkeypatch.setattr(sys, "argv", ["inference.py", *(word.format(file) for word, file in zip(form, files, strict=True))])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0 and len(json.loads((tmp_path / "out.json").read_text())) == 2
