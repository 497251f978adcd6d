"""convert_unlabelled on a tiny report source (R2Gen's schema), a folder of further images and a labelled COCO json."""

import errno
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from conversion_samples import convert_shards

from d2rnet.cxr.boxes.coco import category_names, load_coco
from d2rnet.cxr.conversion import convert_unlabelled as module
from d2rnet.cxr.conversion.convert_unlabelled import assert_patients_disjoint, convert_unlabelled
from d2rnet.cxr.conversion.image_lists import unlabelled_file_name
from d2rnet.cxr.conversion.input_checks import leave_out_quarantined
from d2rnet.cxr.conversion.leakage import LABELLED_IMAGE, REASONS
from d2rnet.cxr.conversion.settings import DataSettings, ImageConversionSettings
from d2rnet.cxr.conversion.unlabelled_images import assert_no_shared_images, leave_out_overlaps, read_sources
from d2rnet.cxr.sources.sources import labelled_source
from d2rnet.errors import DatasetError
from d2rnet.files.documents import read_json, read_jsonl
from d2rnet.files.problems import Problems
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.settings import merge


def draw(path: Path, *, height: int = 120, width: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.tile(np.arange(width, dtype=np.uint8), (height, 1))
    assert cv2.imwrite(str(path), pixels)


class Cohort:
    """Sources on disk, editable before the run: studies 1-2 train, 3 val, 4 test; study 1 has two images."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.quarantine: list[dict[str, str]] = []
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

    def run(self, **changes: Any) -> Path:
        (self.root / "report_images" / "annotation.json").write_text(json.dumps(self.entries))
        for split, names in self.labelled.items():
            images = [
                {"id": number, "file_name": f"labelled/{name}", "height": 120, "width": 90, "source_id": name}
                for number, name in enumerate(names)
            ]
            document = {"images": images, "annotations": [], "categories": []}
            (self.root / f"{split}.json").write_text(json.dumps(document))
        quarantine = self.root / "quarantine.jsonl"
        quarantine.write_text("".join(json.dumps(record) + "\n" for record in self.quarantine))
        output = self.root / "resources"
        settings = self.settings(**changes)
        records = convert_shards(self.jobs(quarantine, settings), output, ImageConversionSettings(max_side_px=64))
        convert_unlabelled(quarantine=quarantine, shards=records, output=output, settings=settings)
        return output

    def jobs(self, quarantine: Path, settings: DataSettings) -> dict[str, str]:
        """What verify_inputs lists: file -> PNG; nothing where the tables are wrong."""
        problems = Problems()
        labelled = labelled_source(settings.labelled.source).read_table(settings.labelled, Problems()).images
        images = read_sources(settings, problems).images
        if len(problems):
            return {}
        images = leave_out_overlaps(images, labelled, {})
        images = leave_out_quarantined(images, images["file"], quarantine, {})
        return dict(zip(images["file"], map(unlabelled_file_name, images["source_id"]), strict=True))


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
    assert set(record["inputs"]) == {"quarantine", "annotation.json"}


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


def test_quarantined_images_are_left_out_by_path(cohort: Cohort) -> None:
    paths = [cohort.root / "report_images" / "s1" / "b.png", cohort.root / "report_images" / "s2" / "a.png"]
    cohort.quarantine = [{"path": str(path), "source": "reports", "source_id": "?", "reason": "bad"} for path in paths]
    output = cohort.run()
    assert not {"img-1b", "img-2a"} & set(images_by_source(output))
    assert next(read_jsonl(output / "reports.jsonl"))["images"] == ["img-1a"]
    counts = counts_of(output)
    assert (counts["images_quarantined"], counts["reports_without_readable_image"], counts["reports"]) == (2, 1, 3)


def test_unreadable_image_is_left_out_and_too_many_stop(cohort: Cohort) -> None:
    (cohort.root / "report_images" / "s2" / "a.png").write_bytes(b"")
    output = cohort.run()
    counts = counts_of(output)
    assert (counts["images_unreadable"], counts["reports_without_readable_image"], counts["images"]) == (1, 1, 6)
    with pytest.raises(DatasetError, match=r"s2/a\.png"):
        cohort.run(conversion={"max_bad_fraction": 0.1})


def test_wrong_tables_stop_before_any_image(cohort: Cohort) -> None:
    cohort.entries["test"][0]["subject_id"] = 11
    with pytest.raises(DatasetError, match="patient_in_two_splits: 1"):
        cohort.run()
    output = cohort.root / "resources"
    assert not (output / "unlabelled_images").exists()
    assert next(read_jsonl(output / "convert_unlabelled" / "problems.jsonl"))["record"] == "subject_id 11"


def test_labelled_test_image_among_the_reports_is_refused(cohort: Cohort) -> None:
    cohort.labelled["test"].append("v.png")
    (cohort.root / "labelled" / "v.png").symlink_to(cohort.root / "report_images" / "s2" / "a.png")
    with pytest.raises(DatasetError, match=r"img-2a: got split train, the same file as .*labelled/v\.png"):
        cohort.run()


@pytest.mark.parametrize("split", ["train", "test"])
def test_extra_image_with_labels_is_left_out_and_counted(cohort: Cohort, split: str) -> None:
    cohort.labelled[split].append("v.png")
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


def test_shared_ids_are_refused() -> None:
    test = pd.DataFrame({"source_id": ["a"], "file": ["/none/a.png"], "split": "test"})
    own = pd.DataFrame({"name": ["a", "b"], "file": ["/none/x", "/none/y"], "split": "train", "origin": "reports"})
    with pytest.raises(DatasetError, match=r"image a: got split train, an id of the labelled test split"):
        assert_no_shared_images(test, own)
    assert_no_shared_images(test.assign(split="train"), own)
    with pytest.raises(DatasetError, match="image a"):
        assert_no_shared_images(test.assign(split=""), own.assign(split="val"))
    assert_no_shared_images(test, own.assign(split="test"))


def test_unreadable_reports_beyond_the_limit_stop() -> None:
    unreadable = [{"path": "s1.txt", "study_id": "1", "reason": "empty"}]
    module._check_unreadable_reports(unreadable, 100, 0.01)
    with pytest.raises(DatasetError, match=r"1 of 99 report texts are unreadable.*\n  s1\.txt: empty"):
        module._check_unreadable_reports(unreadable, 99, 0.01)


def test_unreadable_reports_are_limited_by_their_share_of_the_studies(cohort: Cohort) -> None:
    root = cohort.root / "openi"
    (root / "ecgen-radiology").mkdir(parents=True)
    for number in range(1, 5):
        draw(root / f"CXR{number}_IM-0001-1001.png")
        (root / "ecgen-radiology" / f"{number}.xml").write_text(
            f'<eCitation><uId id="CXR{number}"/><AbstractText Label="FINDINGS">{"Clear." if number < 4 else ""}</AbstractText>'
            f'<parentImage id="CXR{number}_IM-0001-1001"/></eCitation>'
        )
    (root / "ecgen-radiology" / "5.xml").write_text("<broken")
    changes = {"reports": {"source": "openi", "root": str(root)}}
    with pytest.raises(DatasetError, match="1 of 5 report texts are unreadable"):
        cohort.run(**changes, conversion={"max_bad_fraction": 0.19})
    output = cohort.run(**changes, conversion={"max_bad_fraction": 0.2})
    assert (counts_of(output)["reports"], counts_of(output)["from_reports"]["studies_without_findings"]) == (3, 1)
    assert [record["study_id"] for record in read_jsonl(output / "convert_unlabelled" / "unreadable_reports.jsonl")] == [
        "CXR5"
    ]


def test_patients_disjoint() -> None:
    images = pd.DataFrame({"subject_id": ["1", "1", "2"], "split": ["train", "train", "val"]})
    assert_patients_disjoint(images, images)
    with pytest.raises(DatasetError, match=r"1 patient\(s\) are in more than one split: 2; expected one"):
        assert_patients_disjoint(images, pd.DataFrame({"subject_id": ["2"], "split": ["test"]}))


def test_full_disk_leaves_no_half_file(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    dumps = json.dumps

    def full(value: Any, **options: Any) -> str:
        if isinstance(value, dict) and value.get("categories"):  # unlabelled.json
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
    original = module.leave_out_overlaps

    def with_stated_sizes(images: pd.DataFrame, *rest: Any) -> pd.DataFrame:
        return original(images, *rest).assign(source_height=240, source_width=180)

    monkeypatch.setattr(module, "leave_out_overlaps", with_stated_sizes)
    output = cohort.run()
    assert counts_of(output)["images_of_another_size_than_stated"] == 7
    assert images_by_source(output)["img-1a"]["source_height"] == 120
