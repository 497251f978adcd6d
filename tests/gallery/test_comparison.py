"""The gallery of two runs: which studies, boxes only where they belong, texts alone."""

from pathlib import Path

import gallery_samples as samples
import pytest

from d2rnet.cli.entry import main
from d2rnet.errors import ConfigError
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.gallery.comparison import compare_and_show
from d2rnet.gallery.run_inputs import RunInputs, find_inputs
from d2rnet.gallery.settings import CompareSettings

COUNT = 8


@pytest.fixture
def runs(tmp_path):
    """Run A says what the reference says in all but one study; run B does so in two others."""
    files = samples.write_run(tmp_path, COUNT)
    lines = samples.generated_lines(COUNT)
    for name, right in (("a", set(range(COUNT)) - {4}), ("b", {1, 4})):
        reports = [
            {**line, "hypothesis": line["reference"] if row in right else "lungs are clear .", "sentences": []}
            for row, line in enumerate(lines)
        ]
        write_jsonl(tmp_path / name / "test.jsonl", reports)
    return {
        "run_a": tmp_path / "a",
        "run_b": tmp_path / "b",
        "studies": "same",
        "annotation": files["annotation"],
        "image_root": files["image_root"],
        "gallery_studies": 3,
        "gallery_metric": "rouge_l",
        "output": tmp_path / "out",
        "workers": 1,
        "settings": CompareSettings(meteor=False, bootstrap_samples=20),
    }


def test_the_studies_that_differ_most_come_first(runs):
    compare_and_show(**runs)
    document = read_json(runs["output"] / "comparison.json")
    assert document["n"] == COUNT
    data, studies = samples.read_page(runs["output"] / "gallery")
    scores = data["index"]["scores"]["rouge_l"]
    differences = [abs(a - b) for a, b in zip(*scores, strict=True)]
    assert len(studies) == 3 and differences == sorted(differences, reverse=True) and min(differences) > 0.5
    assert "i1" not in data["index"]["id"], "both runs are right there"
    assert data["meta"]["counts"]["left_out_by_number"] == 5 and "largest difference of ROUGE-L" in data["meta"]["how"]
    assert data["meta"]["sort"] == "size:rouge_l" and data["meta"]["mode"] == "compare"
    assert studies[0]["p"][0][0].startswith("data:image/jpeg")


def test_marks_of_the_reference_are_told_apart_by_run(runs):
    compare_and_show(**runs | {"gallery_studies": COUNT})
    data, studies = samples.read_page(runs["output"] / "gallery")
    only_b = next(study for study in studies if study["i"] == "i4")
    assert only_b["x"][0]["m"][0][5] == ["missed", "match"] and only_b["x"][2]["m"][0][5] == ["match"]
    row = data["index"]["id"].index("i4")
    assert data["index"]["errors"]["missed"][0][row] and not data["index"]["errors"]["missed"][1][row]


def record(runs, name: str, **others) -> dict:
    """Write the record of a run as generate-reports does: files as they were called in the folder of the test."""
    annotation = {"file": "annotation.json", "sha256": sha256_file(runs["annotation"])}
    content = {"argv": ["generate-reports-shard", "--image-root", "images"], "inputs": {"annotation": annotation, **others}}
    write_json(runs[name] / "run.json", content)
    return content


def test_radiographs_and_boxes_are_found_by_the_run_records(runs, tmp_path):
    truth = tmp_path / "truth.jsonl"
    write_jsonl(truth, [{"image_id": f"i{row}", "boxes": []} for row in range(COUNT)])
    record(runs, "run_b", true_boxes={"file": "truth.jsonl", "sha256": sha256_file(truth)})
    compare_and_show(**runs | {"annotation": None, "image_root": None})
    data, studies = samples.read_page(runs["output"] / "gallery")
    assert data["meta"]["counts"]["images"] == 3 and studies[0]["p"][0][0].startswith("data:image/jpeg")
    assert len(studies[0]["b"]) == 2 and all(study["t"] == [] for study in studies)


def test_records_are_found_from_another_directory_and_by_the_shorter_option(runs, tmp_path, monkeypatch):
    content = record(runs, "run_a")
    write_json(runs["run_a"] / "run.json", content | {"argv": ["generate-reports"]})
    shard = tmp_path / "generate_reports" / "shards" / "1-of-1.run.json"
    write_json(shard, content | {"argv": ["generate-reports-shard", "--image-root=images"]})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = find_inputs(runs["run_a"] / "test.jsonl")
    assert found == RunInputs(runs["annotation"], runs["image_root"], None)
    monkeypatch.chdir(tmp_path)
    assert find_inputs(Path("a/test.jsonl")) == RunInputs(Path("annotation.json"), Path("images"), None)


def test_a_cell_of_an_ablation_shows_the_true_boxes_of_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = "results/cxr/build_annotation/annotation.json"
    write_json(place, {"test": [samples.entry("i0")]})
    write_json("truth.jsonl", {})
    Path("images").mkdir()
    cell = Path("results/cxr/ablation/full/seed_1/reports.jsonl")
    write_jsonl(cell, samples.generated_lines(1))
    inputs = {"annotation": {"file": place, "sha256": sha256_file(place)}}
    write_json(cell.with_suffix(".run.json"), {"argv": ["generate-reports-shard", "--image-root=images"], "inputs": inputs})
    truth = {"file": "truth.jsonl", "sha256": sha256_file("truth.jsonl")}
    write_json("results/cxr/render_gallery/run.json", {"argv": [], "inputs": {**inputs, "true_boxes": truth}})
    assert find_inputs(cell) == RunInputs(Path(place), Path("images"), Path("truth.jsonl"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda runs: None, "no run record beside it names an annotation.json"),
        (lambda runs: (record(runs, "run_a"), write_json(runs["annotation"], {"test": []})), "has changed since"),
        (lambda runs: (record(runs, "run_a"), runs["annotation"].unlink()), "which its run was made of, is not there"),
        (lambda runs: (record(runs, "run_a"), runs["image_root"].rename("gone")), "were not found (no folder"),
        (lambda runs: (record(runs, "run_a"), [p.unlink() for p in runs["image_root"].iterdir()]), "i0.png: no such file"),
        (lambda runs: write_json(runs["run_a"] / "run.json", record(runs, "run_a") | {"argv": []}), "has --image-root"),
    ],
)  # fmt: skip
def test_texts_alone_and_one_line_where_the_records_do_not_help(runs, spoil, message, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil(runs)
    compare_and_show(**runs | {"annotation": None, "image_root": None})
    (said,) = [line for line in caplog.messages if "texts only" in line]
    assert message in said and "--annotation and --image-root" in said and "\n" not in said
    _, studies = samples.read_page(runs["output"] / "gallery")
    assert all(study["p"] == [] and study["b"] == [] and study["t"] is None for study in studies)


def test_sentences_get_boxes_only_where_the_run_was_written_for_this_annotation(runs, caplog):
    for name in ("a", "b"):
        folder = runs["run_a"].parent / name
        lines = samples.generated_lines(COUNT)
        write_jsonl(folder / "test.jsonl", [{**line, "hypothesis": f"{line['hypothesis']} the end ."} for line in lines])
    record(runs, "run_a")
    write_json(runs["run_b"] / "run.json", {"inputs": {"annotation": {"sha256": "0"}}})
    compare_and_show(**runs)
    _, studies = samples.read_page(runs["output"] / "gallery")
    assert all(1 in study["x"][1]["s"][0][2] + study["x"][1]["s"][0][4] for study in studies)
    assert not any(sentence[2] + sentence[4] for study in studies for sentence in study["x"][2]["s"])
    assert str(runs["run_b"]) in caplog.text and "its sentences get no boxes" in caplog.text


def test_no_gallery_if_none_is_wanted(runs):
    compare_and_show(**runs | {"gallery_studies": 0})
    assert (runs["output"] / "comparison.md").is_file() and not (runs["output"] / "gallery").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery_studies": -1}, "--gallery-studies -1: expected 0"),
        ({"gallery_metric": "meteor"}, "--gallery-metric meteor: not computed for single reports; computed are bleu_1"),
    ],
)
def test_bad_options(runs, change, message):
    with pytest.raises(ConfigError, match=message):
        compare_and_show(**runs | change)


def test_an_entry_that_the_annotation_lacks_is_named(runs, capsys):
    write_json(runs["annotation"], {"test": [samples.entry("i0")]})
    arguments = ["compare", str(runs["run_a"]), str(runs["run_b"]), "--annotation", str(runs["annotation"])]
    arguments += ["--image-root", str(runs["image_root"]), "--output", str(runs["output"]), "--set", "meteor=false"]
    assert main(arguments) == 2
    assert "not in the annotation; give the annotation.json that the runs were written for" in capsys.readouterr().err
