"""A reading is what the workflow makes of the same image; what is doubtful is said; what is bad is refused by name."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from radiograph_samples import SECRET, draw_chest, write_dicom
from reading_samples import FILES, STUDIES
from report_samples import refuse

import d2rnet
from d2rnet.cxr.images import dicom_file
from d2rnet.cxr.images.grey_levels import describe_grey_levels, reduce
from d2rnet.cxr.images.reader import read_radiograph
from d2rnet.errors import CheckpointError, ConfigError, DatasetError
from d2rnet.files.documents import read_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.reading.coco_export import CocoExport
from d2rnet.reading.cxr import Models, load_models
from d2rnet.reading.result import Reading
from d2rnet.report.annotation_file import load_annotation


def expected(run: Path, stages: tuple[str, str]) -> dict[str, tuple[dict, dict]]:
    """Entry and generated line of each id, as the workflow wrote them."""
    entries = load_annotation(run / "results" / "cxr" / stages[0] / "annotation.json")["test"]
    lines = {line["id"]: line for line in read_jsonl(run / "results" / "cxr" / stages[1] / "shards/1-of-1.jsonl")}
    return {entry["id"]: (entry, lines[entry["id"]]) for entry in entries}


def assert_equal(reading: Reading, entry: dict, line: dict) -> None:
    np.testing.assert_allclose([box.xywh for box in reading.boxes], entry["boxes"], atol=0.03)  # 0.01 px of the PNG
    np.testing.assert_allclose([box.score for box in reading.boxes], entry["scores"], atol=2e-5)
    assert [box.label for box in reading.boxes] == entry["labels"]
    assert reading.hypothesis == line["hypothesis"]
    for key in ("boxes", "linked"):
        assert [list(getattr(sentence, key)) for sentence in reading.sentences] == [one[key] for one in line["sentences"]]
    assert reading.log_prob == pytest.approx(line["log_prob"], abs=2e-4)


@pytest.mark.parametrize("name", FILES)
def test_image_is_read_as_the_workflow_read_it(finished_run: Path, loaded: Models, name: str) -> None:
    entry, line = expected(finished_run, ("build_annotation", "generate_reports"))[name]
    reading = loaded.read(finished_run / "images" / FILES[name])
    assert len(reading.boxes) > 1 and len(reading.hypothesis.split()) > 4, "the case shows nothing"
    assert_equal(reading, entry, line)
    assert [(view.height, view.width) for view in reading.images] == [(entry["height"], entry["width"])]
    assert reading.name == name


def test_study_is_read_as_the_workflow_read_it(finished_run: Path, loaded: Models) -> None:
    entry, line = expected(finished_run, ("build_annotation_of_studies", "generate_of_studies"))["s1"]
    reading = loaded.read_study([finished_run / "images" / FILES[name] for name in STUDIES["s1"]], name="s1")
    assert_equal(reading, entry, line)
    assert [box.image for box in reading.boxes] == entry["box_image"] and {0, 1} == set(entry["box_image"])
    assert [view.width for view in reading.images] == entry["widths"]


def test_views_of_a_study_may_lie_in_different_folders(finished_run: Path, loaded: Models, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.jpg"
    elsewhere.write_bytes((finished_run / "images" / FILES["second"]).read_bytes())
    together = loaded.read_study([finished_run / "images" / FILES[name] for name in STUDIES["s1"]])
    apart = loaded.read_study([finished_run / "images" / FILES["front"], elsewhere])
    assert apart.boxes == together.boxes and apart.hypothesis == together.hypothesis


def test_origin_names_models_settings_and_code(finished_run: Path, loaded: Models) -> None:
    origin = loaded.read(finished_run / "images" / FILES["tall"]).origin
    results = finished_run / "results" / "cxr"
    assert origin["models"]["detector"]["model_final.pth"] == sha256_file(results / "train_detector/model_final.pth")
    assert origin["models"]["report_model"]["vocabulary.json"] == sha256_file(results / "train_report_model/vocabulary.json")
    assert origin["settings"]["max_side_px"] == 96 and origin["settings"]["max_boxes"] == 6
    assert origin["settings"]["thresholds"]["Edema"] == 0.3 and origin["settings"]["thresholds"]["ILD"] == 0.1
    assert origin["code"]["d2rnet"] == d2rnet.__version__ and origin["device"].startswith("cpu: ")


def test_score_threshold_lies_over_those_of_the_run(finished_run: Path, loaded: Models) -> None:
    results = finished_run / "results" / "cxr"
    image = finished_run / "images" / FILES["front"]
    score = loaded.read(image).boxes[0].score
    models = load_models(results / "train_detector", results / "train_report_model", device="cpu", score_threshold=score)
    assert [box.score for box in models.read(image).boxes] == [score]
    assert loaded.settings.shown_score == 0.5 and models.settings.shown_score == 0, "who asks for a score wants to see it"
    reading = loaded.read(image)
    assert reading.shown_score == reading.origin["settings"]["shown_score"] == 0.5 and len(reading.shown) < len(reading.boxes)
    with pytest.raises(ConfigError, match=r"--score-threshold 1\.5: expected a score from 0 to 1"):
        load_models(results / "train_detector", results / "train_report_model", score_threshold=1.5)


def test_a_report_that_loses_all_is_not_read(finished_run: Path, loaded: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    image = finished_run / "images" / FILES["front"]
    before = loaded.read(image).hypothesis

    def judge(self: Any, model: Any, encoded: Any) -> Any:
        return refuse({before}, model.tokens)

    monkeypatch.setattr("d2rnet.cxr.report_model.unsaid.UnsaidFindings.__call__", judge)
    assert loaded.read(image).hypothesis != before


def test_unknown_view_and_exif_orientation_are_said(loaded: Models, tmp_path: Path) -> None:
    side = write_dicom(tmp_path / "side.dcm", draw_chest((120, 100), 1), ViewPosition="LL")
    assert loaded.read(side).warnings[0] == "side.dcm: view LATERAL; the models were trained on PA, AP"
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(draw_chest((120, 100), 1)).save(turned, exif=exif)
    reading = loaded.read(turned)
    assert reading.warnings[0] == "turned.jpg: carries EXIF orientation 6; pixels are taken as stored"
    assert (reading.images[0].height, reading.images[0].width) == (120, 100)


def test_detected_boxes_of_other_views_are_left_out_as_in_training(loaded: Models, tmp_path: Path) -> None:
    models = replace(loaded, settings=loaded.settings.replaced(box_views=("PA", "AP")))
    for view, kept in (("PA", True), ("LL", False), (None, True)):
        file = write_dicom(tmp_path / f"{view}.dcm", draw_chest((120, 100), 1), **({"ViewPosition": view} if view else {}))
        reading = models.read(file, boxes=["10,20,30,40=Edema"])
        assert bool(loaded.read(file).boxes) and [box.label for box in reading.boxes if box.score == 1] == ["Edema"]
        assert (len(reading.boxes) > 1) is kept
        said = "LL.dcm: view LATERAL: detected boxes are left out, as in training (boxes on PA, AP alone)"
        assert (said in reading.warnings) is not kept


def test_what_is_no_chest_radiograph_is_said_or_refused(loaded: Models, tmp_path: Path) -> None:
    file = write_dicom(tmp_path / "hand.dcm", draw_chest((120, 100), 1), Modality="CR", BodyPartExamined="HAND")
    reading = loaded.read(file)
    assert reading.warnings[0] == "hand.dcm: body part HAND; expected CHEST" and reading.sentences
    with pytest.raises(DatasetError, match=r"hand\.dcm: body part HAND; expected CHEST\. .*without --strict"):
        loaded.read(file, strict=True)
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((120, 100), np.uint8)).save(black)
    assert loaded.read(black).warnings[0] == "black.png: all pixels have one grey level"
    sound = write_dicom(tmp_path / "sound.dcm", draw_chest((120, 100), 1), Modality="CR", BodyPartExamined="CHEST")
    assert not any("sound.dcm" in warning for warning in loaded.read(sound, strict=True).warnings)


def test_models_of_drawings_say_so_of_all_but_drawings(finished_run: Path, loaded: Models, tmp_path: Path) -> None:
    words = "trained on synthetic drawings: on a real radiograph every finding is meaningless"
    models = replace(loaded, settings=loaded.settings.replaced(synthetic=True))
    real = finished_run / "images" / FILES["front"]
    drawing = tmp_path / "cohort" / "mimic" / "files" / "front.png"
    drawing.parent.mkdir(parents=True)
    drawing.write_bytes(real.read_bytes())
    (tmp_path / "cohort" / "cohort.json").write_text("{}")
    assert words not in models.read(drawing).warnings and words not in loaded.read(real).warnings
    assert words in models.read_study([drawing, real]).warnings, "one of the views is no drawing"
    reading = models.read(real)
    files = reading.save(tmp_path / "out")
    assert f"Warning: {words}" in reading.to_text() and words in reading.to_json()["warnings"]
    assert f'<p class="warning">{words}</p>' in files["html"].read_text(encoding="utf-8")


def test_unlike_grey_levels_are_said_and_never_refused(loaded: Models, tmp_path: Path) -> None:
    pixels = draw_chest((120, 100), 1)
    like = write_dicom(tmp_path / "like.dcm", pixels)
    unlike = write_dicom(tmp_path / "unlike.dcm", 255 - pixels)
    small = reduce(read_radiograph(like, max_side_px=96).pixels)
    noise = np.random.default_rng(0)
    varied = [np.clip(small + noise.normal(0, 3, small.shape), 0, 255) for _ in range(20)]
    levels = describe_grey_levels([small, *varied])
    models = replace(loaded, settings=loaded.settings.replaced(grey_levels=levels.to_json()))
    said = "unlike.dcm: grey levels unlike the images this model was trained on: likeness -"
    for strict in (False, True):
        warnings = models.read_study([like, unlike], strict=strict).warnings
        assert [warning.startswith(said) for warning in warnings if "grey levels" in warning] == [True]
    assert not any("grey levels" in warning for warning in loaded.read(unlike).warnings)


def test_findings_that_were_cut_are_said(finished_run: Path, loaded: Models) -> None:
    reading = loaded.read(finished_run / "images" / FILES["front"])
    assert ("the findings were cut at 12 tokens" in reading.warnings) == (len(reading.hypothesis.split()) == 12)


def test_two_folders_copied_elsewhere_are_enough(finished_run: Path, loaded: Models, tmp_path: Path) -> None:
    image = tmp_path / "chest.png"
    image.write_bytes((finished_run / "images" / FILES["front"]).read_bytes())
    for name in ("train_detector", "train_report_model"):
        shutil.copytree(finished_run / "results/cxr" / name, tmp_path / name)
    reading = load_models(tmp_path / "train_detector", tmp_path / "train_report_model", device="cpu").read(image)
    before = loaded.read(image)
    assert (reading.boxes, reading.hypothesis, reading.origin) == (before.boxes, before.hypothesis, before.origin)


def test_a_file_is_decoded_once_and_its_header_parsed_once(
    loaded: Models, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(name: str) -> Callable[..., Any]:
        function = getattr(dicom_file, name)
        return lambda *values, **options: calls.append(name) or function(*values, **options)

    for name in ("read_partial", "pixel_array"):
        monkeypatch.setattr(dicom_file, name, counted(name))
    reading = loaded.read(finished_run / "images" / FILES["scan"])
    reading.save(tmp_path)
    export = CocoExport(tmp_path / "coco")
    export.add(reading)
    assert calls == ["read_partial", "pixel_array"]


def test_report_model_of_another_detector_is_said(finished_run: Path, loaded: Models, tmp_path: Path) -> None:
    from d2rnet.cxr.detector.checkpoint import save_weights

    (tmp_path / "config.yaml").write_bytes((finished_run / "results/cxr/train_detector/config.yaml").read_bytes())
    loaded.detector.roi_heads.box_predictor.cls_score.bias.data += 1
    save_weights(tmp_path / "model_final.pth", loaded.detector)
    loaded.detector.roi_heads.box_predictor.cls_score.bias.data -= 1
    models = load_models(tmp_path, finished_run / "results/cxr/train_report_model", device="cpu")
    assert models.warnings == ("the report model was trained on boxes of another detector",)
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "match"),
    [({"NumberOfFrames": 3}, "3 frames"), ({"PhotometricInterpretation": "PALETTE COLOR"}, "photometric")],
)
def test_bad_dicom_gives_the_converters_error(loaded: Models, tmp_path: Path, attributes: dict, match: str) -> None:
    path = write_dicom(tmp_path / "bad.dcm", draw_chest((60, 50), 2), **attributes)
    with pytest.raises(DatasetError, match=match) as read:
        loaded.read(path)
    with pytest.raises(DatasetError) as converted:
        read_radiograph(path)
    assert str(read.value) == str(converted.value) and SECRET not in str(read.value)


def test_study_without_image_is_refused(loaded: Models) -> None:
    with pytest.raises(DatasetError, match="without any image"):
        loaded.read_study([])


def test_missing_model_folders_and_files_are_named(finished_run: Path, tmp_path: Path) -> None:
    results = finished_run / "results" / "cxr"
    with pytest.raises(FileNotFoundError, match=r"gone: no such folder.*'d2rnet train-detector'.*--detector"):
        load_models(tmp_path / "gone", results / "train_report_model")
    with pytest.raises(FileNotFoundError, match="--report-model"):
        load_models(results / "train_detector", tmp_path / "gone")
    (tmp_path / "train_detector").mkdir()
    with pytest.raises(CheckpointError, match=r"train_detector/config\.yaml: no such file"):
        load_models(tmp_path / "train_detector", results / "train_report_model")


def test_package_offers_the_api_without_importing_torch() -> None:
    code = (
        "import sys, d2rnet; assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "d2rnet.Reading; assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert d2rnet.load_models.__module__ == "d2rnet.reading.cxr"
    with pytest.raises(AttributeError, match="no attribute 'load_model'"):
        _ = d2rnet.load_model
