"""render_gallery: from the files of a run to a page; which studies, what is left out, what is refused."""

import json

import gallery_samples as samples
import numpy as np
import pytest

from d2rnet.cxr.boxes.true_boxes import true_boxes_of
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, write_json, write_jsonl
from d2rnet.gallery.render import render_gallery
from d2rnet.gallery.selection import choose_studies
from d2rnet.gallery.settings import PageSettings

COUNT = 8


@pytest.fixture
def run(tmp_path):
    return samples.write_run(tmp_path, COUNT) | {"output": tmp_path / "out", "settings": PageSettings()}


def test_all_studies_are_shown_in_the_order_of_the_reports(run):
    render_gallery(**run)
    data, studies = samples.read_page(run["output"])
    assert [study["i"] for study in studies] == data["index"]["id"] == [f"i{row}" for row in range(COUNT)]
    assert data["index"]["study"][3] == "si3"
    assert data["index"]["scores"]["rouge_l"][0] == [1 - row / COUNT for row in range(COUNT)]
    assert data["index"]["scores"]["log_prob"][0] == [-row for row in range(COUNT)]
    assert "meteor" not in data["index"]["scores"]
    assert data["meta"]["protocol"]["section"] == "findings"
    assert data["meta"]["corpus"] == [["rouge_l", "ROUGE-L", [[0.5, [0.4, 0.6]]]]]
    uri, width, height, problem, name = studies[0]["p"][0]
    assert uri.startswith("data:image/jpeg;base64,/9j/") and (width, height, problem) == (samples.WIDTH, samples.HEIGHT, "")
    assert name == "Radiograph"
    assert studies[0]["t"] is None


def test_run_record_counts_what_is_shown(run):
    render_gallery(**run)
    record = read_json(run["output"] / "run.json")
    size = (run["output"] / "index.html").stat().st_size
    assert record["command"] == "render-gallery" and set(record["inputs"]) == {
        "generated",
        "annotation",
        "metrics",
        "per_report",
    }
    assert 0.1 * size < record["counts"].pop("bytes") < size
    assert record["counts"] == {
        "reports": COUNT,
        "studies": COUNT,
        "shown": COUNT,
        "left_out_by_number": 0,
        "left_out_by_size": 0,
        "images": COUNT,
        "images_not_shown": 0,
        "true_boxes_known": 0,
    }


def test_synthetic_images_are_called_so_and_others_are_not_to_be_published(run):
    page = run["output"] / "index.html"
    render_gallery(**run)
    text = page.read_text()
    assert "Do not publish" in text and "Synthetic" not in text
    (run["image_root"].parent / "cohort.json").write_text("{}")  # as make-demo-cohort leaves it
    render_gallery(**run)
    text = page.read_text()
    assert "Synthetic images" in text and "Do not publish" not in text


def test_the_same_inputs_give_the_same_files(run, tmp_path):
    render_gallery(**run)
    render_gallery(**run | {"output": tmp_path / "again"})
    assert (run["output"] / "index.html").read_bytes() == (tmp_path / "again" / "index.html").read_bytes()


def test_too_many_studies_are_left_out_and_counted(run):
    render_gallery(**run | {"settings": PageSettings(max_studies=3, choice="first")})
    data, studies = samples.read_page(run["output"])
    assert [study["i"] for study in studies] == ["i0", "i1", "i2"]
    assert data["meta"]["counts"]["left_out_by_number"] == 5 and data["meta"]["how"] == "the first ones of the file"


def test_too_many_megabytes_are_left_out_and_counted(run):
    render_gallery(**run | {"settings": PageSettings(max_megabytes=0.03)})
    data, studies = samples.read_page(run["output"])
    assert 0 < len(studies) < COUNT and data["meta"]["counts"]["left_out_by_size"] == COUNT - len(studies)
    assert data["meta"]["counts"]["bytes"] <= 30_000


def test_choices():
    studies = samples.studies(8)
    names = {
        choice: [study.name for study in choose_studies(studies, PageSettings(max_studies=3, choice=choice))[0]]
        for choice in ("first", "worst", "random")
    }
    assert names["first"] == ["i0", "i1", "i2"]
    # one error each in the cases 0, 1 and 2 of four; of equals those with the lower ROUGE-L, which rises with the row
    assert names["worst"] == ["i0", "i1", "i2"]
    assert len(set(names["random"])) == 3 and names["random"] == sorted(names["random"])
    other = choose_studies(studies, PageSettings(max_studies=3, seed=1))[0]
    assert [study.name for study in other] != names["random"]
    by_errors = choose_studies(studies[3:5], PageSettings(max_studies=1, choice="worst"))
    assert [study.name for study in by_errors[0]] == ["i4"] and "most lesion errors" in by_errors[1]


def test_pictures_are_no_larger_than_asked(run):
    render_gallery(**run | {"settings": PageSettings(image_side_px=100)})
    import base64

    import cv2

    _, studies = samples.read_page(run["output"])
    jpeg = np.frombuffer(base64.b64decode(studies[0]["p"][0][0].split(",")[1]), np.uint8)
    assert cv2.imdecode(jpeg, cv2.IMREAD_UNCHANGED).shape == (100, 80)
    assert studies[0]["p"][0][1:3] == [samples.WIDTH, samples.HEIGHT], "boxes stay in original pixels"


def test_an_unreadable_radiograph_is_named_and_the_others_are_shown(run, caplog):
    (run["image_root"] / "i1.png").write_bytes(b"not an image")
    (run["image_root"] / "i2.png").unlink()
    render_gallery(**run)
    data, studies = samples.read_page(run["output"])
    assert data["meta"]["counts"]["images_not_shown"] == 2 and data["meta"]["counts"]["images"] == COUNT - 2
    assert studies[1]["p"][0][0] == "" and "i1.png" in studies[1]["p"][0][3]
    assert "i2.png" in caplog.text


def test_a_radiograph_of_another_size_is_not_shown_under_its_boxes(run):
    entries = [samples.entry(f"i{row}") for row in range(COUNT)]
    entries[0]["height"] = 300
    write_json(run["annotation"], {"test": entries})
    render_gallery(**run)
    assert "got height x width 200 x 160; expected 300 x 160" in samples.read_page(run["output"])[1][0]["p"][0][3]


def test_no_radiograph_at_all_is_an_error(run, tmp_path):
    with pytest.raises(DatasetError, match=r"none of 8 radiographs can be shown.*Check --image-root"):
        render_gallery(**run | {"image_root": tmp_path / "nowhere"})
    assert not (run["output"] / "index.html").exists()


def test_scores_of_other_reports_are_refused(run):
    path = run["scores"] / "per_report.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["hypothesis"] = "another text ."
    write_jsonl(path, lines[:-1])
    with pytest.raises(DatasetError) as caught:
        render_gallery(**run)
    assert "id i1: got scores of another text" in str(caught.value) and "id i7: got no line" in str(caught.value)


@pytest.mark.parametrize("missing", ["metrics.json", "per_report.jsonl"])
def test_missing_scores_name_their_command(run, missing):
    (run["scores"] / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{missing}: no such file; it is made by 'd2rnet evaluate-reports'"):
        render_gallery(**run)


def test_metrics_of_something_else_are_refused(run):
    write_json(run["scores"] / "metrics.json", {"a": 1})
    with pytest.raises(DatasetError, match="lacks protocol or table"):
        render_gallery(**run)


def test_true_boxes_of_the_demo_cohort(run, tmp_path):
    truth = tmp_path / "truth.jsonl"
    write_jsonl(truth, [{"image_id": "i1", "boxes": [{"class": "Pneumothorax", "bbox_xyxy": [10, 20, 40, 60]}]}])
    render_gallery(**run | {"settings": PageSettings(), "true_boxes": truth})
    data, studies = samples.read_page(run["output"])
    assert studies[0]["t"] is None and [row[:5] for row in studies[1]["t"]] == [[0, 10.0, 20.0, 30.0, 40.0]]
    assert data["meta"]["counts"]["true_boxes_known"] == 1
    assert "true_boxes" in read_json(run["output"] / "run.json")["inputs"]


def test_true_boxes_of_several_images_keep_their_image():
    entry = samples.entry("study") | {"image_path": ["x/a.jpg", "x/b.jpg"]}
    box = ("Edema", [0, 0, 1, 1])
    assert true_boxes_of(entry, {"b": [box]}) == [(1, box)]
    assert true_boxes_of(entry, {"c": [box]}) is None
    assert true_boxes_of(samples.entry("i0"), {"i0": []}) == []
