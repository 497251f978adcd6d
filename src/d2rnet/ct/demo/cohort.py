"""make-ct-demo-cohort: a seeded synthetic cohort of chest CTs with reports, in CT-RATE's layout (release v2).

Writes ``<output>/ct_rate/dataset/`` as :mod:`d2rnet.ct.sources.ct_rate` reads it, with some second scans and second
reconstructions, a no_chest list and a few files that cannot be used; ``masks/`` (true voxels of structures and abnormalities)
and ``truth.jsonl`` (what was drawn and what was written of it), for evaluation only: no stage reads them; ``run.json`` and,
last, ``cohort.json``. The voxels are Hounsfield units already, and the metadata still hold the scanner's intercept, as in v2.
The same settings give the same files whatever the number of workers: every patient has its own seed.
"""

import csv
import io
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2rnet.ct.demo.phantom import Phantom, draw_head, draw_phantom, expose
from d2rnet.ct.demo.reports import Report, write_report
from d2rnet.ct.demo.settings import CtDemoSettings
from d2rnet.files.atomic import full_disk_named, write_text
from d2rnet.files.documents import write_json, write_jsonl
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.runs.cohort_folder import make_cohort_folder
from d2rnet.runs.parallel import map_in_processes
from d2rnet.runs.progress import track

log = logging.getLogger(__name__)

LAYOUT = "ct_rate"
STRUCTURE_CODES = (  # code of a structure in masks/<volume>.nii.gz is its place, from 1; later ones lie over earlier ones
    "breast_axilla_chest_wall",
    "abdomen",
    "pleura",
    "lung",
    "heart_mediastinum_vessels",
    "bone",
    "oesophagus",
    "thyroid",
    "trachea_bronchi",
)
SECOND_SCAN = 12  # one patient in so many has a scan b
SECOND_RECONSTRUCTION = 16
_REPORT_COLUMNS = ("VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
_METADATA_COLUMNS = (
    "VolumeName",
    "Manufacturer",
    "SeriesDescription",
    "PatientSex",
    "PatientAge",
    "ConvolutionKernel",
    "Rows",
    "Columns",
    "XYSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "NumberofSlices",
    "ZSpacing",
    "StudyDate",
)
_WORDS = {"train": "train", "valid": "validation"}
Record = dict[str, Any]


@dataclass(frozen=True)
class _Item:
    """A scan to draw: its names, the seed of its patient and its number among the patient's scans."""

    part: str
    patient: int
    scan: str
    reconstructions: int

    @property
    def study_id(self) -> str:
        return f"{self.part}_{self.patient}_{self.scan}"


def make_ct_demo_cohort(*, output: Path, workers: int, settings: CtDemoSettings) -> None:
    """Draw the CT demo cohort.

    Args:
        output: folder to make; an older demo cohort there is replaced, anything else is refused.
        workers: processes.
        settings: section ``ct.data.demo`` of config.yaml.

    Raises:
        D2RNetError: ``output`` holds something that is not a demo cohort, or a worker process died.
    """
    counts = make_cohort_folder(
        output,
        partial(_fill, workers=workers, settings=settings),
        command="make-ct-demo-cohort",
        seed=settings.seed,
        settings=settings,
    )
    log.info("CT demo cohort in %s: %s", output, counts)


def _fill(folder: Path, *, workers: int, settings: CtDemoSettings) -> Record:
    """Draw everything below ``folder``; return the counts."""
    items = list(_plan(settings))
    draw = partial(_draw_study, folder=folder, settings=settings)
    drawn = map_in_processes(draw, items, workers=workers, what="draw chest CTs")
    records = list(track(drawn, total=len(items), what="draw chest CTs", unit="scan"))
    codes = {name: [code] for code, name in enumerate(STRUCTURE_CODES, start=1)}
    write_json(folder / "masks" / "structures.json", codes)
    bad = _write_unusable(folder, settings)
    rows = [row for record in records for row in record.pop("rows")] + bad
    for part in _WORDS:
        _write_tables(folder / LAYOUT / "dataset", part, [row for row in rows if row["VolumeName"].startswith(part)])
    write_jsonl(folder / "truth.jsonl", records)
    labels = Counter(label for record in records for label in record["labels"])
    return {
        "studies": len(records),
        "volumes": sum(len(record["volumes"]) for record in records),
        "unusable_volumes": len(bad),
        "studies_without_abnormality": sum(not record["labels"] for record in records),
        "labels": {label: labels[label] for label in CT_ABNORMALITIES},
    }


def _plan(settings: CtDemoSettings) -> Iterator[_Item]:
    for part, patients in (("train", settings.train_patients), ("valid", settings.valid_patients)):
        for patient in range(1, patients + 1):
            for scan in "ab" if patient % SECOND_SCAN == 0 else "a":
                yield _Item(part, patient, scan, 2 if patient % SECOND_RECONSTRUCTION == 1 and scan == "a" else 1)


def _seed(settings: CtDemoSettings, item: _Item, *words: int) -> np.random.Generator:
    return np.random.default_rng([settings.seed, list(_WORDS).index(item.part), item.patient, *words])


def _draw_study(item: _Item, *, folder: Path, settings: CtDemoSettings) -> Record:
    """Draw a scan, write its volumes and masks; return its truth, and the rows of the tables under "rows"."""
    scan_number = ord(item.scan)
    phantom = draw_phantom(_seed(settings, item), _seed(settings, item, scan_number), settings)
    report = write_report(phantom.drawn, _seed(settings, item, scan_number, 1))
    rows = []
    for number in range(1, item.reconstructions + 1):
        name = f"{item.study_id}_{number}"
        voxels = expose(phantom, _seed(settings, item, scan_number, 1 + number), sharp=phantom.scan.sharp ^ (number == 2))
        _write_nifti(_volume_path(folder, name), voxels, phantom)
        rows.append(_row(name, phantom, report, _seed(settings, item, scan_number, 0)))
    _write_nifti(folder / "masks" / f"{item.study_id}.nii.gz", _structure_map(phantom), phantom)
    _write_nifti(folder / "masks" / f"{item.study_id}_abnormal.nii.gz", _abnormality_map(phantom), phantom)
    return {
        "study_id": item.study_id,
        "volumes": [row["VolumeName"] for row in rows],
        "labels": [label for label in CT_ABNORMALITIES if label in phantom.masks],
        "drawn": [asdict(one) for one in phantom.drawn],
        "sentences": report.sentences,
        "rows": rows,
    }


def _volume_path(folder: Path, name: str) -> Path:
    part, patient, scan, _ = name.split("_")
    subject = f"{part}_{patient}"
    return folder / LAYOUT / "dataset" / f"{part}_fixed" / subject / f"{subject}_{scan}" / f"{name}.nii.gz"


def _structure_map(phantom: Phantom) -> NDArray[np.uint8]:
    """Return the code of the structure of each voxel (Z, Y, X), 0 for none."""
    codes = np.zeros(phantom.hu.shape, dtype=np.uint8)
    for code, name in enumerate(STRUCTURE_CODES, start=1):
        codes[phantom.structures[name]] = code
    return codes


def _abnormality_map(phantom: Phantom) -> NDArray[np.uint32]:
    """Return a bit per abnormality of each voxel (Z, Y, X): bit n is CT_ABNORMALITIES[n]."""
    bits = np.zeros(phantom.hu.shape, dtype=np.uint32)
    for number, label in enumerate(CT_ABNORMALITIES):
        if label in phantom.masks:
            bits[phantom.masks[label]] |= np.uint32(1 << number)
    return bits


def _write_nifti(target: Path, voxels_zyx: NDArray[Any], phantom: Phantom) -> None:
    """Write voxels (Z, Y, X), LPS+, as a packed NIfTI of axes (X, Y, Z) with its affine (RAS+)."""
    import nibabel
    from isal import igzip

    slice_mm, row_mm, column_mm = phantom.scan.spacing_zyx
    affine = np.diag([-column_mm, -row_mm, slice_mm, 1.0])
    affine[:3, 3] = [150.0, 160.0, -300.0]
    voxels_xyz = np.ascontiguousarray(voxels_zyx.transpose(2, 1, 0))  # (Z, Y, X) -> (X, Y, Z)
    image = nibabel.Nifti1Image(voxels_xyz, affine)
    image.header.set_xyzt_units("mm")
    target.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_named(target):
        target.write_bytes(igzip.compress(image.to_bytes(), compresslevel=2, mtime=0))


def _row(name: str, phantom: Phantom, report: Report, rng: np.random.Generator) -> Record:
    """Return the cells of a volume in all tables."""
    slices, rows, columns = phantom.scan.shape_zyx
    spacing = phantom.scan.spacing_zyx
    patient = phantom.patient
    row: Record = {
        "VolumeName": f"{name}.nii.gz",
        "ClinicalInformation_EN": ("Not given.", "Cough.", "Control.", "Dyspnoea.", "")[int(rng.integers(5))],
        "Technique_EN": "Synthetic axial sections.",
        "Findings_EN": report.findings,
        "Impressions_EN": report.impression if rng.random() < 0.95 else "Not given.",
        "Manufacturer": "Synthetic",
        "SeriesDescription": "THORAX",
        "PatientSex": "F" if patient.is_female else "M",
        "PatientAge": f"{patient.age:03d}Y",
        "ConvolutionKernel": "sharp" if phantom.scan.sharp else "soft",
        "Rows": rows,
        "Columns": columns,
        "XYSpacing": f"[{spacing[1]:.6f}, {spacing[2]:.6f}]",
        "RescaleIntercept": -8192 if rng.random() < 0.03 else -1024,
        "RescaleSlope": 1,
        "NumberofSlices": slices,
        "ZSpacing": f"{spacing[0]:.4f}",
        "StudyDate": "",
    }
    return row | {label: int(label in phantom.masks) for label in CT_ABNORMALITIES}


def _write_tables(base: Path, part: str, rows: list[Record]) -> None:
    """Write the tables of a part under CT-RATE's own names."""
    word = _WORDS[part]
    _write_csv(base / "radiology_text_reports" / f"{word}_reports.csv", rows, _REPORT_COLUMNS)
    _write_csv(base / "metadata" / f"{word}_metadata.csv", rows, _METADATA_COLUMNS)
    _write_csv(base / "multi_abnormality_labels" / f"{part}_predicted_labels.csv", rows, ("VolumeName", *CT_ABNORMALITIES))
    no_chest = [row["VolumeName"] for row in rows if row.get("no_chest")]
    write_text(base / "metadata" / f"no_chest_{part}.txt", "".join(f"{name}\n" for name in no_chest))


def _write_csv(target: Path, rows: list[Record], columns: tuple[str, ...]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(target, stream.getvalue())


def _write_unusable(folder: Path, settings: CtDemoSettings) -> list[Record]:
    """Write a head that the no_chest list names, and volumes that cannot be read; return their rows of the tables."""
    item = _Item("train", settings.train_patients + 1, "a", 1)
    rows = []
    for number, kind in enumerate(("head", "cut off", "text")[: 1 + settings.unreadable_volumes]):
        name = f"train_{item.patient + number}_a_1"
        rng = _seed(settings, item, number)
        phantom = draw_head(rng, settings) if kind == "head" else draw_phantom(rng, rng, settings)
        path = _volume_path(folder, name)
        _write_nifti(path, expose(phantom, rng, sharp=True), phantom)
        if kind == "cut off":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif kind == "text":
            path.write_text("404: not found\n", encoding="utf-8")
        rows.append(_row(name, phantom, write_report(phantom.drawn, rng), rng) | {"no_chest": kind == "head"})
    return rows
