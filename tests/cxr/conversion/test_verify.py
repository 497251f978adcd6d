"""verify_inputs on small data sets in the layouts of VinDr-CXR and MIMIC-CXR-JPG, each with one thing wrong."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dicom_samples import chest, data_set, write
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from d2rnet.cxr.conversion.settings import DataSettings
from d2rnet.cxr.conversion.verify import verify_inputs
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl

HEIGHT, WIDTH = 48, 40
TRAIN_IDS = [f"{number:032x}" for number in range(1, 5)]
TEST_IDS = [f"{number:032x}" for number in range(11, 13)]
# study -> (subject, split, dicom ids)
STUDIES = {
    "50000001": ("10000001", "train", ["a1-01", "a1-02"]),
    "50000002": ("10000001", "train", ["a2-01"]),
    "50000003": ("10000003", "validate", ["b1-01"]),
    "50000004": ("10000004", "test", ["c1-01"]),
}


def write_image(path: Path, shade: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH), shade, dtype=np.uint8)
    pixels[10:20, 5:15] = 200
    assert cv2.imwrite(str(path), pixels)


def mimic_image(root: Path, study_id: str, dicom_id: str) -> Path:
    subject_id = STUDIES[study_id][0]
    return root / "files" / f"p{subject_id[:2]}" / f"p{subject_id}" / f"s{study_id}" / f"{dicom_id}.jpg"


def write_gz(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))


def write_mimic(root: Path) -> None:
    split, metadata = ["dicom_id,study_id,subject_id,split"], ["dicom_id,subject_id,study_id,ViewPosition,Rows,Columns"]
    for study_id, (subject_id, split_name, dicom_ids) in STUDIES.items():
        for dicom_id in dicom_ids:
            write_image(mimic_image(root, study_id, dicom_id), 80)
            split.append(f"{dicom_id},{study_id},{subject_id},{split_name}")
            metadata.append(f"{dicom_id},{subject_id},{study_id},PA,{HEIGHT},{WIDTH}")
        report = root / "files" / f"p{subject_id[:2]}" / f"p{subject_id}" / f"s{study_id}.txt"
        report.write_text(" FINAL REPORT\n FINDINGS:\n Lungs are clear.\n\n IMPRESSION:\n Normal.\n")
    write_gz(root / "mimic-cxr-2.0.0-split.csv.gz", split)
    write_gz(root / "mimic-cxr-2.0.0-metadata.csv.gz", metadata)


def write_vindr(root: Path) -> None:
    for split, ids in (("train", TRAIN_IDS), ("test", TEST_IDS)):
        for number, source_id in enumerate(ids):
            write_image(root / split / f"{source_id}.png", 100 + number + 10 * (split == "test"))
    readers = [f"{source_id},R{reader},Cardiomegaly,5,10,15,20" for source_id in TRAIN_IDS for reader in (1, 2, 3)]
    train = ["image_id,rad_id,class_name,x_min,y_min,x_max,y_max", *readers]
    test = ["image_id,class_name,x_min,y_min,x_max,y_max", f"{TEST_IDS[0]},Edema,5,10,15,20", f"{TEST_IDS[1]},No finding,,,,"]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "annotations_train.csv").write_text("\n".join(train) + "\n")
    (root / "annotations" / "annotations_test.csv").write_text("\n".join(test) + "\n")


class Cohort:
    """Two sources on disk and the settings that point at them."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "out"
        self.vindr, self.mimic = folder / "vindr", folder / "mimic"
        write_vindr(self.vindr)
        write_mimic(self.mimic)
        self.settings: dict[str, Any] = {"labelled": {"root": str(self.vindr)}, "reports": {"root": str(self.mimic)}}

    @property
    def train_table(self) -> Path:
        return self.vindr / "annotations" / "annotations_train.csv"

    def add_row(self, row: str) -> None:
        with self.train_table.open("a") as stream:
            stream.write(row + "\n")

    def verify(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return summary.json and quarantine.jsonl."""
        verify_inputs(output=self.output, workers=1, settings=DataSettings.read(self.settings))
        return read_json(self.output / "summary.json"), list(read_jsonl(self.output / "quarantine.jsonl"))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


def test_sound_inputs_pass_and_are_counted(cohort: Cohort) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in cohort.vindr.parent.rglob("*"))
    summary, quarantine = cohort.verify()
    assert quarantine == []
    assert (cohort.output / "problems.jsonl").read_text() == ""
    assert summary["problems"] == {}
    assert summary["labelled"]["images"] == 6 and summary["labelled"]["unreadable_images"] == 0
    assert summary["labelled"]["boxes"]["boxes_kept"] == 13
    assert summary["reports"]["images"] == 5 and summary["reports"]["reports"] == 4
    assert summary["reports"]["images_of_another_size_than_stated"] == 0
    assert summary["labelled"]["unlike_the_full_release"]["train_images_in_tables"] == "4 of 15000"
    assert read_json(cohort.output / "run.json")["counts"] == summary
    after = [(path, stamp) for path, stamp in before if path.stat().st_mtime_ns != stamp]
    assert after == []  # inputs are never written to


def no_root(cohort: Cohort) -> None:
    cohort.settings["reports"]["root"] = str(cohort.mimic / "gone")


def missing_column(cohort: Cohort) -> None:
    text = cohort.train_table.read_text().replace("class_name", "class", 1)
    cohort.train_table.write_text(text)


def empty_table(cohort: Cohort) -> None:
    (cohort.mimic / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(b""))


def two_releases(cohort: Cohort) -> None:
    table = (cohort.mimic / "mimic-cxr-2.0.0-split.csv.gz").read_bytes()
    (cohort.mimic / "mimic-cxr-2.1.0-split.csv.gz").write_bytes(table)


def box_outside(cohort: Cohort) -> None:
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Edema,5,10,{WIDTH + 1.5},20")


def zero_area(cohort: Cohort) -> None:
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Edema,5,10,5,20")


def zero_area_after_clipping(cohort: Cohort) -> None:
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Edema,{WIDTH},10,{WIDTH + 1},20")


def unknown_class(cohort: Cohort) -> None:
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Cardiomegly,5,10,15,20")


def same_id_in_train_and_test(cohort: Cohort) -> None:
    cohort.add_row(f"{TEST_IDS[0]},R1,Edema,5,10,15,20")


def unsafe_id(cohort: Cohort) -> None:
    cohort.add_row("../evil,R1,Edema,5,10,15,20")


def patient_in_two_splits(cohort: Cohort) -> None:
    table = cohort.mimic / "mimic-cxr-2.0.0-split.csv.gz"
    rows = gzip.decompress(table.read_bytes()).decode().splitlines()
    write_gz(table, [row.replace("a2-01,50000002,10000001,train", "a2-01,50000002,10000001,test") for row in rows])


def image_of_test_linked_into_reports(cohort: Cohort) -> None:
    image = mimic_image(cohort.mimic, "50000002", "a2-01")
    image.unlink()
    image.symlink_to(cohort.vindr / "test" / f"{TEST_IDS[0]}.png")


def no_validation_reports(cohort: Cohort) -> None:
    report = cohort.mimic / "files" / "p10" / "p10000003" / "s50000003.txt"
    report.write_text(" FINAL REPORT\n IMPRESSION:\n Normal.\n")


@pytest.mark.parametrize(
    ("damage", "kind", "names"),
    [
        (no_root, "missing_file", ["gone", "data.reports.root", "no such file or folder"]),
        (missing_column, "missing_column", ["annotations_train.csv", "'class_name' (closest: 'class')"]),
        (empty_table, "unreadable_table", ["mimic-cxr-2.0.0-split.csv.gz", "the file is empty"]),
        (two_releases, "unreadable_table", ["2 tables fit", "mimic-cxr-2.1.0-split.csv.gz"]),
        (box_outside, "box_outside_image", ["annotations_train.csv", "row 13", TRAIN_IDS[0], "40 x 48"]),
        (zero_area, "zero_area", ["annotations_train.csv", "row 13"]),
        (zero_area_after_clipping, "zero_area", ["annotations_train.csv", "row 13"]),
        (unknown_class, "unknown_class", ["row 13", "did you mean 'Cardiomegaly'"]),
        (same_id_in_train_and_test, "id_in_train_and_test", [TEST_IDS[0]]),
        (unsafe_id, "unsafe_id", ["../evil"]),
        (patient_in_two_splits, "patient_in_two_splits", ["10000001", "test, train"]),
        (image_of_test_linked_into_reports, "labelled_test_image_in_training", ["image a2-01", "split train", TEST_IDS[0]]),
        (no_validation_reports, "empty_split", ["val", "no image with a report"]),
    ],
)
def test_one_defect_is_named_with_file_and_record(
    cohort: Cohort, damage: Callable[[Cohort], None], kind: str, names: list[str]
) -> None:
    damage(cohort)
    with pytest.raises(DatasetError, match=f"(?m)^{kind}: ") as caught:
        cohort.verify()
    for name in names:
        assert name in str(caught.value)
    assert kind in {problem["kind"] for problem in read_jsonl(cohort.output / "problems.jsonl")}
    assert kind in read_json(cohort.output / "summary.json")["problems"]


def test_problems_of_all_sources_are_shown_at_once(cohort: Cohort) -> None:
    box_outside(cohort)
    patient_in_two_splits(cohort)
    with pytest.raises(DatasetError) as caught:
        cohort.verify()
    assert "box_outside_image: 1" in str(caught.value)
    assert "patient_in_two_splits: 1" in str(caught.value)


def test_boxes_of_copies_are_compared_with_the_stated_size(cohort: Cohort) -> None:
    names = [*TRAIN_IDS, *TEST_IDS]
    rows = "".join(f"{name},{4 * HEIGHT},{4 * WIDTH}\n" for name in names)
    (cohort.vindr / "sizes.csv").write_text("image_id,height,width\n" + rows)
    cohort.settings["labelled"]["size_table"] = "sizes.csv"
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Edema,0,0,{4 * WIDTH},{4 * HEIGHT}")
    summary, _ = cohort.verify()
    assert summary["labelled"]["boxes"]["boxes_kept"] == 14
    assert summary["labelled"]["images_of_another_size_than_stated"] == 6
    cohort.add_row(f"{TRAIN_IDS[0]},R1,ILD,0,0,{4 * WIDTH + 2},{4 * HEIGHT}")
    with pytest.raises(DatasetError, match="box_outside_image: 1\n"):
        cohort.verify()


def test_box_within_a_pixel_is_clipped_and_counted(cohort: Cohort) -> None:
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Edema,-0.5,10,{WIDTH + 0.75},20")
    summary, _ = cohort.verify()
    assert summary["labelled"]["boxes"]["boxes_clipped_within_tolerance"] == 1


def test_box_further_outside_is_listed_and_left_out_of_the_conversion_where_wanted(cohort: Cohort) -> None:
    cohort.settings["labelled"]["boxes_beyond_tolerance"] = "list"
    cohort.settings["conversion"] = {"max_bad_fraction": 0.1}
    cohort.add_row(f"{TRAIN_IDS[0]},R1,Edema,-50,10,20,20")
    summary, _ = cohort.verify()
    assert summary["labelled"]["boxes"]["boxes_listed_beyond_tolerance"] == 1
    (listed,) = read_jsonl(cohort.output / "listed_boxes.jsonl")
    assert (listed["source_id"], listed["origin"], listed["outside_px"]) == (TRAIN_IDS[0], "annotations_train.csv:row 13", 50)
    cohort.settings["conversion"]["max_bad_fraction"] = 0.01
    with pytest.raises(DatasetError, match="too_many_listed_boxes: 1\n"):
        cohort.verify()


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_boxed_image_that_viewers_turn(cohort: Cohort, orientation: int, name: str) -> None:
    turn(cohort.vindr / "train" / f"{TRAIN_IDS[0]}.png", orientation, Path(name).suffix)
    with pytest.raises(DatasetError, match=f"turned_image: 1\n.*{TRAIN_IDS[0]}.*EXIF orientation {orientation}.*auto-orient"):
        cohort.verify()


@pytest.mark.parametrize("action", ["clip", "list"])
def test_tolerance_takes_no_boxed_image_that_viewers_turn(cohort: Cohort, action: str) -> None:
    turn(cohort.vindr / "train" / f"{TRAIN_IDS[0]}.png", 6, ".jpg")
    cohort.settings["labelled"] |= {
        "box_tolerance_px": 1000,
        "boxes_beyond_tolerance": action,
        "boxes_within_tolerance": action,
    }
    cohort.settings["conversion"] = {"max_bad_fraction": 1}
    with pytest.raises(DatasetError, match="turned_image: 1\n"):
        cohort.verify()


def test_image_without_a_box_may_be_turned(cohort: Cohort) -> None:
    turn(cohort.vindr / "test" / f"{TEST_IDS[1]}.png", 6, ".jpg")
    assert cohort.verify()[0]["problems"] == {}


def turn(path: Path, orientation: int, suffix: str) -> None:
    """Write an image anew with an EXIF orientation, as stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
    path.unlink()
    image.save(path.with_suffix(suffix), exif=exif)


def test_size_table_with_height_and_width_exchanged(cohort: Cohort) -> None:
    rows = "".join(f"{name},{WIDTH},{HEIGHT}\n" for name in [*TRAIN_IDS, *TEST_IDS])
    (cohort.vindr / "sizes.csv").write_text("image_id,height,width\n" + rows)
    cohort.settings["labelled"]["size_table"] = "sizes.csv"
    with pytest.raises(DatasetError, match=r"swapped_size: 6\n.*48 x 40 for a file of 40 x 48.*Draw the boxes"):
        cohort.verify()


def test_tables_of_an_earlier_check_hold_no_longer_when_a_check_fails(cohort: Cohort) -> None:
    cohort.verify()
    assert (cohort.output / "counts.json").is_file()
    missing_column(cohort)
    with pytest.raises(DatasetError):
        cohort.verify()
    assert not (cohort.output / "counts.json").exists()  # no converter goes on without it


def test_unreadable_images_are_quarantined_with_their_reason(cohort: Cohort) -> None:
    cohort.settings["conversion"] = {"max_bad_fraction": 0.3}
    (cohort.vindr / "train" / f"{TRAIN_IDS[0]}.png").write_bytes(b"")
    mimic_image(cohort.mimic, "50000001", "a1-02").unlink()
    summary, quarantine = cohort.verify()
    assert [(record["source"], record["source_id"]) for record in quarantine] == [
        ("labelled", TRAIN_IDS[0]),
        ("reports", "a1-02"),
    ]
    assert quarantine[0]["path"].endswith(f"train/{TRAIN_IDS[0]}.png")
    assert "0 bytes" in quarantine[0]["reason"]
    assert summary["labelled"]["unreadable_images"] == 1
    assert summary["labelled"]["boxes"]["boxes_of_left_out_images"] == 3


def test_what_is_no_chest_radiograph_is_quarantined_and_the_doubtful_is_counted(cohort: Cohort, tmp_path: Path) -> None:
    cohort.settings["conversion"] = {"max_bad_fraction": 0.7, "max_side_px": 64}
    extra = tmp_path / "extra"
    write_image(extra / "sound.png", shade=3)
    assert cv2.imwrite(str(extra / "black.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert cv2.imwrite(str(extra / "icon.png"), np.arange(64, dtype=np.uint8).reshape(8, 8))
    assert cv2.imwrite(str(extra / "strip.png"), np.arange(100 * 40, dtype=np.uint16).reshape(100, 40).astype(np.uint8))
    cohort.settings["extra_unlabelled"] = [{"source": "folder", "root": str(extra)}]
    summary, quarantine = cohort.verify()
    counts = summary["extra_unlabelled[0]"]
    assert counts["no_chest_radiographs"] == {"one_grey_level": 1, "side": 1} and counts["unreadable_images"] == 0
    assert counts["doubtful_images"] == {"aspect": 1}
    assert summary["reports"]["no_chest_radiographs"] == summary["reports"]["doubtful_images"] == {}
    reasons = {record["source_id"]: record["reason"] for record in quarantine}
    assert reasons == {
        "black": f"{extra}/black.png: no chest radiograph: all pixels have one grey level. Leave it out.",
        "icon": f"{extra}/icon.png: no chest radiograph: 8 x 8 px; expected at least 32 px a side. Leave it out.",
    }
    names = [Path(record["file_name"]).stem for record in read_jsonl(cohort.output / "unlabelled_images.jsonl")]
    assert [name for name in names if name.startswith("extra")] == ["extra1_sound", "extra1_strip"]


def test_images_to_convert_are_listed_without_those_left_out(cohort: Cohort, tmp_path: Path) -> None:
    cohort.settings["conversion"] = {"max_bad_fraction": 0.3}
    (cohort.vindr / "train" / f"{TRAIN_IDS[0]}.png").write_bytes(b"")
    mimic_image(cohort.mimic, "50000001", "a1-02").unlink()
    extra = tmp_path / "extra"
    write_image(extra / "new.png", 3)
    write_image(extra / f"{TRAIN_IDS[2]}.png")
    cohort.settings["extra_unlabelled"] = [{"source": "folder", "root": str(extra)}]
    cohort.verify()
    labelled = list(read_jsonl(cohort.output / "labelled_images.jsonl"))
    assert [record["file_name"] for record in labelled] == [f"images/{name}.png" for name in (*TRAIN_IDS[1:], *TEST_IDS)]
    assert labelled[-1]["source"] == str(cohort.vindr / "test" / f"{TEST_IDS[1]}.png")
    unlabelled = list(read_jsonl(cohort.output / "unlabelled_images.jsonl"))
    names = [Path(record["file_name"]).stem for record in unlabelled]
    assert names == ["a1-01", "a2-01", "b1-01", "c1-01", "extra1_new"]
    assert unlabelled[0]["source"] == str(mimic_image(cohort.mimic, "50000001", "a1-01"))
    assert unlabelled[-1]["source"] == str(extra / "new.png")


def test_too_many_unreadable_images_stop_the_run(cohort: Cohort) -> None:
    (cohort.vindr / "train" / f"{TRAIN_IDS[0]}.png").write_bytes(b"\x89PNG")
    with pytest.raises(DatasetError, match=r"too_many_unreadable_images: 1\n.*data.labelled: .*at most 1.00% of 6 images"):
        cohort.verify()
    assert len(list(read_jsonl(cohort.output / "quarantine.jsonl"))) == 1


def test_reports_that_are_not_utf8_are_listed_and_limited(cohort: Cohort) -> None:
    report = cohort.mimic / "files" / "p10" / "p10000001" / "s50000002.txt"
    report.write_bytes(b" FINDINGS:\n Lungs \xff clear.\n")
    with pytest.raises(DatasetError, match=r"too_many_unreadable_reports: 1\n.*s50000002.txt.* 1.00% of 4 reports"):
        cohort.verify()
    cohort.settings["conversion"] = {"max_bad_fraction": 0.3}
    summary, quarantine = cohort.verify()
    assert summary["reports"]["unreadable_reports"] == 1 and summary["reports"]["reports"] == 3
    (record,) = read_jsonl(cohort.output / "unreadable_reports.jsonl")
    assert record["study_id"] == "50000002"
    assert quarantine == []


def test_image_of_another_size_than_its_table_says_is_counted(cohort: Cohort, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.arange(36 * 34, dtype=np.uint16).reshape(36, 34).astype(np.uint8)
    assert cv2.imwrite(str(mimic_image(cohort.mimic, "50000004", "c1-01")), pixels)
    with caplog.at_level("WARNING", logger="d2rnet"):
        summary, _ = cohort.verify()
    assert summary["reports"]["images_of_another_size_than_stated"] == 1
    assert "48 x 40 stated, 36 x 34 in the file" in caplog.text


def test_extra_images_of_another_source_are_counted(cohort: Cohort, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    write_image(extra / "new.png", 3)
    cohort.settings["extra_unlabelled"] = [{"source": "folder", "root": str(extra)}]
    summary, _ = cohort.verify()
    assert summary["extra_unlabelled[0]"]["images"] == 1
    assert set(summary["extra_unlabelled[0]"]["left_out"].values()) == {0}
    os.link(cohort.vindr / "test" / f"{TEST_IDS[1]}.png", extra / "copy.png")
    write_image(extra / f"{TRAIN_IDS[2]}.png")
    os.link(mimic_image(cohort.mimic, "50000004", "c1-01"), extra / "other.jpg")
    cohort.settings["extra_unlabelled"].append({"source": "folder", "root": str(extra)})
    summary, _ = cohort.verify()
    assert summary["problems"] == {}
    first, second = (summary[f"extra_unlabelled[{number}]"]["left_out"] for number in (0, 1))
    assert first == {
        "images_of_the_labelled_source": 2, "images_of_labelled_test_patients": 0, "images_of_the_report_source": 1,
        "repeated_images": 0,
    }  # fmt: skip
    assert second == first | {"repeated_images": 1}


def test_copies_under_another_name_are_found(cohort: Cohort, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(cohort.vindr.rglob("*.png")) + sorted(cohort.mimic.rglob("*.jpg"))):
        write_image(path, 20 + 9 * number)  # each of its own content
    extra = tmp_path / "extra"
    extra.mkdir()
    test_image = cohort.vindr / "test" / f"{TEST_IDS[1]}.png"
    shutil.copy(test_image, extra / "renamed_copy.dcm")
    write_image(extra / "new.png", 3)
    shutil.copy(extra / "new.png", extra / "again.png")
    cohort.settings["extra_unlabelled"] = [{"source": "folder", "root": str(extra)}]
    summary, _ = cohort.verify()
    left_out = summary["extra_unlabelled[0]"]["left_out"]
    assert (left_out["images_of_the_labelled_source"], left_out["repeated_images"]) == (1, 1)
    shutil.copy(test_image, mimic_image(cohort.mimic, "50000002", "a2-01"))
    with pytest.raises(
        DatasetError, match=rf"labelled_test_image_in_training: 1\n.*a2-01.*the same content or UID as .*{TEST_IDS[1]}"
    ):
        cohort.verify()
    write_image(mimic_image(cohort.mimic, "50000002", "a2-01"))
    shutil.copy(test_image, cohort.vindr / "train" / f"{TRAIN_IDS[3]}.png")
    with pytest.raises(DatasetError, match=rf"copy_of_labelled_image: 1\n.*{TEST_IDS[1]}"):
        cohort.verify()


def test_copies_of_other_bytes_are_found_by_their_uid(cohort: Cohort, tmp_path: Path) -> None:
    """A re-encoded test image never gets into a training stream; a UID that other pictures have makes no copy."""
    uid = "1.2.826.0.1.3680043.8.498.1"
    picture = chest(HEIGHT, WIDTH)
    labelled = cohort.vindr / "test" / f"{TEST_IDS[1]}.dicom"
    labelled.with_suffix(".png").unlink()
    write(labelled, data_set(picture, SOPInstanceUID=uid))
    extra = tmp_path / "extra"
    extra.mkdir()
    write(extra / "packed.dcm", data_set(picture, JPEG2000Lossless, SOPInstanceUID=uid, PatientName="x"))
    write(extra / "other_picture.dcm", data_set(picture[::-1].copy(), SOPInstanceUID=uid))
    write(extra / "own_uid.dcm", data_set(picture))
    nameless = data_set(picture[:, ::-1].copy())
    del nameless.SOPInstanceUID
    nameless.save_as(extra / "no_uid.dcm", enforce_file_format=False)
    cohort.settings["extra_unlabelled"] = [{"source": "folder", "root": str(extra)}]
    summary, _ = cohort.verify()
    counts = summary["extra_unlabelled[0]"]
    assert counts["left_out"]["images_of_the_labelled_source"] == counts["copies_by_uid"] == 1
    assert (counts["images_of_a_shared_uid"], counts["dicom_images_without_uid"]) == (2, 1)
    listed = [row["source_id"] for row in read_jsonl(cohort.output / "unlabelled_images.jsonl")]
    assert {name for name in listed if name.startswith("extra1")} == {
        "extra1_other_picture",
        "extra1_own_uid",
        "extra1_no_uid",
    }
    shutil.copy(extra / "packed.dcm", mimic_image(cohort.mimic, "50000002", "a2-01"))
    with pytest.raises(DatasetError, match=rf"labelled_test_image_in_training: 1\n.*a2-01.*content or UID as .*{TEST_IDS[1]}"):
        cohort.verify()
    write_image(mimic_image(cohort.mimic, "50000002", "a2-01"))
    (cohort.vindr / "train" / f"{TRAIN_IDS[3]}.png").unlink()
    shutil.copy(extra / "packed.dcm", cohort.vindr / "train" / f"{TRAIN_IDS[3]}.dicom")
    with pytest.raises(DatasetError, match=rf"copy_of_labelled_image: 1\n.*{TEST_IDS[1]}"):
        cohort.verify()


def test_labelled_source_without_its_json_is_a_configuration_error(cohort: Cohort) -> None:
    cohort.settings["labelled"] |= {"source": "coco"}
    with pytest.raises(ConfigError, match=r"data\.labelled\.coco_json"):
        cohort.verify()


def test_labelled_patient_in_train_and_test(cohort: Cohort) -> None:
    categories = [{"id": 1, "name": "Edema"}]
    for split, (source_id, patient) in {"train": (TRAIN_IDS[0], "7"), "test": (TEST_IDS[0], "7")}.items():
        image = {"id": 1, "file_name": f"{split}/{source_id}.png", "height": HEIGHT, "width": WIDTH, "subject_id": patient}
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
        document = {"images": [image], "annotations": [box], "categories": categories}
        (cohort.vindr / f"{split}.json").write_text(json.dumps(document))
    cohort.settings["labelled"] |= {"source": "coco", "coco_json": {"train": "train.json", "test": "test.json"}}
    with pytest.raises(DatasetError, match=r"patient_in_two_splits: 1\n.*vindr: subject_id 7: got split test, train"):
        cohort.verify()


def test_real_open_data(tmp_path: Path, shared_data: Path) -> None:
    nih, openi = shared_data / "nih_chestxray14", shared_data / "iu_xray_openi"
    settings = {
        "labelled": {
            "source": "nih", "root": str(nih), "box_tables": ["BBox_List_2017.csv", "vindr_style_annotations.csv"],
        },
        "extra_unlabelled": [{"source": "folder", "root": str(nih / "images_no_boxes")}],
        "reports": {
            "source": "openi", "root": str(openi), "report_root": str(openi / "NLMCXR_reports.tgz"), "views": [],
        },
    }  # fmt: skip
    verify_inputs(output=tmp_path / "out", workers=1, settings=DataSettings.read(settings))
    summary = read_json(tmp_path / "out" / "summary.json")
    assert [summary[name]["images"] for name in ("labelled", "reports", "extra_unlabelled[0]")] == [84, 8, 12]
    assert summary["reports"]["reports"] == 5
    assert list(read_jsonl(tmp_path / "out" / "quarantine.jsonl")) == []


def test_a_part_of_the_data_sets_is_taken_as_it_is(cohort: Cohort) -> None:
    mimic_image(cohort.mimic, "50000001", "a1-02").unlink()
    shutil.rmtree(cohort.mimic / "files" / "p10" / "p10000001" / "s50000002")
    (cohort.mimic / "files" / "p10" / "p10000001" / "s50000002.txt").unlink()
    (cohort.vindr / "train" / f"{TRAIN_IDS[0]}.png").unlink()
    with pytest.raises(DatasetError, match=r"too_many_unreadable_images: 3\n.*require_all"):
        cohort.verify()
    for part in ("labelled", "reports"):
        cohort.settings[part]["require_all"] = False
    summary, quarantine = cohort.verify()
    assert quarantine == [] and summary["problems"] == {}
    assert (summary["labelled"]["images"], summary["labelled"]["images_not_there"]) == (5, 1)
    assert summary["labelled"]["boxes_of_images_not_there"] == 3
    reports = summary["reports"]
    assert (reports["images"], reports["images_not_there"], reports["reports_not_there"]) == (3, 2, 1)
    assert reports["images_not_there_below_files/p10/p10000001/s50000001"] == 1
    assert reports["images_not_there_below_files/p10/p10000001/s50000002"] == 1


def test_nothing_there_is_an_error_all_the_same(cohort: Cohort) -> None:
    cohort.settings["labelled"]["require_all"] = False
    for path in cohort.vindr.rglob("*.png"):
        path.unlink()
    with pytest.raises(DatasetError, match="none of the other 5"):
        cohort.verify()
