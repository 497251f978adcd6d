"""A download that grows moves nobody: what is there has the splits, texts and labels that it has in the whole set."""

import json
from pathlib import Path

import pytest
from ct_rate_samples import write_tables, write_volumes
from hypothesis import HealthCheck, given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from d2rnet.ct.sources.settings import CtSourceSettings
from d2rnet.ct.sources.tables import CtTable, ct_source
from d2rnet.files.problems import Problems

NUMBERS = range(12)
CT_RATE = [f"train_{patient}_{scan}_{number}" for patient in range(1, 9) for scan in "ab" for number in (1, 2)]
CT_RATE += [f"valid_{patient}_a_{number}" for patient in range(1, 4) for number in (1, 2, 10)]


def make_folder(root: Path) -> dict[str, Path]:
    """Twelve studies of eight patients."""
    rows = "".join(f"scans/{number}.nii.gz,p{number % 8},Text {number}.\n" for number in NUMBERS)
    (root / "studies.csv").write_text(f"path,subject_id,report\n{rows}")
    return {f"scans_{number}": root / f"scans/{number}.nii.gz" for number in NUMBERS}


def make_folder_without_val(root: Path) -> dict[str, Path]:
    """The hospital's own split, which has no validation part."""
    rows = "".join(f"scans/{n}.nii.gz,p{n},{'test' if n > 8 else 'train'},Text {n}.\n" for n in NUMBERS)
    (root / "studies.csv").write_text(f"path,subject_id,split,report\n{rows}")
    return {f"scans_{number}": root / f"scans/{number}.nii.gz" for number in NUMBERS}


def make_ctrg(root: Path) -> dict[str, Path]:
    (root / "studies.csv").write_text(json.dumps([{"id": number, "report": f"Text {number}."} for number in NUMBERS]))
    return {str(number): root / f"{number}.nii.gz" for number in NUMBERS}


def make_ct_rate(root: Path) -> dict[str, Path]:
    parts = {part: [name for name in CT_RATE if name.startswith(part)] for part in ("train", "valid")}
    write_tables(root, parts)
    write_volumes(root, CT_RATE)
    for path in (root / "multi_abnormality_labels").iterdir():  # one row a study, as in the release
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "_2.nii.gz" not in line and "_10.nii.gz" not in line))
    return {path.name.removesuffix(".nii.gz"): path for path in root.glob("*_fixed/*/*/*.nii.gz")}


def make_radgenome(root: Path) -> dict[str, Path]:
    for part, word in (("train", "train"), ("valid", "validation")):
        named = [name for name in CT_RATE if name.startswith(part) and name.endswith("_1")]
        rows = "".join(f"{name}.nii.gz,lung,Lung of {name}.\n" for name in named)
        (root / f"{word}_region_report.csv").write_text(f"Volumename,Anatomy,Sentence\n{rows}")
    return make_ct_rate(root)


SOURCES = {
    "folder": ("folder", make_folder),
    "folder without val": ("folder", make_folder_without_val),
    "ctrg": ("ctrg", make_ctrg),
    "ct_rate": ("ct_rate", make_ct_rate),
    "radgenome": ("radgenome", make_radgenome),
}


def read(source: str, root: Path, **changes) -> CtTable:
    problems = Problems()
    settings = CtSourceSettings(source=source, root=str(root), require_all=False, val_fraction=0.3, **changes)
    table = ct_source(source).read_table(settings, problems)
    assert problems.counts() == {}
    return table


def rows_of(table: CtTable) -> set[tuple[str, ...]]:
    """Volumes with patient and split, and the study, split and text of each report, region text and row of labels."""
    rows = {("volume", *row) for row in table.volumes[["volume_id", "subject_id", "split"]].itertuples(index=False)}
    rows |= {("report", *row) for row in table.reports.astype(str).itertuples(index=False)}
    rows |= {("region", *row) for row in table.regions.itertuples(index=False)}
    return rows | {("labels", str(row[0]), str(row[1:])) for row in table.labels.itertuples()}


def of_studies(rows: set[tuple[str, ...]], studies: set[str]) -> set[tuple[str, ...]]:
    return {row for row in rows if row[0] != "volume" and row[1] in studies}


@pytest.mark.parametrize("name", SOURCES)
@run_with(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_is_there_is_as_in_the_whole_set(name, data, tmp_path_factory):
    """Of a study of which any volume is there, split, text, regions and labels are those of the whole set."""
    source, make = SOURCES[name]
    root = tmp_path_factory.mktemp("whole")
    files = make(root)
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    whole = rows_of(read(source, root, reconstructions="all"))
    assert {row[3] for row in whole if row[0] == "volume"} == {"train", "val", "test"}
    kept = data.draw(st.sets(st.sampled_from(sorted(files)), min_size=1))
    for volume_id, path in files.items():
        if volume_id not in kept:
            path.unlink()
    for reconstructions in ("all", "one"):
        table = read(source, root, reconstructions=reconstructions)
        part = rows_of(table)
        assert part <= whole
        studies = set(table.volumes["study_id"])
        assert of_studies(part, studies) == of_studies(whole, studies)
        if reconstructions == "all":
            assert {row[1] for row in part if row[0] == "volume"} == kept
