"""Boxes of a person: how they are given and refused, what becomes of them among detected ones, and the sentences for them."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reading_samples import FILES, STUDIES, draw_chest
from test_result import make_reading

import d2rnet
from d2rnet.cli.entry import main
from d2rnet.cxr.annotation.predictions import PseudoBoxes
from d2rnet.cxr.detector.predict import classify_boxes, network_input
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json
from d2rnet.reading.box_files import boxes_of_files, boxes_of_study, read_boxes
from d2rnet.reading.coco_export import CocoExport
from d2rnet.reading.content import Box, Sentence, View
from d2rnet.reading.cxr import Models, load_models
from d2rnet.reading.own_boxes import OwnBox, parse_box, with_own_boxes
from d2rnet.reading.radiograph_page import page_text
from d2rnet.reading.result import Reading

CSV = "image,x,y,width,height,class,score\na.png,1,2,3,4,ILD,0.5\na.png,5,6,7.5,8,,\nsub/b.dcm,0,0,9,9,Edema,1\n"


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1,2,3,4", ((1.0, 2.0, 3.0, 4.0), "")),
        ("1.5, 2, 3, 4=Nodule/Mass", ((1.5, 2.0, 3.0, 4.0), "Nodule/Mass")),
        ("0,0,5,5= Pleural effusion", ((0.0, 0.0, 5.0, 5.0), "Pleural effusion")),
    ],
)
def test_box_of_the_command_line(text: str, box: tuple[Any, str]) -> None:
    found = parse_box(text)
    assert (found.xywh, found.label, found.score) == (*box, 1.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("1,2,3", "--box 1,2,3: expected x,y,width,height or x,y,width,height=class"),
        ("a,b,c,d", "--box a,b,c,d: expected x,y,width,height"),
        ("1,2,0,4", r"--box 1,2,0,4: got \[1.0, 2.0, 0.0, 4.0\]; expected .* width and height above 0"),
        ("1,2,nan,4", "expected x, y, width, height in pixels"),
        ("1,2,3,4=Nodul", r"--box 1,2,3,4=Nodul: class 'Nodul'\. did you mean 'Nodule/Mass'\?"),
    ],
)
def test_what_is_no_box_is_refused_by_its_text(text: str, complaint: str) -> None:
    with pytest.raises(DatasetError, match=complaint):
        parse_box(text)


def test_table_by_hand(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(CSV, encoding="utf-8-sig")
    boxes = read_boxes(tmp_path / "boxes.csv")
    assert {name: [(box.xywh, box.label, box.score) for box in own] for name, own in boxes.items()} == {
        "a.png": [((1.0, 2.0, 3.0, 4.0), "ILD", 0.5), ((5.0, 6.0, 7.5, 8.0), "", 1.0)],
        "sub/b.dcm": [((0.0, 0.0, 9.0, 9.0), "Edema", 1.0)],
    }
    assert boxes["a.png"][1].place == f"{tmp_path / 'boxes.csv'}: row 2"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("image,x,y,width\na,1,2,3\n", r"boxes\.csv: no column height; found: image, x, y, width\."),
        ("", r"boxes\.csv: no column image, x, y, width, height; found: nothing"),
        ("image,x,y,width,height\na,1,2,3,4\na,1,2,three,4\n", r"boxes\.csv: row 2: got .* 1, 2, three, 4; expected numbers"),
        ("image,x,y,width,height\na,1,2\n", r"row 1: got x, y, width, height 1, 2, None, None; expected numbers"),
        ("image,x,y,width,height\na,1,2,3,4,5\n", r"row 1: got more fields than columns"),
        ("image,x,y,width,height\n,1,2,3,4\n", r"row 1: got no image"),
        ("image,x,y,width,height,class\na,1,2,3,4,Noduls\n", r"boxes\.csv: row 1: class 'Noduls'\. did you mean"),
        ("image,x,y,width,height,score\na,1,2,3,4,7\n", r"row 1: got score 7.0; expected 0 to 1"),
        ("image,x,y,width,height\na,1,2,-3,4\n", r"row 1: got \[1.0, 2.0, -3.0, 4.0\]"),
    ],
)
def test_bad_tables_name_file_and_row(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "boxes.csv").write_text(text)
    with pytest.raises(DatasetError, match=complaint):
        read_boxes(tmp_path / "boxes.csv")


def coco(**changes: Any) -> dict[str, Any]:
    """A COCO document of one box, with a class number of its own."""
    annotation = {"id": 5, "image_id": 1, "category_id": 77, "bbox": [1, 2, 3, 4], **changes}
    images = [
        {"id": 1, "file_name": "a.png", "height": 90, "width": 80},
        {"id": 2, "file_name": "c.png", "height": 1, "width": 1},
    ]
    categories = [{"id": 77, "name": "Edema"}, {"id": 78, "name": "Oedema"}]
    return {"images": images, "annotations": [annotation], "categories": categories}


def test_coco_by_hand_and_its_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    write_json(path, coco())
    (box,) = read_boxes(path)["a.png"]
    assert (box.xywh, box.label, box.score, box.image_hw) == ((1, 2, 3, 4), "Edema", 1.0, (90, 80))
    assert read_boxes(path)["c.png"] == []
    for changes, complaint in (
        ({"category_id": 78}, r"boxes\.json: annotation 5: class 'Oedema'\. did you mean 'Edema'"),
        ({"bbox": [1, 2, 3]}, r"annotation 5: got \[1, 2, 3\]; expected x, y, width, height"),
        ({"bbox": "1 2 3 4"}, r"annotation 5: got bbox '1 2 3 4'"),
        ({"score": "high"}, r"annotation 5: got bbox .*, score 'high'"),
        ({"image_id": 9}, "unknown image_id"),
    ):
        write_json(path, coco(**changes))
        with pytest.raises(DatasetError, match=complaint):
            read_boxes(path)


@pytest.mark.parametrize("name", ["b.dcm", "b", "b.png", "sub/b.dcm", "sub/b", "sub\\b.dcm"])
def test_names_are_ends_of_paths_with_or_without_suffix(tmp_path: Path, name: str) -> None:
    box = OwnBox((0, 0, 1, 1), "ILD")
    files = [tmp_path / "a.dcm", tmp_path / "sub/b.dcm", tmp_path / "sub/bb.dcm"]
    assert boxes_of_files({name: [box]}, files, source=Path("boxes.csv")) == {files[1]: [box]}


def test_a_whole_name_goes_before_a_stem(tmp_path: Path) -> None:
    box = OwnBox((0, 0, 1, 1), "ILD")
    files = [tmp_path / "b.dcm", tmp_path / "b.png"]
    assert boxes_of_files({"b.png": [box]}, files, source=Path("boxes.csv")) == {files[1]: [box]}
    with pytest.raises(DatasetError, match=r"image 'b' fits .*b\.dcm and .*b\.png"):
        boxes_of_files({"b": [box]}, files, source=Path("boxes.csv"))


def test_names_that_fit_no_image_or_two(tmp_path: Path) -> None:
    box = OwnBox((0, 0, 1, 1), "ILD")
    files = [tmp_path / "s1/a.png", tmp_path / "s2/a.png"]
    with pytest.raises(DatasetError, match=r"boxes\.csv: image 'a\.png' fits .*s1/a\.png and .*s2/a\.png; .*more of its path"):
        boxes_of_files({"a.png": [box]}, files, source=Path("boxes.csv"))
    with pytest.raises(DatasetError, match=r"boxes\.csv: none of its 1 images is read, such as 'x\.png'; .*such as a\.png"):
        boxes_of_files({"x.png": [box]}, files, source=Path("boxes.csv"))
    found = boxes_of_files({"s2/a.png": [box], "x.png": [box]}, files, source=Path("boxes.csv"))
    assert [(one.image, one.xywh) for one in boxes_of_study(files, found)] == [(1, (0, 0, 1, 1))]


@pytest.mark.parametrize(
    ("xywh", "inside"),
    [
        ((0, 0, 80, 90), (0, 0, 80, 90)),
        ((-1, -0.5, 10, 10), (0, 0, 9, 9.5)),
        ((75, 85, 6, 6), (75, 85, 80, 90)),
        ((0.004, 1.006, 2, 2), (0, 1.01, 2, 3.01)),
    ],
)
def test_a_box_may_stick_out_by_a_pixel_and_is_cut(xywh: Any, inside: Any) -> None:
    view = View(Path("a.png"), "", np.zeros((90, 80), np.uint8))
    assert OwnBox(xywh).inside(view) == inside


def test_a_box_outside_or_of_another_size_is_refused() -> None:
    view = View(Path("a.png"), "", np.zeros((90, 80), np.uint8))
    outside = ((-2, 0, 9, 9), (0, -2, 9, 9), (75, 0, 7, 9), (0, 85, 9, 7))
    without_area = ((80.4, 0, 0.5, 9), (-0.9, 0, 0.5, 9), (0, 90.4, 9, 0.5), (10, 10, 0.004, 9))
    for xywh in (*outside, *without_area):
        with pytest.raises(DatasetError, match=r"row 3: got x, y, width, height .*; expected a box within a\.png, 80 x 90 px"):
            OwnBox(xywh, place="row 3").inside(view)
    with pytest.raises(DatasetError, match=r"got a box on an image of 40 x 45 px; expected a\.png, 80 x 90 px"):
        OwnBox((0, 0, 9, 9), image_hw=(45, 40)).inside(view)


def test_own_boxes_among_detected_ones_by_hand() -> None:
    """Of the second image a detected box of the same class and nearly the same place goes; one of another class stays."""
    square = [0.0, 0.0, 10.0, 10.0]
    detected = PseudoBoxes(
        np.array([0, 1, 1]), np.array([3, 3, 4]), np.array([0.9, 0.8, 0.7]), np.array([square, [0, 0, 10, 9], square])
    )
    own = PseudoBoxes(np.array([1, 1]), np.array([3, 5]), np.array([1.0, 0.7]), np.array([square, [2, 2, 5, 5]]))
    boxes, is_own = with_own_boxes(detected, own, nms_iou=0.5)
    assert boxes.rows.tolist() == [0, 1, 1, 1] and boxes.category_ids.tolist() == [3, 3, 5, 4]
    assert boxes.scores.tolist() == [0.9, 1.0, 0.7, 0.7] and is_own == [False, True, True, False]
    assert boxes.boxes_xyxy[2].tolist() == [2.0, 2.0, 5.0, 5.0]
    assert with_own_boxes(detected, own, nms_iou=0.95)[1] == [False, True, False, True, False]
    nobody = own.take(np.zeros(2, dtype=bool))
    assert with_own_boxes(detected, nobody, nms_iou=0.5)[1] == [False] * 3
    assert with_own_boxes(detected.take(np.zeros(3, dtype=bool)), own, nms_iou=0.5)[1] == [True, True]


def own_reading(tmp_path: Path) -> Reading:
    """Nodules of a person on either side (800 px across), and a detected heart."""
    boxes = (
        Box(0, "Nodule/Mass", 1.0, (100.0, 100.0, 80.0, 60.0), own=True),
        Box(0, "Nodule/Mass", 1.0, (600.0, 100.0, 80.0, 60.0), own=True),
        Box(0, "Rib fracture", 1.0, (600.0, 300.0, 80.0, 60.0), own=True),
        Box(0, "Cardiomegaly", 0.9, (200.0, 500.0, 400.0, 300.0)),
    )
    sentences = (
        Sentence("There is a nodule in the right lung.", (), 2, (0,)),
        Sentence("Nodules are seen.", (), 0, (0,)),
        Sentence("No rib fracture.", (), 2),
        Sentence("The heart is enlarged.", (), 1, (3,)),
    )
    return make_reading(tmp_path / "chest.png", boxes=boxes, sentences=sentences)


def test_no_half_of_a_lateral_image_is_a_side(tmp_path: Path) -> None:
    """The nodule on the right half of the picture was denied by the sentence of the right lung."""
    reading = own_reading(tmp_path)
    assert reading.for_own_boxes[1] == ([1], [3])
    lateral = replace(reading, images=(replace(reading.images[0], view="LATERAL"),))
    assert lateral.for_own_boxes == {0: ([0, 1], []), 1: ([0, 1], [3]), 2: ([], [0, 2])}


def test_sentences_for_own_boxes_by_hand(tmp_path: Path) -> None:
    reading = own_reading(tmp_path)
    # the right one: its side, and the sentence without one; the left one: the latter alone, and the heart's looks at it
    assert reading.for_own_boxes == {0: ([0, 1], []), 1: ([1], [3]), 2: ([], [0, 2])}
    assert reading.to_json()["own_boxes"][1] == {"box": 1, "sentences": [1], "attended_by": [3]}
    assert [box["own"] for box in reading.to_json()["boxes"]] == [True, True, True, False]
    lines = [line.strip() for line in reading.to_text().splitlines()]
    assert lines[lines.index("For your boxes:") + 1 :] == [
        "1 There is a nodule in the right lung.",
        "1 Nodules are seen.",
        "2 Nodules are seen.",
        "2 attended, not proof: The heart is enlarged.",
        "3 no sentence names it",
        "3 attended, not proof: There is a nodule in the right lung.",
        "3 attended, not proof: No rib fracture.",
    ]
    assert "1 Nodule/Mass          1.00  100, 100, 80, 60, yours" in lines
    page = page_text(reading)
    assert (
        "<h2>For your boxes</h2>" in page and '<li tabindex="0" data-boxes="1">2 <small>Nodules are seen.</small></li>' in page
    )
    assert "<h2>For your boxes</h2>" not in page_text(make_reading(tmp_path / "chest.png"))
    assert "For your boxes" not in make_reading(tmp_path / "chest.png").to_text()


@pytest.fixture(scope="module")
def without_detector(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """The report model alone; there is no folder of a detector."""
    folder = tmp_path_factory.mktemp("nothing")
    return load_models(folder / "gone", finished_run / "results/cxr/train_report_model", device="cpu", run_detector=False)


@pytest.mark.parametrize("name", ["front", "scan"])
def test_detected_boxes_given_back_as_own_ones_give_the_same_reading(
    finished_run: Path, loaded: Models, without_detector: Models, tmp_path: Path, name: str
) -> None:
    """Through the COCO export; a DICOM file is known by its stem."""
    file = finished_run / "images" / FILES[name]
    detected = loaded.read(file)
    export = CocoExport(tmp_path)
    export.add(detected)
    export.write()
    boxes = boxes_of_files(read_boxes(tmp_path / "labels.json"), [file], source=tmp_path)[file]
    reading = without_detector.read(file, boxes=boxes)
    assert [replace(box, own=False) for box in reading.boxes] == list(detected.boxes) and len(detected.boxes) > 1
    assert all(box.own for box in reading.boxes)
    assert (reading.hypothesis, reading.log_prob) == (detected.hypothesis, detected.log_prob)
    assert reading.sentences == detected.sentences
    assert set(reading.origin["models"]) == {"report_model"} and reading.warnings == detected.warnings


def test_an_own_box_decides_what_is_written(finished_run: Path, without_detector: Models) -> None:
    file = finished_run / "images" / FILES["front"]
    nothing = without_detector.read(file)
    assert nothing.boxes == () and all(sentence.linked == () for sentence in nothing.sentences)
    log_probs = {without_detector.read(file, boxes=[f"5,5,40,40={label}"]).log_prob for label in ("ILD", "Edema")}
    assert len(log_probs | {nothing.log_prob}) == 3


def test_own_boxes_stand_beside_the_detector_s(finished_run: Path, loaded: Models) -> None:
    file = finished_run / "images" / FILES["front"]  # 120 x 150 px
    before = loaded.read(file)
    reading = loaded.read(file, boxes=[OwnBox((3.0, 4.0, 7.0, 8.0), "Rib fracture"), "60,70,20,30=Edema"])
    own = [box for box in reading.boxes if box.own]
    assert [(box.label, box.xywh, box.score) for box in own] == [
        ("Rib fracture", (3.0, 4.0, 7.0, 8.0), 1.0),
        ("Edema", (60.0, 70.0, 20.0, 30.0), 1.0),
    ]
    others = [box for box in reading.boxes if not box.own]
    assert others == [box for box in before.boxes if box in others] and len(others) >= len(before.boxes) - 2
    assert list(reading.boxes) == sorted(reading.boxes, key=lambda box: -box.score)


def test_a_box_without_a_class_is_taken_for_what_the_detector_says(finished_run: Path, loaded: Models) -> None:
    file = finished_run / "images" / FILES["front"]
    reading = loaded.read(file, boxes=["20,30,60,70"])
    (box,) = [box for box in reading.boxes if box.own]
    (note,) = [warning for warning in reading.warnings if "has no class" in warning]
    assert re.fullmatch(rf"your box 20,30,60,70 has no class; the detector takes it for {box.label} \(0\.\d\d\)", note)
    assert box.xywh == (20.0, 30.0, 60.0, 70.0) and box.score == 1.0
    again = loaded.read(file, boxes=[f"20,30,60,70={box.label}"])
    assert again.boxes == reading.boxes and again.log_prob == reading.log_prob


def test_class_of_a_given_box_by_hand(loaded: Models) -> None:
    """Logits 3 of background, 2 of the seventh class, 0 of 21 others, whatever the box; it is scaled to the input's size."""
    detector = copy.deepcopy(loaded.detector)
    heads = detector.roi_heads
    layer = heads.box_predictor.cls_score
    logits = torch.zeros(23)
    logits[6], logits[22] = 2.0, 3.0
    layer.weight.data.zero_()
    layer.bias.data.copy_(logits)
    seen = []
    own = heads.class_probabilities
    heads.class_probabilities = lambda features, boxes: seen.extend(boxes) or own(features, boxes)
    item = network_input(draw_chest((96, 48), 1), 1, loaded.cfg)
    height, width = item["image"].shape[1:]
    boxes = np.array([[0.0, 0.0, 48.0, 96.0], [12.0, 24.0, 24.0, 48.0]])
    found = classify_boxes(detector, item, boxes, loaded.settings.prediction)
    sure = math.exp(2) / (math.exp(2) + math.exp(3) + 21)
    assert found == [(7, pytest.approx(sure, abs=1e-5))] * 2
    assert seen[0].tensor.tolist() == [[0, 0, width, height], [width / 4, height / 4, width / 2, height / 2]]


def test_study_boxes_lie_on_their_image(finished_run: Path, without_detector: Models) -> None:
    files = [finished_run / "images" / FILES[name] for name in STUDIES["s1"]]  # 120 x 150 and 170 x 130 px
    box = OwnBox((130.0, 10.0, 30.0, 30.0), "ILD", image=1)
    assert without_detector.read_study(files, boxes=[box]).boxes == (Box(1, "ILD", 1.0, (130.0, 10.0, 30.0, 30.0), own=True),)
    with pytest.raises(DatasetError, match=r"box: got x, y, .* expected a box within front\.png, 120 x 150 px"):
        without_detector.read_study(files, boxes=[replace(box, image=0)])
    with pytest.raises(DatasetError, match="box: got image 2; expected 0 to 1"):
        without_detector.read_study(files, boxes=[replace(box, image=2)])


def test_without_a_detector_a_class_is_needed(finished_run: Path, without_detector: Models) -> None:
    with pytest.raises(ConfigError, match=r"--box 1,2,30,40: got no class, and no detector is run"):
        without_detector.read(finished_run / "images" / FILES["front"], boxes=["1,2,30,40"])


@pytest.fixture
def arguments(finished_run: Path, tmp_path: Path) -> list[str]:
    """Options that name the report model and the output; there is no detector."""
    model = finished_run / "results/cxr/train_report_model"
    return [
        "--detector",
        str(tmp_path / "gone"),
        "--report-model",
        str(model),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "out"),
    ]


def test_command_with_a_box(
    finished_run: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    image = str(finished_run / "images" / FILES["scan"])  # 140 x 160 px
    assert (
        main(["read", image, *arguments, "--no-detector", "--box", "10,20,30,40=Pleural effusion", "--box=70,20,30,40=ILD"])
        == 0
    )
    document = read_json(tmp_path / "out/scan.json")
    assert [(box["label"], box["bbox"], box["own"]) for box in document["boxes"]] == [
        ("Pleural effusion", [10.0, 20.0, 30.0, 40.0], True),
        ("ILD", [70.0, 20.0, 30.0, 40.0], True),
    ]
    assert [one["box"] for one in document["own_boxes"]] == [0, 1]
    shown = capsys.readouterr().out
    assert "  For your boxes:" in shown and ", yours" in shown


def test_command_with_a_file_of_boxes(
    finished_run: Path, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A box outside its image is a failure of that image alone; one without boxes is read without."""
    table = tmp_path / "boxes.csv"
    table.write_text(
        "image,x,y,width,height,class\nfront.png,10,10,50,50,ILD\ntall.png,0,0,300,50,ILD\nelsewhere.png,1,1,2,2,ILD\n"
    )
    folder = str(finished_run / "images")
    assert main(["read", folder, *arguments, "--no-detector", "--boxes", str(table)]) == 3
    documents = {path.stem: read_json(path) for path in (tmp_path / "out").rglob("*.json")}
    assert {name: len(document["boxes"]) for name, document in documents.items()} == {"front": 1, "second": 0, "scan": 0}
    (failure,) = read_jsonl(tmp_path / "out/failures.jsonl")
    assert failure["error"].startswith(
        f"{table}: row 2: got x, y, width, height 0, 0, 300, 50; expected a box within tall.png, 90 x 200"
    )
    assert "1 of its 3 images are not read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--no-detector"], "--no-detector: got no boxes; expected yours, with --box or --boxes"),
        (["--no-detector", "--box", "1,2,3,4"], "--box 1,2,3,4: got no class, and no detector is run"),
        (["--box", "1,2,3,4=Noduls"], "--box 1,2,3,4=Noduls: class 'Noduls'. did you mean 'Nodule/Mass'?"),
        (["--boxes", "gone.csv"], "gone.csv: no such file"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    finished_run: Path, arguments: list[str], words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["read", str(finished_run / "images" / FILES["front"]), *arguments, *words]) == 2
    assert complaint in capsys.readouterr().err


def test_a_box_is_for_one_radiograph(finished_run: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["read", str(finished_run / "images"), *arguments, "--no-detector", "--box", "1,2,3,4=ILD"]) == 2
    assert "--box: got 4 radiographs; expected one. Give boxes of several in a file, with --boxes" in capsys.readouterr().err


def test_python_has_the_box() -> None:
    assert d2rnet.OwnBox is OwnBox and "OwnBox" in dir(d2rnet)
