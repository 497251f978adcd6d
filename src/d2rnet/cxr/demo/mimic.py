"""MIMIC-CXR-JPG part of the demo cohort: patients, studies, views, and the tables and report files of release 2.x.

Writes below ``<folder>``: ``files/p10/p10000032/s50414267/<dicom_id>.jpg``, ``files/p10/p10000032/s50414267.txt``,
``mimic-cxr-2.0.0-{split,metadata,chexpert}.csv.gz``. Layout: https://physionet.org/content/mimic-cxr-jpg/2.1.0/ (facts only).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2rnet.cxr.demo.findings import Finding, deal_findings
from d2rnet.cxr.demo.reports import header_variants

Rng = np.random.Generator
TABLE_PREFIX = "mimic-cxr-2.0.0"
SPLITS = {"train": "train", "val": "validate", "test": "test"}  # setting -> name in the split table
_VIEW_SETS = ((("PA",), 0.42), (("AP",), 0.28), (("PA", "LATERAL"), 0.22), (("AP", "AP"), 0.08))
CHEXPERT_LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
_TO_CHEXPERT = {
    "Aortic enlargement": "Enlarged Cardiomediastinum", "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly",
    "Clavicle fracture": "Fracture", "Consolidation": "Consolidation", "Edema": "Edema",
    "Enlarged PA": "Enlarged Cardiomediastinum", "ILD": "Lung Opacity",
    "Infiltration": "Lung Opacity", "Lung Opacity": "Lung Opacity", "Lung cavity": "Lung Lesion",
    "Lung cyst": "Lung Lesion", "Mediastinal shift": "Enlarged Cardiomediastinum", "Nodule/Mass": "Lung Lesion",
    "Pleural effusion": "Pleural Effusion", "Pleural thickening": "Pleural Other", "Pneumothorax": "Pneumothorax",
    "Pulmonary fibrosis": "Lung Opacity", "Rib fracture": "Fracture",
}  # fmt: skip
_DENIALS = {
    "Pleural Effusion": r"no (pleural )?effusion",
    "Pneumothorax": r"no (pneumothorax|(pleural )?effusion or pneumothorax)",
    "Consolidation": r"(no|without) focal (consolidation|airspace)",
    "Cardiomegaly": r"heart size is (normal|within)|silhouette is normal|heart is not enlarged",
    "Fracture": r"no acute (osseous|injury)",
}


@dataclass(frozen=True)
class StudyPlan:
    """One study to draw.

    Attributes:
        number: position in the cohort, seeds everything random in the study.
        patient_number: position of its patient, seeds the anatomy.
        split: "train", "validate" or "test".
        views: ViewPosition of each image.
        findings: what every frontal image shows and the report says.
        variant: key of demo_reports.HEADER_VARIANTS.
        changes: with follow-ups, how each finding of a later study has changed; else none.
        indication: with follow-ups, why it was taken; else "".
        is_follow_up: whether it goes on from the study before.
        year: of its date, counted from the first.
    """

    number: int
    patient_number: int
    subject_id: int
    study_id: int
    split: str
    views: tuple[str, ...]
    dicom_ids: tuple[str, ...]
    findings: tuple[Finding, ...]
    variant: str
    changes: tuple[str, ...] = ()
    indication: str = ""
    is_follow_up: bool = False
    year: int = 0

    @property
    def patient_folder(self) -> Path:
        """Folder of the patient, relative to the root of the release."""
        return Path("files") / f"p{self.subject_id // 1_000_000}" / f"p{self.subject_id}"

    def image_path(self, dicom_id: str) -> Path:
        """Path of an image, relative to the root of the release."""
        return self.patient_folder / f"s{self.study_id}" / f"{dicom_id}.jpg"

    @property
    def report_path(self) -> Path:
        """Path of the report, relative to the root of the release."""
        return self.patient_folder / f"s{self.study_id}.txt"


def plan_studies(counts: dict[str, int], rng: Rng) -> list[StudyPlan]:
    """Plan patients and studies: 1 to 4 studies per patient, all of them in one split.

    Args:
        counts: split setting ("train", "val", "test") -> number of studies.
        rng: of the whole plan.
    """
    plans: list[StudyPlan] = []
    subject_ids = 10_000_000 + np.sort(rng.choice(9_900_000, sum(counts.values()), replace=False))
    study_ids = 50_000_000 + rng.choice(9_900_000, sum(counts.values()), replace=False)
    view_shares = np.array([share for _, share in _VIEW_SETS])
    patient = -1
    for split, count in counts.items():
        left_of_patient = 0
        findings = deal_findings(count, rng)
        variants = header_variants(count, rng)
        for index in range(count):
            if not left_of_patient:
                patient += 1
                left_of_patient = int(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08]))
            left_of_patient -= 1
            views = _VIEW_SETS[int(rng.choice(len(_VIEW_SETS), p=view_shares))][0]
            dicom_ids = tuple("-".join(f"{word:08x}" for word in rng.integers(2**32, size=5)) for _ in views)
            number = len(plans)
            plans.append(
                StudyPlan(
                    number,
                    patient,
                    int(subject_ids[patient]),
                    int(study_ids[number]),
                    SPLITS[split],
                    views,
                    dicom_ids,
                    tuple(findings[index]),
                    variants[index],
                )
            )
    return plans


def chexpert_labels(findings: Sequence[Finding], text: str) -> dict[str, float | None]:
    """CheXpert labels that agree with a report: 1 stated, 0 denied, None not mentioned."""
    labels: dict[str, float | None] = dict.fromkeys(CHEXPERT_LABELS)
    lowered = text.lower()
    for denied, pattern in _DENIALS.items():
        if re.search(pattern, lowered):
            labels[denied] = 0.0
    for finding in findings:
        name = "Support Devices" if finding.kind == "device" else _TO_CHEXPERT.get(finding.category)
        if name:
            labels[name] = 1.0
    if not findings:
        labels["No Finding"] = 1.0
    return labels


def write_tables(folder: Path, plans: Sequence[StudyPlan], images: dict[str, dict[str, Any]], texts: dict[int, str]) -> None:
    """Write the split, metadata and chexpert tables.

    Args:
        folder: root of the release.
        plans: all studies.
        images: dicom_id -> height and width of the file.
        texts: study_id -> report sections, for the labels.
    """
    rows = [(plan, view, dicom_id) for plan in plans for view, dicom_id in zip(plan.views, plan.dicom_ids, strict=True)]
    split = pd.DataFrame(
        [(dicom_id, plan.study_id, plan.subject_id, plan.split) for plan, _, dicom_id in rows],
        columns=["dicom_id", "study_id", "subject_id", "split"],
    )
    _write_gz(split, folder / f"{TABLE_PREFIX}-split.csv.gz")
    metadata = pd.DataFrame([_metadata_row(plan, view, dicom_id, images[dicom_id]) for plan, view, dicom_id in rows])
    _write_gz(metadata, folder / f"{TABLE_PREFIX}-metadata.csv.gz")
    labels = [
        {"subject_id": plan.subject_id, "study_id": plan.study_id, **chexpert_labels(plan.findings, texts[plan.study_id])}
        for plan in plans
    ]
    _write_gz(pd.DataFrame(labels), folder / f"{TABLE_PREFIX}-chexpert.csv.gz")


def _metadata_row(plan: StudyPlan, view: str, dicom_id: str, image: dict[str, Any]) -> dict[str, Any]:
    description = (
        "CHEST (PA AND LAT)" if "LATERAL" in plan.views else f"CHEST (PORTABLE {view})" if view == "AP" else "CHEST (PA)"
    )
    day = plan.number % 28 + 1
    names = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}
    return {
        "dicom_id": dicom_id,
        "subject_id": plan.subject_id,
        "study_id": plan.study_id,
        "PerformedProcedureStepDescription": description,
        "ViewPosition": view,
        "Rows": image["height"],
        "Columns": image["width"],
        "StudyDate": 21_500_100 + plan.year * 10_000 + plan.number // 28 % 12 * 100 + day,
        "StudyTime": round(80_000 + plan.number % 10 * 1_000 + 0.5, 3),
        "ProcedureCodeSequence_CodeMeaning": description,
        "ViewCodeSequence_CodeMeaning": names[view],
        "PatientOrientationCodeSequence_CodeMeaning": "Erect" if view != "AP" else "",
    }


def _write_gz(table: pd.DataFrame, path: Path) -> None:
    # mtime 0: the same cohort is the same bytes
    table.to_csv(path, index=False, lineterminator="\n", compression={"method": "gzip", "mtime": 0, "compresslevel": 6})
