"""The page of a CT as a file: what it holds, its size, nothing unescaped; what else a reading is written as."""

import base64
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pytest
from ct_reading_samples import GRID, ORIGIN, SENTENCES, attention_of, make_reading

from d2rnet.ct.structures.table import structure_title
from d2rnet.files.documents import read_json
from d2rnet.reading.content import NOTICE
from d2rnet.reading.ct_content import CtSentence
from d2rnet.reading.ct_page import page_text
from d2rnet.reading.ct_view import MOST_VOXELS, VolumeView


def data_of(text: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="reading-data">(.*?)</script>', text, re.DOTALL)[1])


def unpacked(text: str) -> np.ndarray:
    return np.frombuffer(gzip.decompress(base64.b64decode(text)), np.uint8)


def test_holds_the_volume_and_the_attention_of_each_structure() -> None:
    reading = make_reading()
    data = data_of(page_text(reading))
    steps = unpacked(data["volume"]).reshape(data["shape"])
    assert np.array_equal(np.cumsum(steps, axis=0, dtype=np.uint8), reading.volume.levels)
    attention = unpacked(data["attention"]).reshape(-1, *data["grid"])
    assert attention.shape == (10, *GRID) and [int(one.max()) for one in attention] == [255] * 9 + [0]
    assert [one.argmax() for one in attention[:9]] == [one.argmax() for one in reading.attention[:9]]
    assert data["structures"][1] == "Heart mediastinum vessels"


def test_loads_nothing_and_escapes_everything() -> None:
    evil = '</script><script>alert("x")</script>'
    sentences = (CtSentence(evil, ("lung",)),)
    text = page_text(make_reading(name=evil, file=evil, warnings=(evil,), sentences=sentences))
    assert evil not in text and text.count("&lt;script&gt;alert(&quot;x&quot;)") == 5
    assert not re.search(r'(?:src|href)="(?!data:)', text) and "http:" not in text and "https:" not in text
    assert "default-src 'none'" in text and NOTICE in text


@pytest.mark.parametrize("name", ["slices.js", "boxes.js"])
def test_scripts_never_read_text_as_markup(repository: Path, name: str) -> None:
    script = (repository / "src/d2rnet/reading/assets" / name).read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\bfetch\(|XMLHttp", script
    )


def test_size_is_bounded_whatever_the_scan() -> None:
    shape = (160, 161, 161)
    assert 0.98 * MOST_VOXELS < np.prod(shape) < MOST_VOXELS
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)  # nothing packs worse
    text = page_text(make_reading(volume_view=VolumeView(noise, (2.3, 2.3, 2.3))))
    assert len(text) < 6_000_000


def test_structures_stand_in_their_order_and_absent_ones_are_said() -> None:
    text = page_text(make_reading())
    shown = re.findall(r"<h3><button[^>]*>([^<]*)(?: <small>(not mentioned)</small>)?</button></h3>", text)
    titles = [structure_title(name) for name in make_reading().structures]
    assert [title.strip() for title, _ in shown] == titles
    assert [title.strip() for title, absent in shown if not absent] == ["Heart mediastinum vessels", "Lung", "Pleura", "Bone"]
    lung = text.index(f'data-structure="{titles.index("Lung")}" aria-pressed="false">There is a nodule')
    assert text.index("<h3>", lung) > text.index("Emphysematous changes", lung), "both sentences under their structure"


def test_json_document_is_documented(repository: Path, tmp_path: Path) -> None:
    reading = make_reading(warnings=("thick slices",))
    document = read_json(reading.save(tmp_path)["json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.html", "scan.json"]
    assert document["format"] == "d2rnet-ct-reading-1" and document["notice"] == NOTICE
    assert document["findings"] == " ".join(sentence.text for sentence in SENTENCES)
    lung = document["structures"]["lung"]
    assert lung["text"] == f"{SENTENCES[0].text} {SENTENCES[1].text}" and document["structures"]["thyroid"]["text"] == ""
    assert np.reshape(lung["attention"], document["grid_zyx"]) == pytest.approx(reading.attention[2], abs=1e-5)
    assert document["sentences"][3] == {"text": SENTENCES[3].text, "structures": ["pleura", "heart_mediastinum_vessels"]}
    assert document["structures"]["pleura"]["text"] == SENTENCES[3].text, "a sentence of two structures is told at both"
    assert document["volume"]["file"] == "scan.nii.gz" and document["models"] == ORIGIN["models"]
    page = (repository / "docs/reference/formats.md").read_text(encoding="utf-8")
    documented = {word for span in re.findall(r"`([^`\n]+)`", page) for word in re.findall(r"\w+", span)}
    assert set().union(document, document["volume"], lung, *document["sentences"]) <= documented


def test_text_groups_findings_and_names_what_is_silent() -> None:
    lines = make_reading(warnings=("slices 8.0 mm apart",)).to_text().splitlines()
    assert lines[0] == "scan" and lines[1].startswith("  scan.nii.gz: 65 x 104 x 104 voxels of 5.00 x ")
    assert lines[2] == "  Warning: slices 8.0 mm apart"
    place = lines.index("    Lung")
    assert lines[place + 1 : place + 3] == [f"      {SENTENCES[0].text}", f"      {SENTENCES[1].text}"]
    assert lines[-1].startswith("  Not mentioned: trachea bronchi, oesophagus, thyroid, ") and "lung" not in lines[-1]


def test_a_structure_that_attends_to_nothing_has_an_empty_map() -> None:
    nothing = np.zeros_like(attention_of(10))
    data = data_of(page_text(make_reading(attention=nothing)))
    assert not unpacked(data["attention"]).any()
