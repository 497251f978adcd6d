"""render_ct_gallery: from the files of a CT run to a page, structure by structure, marked by the 18 abnormalities."""

import base64
from pathlib import Path
from typing import Any

import ct_gallery_samples as ct_samples
import cv2
import gallery_samples as samples
import numpy as np
import pytest
from headless_browser import SIZES, low_contrast

from d2rnet.ct.demo.phantom import draw_phantom
from d2rnet.ct.demo.reports import write_report
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, write_jsonl
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.gallery.ct_render import render_ct_gallery
from d2rnet.gallery.located import locate_ct_mentions
from d2rnet.gallery.marks import Verdict, class_verdicts
from d2rnet.gallery.modality import CT
from d2rnet.gallery.settings import PageSettings

LUNG = 2  # place of the lung in the table of ten


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    return ct_samples.write_run(tmp_path) | {"output": tmp_path / "out", "settings": PageSettings()}


def test_texts_with_the_structures_of_each_sentence(run: dict[str, Any]) -> None:
    render_ct_gallery(**run)
    data, studies = samples.read_page(run["output"])
    assert data["meta"]["structures"][LUNG] == "Lung" and len(data["meta"]["structures"]) == 10
    reference, generated = studies[0]["x"]
    told = [(reference["t"][start:end], structures) for start, end, structures, *_ in reference["s"]]
    assert told[1] == ("A nodule of 8 mm is seen in the right upper lobe (series 2 image 45).", [LUNG])
    assert "".join(text for text, _ in told) == reference["t"].replace(". ", "."), "nothing is lost"
    both = studies[1]["x"][1]["s"][0][2]
    assert [data["meta"]["structures"][place] for place in both] == ["Heart mediastinum vessels", "Pleura"]
    assert generated["s"][1][2] == [LUNG]


def test_synthetic_volumes_are_called_so_and_others_are_not_to_be_published(run: dict[str, Any], tmp_path: Path) -> None:
    page = run["output"] / "index.html"
    source = tmp_path / "cohort" / "ct_rate"
    source.mkdir(parents=True)
    for known in ({}, {"source_root": str(source)}):
        render_ct_gallery(**run, **known)
        text = page.read_text()
        assert "Do not publish" in text and "Synthetic" not in text
    (source.parent / "cohort.json").write_text("{}")  # as make-ct-demo-cohort leaves it
    render_ct_gallery(**run, source_root=str(source))
    text = page.read_text()
    assert "Synthetic images" in text and "Do not publish" not in text


def test_missed_and_invented_abnormalities(run: dict[str, Any]) -> None:
    render_ct_gallery(**run)
    data, studies = samples.read_page(run["output"])
    errors = data["index"]["errors"]
    assert set(errors) == {"missed", "invented"} and data["meta"]["errors"] == ["missed", "invented"]
    names = [[name for name, _ in data["meta"]["classes"]][bit] for bit in range(18)]
    assert names == list(CT_ABNORMALITIES)
    effusion, emphysema, pericardial = (
        1 << names.index(name) for name in ("Pleural effusion", "Emphysema", "Pericardial effusion")
    )
    assert errors["missed"] == [[effusion, pericardial, 0]] and errors["invented"] == [[emphysema, 0, 0]]
    text = studies[0]["x"][1]
    marks = {text["t"][start:end]: verdicts for start, end, _, _, _, verdicts in text["m"]}
    assert marks["nodule"] == ["match"] and marks["Emphysematous"] == ["invented"]


def test_pictures_are_middle_slices_as_radiologists_hang_them(run: dict[str, Any]) -> None:
    render_ct_gallery(**run)
    _, studies = samples.read_page(run["output"])
    pictures = studies[0]["p"]
    assert [name for *_, name in pictures] == [
        "Axial, lung window",
        "Axial, mediastinal window",
        "Coronal, lung window",
        "Sagittal, mediastinal window",
    ]
    for (uri, width, height, problem, name), (down, across) in zip(pictures, ((1, 2), (1, 2), (0, 2), (0, 1)), strict=True):
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert pixels.shape == (height, width) and problem == ""
        side = [ct_samples.SHAPE[axis] * ct_samples.SPACING_MM[axis] for axis in (down, across)]
        assert height / width == pytest.approx(side[0] / side[1], rel=0.03), f"{name}: true proportions"
        quarter = pixels[height // 4, width // 4], pixels[3 * height // 4, 3 * width // 4]
        assert quarter[0] > quarter[1] + 60 or name.startswith("Sagittal"), f"{name}: the corner lies at the upper left"


def test_run_record_and_volumes_that_cannot_be_shown(run: dict[str, Any]) -> None:
    (run["volumes"].parent / "arrays" / "v1.npy").write_bytes(b"broken")
    render_ct_gallery(**run)
    data, studies = samples.read_page(run["output"])
    assert studies[1]["p"][0][0] == "" and "v1.npy" in studies[1]["p"][0][3]
    record = read_json(run["output"] / "run.json")
    assert record["command"] == "render-ct-gallery" and record["counts"]["images_not_shown"] == 1
    corpus = {name: value for _, name, value in data["meta"]["corpus"]}
    assert corpus == {"ROUGE-L": [[0.6, [0.5, 0.7]]], "abnormality F1, micro, against report": [[0.4, None]]}
    assert data["meta"]["images"] == "CT volumes" and data["index"]["scores"]["log_prob"] == [[-1.0, -2.0, -3.0]]
    for path in (run["volumes"].parent / "arrays").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"none of 3 CT volumes can be shown.*v0\.npy.*Check --volumes"):
        render_ct_gallery(**run)
    write_jsonl(
        run["volumes"], [{"volume_id": "v0", "volume_path": "../v0.npy", "spacing_mm": [1, 1, 1], "window_hu": [0, 1]}]
    )
    with pytest.raises(DatasetError, match=r"volumes\.jsonl: line 1: expected a volume of convert-ct"):
        render_ct_gallery(**run)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("Cardiomegaly is seen.", "Heart size increased.", {"Cardiomegaly": Verdict.MATCH}),
        ("No pleural effusion.", "Pleural effusion is seen.", {"Pleural effusion": Verdict.INVENTED}),
        ("Consolidation in the lower lobe may be pneumonia.", "The lungs are clear.", {"Consolidation": Verdict.MISSED}),
    ],
)
def test_verdicts_by_the_abnormalities(reference: str, hypothesis: str, expected: dict[str, Verdict]) -> None:
    assert {
        name: verdict for name, verdict in class_verdicts(reference, hypothesis, CT).items() if name in expected
    } == expected


def test_every_abnormality_of_demo_reports_has_a_place_in_its_text() -> None:
    settings = CtDemoSettings(in_plane_voxels=48, slice_mm=10.0)
    seen = set()
    for seed in range(25):
        rng = np.random.default_rng(seed)
        text = write_report(draw_phantom(rng, rng, settings).drawn, rng).findings
        for located in locate_ct_mentions(text):
            assert text[located.start : located.end].strip() == text[located.start : located.end] != ""
            seen.add(located.mention.category)
    assert len(seen) > 12


def test_a_mention_behind_brackets_is_found_where_it_stands() -> None:
    text = "Nodule (12 mm in the previous examination), which was not seen in the old CT, and emphysema. Emphysema?"
    assert [text[one.start : one.end].lower() for one in locate_ct_mentions(text)][-2:] == ["emphysema", "emphysema"]
    places = [one.start for one in locate_ct_mentions(text)]
    assert places[-2] == text.index("emphysema") and places[-1] == text.index("Emphysema?")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_in_a_browser(open_file: Any, run: dict[str, Any], size: str, scheme: str) -> None:
    render_ct_gallery(**run)
    tab = open_file(run["output"] / "index.html", size, color_scheme=scheme)
    tab.wait_for_function("view.record")
    assert tab.inner_text("#name") == "Study s0" and tab.locator(".frame img").count() == 4
    titles = tab.locator(".structure h3").all_inner_texts()
    assert titles == ["Trachea bronchi", "Heart mediastinum vessels", "Lung", "Pleura"]
    assert "Mentioned by none: Oesophagus, Bone" in tab.inner_text(".silent")
    pleura = tab.locator(".structure", has_text="Pleura")
    assert (
        pleura.locator(".reference mark.missed").count() == 1 and "not mentioned" in pleura.locator(".generated").inner_text()
    )
    assert (
        tab.locator(".structure", has_text="Lung").locator(".generated mark.invented").inner_text().startswith("Emphysematous")
    )
    assert not tab.is_visible(".box-bar") and not tab.is_visible("#wrong-side-legend") and tab.inner_text("#box-count") == ""
    rows = {row.split("\t")[0].strip() for row in tab.locator("#findings tbody tr").all_inner_texts()}
    assert rows >= {"Lung nodule", "Emphysema", "Pleural effusion"}
    tab.locator(".structure .sentence").first.click()
    tab.mouse.move(1, 1)
    assert low_contrast(tab) == [] and tab.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    if size == "desktop":
        assert tab.inner_text("label[for=class]") == "Abnormality, in a text"
        tab.check("#error-missed")
        assert tab.inner_text("#count") == "2 of 3 CT volumes, 2 of 3 studies" and not tab.locator("#error-wrong_side").count()
        tab.select_option("#class", label="Pericardial effusion (1)")
        assert tab.inner_text("#name") == "Study s1"
        assert tab.locator(".structure", has_text="Heart").locator(".generated .sentence").count() == 1
    tab.keyboard.press("?")
    assert "boxes" not in tab.inner_text("#help") and "structures" in tab.inner_text("#help")
