"""convert-labelled: frames, splits, ids, quarantine, broken input, and the open NIH subset."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from conversion_samples import convert_list
from PIL import Image

from d2rnet.cxr.boxes import coco
from d2rnet.cxr.conversion.checked_tables import write_labelled
from d2rnet.cxr.conversion.convert_labelled import convert_labelled
from d2rnet.cxr.conversion.settings import ImageConversionSettings, LabelledConversionSettings, source_settings
from d2rnet.cxr.sources.sources import labelled_source
from d2rnet.errors import DatasetError
from d2rnet.files.documents import write_json
from d2rnet.files.problems import Problems

SHARED = Path(os.environ.get("D2RNET_SHARED", Path(__file__).resolve().parents[4] / "shared"))
REAL = SHARED / "data" / "nih_chestxray14"
HEIGHT, WIDTH = 200, 100


def write_png(path, *, height=HEIGHT, width=WIDTH):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(height * width, dtype=np.uint8).reshape(height, width)).save(path)


@pytest.fixture
def root(tmp_path):
    """A VinDr-CXR tree of 6 training images (image i has i readers' boxes) and 2 test images, all 100 x 200 px (w x h)."""
    root = tmp_path / "vindr"
    train = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max"]
    for number in range(6):
        write_png(root / "train" / f"t{number}.png")
        for reader in range(3):
            drawn = reader < number
            train.append(f"t{number},R{reader},{'Edema,20,40,60.5,120' if drawn else 'No finding,,,,'}")
    for name in ("e0", "e1"):
        write_png(root / "test" / f"{name}.png")
    (root / "annotations").mkdir()
    (root / "annotations" / "annotations_train.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(train).encode())
    test = "image_id,class_name,x_min,y_min,x_max,y_max\ne0,ILD,0,0,100.5,200\ne1,No finding,,,,\n"
    (root / "annotations" / "annotations_test.csv").write_text(test)
    return root


def convert(root, tmp_path, *, quarantined=(), name="labelled", max_bad_fraction=0.0, shards=2, **labelled):
    settings = LabelledConversionSettings.read(
        {
            "labelled": {"root": str(root)} | labelled,
            "conversion": {"max_side_px": 100, "max_bad_fraction": max_bad_fraction},
        }
    )
    output = tmp_path / name
    checked = tmp_path / "checked"
    table = labelled_source(settings.labelled.source).read_table(settings.labelled, Problems())
    part = write_labelled(checked, table, {str(path) for path in quarantined})
    part["settings"] = source_settings(settings, LabelledConversionSettings)
    write_json(checked / "counts.json", {"labelled": part})
    images = checked / "labelled_images.jsonl"
    convert_labelled(
        images=images,
        boxes=checked / "labelled_boxes.jsonl",
        counts=checked / "counts.json",
        shards=convert_list(images, output, ImageConversionSettings(max_side_px=100), shards=shards),
        output=output,
        settings=settings,
    )
    return {split: coco.load_coco(output / f"{split}.json") for split in ("train", "val", "test")}


def counts(tmp_path):
    return json.loads((tmp_path / "labelled" / "counts.json").read_text())


def test_splits_ids_and_frames(root, tmp_path):
    sets = convert(root, tmp_path)
    assert [len(sets[split]["images"]) for split in ("train", "val", "test")] == [5, 1, 2]
    images = [image for content in sets.values() for image in content["images"]]
    annotations = [annotation for content in sets.values() for annotation in content["annotations"]]
    assert [image["id"] for image in images] == list(range(1, 9))
    assert [annotation["id"] for annotation in annotations] == list(range(1, len(annotations) + 1))
    assert sets["test"]["images"][0] == {
        "id": 7, "file_name": "images/e0.png", "height": 100, "width": 50, "source_height": 200, "source_width": 100,
        "source_id": "e0", "split": "test",
    }  # fmt: skip
    with Image.open(tmp_path / "labelled" / "images" / "e0.png") as png:
        assert (png.size, png.mode) == ((50, 100), "L")


def test_boxes_are_scaled_to_the_png_and_keep_their_readers(root, tmp_path):
    sets = convert(root, tmp_path)
    by_source = {
        content["images"][i]["source_id"]: annotations
        for content in sets.values()
        for i, annotations in enumerate(coco.annotations_by_image(content).values())
    }
    assert by_source["t0"] == []
    for number, readers in ((1, 1), (2, 2), (3, 3), (5, 3)):
        (annotation,) = by_source[f"t{number}"]
        assert annotation["bbox"] == pytest.approx([10, 20, 20.25, 40], abs=1e-4)
        assert annotation["area"] == pytest.approx(810, abs=0.01)
        assert (annotation["category_id"], annotation["readers"], annotation["agreement"]) == (7, readers, readers / 3)
    (consensus,) = by_source["e0"]
    assert consensus["bbox"] == [0, 0, 50, 100]  # half a pixel outside: clipped
    assert "readers" not in consensus
    assert counts(tmp_path)["boxes"]["boxes_clipped_within_tolerance"] == 1


def test_counts_and_run_record(root, tmp_path):
    convert(root, tmp_path)
    found = counts(tmp_path)
    assert found["source"]["train_rows_in"] == 18
    assert found["splits"]["test"] | {"boxes_per_class": {}} == {
        "images": 2, "images_without_box": 1, "boxes": 1, "boxes_per_class": {},
    }  # fmt: skip
    assert found["splits"]["test"]["boxes_per_class"]["ILD"] == 1
    run = json.loads((tmp_path / "labelled" / "run.json").read_text())
    assert (run["command"], run["seeds"], run["counts"]) == ("convert-labelled", {"split": 1}, found)


def test_second_run_gives_the_same_bytes_and_converts_nothing(root, tmp_path):
    convert(root, tmp_path)
    files = sorted((tmp_path / "labelled").glob("*.json"))
    before = {file: file.read_bytes() for file in files if file.name != "run.json"}
    written = (tmp_path / "labelled" / "images" / "t0.png").stat().st_mtime_ns
    convert(root, tmp_path)
    assert {file: file.read_bytes() for file in before} == before
    assert (tmp_path / "labelled" / "images" / "t0.png").stat().st_mtime_ns == written


def test_any_number_of_shards_gives_the_same_files(root, tmp_path):
    written = []
    for shards in (1, 3, 16):  # more shards than images, too
        convert(root, tmp_path, name=f"in_{shards}", shards=shards)
        folder = tmp_path / f"in_{shards}"
        files = [*folder.glob("[!r]*.json"), *folder.rglob("*.png")]  # run.json apart
        written.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert len(written[0]) == 4 + 8
    assert written[0] == written[1] == written[2]


def test_sources_are_not_written_to(root, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    convert(root, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_quarantined_and_unreadable_images_are_left_out_and_counted(root, tmp_path):
    (root / "train" / "t4.png").write_bytes(b"")
    with pytest.raises(DatasetError, match="2 of 8 images are unreadable"):
        convert(root, tmp_path, quarantined=[root / "train" / "t5.png"], max_bad_fraction=0.2)
    sets = convert(root, tmp_path, quarantined=[root / "train" / "t5.png"], max_bad_fraction=0.25)
    names = {image["source_id"] for content in sets.values() for image in content["images"]}
    assert names == {"t0", "t1", "t2", "t3", "e0", "e1"}
    found = counts(tmp_path)
    assert (found["images_in"], found["images_quarantined"], found["images_unreadable"]) == (8, 1, 1)
    assert found["boxes"]["boxes_of_left_out_images"] == 6


def test_more_unreadable_images_than_allowed(root, tmp_path):
    (root / "train" / "t4.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"t4\.png"):
        convert(root, tmp_path)
    assert not (tmp_path / "labelled" / "train.json").exists()


def test_box_outside_its_image_names_the_row(root, tmp_path):
    table = root / "annotations" / "annotations_test.csv"
    table.write_text(table.read_text().replace("100.5", "150"))
    with pytest.raises(DatasetError, match=r"annotations_test\.csv: row 1 \(image e0\)") as error:
        convert(root, tmp_path)
    details = tmp_path / "labelled" / "problems.jsonl"
    assert str(details) in str(error.value)
    assert json.loads(details.read_text())["kind"] == "box_outside_image"


def test_box_outside_its_image_is_clipped_or_left_out_where_wanted(root, tmp_path):
    table = root / "annotations" / "annotations_test.csv"
    table.write_text(table.read_text().replace("100.5", "150"))
    sets = convert(root, tmp_path, name="clipped", boxes_beyond_tolerance="clip")
    assert [record["bbox"] for record in sets["test"]["annotations"]] == [[0, 0, 50, 100]]
    sets = convert(root, tmp_path, name="listed", boxes_beyond_tolerance="list")
    assert sets["test"]["annotations"] == []
    card = (tmp_path / "listed" / "data_card.md").read_text()
    assert "| boxes.boxes_listed_beyond_tolerance | 1 |" in card


def test_resized_copies_with_a_size_table(root, tmp_path):
    names = [f"t{number}" for number in range(6)] + ["e0", "e1"]
    (root / "sizes.csv").write_text("image_id,height,width\n" + "".join(f"{name},400,200\n" for name in names))
    image = convert(root, tmp_path, size_table="sizes.csv")["test"]
    assert image["images"][0] | {"id": 0} == {
        "id": 0, "file_name": "images/e0.png", "height": 100, "width": 50, "source_height": 400, "source_width": 200,
        "source_id": "e0", "split": "test",
    }  # fmt: skip
    assert image["annotations"][0]["bbox"] == [0, 0, 25.125, 50]


def test_no_image_left_for_test(root, tmp_path):
    with pytest.raises(DatasetError, match="no readable image in split test of 6"):
        convert(root, tmp_path, quarantined=[root / "test" / "e0.png", root / "test" / "e1.png"])


def test_coco_json_with_given_splits_is_kept(tmp_path):
    root = tmp_path / "foreign"
    categories = [{"id": 1, "name": "Pneumothorax"}]
    for name in ("train", "val", "test"):
        write_png(root / f"{name}.png")
        image = {"id": 5, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
        box = {"id": 1, "image_id": 5, "category_id": 1, "bbox": [10, 20, 30, 40]}
        (root / f"{name}.json").write_text(json.dumps({"images": [image], "annotations": [box], "categories": categories}))
    names = {name: f"{name}.json" for name in ("train", "val", "test")}
    sets = convert(root, tmp_path, source="coco", coco_json=names)
    for name, content in sets.items():
        assert [image["source_id"] for image in content["images"]] == [name]
        assert content["annotations"][0]["bbox"] == [5, 10, 15, 20]
        assert content["annotations"][0]["category_id"] == 19


def write_coco_source(root, name, images, **changes):
    """Write a COCO json of (file name, patient) with the box [20, 40, 60, 80] on each, and the images that are missing."""
    records = []
    for number, (file_name, patient) in enumerate(images):
        if not (root / file_name).exists():
            write_png(root / file_name, **changes)
        sizes = {"height": HEIGHT, "width": WIDTH} | changes
        records.append({"id": number, "file_name": file_name, "subject_id": patient} | sizes)
    boxes = [{"id": record["id"], "image_id": record["id"], "category_id": 1, "bbox": [20, 40, 60, 80]} for record in records]
    document = {"images": records, "annotations": boxes, "categories": [{"id": 1, "name": "Pneumothorax"}]}
    (root / name).write_text(json.dumps(document))


def test_each_axis_is_scaled_by_its_own_factor(tmp_path):
    root = tmp_path / "foreign"
    for split in ("train", "val", "test"):
        write_coco_source(root, f"{split}.json", [(f"{split}.png", "")], height=201, width=99)
    sets = convert(root, tmp_path, source="coco", coco_json={split: f"{split}.json" for split in ("train", "val", "test")})
    image, annotation = sets["test"]["images"][0], sets["test"]["annotations"][0]
    assert (image["height"], image["width"]) == (100, 49)  # 99 * 100 / 201 = 49.25
    assert annotation["bbox"] == pytest.approx([20 * 49 / 99, 40 * 100 / 201, 60 * 49 / 99, 80 * 100 / 201], abs=1e-9)


def test_patient_in_two_given_splits_is_refused(tmp_path):
    root = tmp_path / "foreign"
    for split, patient in (("train", "7"), ("val", "8"), ("test", "7")):
        write_coco_source(root, f"{split}.json", [(f"{split}.png", patient)])
    names = {split: f"{split}.json" for split in ("train", "val", "test")}
    with pytest.raises(DatasetError, match=r"1 subject_id value\(s\) are in both train and test: 7"):
        convert(root, tmp_path, source="coco", coco_json=names)


@pytest.mark.parametrize("given", [False, True])
def test_images_of_a_patient_stay_together_whatever_the_order_of_the_table(tmp_path, given):
    root = tmp_path / "foreign"
    images = [(f"i{number}.png", f"p{number % 5}") for number in range(15)]
    write_coco_source(root, "test.json", [("other.png", "q")])
    written = []
    for name, order in (("forth", images), ("back", images[::-1])):
        write_coco_source(root, "train.json", order)
        coco_json = {"train": "train.json", "test": "test.json"} if given else "train.json"
        sets = convert(root, tmp_path, name=name, source="coco", coco_json=coco_json)
        patients = [{image["subject_id"] for image in content["images"]} for content in sets.values()]
        assert sum(map(len, patients)) == 5 + given
        written.append([(tmp_path / name / f"{split}.json").read_bytes() for split in sets])
    assert written[0] == written[1]


@pytest.mark.skipif(not REAL.is_dir(), reason="the open NIH subset is not beside the repository")
def test_real_radiographs_with_both_box_tables(tmp_path):
    tables = ["BBox_List_2017.csv", "vindr_style_annotations.csv"]
    sets = convert(REAL, tmp_path, source="nih", box_tables=tables)
    assert sum(len(content["images"]) for content in sets.values()) == 84
    patients = [{image["subject_id"] for image in content["images"]} for content in sets.values()]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])
    found = counts(tmp_path)["consensus"]
    assert (found["boxes_in"], found["lesions"]) == (128, 118)
    for content in sets.values():
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for annotation in content["annotations"]:
            x, y, width, height = annotation["bbox"]
            assert x >= 0 and y >= 0
            assert x + width <= sizes[annotation["image_id"]][0] + 1e-6
            assert y + height <= sizes[annotation["image_id"]][1] + 1e-6
