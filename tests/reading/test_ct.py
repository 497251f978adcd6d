"""A CT is read as the workflow reads it, in whatever orientation it is stored; what is no chest is refused by name."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ct_report_samples as report_samples
import nibabel
import numpy as np
import pytest
from ct_reading_samples import drawn_volume
from ct_series_samples import SPACING_MM, write_ct_series

from d2rnet.cli.entry import main
from d2rnet.ct.conversion.grid import convert_volume
from d2rnet.ct.conversion.store import write_array
from d2rnet.ct.structures import table as structure_tables
from d2rnet.ct.volumes.reader import read_volume
from d2rnet.errors import CheckpointError, ConfigError, DatasetError
from d2rnet.files.documents import read_json, read_jsonl, write_json
from d2rnet.files.hashes import sha256_file
from d2rnet.reading.ct import CtModels, load_ct_models
from d2rnet.reading.ct_settings import describe_ct_reading
from d2rnet.report.annotation_file import write_annotation


@pytest.fixture(scope="module")
def hu() -> np.ndarray:
    """A drawn chest, (Z, Y, X) int16."""
    return np.ascontiguousarray(drawn_volume().hu)


def write_nifti(path: Path, hu: np.ndarray, *, turned: str = "LPS") -> Path:
    """Write a volume whose array axes are x, y, z of LPS+, stored in another orientation."""
    affine = np.diag(
        [-SPACING_MM[2], -SPACING_MM[1], SPACING_MM[0], 1.0]
    )  # millimetres right-left, front-back as NIfTI has them
    image = nibabel.Nifti1Image(hu.transpose(2, 1, 0), affine)
    start = nibabel.orientations.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt(tuple(turned))
    nibabel.save(image.as_reoriented(nibabel.orientations.ornt_transform(start, wanted)), path)
    return path


def write_series(folder: Path, hu: np.ndarray, *, slices: int | None = None) -> Path:
    """Write axial DICOM slices, names in no order."""
    return write_ct_series(
        folder, hu[:slices], lambda place: f"{hash(place * 7919) % 1000:03d}_{place}", PatientName="Do^Not^Tell"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, hu: np.ndarray) -> Path:
    """A finished miniature run whose only test volume is the drawn chest, its report by the workflow's commands."""
    folder = tmp_path_factory.mktemp("ct run")
    cohort = report_samples.write_ct_cohort(folder / "cohort")
    write_nifti(folder / "chest.nii.gz", hu)
    array = convert_volume(read_volume(folder / "chest.nii.gz"), report_samples.CONVERSION).array
    write_array(cohort / "volumes" / "arrays" / "test" / "chest.npy", array)
    entries = json.loads((cohort / "ct_annotation.json").read_text())
    entries["test"] = [{**entries["test"][0], "id": "chest", "volume_path": "arrays/test/chest.npy"}]
    write_annotation(cohort / "ct_annotation.json", entries)
    features = report_samples.extract(cohort, folder / "features")
    model = report_samples.train(cohort, features, folder / "report")
    report_samples.generate(
        cohort, features, model, folder / "test.jsonl", batch_size=2, beam_size=2, max_tokens=30, min_tokens=8
    )
    report_samples.describe(model)
    return folder


@pytest.fixture(scope="module")
def models(run: Path) -> CtModels:
    return load_ct_models(run / "cohort" / "structures", run / "report" / "model", device="cpu")


def test_is_read_as_the_workflow_read_it(run: Path, models: CtModels) -> None:
    (line,) = read_jsonl(run / "test.jsonl")
    reading = models.read(run / "chest.nii.gz")
    assert len(line["hypothesis"].split()) > 4, "the case shows nothing"
    assert reading.hypothesis == line["hypothesis"] and reading.log_prob == pytest.approx(line["log_prob"], abs=1e-4)
    assert [list(one.structures) for one in reading.sentences] == [one["structures"] for one in line["sentences"]]
    grid = reading.attention.shape[1:]
    for one in line["sentences"]:
        attention = reading.attention[reading.structures.index(one["structure"])].ravel()
        for told in one["patches"]:
            assert attention[told["patch"]] == pytest.approx(told["attention"], abs=1e-5)
    assert grid == (2, 2, 3) and reading.name == "chest"
    extent = np.array(reading.volume.levels.shape) * reading.volume.spacing_mm
    assert extent == pytest.approx(np.array(report_samples.SHAPE) * report_samples.CONVERSION.spacing_mm)


def test_models_of_drawings_say_so_of_all_but_drawings(run: Path, models: CtModels, tmp_path: Path) -> None:
    words = "trained on synthetic drawings: on a real CT every finding is meaningless"
    demo = replace(models, settings=models.settings.replaced(synthetic=True))
    drawing = tmp_path / "cohort" / "ct_rate" / "chest.nii.gz"
    drawing.parent.mkdir(parents=True)
    drawing.write_bytes((run / "chest.nii.gz").read_bytes())
    (tmp_path / "cohort" / "cohort.json").write_text("{}")
    assert words not in demo.read(drawing).warnings and words not in models.read(run / "chest.nii.gz").warnings
    reading = demo.read(run / "chest.nii.gz")
    files = reading.save(tmp_path / "out")
    assert f"Warning: {words}" in reading.to_text() and words in reading.to_json()["warnings"]
    assert f'<p class="warning">{words}</p>' in files["html"].read_text(encoding="utf-8")


@pytest.mark.parametrize("turned", ["RAS", "LAI", "PSR", "ILA"])
def test_any_stored_orientation_gives_the_same_reading(
    run: Path, models: CtModels, hu: np.ndarray, tmp_path: Path, turned: str
) -> None:
    reference = models.read(run / "chest.nii.gz")
    reading = models.read(write_nifti(tmp_path / "chest.nii", hu, turned=turned))
    assert np.array_equal(reading.volume.levels, reference.volume.levels)
    assert np.array_equal(reading.attention, reference.attention) and reading.hypothesis == reference.hypothesis


def test_command_tells_radiographs_and_volumes_apart(
    run: Path, hu: np.ndarray, tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    write_series(folder / "series", hu)
    write_nifti(folder / "chest.nii.gz", hu)
    (folder / "odd_name").write_bytes(write_nifti(tmp_path / "plain.nii", hu).read_bytes())
    (folder / "film.png").write_bytes((finished_run / "images/s1/front.png").read_bytes())
    (folder / "cut.nii.gz").write_bytes((folder / "chest.nii.gz").read_bytes()[:5000])
    results = finished_run / "results/cxr"
    options = [
        *("--detector", str(results / "train_detector"), "--report-model", str(results / "train_report_model")),
        *("--structures", str(run / "cohort/structures"), "--ct-report-model", str(run / "report/model")),
        *("--device", "cpu", "--output", str(tmp_path / "out")),
    ]
    assert main(["read", str(folder), *options]) == 3
    output = capsys.readouterr()
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    volumes = [f"{name}.{kind}" for name in ("chest", "odd_name", "series") for kind in ("html", "json")]
    assert written == sorted([".d2rnet-read", "failures.jsonl", "film.html", "film.json", "film.png", *volumes])
    (failure,) = read_jsonl(tmp_path / "out/failures.jsonl")
    assert failure["name"] == "cut" and "cut.nii.gz" in failure["error"]
    assert "1 images, 4 CT volumes" in output.err and "4 of 5 read" in output.out
    findings = {name: read_json(tmp_path / f"out/{name}.json")["findings"] for name in ("chest", "odd_name", "series")}
    assert len(set(findings.values())) == 1, "one scan in three forms"
    for path in (tmp_path / "out").iterdir():
        assert b"Do^Not^Tell" not in path.read_bytes(), path.name


def test_one_slice_and_no_chest_are_refused(
    run: Path, models: CtModels, hu: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_series(tmp_path / "series", hu, slices=4)
    with pytest.raises(DatasetError, match="4 slices"):
        models.read(folder)
    options = ["--structures", str(run / "cohort/structures"), "--ct-report-model", str(run / "report/model")]
    options += ["--device", "cpu", "--output", str(tmp_path / "out")]
    assert main(["read", str(next(folder.iterdir())), *options]) == 2
    assert "a single DICOM file; expected the folder of the series" in capsys.readouterr().err
    water = write_nifti(tmp_path / "water.nii.gz", np.where(np.abs(hu) < 3000, 0, hu).astype(np.int16))
    with pytest.raises(DatasetError, match=r"water\.nii\.gz"):
        models.read(water)


def test_what_is_odd_is_said_or_refused(models: CtModels, hu: np.ndarray, tmp_path: Path) -> None:
    short = write_nifti(tmp_path / "short.nii.gz", hu[20:45])
    assert any(warning.startswith("short_volume") for warning in models.read(short).warnings)
    with pytest.raises(DatasetError, match=r"short_volume.*without --strict"):
        models.read(short, strict=True)


def test_origin_names_models_and_settings(run: Path, models: CtModels) -> None:
    origin = models.read(run / "chest.nii.gz").origin
    assert origin["models"]["structures"]["model.safetensors"] == sha256_file(run / "cohort/structures/model.safetensors")
    assert origin["settings"]["conversion"]["shape_zyx"] == list(report_samples.SHAPE)
    assert origin["device"].startswith("cpu: ")


def other_structures(run: Path, tmp_path: Path) -> tuple[Path, Path]:
    return report_samples.write_structure_model(tmp_path / "other", seed=1), run / "report/model"


def other_grid(run: Path, tmp_path: Path) -> tuple[Path, Path]:
    folder = copy_of(run / "report/model", tmp_path / "model")
    content = read_json(folder / "reading.json")
    content["conversion"]["spacing_mm"] = [2.0, 2.0, 2.0]
    write_json(folder / "reading.json", content)
    return run / "cohort/structures", folder


def copy_of(source: Path, target: Path) -> Path:
    target.mkdir()
    for path in source.iterdir():
        if path.is_file():
            (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (other_structures, "Name the stage 1 of that training"),
        (other_grid, "Write it again with 'd2rnet describe-ct-reading'"),
    ],
)
def test_folders_that_do_not_belong_together(run: Path, tmp_path: Path, make: Callable[..., Any], says: str) -> None:
    structures, model = make(run, tmp_path)
    with pytest.raises(CheckpointError, match=says):
        load_ct_models(structures, model, device="cpu")


def test_missing_folders_and_settings_are_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone: no such folder.*'d2rnet train-structures'.*--structures"):
        load_ct_models(tmp_path / "gone", run / "report/model")
    with pytest.raises(FileNotFoundError, match="--ct-report-model"):
        load_ct_models(run / "cohort/structures", tmp_path / "gone")
    folder = copy_of(run / "report/model", tmp_path / "model")
    (folder / "reading.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"reading\.json: no such file.*'d2rnet describe-ct-reading'"):
        load_ct_models(run / "cohort/structures", folder)
    (folder / "reading.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"reading\.json: got a list"):
        load_ct_models(run / "cohort/structures", folder)


def test_a_table_of_ones_own_goes_where_the_model_folder_goes(
    run: Path, models: CtModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named relative to the run's folder, as a configuration may; that folder is gone when the models are read."""
    started = tmp_path / "started"
    copy_of(run / "report/model", tmp_path / "model")
    started.mkdir()
    ten = (structure_tables.FOLDER / "ten.yaml").read_text(encoding="utf-8")
    (started / "mine.yaml").write_text(f"# mine\n{ten}", encoding="utf-8")
    (started / "run.yaml").write_text("ct: {structures: {table: mine.yaml}}")
    monkeypatch.chdir(started)
    describe_ct_reading(report_model=tmp_path / "model", configfile=[Path("run.yaml")])
    own = read_json(tmp_path / "model/reading.json")
    assert own["table"] == "structure_table.yaml" and str(tmp_path) not in json.dumps(own)
    settings = read_json(run / "report/model/reading.json")  # those of the miniature run, its own table beside them
    write_json(tmp_path / "model/reading.json", settings | {"table": own["table"]})
    moved = copy_of(tmp_path / "model", tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    for folder in (started, tmp_path / "model"):
        shutil.rmtree(folder)
    elsewhere = load_ct_models(run / "cohort/structures", moved, device="cpu")
    assert (moved / "structure_table.yaml").read_text(encoding="utf-8").startswith("# mine\n")
    table = elsewhere.origin["models"]["report_model"]["structure_table.yaml"]
    assert table == sha256_file(moved / "structure_table.yaml")
    reading = elsewhere.read(run / "chest.nii.gz")
    assert reading.sentences == models.read(run / "chest.nii.gz").sentences
    (moved / "structure_table.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"structure_table\.yaml: no such file; .*Copy the model folder whole"):
        load_ct_models(run / "cohort/structures", moved)
    write_json(moved / "reading.json", settings | {"table": "mine.yaml"})
    with pytest.raises(DatasetError, match=r"table: 'mine\.yaml'; expected ten, .*'d2rnet describe-ct-reading'"):
        load_ct_models(run / "cohort/structures", moved)


def test_a_table_that_cannot_be_used_leaves_no_description(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"ct: {{structures: {{table: {tmp_path / 'gone.yaml'}}}}}")
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such file"):
        describe_ct_reading(report_model=tmp_path, configfile=[tmp_path / "run.yaml"])
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_models_of_the_demo_cohort_are_marked(tmp_path: Path) -> None:
    (tmp_path / "cohort").mkdir()
    overlay = tmp_path / "run.yaml"
    overlay.write_text(json.dumps({"ct": {"data": {"reports": {"root": str(tmp_path / "cohort" / "ct_rate")}}}}))
    marked = []
    for _ in range(2):
        describe_ct_reading(report_model=tmp_path, configfile=[overlay])
        marked.append(read_json(tmp_path / "reading.json")["synthetic"])
        (tmp_path / "cohort" / "cohort.json").write_text("{}")
    assert marked == [False, True]


def test_description_holds_the_sections_of_the_run(tmp_path: Path) -> None:
    overlay = tmp_path / "run.yaml"
    overlay.write_text(
        "ct: {structures: {table: fvlm}, report: {generation: {beam_size: 5}}, data: {volumes: {min_slices: 20}}}"
    )
    describe_ct_reading(report_model=tmp_path, configfile=[overlay])
    content = read_json(tmp_path / "reading.json")
    assert content["table"] == "fvlm" and content["generation"]["beam_size"] == 5 and content["volumes"]["min_slices"] == 20
    assert content["conversion"]["shape_zyx"] == [72, 96, 96] and content["features"]["most_per_structure"] == 9


def test_a_reading_has_no_table_of_slopes(tmp_path: Path) -> None:
    """A run with hu: raw gave models that could read no scan."""
    for choice, expected in (("raw", "auto"), ("already", "already")):
        (tmp_path / "run.yaml").write_text(f"ct: {{data: {{volumes: {{hu: {choice}}}}}}}")
        describe_ct_reading(report_model=tmp_path, configfile=[tmp_path / "run.yaml"])
        assert read_json(tmp_path / "reading.json")["volumes"]["hu"] == expected
