"""The file of a page: escaping, what it holds, the size bound, what a browser may load."""

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import gallery_samples as samples
import pytest

from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.gallery import page as page_module
from d2rnet.gallery.modality import RADIOGRAPHS
from d2rnet.gallery.page import PageWriter, open_page, script_json
from d2rnet.gallery.pictures import Picture
from d2rnet.gallery.studies import study_record

PICTURE = Picture("data:image/jpeg;base64,AAAA", (samples.HEIGHT, samples.WIDTH), "")


def write(folder: Path, count: int, *, text: str = "", title: str = "Gallery", max_bytes: int = 10**9) -> PageWriter:
    with open_page(folder / "index.html", title=title, systems=1, max_bytes=max_bytes) as page:
        for study in samples.studies(count, text=text):
            if not page.add(study, study_record(study, [PICTURE])):
                break
        page.finish(samples.meta(title=title, counts={}, how="", names={}))
    return page


def test_no_text_can_end_a_script_or_leave_ascii():
    text = script_json({"t": samples.HOSTILE})
    assert not set(text) & set("<>&\u2028\x00") and text.isascii()
    assert json.loads(text) == {"t": samples.HOSTILE}


def test_hostile_reports_stay_text(tmp_path):
    write(tmp_path, 4, text=samples.HOSTILE)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<script") == 4 + 2 == page.count("</script>")
    assert "\x00" not in page
    assert samples.read_page(tmp_path)[1][0]["x"][1]["t"].startswith(samples.HOSTILE)


def test_a_hostile_title_is_escaped(tmp_path):
    title = "</title><script>alert(1)</script>{{style}}{{script}}{{studies}}"
    write(tmp_path, 1, title=title)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<title>&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{style}}{{script}}{{studies}}</title>" in page
    assert samples.read_page(tmp_path)[0]["meta"]["title"] == title


def test_policy_allows_the_inlined_style_and_script_and_no_network(tmp_path):
    write(tmp_path, 1)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'" and directives["img-src"] == "data:" and "connect-src" not in directives
    for directive, pattern in (("style-src", r"<style>(.*?)</style>"), ("script-src", r"<script>(.*?)</script>")):
        digest = base64.b64encode(hashlib.sha256(re.search(pattern, page, re.DOTALL)[1].encode()).digest()).decode()
        assert directives[directive] == f"'sha256-{digest}'"
    assert not re.search(r"https?://", page)


def test_scripts_never_read_text_as_markup():
    scripts = "".join((page_module.ASSETS / name).read_text() for name in page_module.SCRIPTS)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bfetch\(|XMLHttp", scripts
    )
    assert sorted(page_module.SCRIPTS) == sorted(path.name for path in page_module.ASSETS.glob("*.js"))


def test_one_file_holds_the_studies_in_the_order_of_the_index(tmp_path):
    write(tmp_path, 9)
    data, studies = samples.read_page(tmp_path)
    assert [study["i"] for study in studies] == data["index"]["id"] == [f"i{row}" for row in range(9)]
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_index_says_what_filters_and_orders_need(tmp_path):
    write(tmp_path, 4)
    index = samples.read_page(tmp_path)[0]["index"]
    effusion, heart, air = (1 << CATEGORY_IDS[name] - 1 for name in ("Pleural effusion", "Cardiomegaly", "Pneumothorax"))
    assert index["errors"] == {
        "missed": [[heart, 0, 0, 0]],
        "invented": [[0, air, 0, 0]],
        "wrong_side": [[0, 0, effusion, 0]],
    }
    assert index["named"] == [effusion | heart, effusion | heart | air, effusion | heart, effusion | heart]
    assert index["scores"] == {"rouge_l": [[0.0, 0.25, 0.5, 0.75]], "bleu_4": [[0.5] * 4]}
    assert RADIOGRAPHS.mask(set()) == 0


def test_what_is_too_large_is_left_out(tmp_path):
    whole = write(tmp_path / "whole", 6)
    half = write(tmp_path / "half", 6, max_bytes=whole.study_bytes // 2)
    assert (whole.count, half.count) == (6, 2) and half.study_bytes <= whole.study_bytes // 2
    data, studies = samples.read_page(tmp_path / "half")
    assert data["index"]["id"] == ["i0", "i1"] == [study["i"] for study in studies]


def test_an_interrupted_page_leaves_the_old_one_whole(tmp_path):
    write(tmp_path, 2)
    before = (tmp_path / "index.html").read_bytes()
    study = samples.studies(1)[0]
    with pytest.raises(KeyboardInterrupt), open_page(tmp_path / "index.html", title="x", systems=1, max_bytes=10**9) as page:
        page.add(study, study_record(study, [PICTURE]))
        raise KeyboardInterrupt
    assert (tmp_path / "index.html").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_a_listed_box_that_is_not_there_is_refused():
    study = samples.studies(1)[0]
    study.entry["boxes"], study.entry["labels"], study.entry["scores"] = [], [], []
    with pytest.raises(ValueError, match=r"report i0: a sentence lists boxes \[1\], linked \[1\]; its entry has 0"):
        study_record(study, [])


@pytest.mark.parametrize("sentence", [{"text": "a ."}, {"text": 3, "boxes": []}, {"text": "a .", "boxes": "1"}])
def test_a_sentence_of_another_format_is_refused(sentence):
    study = samples.studies(1)[0]
    broken = dataclasses.replace(study, answers=(dataclasses.replace(study.answers[0], sentences=[sentence]),))
    with pytest.raises(ValueError, match=r"report i0: got a sentence with text.*expected text and lists of boxes"):
        study_record(broken, [])


def test_words_outside_the_listed_sentences_are_shown_too():
    text = "so . there is a left pleural effusion . and more"
    study = samples.studies(1)[0]
    answer = dataclasses.replace(study.answers[0], text=text)
    shown = study_record(dataclasses.replace(study, answers=(answer,)), [])["x"][1]["s"]
    assert [(text[start:end], boxes) for start, end, boxes, *_ in shown] == [
        ("so .", []),
        ("there is a left pleural effusion .", [1]),
        ("and more", []),
    ]
    other = dataclasses.replace(answer, text="nothing of it . at all .")
    shown = study_record(dataclasses.replace(study, answers=(other,)), [])["x"][1]["s"]
    assert [(start, end, boxes) for start, end, boxes, *_ in shown] == [(0, 15, []), (16, 24, [])]


def test_sentences_know_their_boxes():
    record = study_record(samples.studies(1)[0], [PICTURE])
    reference, generated = record["x"]
    # the reference by the classes that it names, the generated text by what is linked, both by the true box's class
    assert [sentence[2:] for sentence in reference["s"]] == [[[1], [0], []], [[0], [], []]]
    assert [sentence[2:] for sentence in generated["s"]] == [[[1], [0], []]]
    assert record["b"][1] == [0, 100.0, 120.0, 40.0, 60.0, CATEGORY_IDS["Pleural effusion"] - 1, 0.6, 1]
    assert record["t"] == [[0, 95.0, 110.0, 55.0, 80.0, CATEGORY_IDS["Pleural effusion"] - 1]]


def test_what_is_hidden_at_first_is_told_apart_and_found_by_no_filter(tmp_path):
    study = samples.studies(2)[1]  # a right pneumothorax is written, and looks at the effusion
    study.entry["scores"][:] = [0.9, 0.3]
    assert [row[-1] for row in study_record(study, [PICTURE], 0.5)["b"]] == [1, 1], "a sentence looks at it"
    study.answers[0].sentences[0]["boxes"] = []
    record = study_record(study, [PICTURE], 0.5)
    assert [row[-1] for row in record["b"]] == [1, 0]
    assert [row[-1] for row in study_record(study, [PICTURE])["b"]] == [1, 1], "none is weak"
    plain = dataclasses.replace(study, true_boxes=None, reference="there is a left pleural effusion .")
    assert study_record(plain, [PICTURE], 0.5)["x"][0]["s"][0][2] == [], "a sentence of the reference lights up what is shown"
    unnamed = dataclasses.replace(plain, reference="the lungs are clear .")
    with open_page(tmp_path / "index.html", title="x", systems=1, max_bytes=10**9) as page:
        page.add(unnamed, study_record(unnamed, [PICTURE], 0.5))
        page.finish(samples.meta(counts={}, how="", names={}))
    ((mask,), names) = samples.read_page(tmp_path)[0]["index"]["named"], list(RADIOGRAPHS.colours)
    assert {name for bit, name in enumerate(names) if mask & (1 << bit)} == {"Cardiomegaly", "Pneumothorax"}


def test_boxes_attended_to_stand_apart_from_linked_ones():
    study = samples.studies(4)[3]  # the heart is enlarged; the model looked at the effusion
    assert study_record(study, [PICTURE])["x"][1]["s"][0][2:] == [[0], [], [1]]
    earlier = [{key: value for key, value in sentence.items() if key != "linked"} for sentence in study.answers[0].sentences]
    answer = dataclasses.replace(study.answers[0], sentences=earlier)
    assert study_record(dataclasses.replace(study, answers=(answer,)), [])["x"][1]["s"][0][2:] == [[0], [], [1]]
    denied = dataclasses.replace(
        study.answers[0],
        text="no effusion .",
        sentences=[{"text": "no effusion .", "boxes": [1], "attended": 1, "linked": []}],
    )
    assert study_record(dataclasses.replace(study, answers=(denied,)), [])["x"][1]["s"][0][2:] == [[], [], []]
