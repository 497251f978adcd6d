"""convert_unlabelled on a tiny report source (R2Gen's schema), a folder of further images and a labelled COCO json."""

import errno
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from conversion_samples import convert_list

from d2rnet.cxr.boxes.coco import category_names, load_coco
from d2rnet.cxr.conversion.checked_tables import UNLABELLED_IMAGES
from d2rnet.cxr.conversion.convert_unlabelled import convert_unlabelled
from d2rnet.cxr.conversion.leakage import LABELLED_IMAGE, REASONS
from d2rnet.cxr.conversion.settings import DataSettings, ImageConversionSettings, UnlabelledConversionSettings
from d2rnet.cxr.conversion.verify import verify_inputs
from d2rnet.errors import DatasetError
from d2rnet.files.checked_tables import read_counts, read_table
from d2rnet.files.documents import read_json, read_jsonl, write_json, write_jsonl
from d2rnet.files.hashes import sha256_file
from d2rnet.files.table_checks import assert_patients_disjoint
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.settings import merge


def draw(path: Path, *, height: int = 120, width: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.tile(np.arange(width, dtype=np.uint8), (height, 1))
    assert cv2.imwrite(str(path), pixels)
    with path.open("ab") as stream:  # behind the end of the picture: no image is a copy of another
        stream.write(str(path).encode())


class Cohort:
    """Sources on disk, editable before the run: studies 1-2 train, 3 val, 4 test; study 1 has two images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.damaged: list[Path] = []
        self.entries = {
            "train": [self.entry(1), self.entry(1, "b"), self.entry(2)],
            "val": [self.entry(3)],
            "test": [self.entry(4)],
        }
        for entries in self.entries.values():
            for entry in entries:
                draw(root / "report_images" / entry["image_path"][0])
        for name in ("x.png", "deep/y.png"):
            draw(root / "more" / name, height=60, width=80)
        self.labelled: dict[str, list[str]] = {"train": ["t.png"], "test": ["u.png"]}
        for names in self.labelled.values():
            for name in names:
                draw(root / "labelled" / name)

    @staticmethod
    def entry(study: int, image: str = "a") -> dict[str, Any]:
        return {
            "id": f"img-{study}{image}", "study_id": study, "subject_id": 10 + study, "report": f"Study {study} is clear.",
            "image_path": [f"s{study}/{image}.png"],
        }  # fmt: skip

    def settings(self, **changes: Any) -> DataSettings:
        settings = {
            "labelled": {"source": "coco", "root": str(self.root), "coco_json": {"train": "train.json", "test": "test.json"}},
            "reports": {"source": "r2gen", "root": str(self.root / "report_images"), "views": []},
            "extra_unlabelled": [{"source": "folder", "root": str(self.root / "more")}],
            "conversion": {"max_side_px": 64, "max_bad_fraction": 0.5},
        }
        return DataSettings.read(merge(settings, changes))

    def verify(self, settings: DataSettings) -> Path:
        """Write the sources and check them; return the folder of the checked tables."""
        (self.root / "report_images" / "annotation.json").write_text(json.dumps(self.entries))
        for split, names in self.labelled.items():
            images = [
                {"id": number, "file_name": f"labelled/{name}", "height": 120, "width": 90, "source_id": name}
                for number, name in enumerate(names)
            ]
            boxes = [{"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 3, 4]}]
            document = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "Edema"}]}
            (self.root / f"{split}.json").write_text(json.dumps(document))
        verify_inputs(output=self.root / "verify", workers=1, settings=settings)
        return self.root / "verify"

    def run(self, *, max_bad_fraction: float | None = None, **changes: Any) -> Path:
        """Verify, damage what is in ``damaged``, convert; the last with another limit if one is given."""
        settings = self.settings(**changes)
        checked = self.verify(settings)
        for path in self.damaged:
            path.write_bytes(path.read_bytes()[:60])  # its header can still be read
        output = self.root / "resources"
        images = checked / "unlabelled_images.jsonl"
        records = convert_list(images, output, ImageConversionSettings(max_side_px=64))
        conversion = settings.conversion
        if max_bad_fraction is not None:
            conversion = conversion.replaced(max_bad_fraction=max_bad_fraction)
        convert_unlabelled(
            images=images,
            reports=checked / "reports.jsonl",
            counts=checked / "counts.json",
            shards=records,
            output=output,
            settings=UnlabelledConversionSettings(
                reports=settings.reports, extra_unlabelled=settings.extra_unlabelled, conversion=conversion
            ),
        )
        return output


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


def images_by_source(output: Path) -> dict[str, dict[str, Any]]:
    return {image["source_id"]: image for image in load_coco(output / "unlabelled.json")["images"]}


def counts_of(output: Path) -> dict[str, Any]:
    return read_json(output / "convert_unlabelled" / "counts.json")


def test_images(cohort: Cohort) -> None:
    output = cohort.run()
    document = load_coco(output / "unlabelled.json")
    assert document["annotations"] == []
    assert category_names(document) == {number: name for name, number in CATEGORY_IDS.items()}
    assert [image["id"] for image in document["images"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [image["source_id"] for image in document["images"]] == [
        "img-1a", "img-1b", "img-2a", "img-3a", "img-4a", "extra1_deep_y", "extra1_x",
    ]  # fmt: skip
    first = dict(document["images"][0])
    assert Path(first.pop("file_name")).parts[::2] == ("unlabelled_images", "img-1a.png")
    assert first == {
        "id": 1, "height": 64, "width": 48, "source_height": 120, "source_width": 90, "source_id": "img-1a",
        "source_path": "s1/a.png", "study_id": "1", "subject_id": "11", "view": "", "split": "train", "has_report": True,
    }  # fmt: skip
    extra = document["images"][-1]
    assert (extra["source_path"], extra["has_report"], extra["split"]) == (None, False, "train")
    assert (extra["height"], extra["width"], extra["source_height"]) == (48, 64, 60)
    for image in document["images"]:
        pixels = cv2.imread(str(output / image["file_name"]), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (image["height"], image["width"])


def test_reports_and_counts(cohort: Cohort) -> None:
    output = cohort.run()
    assert list(read_jsonl(output / "reports.jsonl")) == [
        {"subject_id": f"1{study}", "study_id": str(study), "split": split, "section": "findings",
         "report": f"Study {study} is clear.", "images": images}
        for study, split, images in ((1, "train", ["img-1a", "img-1b"]), (2, "train", ["img-2a"]), (3, "val", ["img-3a"]),
                                     (4, "test", ["img-4a"]))
    ]  # fmt: skip
    counts = counts_of(output)
    assert counts["splits"] == {
        "train": {"images": 5, "images_with_report": 3, "reports": 2},
        "val": {"images": 1, "images_with_report": 1, "reports": 1},
        "test": {"images": 1, "images_with_report": 1, "reports": 1},
    }
    assert {key: counts[key] for key in ("images", "reports", "images_quarantined", "images_unreadable")} == {
        "images": 7, "reports": 4, "images_quarantined": 0, "images_unreadable": 0,
    }  # fmt: skip
    record = read_json(output / "convert_unlabelled" / "run.json")
    assert record["command"] == "convert-unlabelled"
    assert set(record["inputs"]) == {"unlabelled_images.jsonl", "reports.jsonl"}
    checked = read_json(cohort.root / "verify" / "run.json")
    assert set(checked["inputs"]) == {"labelled: train.json", "labelled: test.json", "reports: annotation.json"}


def test_again_gives_the_same_files(cohort: Cohort) -> None:
    output = cohort.run()
    before = {name: (output / name).read_bytes() for name in ("unlabelled.json", "reports.jsonl")}
    image = output / images_by_source(output)["img-2a"]["file_name"]
    written = image.stat().st_mtime_ns
    cohort.run()
    assert {name: (output / name).read_bytes() for name in before} == before
    assert image.stat().st_mtime_ns == written


def test_study_without_text_is_for_the_detector(cohort: Cohort) -> None:
    cohort.entries["train"][2]["report"] = " "
    output = cohort.run()
    assert images_by_source(output)["img-2a"]["has_report"] is False
    assert [report["study_id"] for report in read_jsonl(output / "reports.jsonl")] == ["1", "3", "4"]
    assert counts_of(output)["from_reports"]["studies_with_empty_report"] == 1


def test_quarantined_images_are_left_out(cohort: Cohort) -> None:
    for path in ("s1/b.png", "s2/a.png"):
        (cohort.root / "report_images" / path).write_bytes(b"")
    output = cohort.run()
    assert not {"img-1b", "img-2a"} & set(images_by_source(output))
    assert next(read_jsonl(output / "reports.jsonl"))["images"] == ["img-1a"]
    counts = counts_of(output)
    assert (counts["images_quarantined"], counts["reports_without_readable_image"], counts["reports"]) == (2, 1, 3)


def test_unreadable_image_is_left_out_and_too_many_stop(cohort: Cohort) -> None:
    cohort.damaged = [cohort.root / "report_images" / "s2" / "a.png"]
    output = cohort.run()
    counts = counts_of(output)
    assert (counts["images_unreadable"], counts["reports_without_readable_image"], counts["images"]) == (1, 1, 6)
    draw(cohort.damaged[0])
    with pytest.raises(DatasetError, match=r"s2/a\.png"):
        cohort.run(max_bad_fraction=0.1)


def test_a_split_of_reports_without_readable_image_is_empty(cohort: Cohort) -> None:
    cohort.damaged = [cohort.root / "report_images" / "s3" / "a.png"]
    with pytest.raises(DatasetError, match=r"cxr.data.reports: no report of split val is left of 1; expected at least one"):
        cohort.run(max_bad_fraction=0.9)


def test_wrong_tables_stop_before_any_image(cohort: Cohort) -> None:
    cohort.entries["test"][0]["subject_id"] = 11
    with pytest.raises(DatasetError, match="patient_in_two_splits: 1"):
        cohort.run()
    assert not (cohort.root / "resources").exists()
    assert next(read_jsonl(cohort.root / "verify" / "problems.jsonl"))["record"] == "subject_id 11"


def test_labelled_test_image_among_the_reports_is_refused(cohort: Cohort) -> None:
    cohort.labelled["test"].append("v.png")
    (cohort.root / "labelled" / "v.png").symlink_to(cohort.root / "report_images" / "s2" / "a.png")
    says = r"img-2a: got split train here, test in the labelled source, the same content or UID as .*labelled/v\.png"
    with pytest.raises(DatasetError, match=says):
        cohort.run()


@pytest.mark.parametrize("split", ["train", "test"])
def test_extra_image_with_labels_is_left_out_and_counted(cohort: Cohort, split: str) -> None:
    cohort.labelled[split].append("v.png")
    draw(cohort.root / "more" / "x.png")  # of the size that the json states
    (cohort.root / "labelled" / "v.png").symlink_to(cohort.root / "more" / "x.png")
    output = cohort.run()
    assert set(images_by_source(output)) & {"extra1_x", "extra1_deep_y"} == {"extra1_deep_y"}
    assert counts_of(output)["extra_images_left_out"] == dict.fromkeys(REASONS, 0) | {LABELLED_IMAGE: 1}


def test_folder_of_all_images_of_a_source_without_official_split(cohort: Cohort) -> None:
    """The labelled images, their patients and the report source's images go; other patients stay."""
    nih = cohort.root / "nih"
    rows = "".join(f"{name}.png,Effusion,1,2,30,40\n" for name in ("00000001_000", "00000002_000", "00000003_000"))
    for name in ("00000001_000", "00000001_001", "00000002_000", "00000003_000", "00000004_000"):
        draw(nih / "images_001" / f"{name}.png")
    (nih / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + rows)
    (nih / "linked.png").hardlink_to(cohort.root / "report_images" / "s4" / "a.png")
    output = cohort.run(
        labelled={"source": "nih", "root": str(nih), "coco_json": None},
        extra_unlabelled=[{"source": "folder", "root": str(nih)}, {"source": "folder", "root": str(nih / "images_001")}],
    )
    extra = [image for image in images_by_source(output).values() if image["source_path"] is None]
    assert [(image["source_id"], image["subject_id"]) for image in extra] == [
        ("extra1_images_001_00000004_000", "extra1_00000004")
    ]
    assert counts_of(output)["extra_images_left_out"] == {
        "images_of_the_labelled_source": 6, "images_of_labelled_test_patients": 2, "images_of_the_report_source": 1,
        "repeated_images": 1,
    }  # fmt: skip


def test_sources_are_read_once(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter opens neither table nor report of a source: those may be gone."""
    checked = cohort.verify(cohort.settings())
    (cohort.root / "report_images" / "annotation.json").rename(cohort.root / "gone.json")
    monkeypatch.setattr(Cohort, "verify", lambda self, settings: checked)
    assert len(images_by_source(cohort.run())) == 7


def test_unreadable_reports_are_limited_by_their_share_of_the_studies(cohort: Cohort) -> None:
    root = cohort.root / "openi"
    (root / "ecgen-radiology").mkdir(parents=True)
    for number in range(1, 10):
        draw(root / f"CXR{number}_IM-0001-1001.png")
        (root / "ecgen-radiology" / f"{number}.xml").write_text(
            f'<eCitation><uId id="CXR{number}"/><AbstractText Label="FINDINGS">{"Clear." if number < 9 else ""}</AbstractText>'
            f'<parentImage id="CXR{number}_IM-0001-1001"/></eCitation>'
        )
    (root / "ecgen-radiology" / "10.xml").write_text("<broken")
    changes = {"reports": {"source": "openi", "root": str(root)}}
    with pytest.raises(DatasetError, match=r"too_many_unreadable_reports: 1\n.*at most 9\.00% of 10 reports"):
        cohort.run(**changes, conversion={"max_bad_fraction": 0.09})
    output = cohort.run(**changes, conversion={"max_bad_fraction": 0.1})
    assert (counts_of(output)["reports"], counts_of(output)["from_reports"]["studies_without_findings"]) == (8, 1)
    assert [record["study_id"] for record in read_jsonl(cohort.root / "verify" / "unreadable_reports.jsonl")] == ["CXR10"]


def test_patients_disjoint() -> None:
    images = pd.DataFrame({"subject_id": ["1", "1", "2"], "split": ["train", "train", "val"]})
    assert_patients_disjoint(images, images, key="cxr.data.reports")
    with pytest.raises(DatasetError, match=r"1 patient\(s\) are in more than one split: 2; expected one"):
        assert_patients_disjoint(images, pd.DataFrame({"subject_id": ["2"], "split": ["test"]}), key="cxr.data.reports")


def test_full_disk_leaves_no_half_file(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = json.dumps

    def full(value: Any, **options: Any) -> str:
        if isinstance(value, dict) and len(value.get("categories", ())) == 22:  # unlabelled.json
            raise OSError(errno.ENOSPC, "No space left on device")
        return dumps(value, **options)

    monkeypatch.setattr("d2rnet.files.documents.json.dumps", full)
    with pytest.raises(OSError, match="No space left"):
        cohort.run()
    output = cohort.root / "resources"
    assert (output / "unlabelled_images").is_dir()
    assert not (output / "unlabelled.json").exists()
    assert not list(output.glob(".*"))


def test_size_that_differs_from_the_table_is_counted(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = cohort.verify(cohort.settings())
    images = checked / "unlabelled_images.jsonl"
    write_jsonl(images, [record | {"source_height": 240, "source_width": 180} for record in list(read_jsonl(images))])
    counts = read_json(checked / "counts.json")
    counts["unlabelled"]["sha256"]["images"] = sha256_file(images)
    write_json(checked / "counts.json", counts)
    monkeypatch.setattr(Cohort, "verify", lambda self, settings: checked)
    output = cohort.run()
    assert counts_of(output)["images_of_another_size_than_stated"] == 7
    assert images_by_source(output)["img-1a"]["source_height"] == 120


@pytest.mark.parametrize(
    "change",
    [{"source_id": 3}, {"split": None}, {"source_height": "120"}, {"source_width": 1.5}, {"source_height": True},
     {"source_width": 10**30}, {"source_path": 7}, {"view": ["PA"]}],
    ids=str,
)  # fmt: skip
def test_a_damaged_table_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any]) -> None:
    record = dict.fromkeys(UNLABELLED_IMAGES, "a") | {"source_height": 120, "source_width": 90}
    write_jsonl(tmp_path / "images.jsonl", [record, record | change])
    with pytest.raises(DatasetError, match=rf"images\.jsonl: line 2: got .* under '{next(iter(change))}'; expected (str|int)"):
        read_table(tmp_path / "images.jsonl", UNLABELLED_IMAGES)
    del record["view"]
    write_jsonl(tmp_path / "images.jsonl", [record])
    with pytest.raises(DatasetError, match="line 1: got nothing under 'view'; expected str"):
        read_table(tmp_path / "images.jsonl", UNLABELLED_IMAGES)


def test_counts_of_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text('{"labelled": {"settings": {}}, "unlabelled": 3}')
    for part, message in (("labelled", "no hash of 'images'"), ("unlabelled", "counts.json: no object under 'unlabelled'")):
        with pytest.raises(DatasetError, match=message):
            read_counts(tmp_path / "counts.json", part, settings={}, images=tmp_path / "images.jsonl")


@pytest.mark.parametrize("table", ["unlabelled_images.jsonl", "reports.jsonl"])
def test_a_table_that_was_changed_after_its_check_is_refused(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    checked = cohort.verify(cohort.settings())
    text = (checked / table).read_text()
    (checked / table).write_text(text.replace('"split": "test"', '"split": "train"'))
    monkeypatch.setattr(Cohort, "verify", lambda self, settings: checked)
    with pytest.raises(DatasetError, match=rf"{table}: is not the table that verify-inputs checked"):
        cohort.run()
    (checked / table).write_text(text)
    assert len(images_by_source(cohort.run())) == 7


def test_tables_that_were_checked_with_other_settings_are_refused(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = cohort.verify(cohort.settings())
    monkeypatch.setattr(Cohort, "verify", lambda self, settings: checked)
    with pytest.raises(
        DatasetError, match=r"counts\.json: unlabelled: verify-inputs was run with other .*: reports\.split_seed"
    ):
        cohort.run(reports={"split_seed": 77})
