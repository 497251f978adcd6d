"""The gallery of two runs: which studies, boxes only where they belong, texts alone."""

import gallery_samples as samples
import pytest
from test_gallery_render import shown

from d2rnet.cli import main
from d2rnet.errors import ConfigError
from d2rnet.gallery.comparison import compare_and_show
from d2rnet.io import read_json, sha256_file, write_json, write_jsonl
from d2rnet.settings import complete

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
        "settings": complete({"meteor": False, "bootstrap_samples": 20}, "evaluation"),
    }


def test_the_studies_that_differ_most_come_first(runs):
    compare_and_show(**runs)
    document = read_json(runs["output"] / "comparison.json")
    assert document["n"] == COUNT
    data, studies = shown(runs["output"] / "gallery")
    scores = data["index"]["scores"]["rouge_l"]
    differences = [abs(a - b) for a, b in zip(*scores, strict=True)]
    assert len(studies) == 3 and differences == sorted(differences, reverse=True) and min(differences) > 0.5
    assert "i1" not in data["index"]["id"], "both runs are right there"
    assert data["meta"]["counts"]["left_out_by_number"] == 5 and "largest difference of ROUGE-L" in data["meta"]["how"]
    assert data["meta"]["sort"] == "size:rouge_l" and data["meta"]["mode"] == "compare"
    assert studies[0]["p"][0][0].startswith("data:image/jpeg")


def test_marks_of_the_reference_are_told_apart_by_run(runs):
    compare_and_show(**runs | {"gallery_studies": COUNT})
    data, studies = shown(runs["output"] / "gallery")
    only_b = next(study for study in studies if study["i"] == "i4")
    assert only_b["x"][0]["m"][0][5] == ["missed", "match"] and only_b["x"][2]["m"][0][5] == ["match"]
    row = data["index"]["id"].index("i4")
    assert data["index"]["errors"]["missed"][0][row] and not data["index"]["errors"]["missed"][1][row]


def test_texts_alone_where_no_annotation_is_given(runs, caplog):
    caplog.set_level("INFO")
    compare_and_show(**runs | {"annotation": None, "image_root": None})
    assert "texts only: --annotation and --image-root were not given" in caplog.text
    _, studies = shown(runs["output"] / "gallery")
    assert all(study["p"] == [] and study["b"] == [] and study["t"] is None for study in studies)


def test_sentences_get_boxes_only_where_the_run_was_written_for_this_annotation(runs, caplog):
    for name in ("a", "b"):
        folder = runs["run_a"].parent / name
        lines = samples.generated_lines(COUNT)
        write_jsonl(folder / "test.jsonl", [{**line, "hypothesis": f"{line['hypothesis']} the end ."} for line in lines])
    record = {"inputs": {"annotation": {"sha256": sha256_file(runs["annotation"])}}}
    write_json(runs["run_a"] / "run.json", record)
    write_json(runs["run_b"] / "run.json", {"inputs": {"annotation": {"sha256": "0"}}})
    compare_and_show(**runs)
    _, studies = shown(runs["output"] / "gallery")
    assert all(study["x"][1]["s"][0][2] == [1] for study in studies)
    assert not any(sentence[2] for study in studies for sentence in study["x"][2]["s"])
    assert str(runs["run_b"]) in caplog.text and "its sentences get no boxes" in caplog.text


def test_no_gallery_if_none_is_wanted(runs):
    compare_and_show(**runs | {"gallery_studies": 0})
    assert (runs["output"] / "comparison.md").is_file() and not (runs["output"] / "gallery").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_root": None}, "got one of them; expected both"),
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
