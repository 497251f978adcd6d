"""Sources without a tree of their own: a hospital's table, and CTRG's JSON."""

import json
from pathlib import Path

import pytest

from d2rnet.ct.sources import ctrg, folder
from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import ct_source
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.problems import Problems


def settings(root: Path, source: str, **changes) -> CtSourceSettings:
    return CtSourceSettings(source=source, root=str(root), **changes)


def write_volumes(root: Path, names: list[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    write_volumes(tmp_path, [f"scans/{number}.nii.gz" for number in range(9)])
    write_volumes(tmp_path, ["series/A/1.dcm", "series/A/2.dcm"])
    rows = "".join(f'scans/{number}.nii.gz,"Text  {number}."\n' for number in range(9))
    (tmp_path / "studies.csv").write_text(f"path,report\n{rows}series/A,Of a series.\n")
    return tmp_path


def test_a_table_of_paths_and_reports(hospital):
    problems = Problems()
    table = folder.read_table(settings(hospital, "folder"), problems)
    assert problems.counts() == {}
    assert len(table.volumes) == 10
    assert table.volumes["volume_id"][9] == "series_A"
    assert table.reports["report"][3] == "Text 3."
    assert table.volumes["split"].value_counts().to_dict() == {"train": 7, "test": 2, "val": 1}


def test_volumes_of_one_study_and_patient(hospital):
    (hospital / "studies.csv").write_text(
        "path,study_id,subject_id,split,findings,impression\n"
        "scans/0.nii.gz,s1,p1,train,One.,I.\nscans/1.nii.gz,s1,p1,train,One.,I.\n"
        "scans/2.nii.gz,s2,p1,train,Two.,I.\nscans/3.nii.gz,s3,p2,validate,Three.,I.\nscans/4.nii.gz,s4,p3,test,,I.\n"
    )
    problems = Problems()
    table = folder.read_table(settings(hospital, "folder"), problems)
    assert problems.counts() == {}
    assert table.volumes["study_id"].tolist() == ["s1", "s1", "s2", "s3"]
    assert table.volumes["split"].tolist() == ["train", "train", "train", "val"]
    assert table.counts["studies_without_findings"] == 1
    impressions = folder.read_table(settings(hospital, "folder", section="impression"), problems)
    assert set(impressions.reports["report"]) == {"I."}


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ("../outside.nii.gz,Text\n", "no_volume"),
        ("/etc/passwd,Text\n", "no_volume"),
        ("scans/0.nii.gz,Again\n", "duplicate_id"),
        ("scans/77.nii.gz,Text\n", "missing_volumes"),
        ("slices,Text\n", "no_volume"),
    ],
)
def test_rows_that_cannot_be(hospital, rows, kind):
    write_volumes(hospital, ["slices/1.jpg", "slices/2.jpg"])
    with (hospital / "studies.csv").open("a") as stream:
        stream.write(rows)
    problems = Problems()
    table = folder.read_table(settings(hospital, "folder"), problems)
    assert problems.counts() == {kind: 1}
    assert len(table.volumes) == 10


def test_two_reports_of_one_study(hospital):
    (hospital / "studies.csv").write_text(
        "path,study_id,report\n"
        + "".join(f"scans/{number}.nii.gz,s{number},T.\n" for number in range(8))
        + "series/A,s0,Other.\n"
    )
    problems = Problems()
    folder.read_table(settings(hospital, "folder"), problems)
    assert problems.counts() == {"duplicate_study": 1}


def test_aliases_replace_ids_everywhere(hospital):
    rows = "".join(f"scans_{number},case{number}\n" for number in range(9))
    (hospital / "ids.csv").write_text(f"id,alias\n{rows}series_A,case9\n")
    table = folder.read_table(settings(hospital, "folder", id_map="ids.csv"), Problems())
    assert table.volumes["volume_id"].tolist() == [f"case{number}_1" for number in range(10)]
    assert set(table.reports["study_id"]) == {f"case{number}" for number in range(10)}
    (hospital / "ids.csv").write_text(f"id,alias\n{rows}")
    with pytest.raises(DatasetError, match="has no alias") as raised:
        folder.read_table(settings(hospital, "folder", id_map="ids.csv"), Problems())
    assert "series_A" not in str(raised.value)  # the message may be copied into a ticket


def test_a_table_without_text(hospital):
    (hospital / "studies.csv").write_text("path,txt\nscans/0.nii.gz,A\n")
    with pytest.raises(DatasetError, match=r"expected 'findings' or 'report'"):
        folder.read_table(settings(hospital, "folder"), Problems())


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    write_volumes(tmp_path, [f"{number}.nii.gz" for number in range(12)])
    records = [{"id": number, "finding": f"Text {number}."} for number in range(12)]
    content = {"train": records[:8], "val": records[8:9], "test": records[9:]}
    (tmp_path / "reports.json").write_text(json.dumps(content))
    return tmp_path


def test_ctrg_with_splits_and_without(collection):
    problems = Problems()
    table = ctrg.read_table(settings(collection, "ctrg", table="reports.json"), problems)
    assert problems.counts() == {}
    assert table.volumes["split"].tolist() == ["train"] * 8 + ["val"] + ["test"] * 3
    records = [{"id": str(number), "report": f"Text {number}."} for number in range(12)]
    (collection / "reports.json").write_text(json.dumps(records))
    table = ctrg.read_table(settings(collection, "ctrg", table="reports.json"), problems)
    assert set(table.volumes["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        ({"id": "../1", "finding": "T"}, "bad_id"),
        ({"id": None, "finding": "T"}, "bad_id"),
        ({"id": True, "finding": "T"}, "bad_id"),
        ({"id": 3, "finding": "T"}, "duplicate_id"),
        ({"id": 90, "finding": "T"}, "missing_volumes"),
        ({"id": 90}, "bad_record"),
        ({"id": 90, "finding": 3}, "bad_record"),
        ([], "bad_record"),
    ],
)
def test_ctrg_records_that_cannot_be(collection, record, kind):
    content = json.loads((collection / "reports.json").read_text())
    content["train"].append(record)
    (collection / "reports.json").write_text(json.dumps(content))
    problems = Problems()
    table = ctrg.read_table(settings(collection, "ctrg", table="reports.json"), problems)
    assert problems.counts() == {kind: 1}
    assert len(table.volumes) == 12


@pytest.mark.parametrize("content", ["3", '{"training": []}', '{"train": {"id": 1}}'])
def test_ctrg_of_another_form(collection, content):
    (collection / "reports.json").write_text(content)
    with pytest.raises(DatasetError, match="expected"):
        ctrg.read_table(settings(collection, "ctrg", table="reports.json"), Problems())


def test_ids_that_may_be_names_are_said(collection, caplog):
    write_volumes(collection, ["Somebody-1.nii.gz"])
    content = json.loads((collection / "reports.json").read_text())
    content["train"].append({"id": "Somebody-1", "finding": "T"})
    (collection / "reports.json").write_text(json.dumps(content))
    table = ctrg.read_table(settings(collection, "ctrg", table="reports.json"), Problems())
    assert table.counts["ids_with_words"] == 1
    assert "id_map" in caplog.text


def test_unknown_source():
    with pytest.raises(ConfigError, match="expected one of ct_rate"):
        ct_source("nowhere")
