"""The command with --dicom-sr: documents beside the readings, what has no study fails alone, nothing old remains."""

import subprocess
import sys
from pathlib import Path

import ct_report_samples
import numpy as np
import pytest
from ct_reading_samples import drawn_volume
from ct_series_samples import SPACING_MM
from document_samples import write_ct_slices, write_image
from PIL import Image
from pydicom import Dataset, dcmread
from radiograph_samples import draw_chest

from d2rnet.cli.entry import main
from d2rnet.files.documents import read_json, read_jsonl


@pytest.fixture
def arguments(finished_run: Path, tmp_path: Path) -> list[str]:
    """Options that name models and output, and ask for documents."""
    results = finished_run / "results" / "cxr"
    models = ["--detector", str(results / "train_detector"), "--report-model", str(results / "train_report_model")]
    return [*models, "--device", "cpu", "--output", str(tmp_path / "out"), "--dicom-sr"]


def test_documents_hold_what_the_reading_holds(tmp_path: Path, arguments: list[str]) -> None:
    image = write_image(tmp_path / "in.dcm", draw_chest((160, 140), 3))
    assert main(["read", str(image), *arguments]) == 0
    names = sorted(path.name for path in (tmp_path / "out/dicom").iterdir())
    assert names == ["in.presentation.dcm", "in.report.dcm"]
    document = read_json(tmp_path / "out/in.json")
    report = dcmread(tmp_path / "out/dicom/in.report.dcm")
    *_, measurements, evaluations = report.ContentSequence
    assert evaluations.ContentSequence[0].TextValue == document["findings"] != ""
    assert len(document["boxes"]) > 1
    for group, box in zip(measurements.ContentSequence, document["boxes"], strict=True):
        (region,) = (item for item in group.ContentSequence if item.ValueType == "SCOORD")
        x, y, width, height = box["bbox"]
        corners = np.array(region.GraphicData).reshape(5, 2)
        np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], [x, y, x + width, y + height], atol=0.011)


def test_nothing_of_dicom_is_written_or_imported_unless_asked(tmp_path: Path, arguments: list[str]) -> None:
    image = write_image(tmp_path / "in.dcm", draw_chest((160, 140), 3))
    code = (
        "import sys; from d2rnet.cli import main; code = main(sys.argv[1:]);"
        "assert 'highdicom' not in sys.modules; sys.exit(code)"
    )
    words = ["read", str(image), *arguments[:-1]]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out/dicom").exists()


def test_picture_without_study_fails_alone_and_before_it_is_read(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(draw_chest((90, 80), 5)).save(folder / "a.png")
    write_image(folder / "b.dcm", draw_chest((160, 140), 3))
    assert main(["read", str(folder), *arguments]) == 3
    (failure,) = read_jsonl(tmp_path / "out/failures.jsonl")
    assert "a.png: got PNG; expected a DICOM file" in failure["error"] and "leave out --dicom-sr" in failure["error"]
    assert not (tmp_path / "out/a.json").exists() and (tmp_path / "out/dicom/b.report.dcm").is_file()
    assert main(["read", str(folder / "a.png"), *arguments]) == 2
    assert not (tmp_path / "out/dicom").exists(), "documents of an earlier call would be sent with those of this one"
    assert "failed: " in capsys.readouterr().err


def test_failed_reading_leaves_no_document(tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    image = write_image(tmp_path / "in.dcm", draw_chest((160, 140), 3), RescaleSlope="1", NumberOfFrames=3)
    assert main(["read", str(image), *arguments]) == 2
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_study_has_one_report_and_a_state_for_each_view(tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    for seed, name in enumerate(("front", "side")):
        write_image(folder / f"{name}.dcm", draw_chest((160, 140), seed))
    assert main(["read", str(folder), "--study", *arguments]) == 0
    boxes = read_json(tmp_path / "out/study.json")["boxes"]
    with_boxes = sorted({box["image"] + 1 for box in boxes})
    names = sorted(path.name for path in (tmp_path / "out/dicom").iterdir())
    assert names == [*(f"study.presentation_{number}.dcm" for number in with_boxes), "study.report.dcm"]


def test_missing_highdicom_is_said_with_the_remedy_before_models_are_loaded(tmp_path: Path, arguments: list[str]) -> None:
    image = write_image(tmp_path / "in.dcm", draw_chest((160, 140), 3))
    code = (
        "import sys; sys.modules['highdicom'] = None; from d2rnet.cli import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, "read", str(image), *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "--dicom-sr writes with highdicom, which is not installed. Install it: python -m pip install" in done.stderr


def test_full_disk_leaves_no_half_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from document_samples import make_reading, write

    from d2rnet.reading.dicom import documents

    def half(file: Path, document: Dataset, **options: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    reading = make_reading(write_image(tmp_path / "in.dcm"))
    monkeypatch.setattr(documents, "dcmwrite", half)
    with pytest.raises(OSError, match="No space left"):
        write(reading, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_ct_of_a_series_has_a_report_and_one_of_a_nifti_file_fails(tmp_path: Path) -> None:
    import nibabel

    cohort = ct_report_samples.write_ct_cohort(tmp_path / "cohort")
    model = ct_report_samples.train(cohort, ct_report_samples.extract(cohort, tmp_path / "features"), tmp_path / "report")
    ct_report_samples.describe(model)
    hu = np.ascontiguousarray(drawn_volume().hu)
    write_ct_slices(tmp_path / "in/series", hu)
    z, y, x = SPACING_MM
    nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-x, -y, z, 1.0])), tmp_path / "in/scan.nii")
    models = ["--structures", str(cohort / "structures"), "--ct-report-model", str(model)]
    output = tmp_path / "out"
    assert main(["read", str(tmp_path / "in"), *models, "--device", "cpu", "--output", str(output), "--dicom-sr"]) == 3
    (failure,) = read_jsonl(output / "failures.jsonl")
    assert "scan.nii: got no DICOM file; expected a DICOM file" in failure["error"]
    spoken_of = [one["text"] for one in read_json(output / "series.json")["structures"].values() if one["text"]]
    report = dcmread(output / "dicom/series.report.dcm")
    assert [item.TextValue for item in report.ContentSequence[-1].ContentSequence] == spoken_of != []
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == len(hu)
