"""A small tree of CT-RATE with its tables; the volumes are empty files."""

from pathlib import Path

from d2rnet.findings.ct_classes import CT_ABNORMALITIES

HEADER = "VolumeName,ClinicalInformation_EN,Technique_EN,Findings_EN,Impressions_EN\n"
METADATA = "VolumeName,Manufacturer,XYSpacing,RescaleIntercept,RescaleSlope,ZSpacing\n"
TRAIN = [f"train_{patient}_a_1" for patient in range(1, 21)]
VALID = ["valid_1_a_1", "valid_1_a_2", "valid_1_a_10", "valid_2_a_1", "valid_2_b_1"]


def write_tables(base: Path, names: dict[str, list[str]], *, valid_word: str = "validation") -> None:
    for folder in ("radiology_text_reports", "metadata", "multi_abnormality_labels"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    for part, volumes in names.items():
        word = part if part == "train" else valid_word
        rows = "".join(f'{name}.nii.gz,,,"Findings of {name[:9]}, twice.",Not given.\n' for name in volumes)
        (base / "radiology_text_reports" / f"{word}_reports.csv").write_text(HEADER + rows)
        rows = "".join(f'{name}.nii.gz,X,"[0.34, 0.35]",-1024,1,1.5\n' for name in volumes)
        (base / "metadata" / f"{word}_metadata.csv").write_text(METADATA + rows)
        rows = "".join(f"{name}.nii.gz,{','.join('01' * 9)}\n" for name in volumes)
        labels = f"VolumeName,{','.join(CT_ABNORMALITIES)}\n{rows}"
        (base / "multi_abnormality_labels" / f"{part}_predicted_labels.csv").write_text(labels)


def write_volumes(base: Path, names: list[str], *, ending: str = "_fixed") -> None:
    for name in names:
        part, patient, scan, _ = name.split("_")
        folder = base / f"{part}{ending}" / f"{part}_{patient}" / f"{part}_{patient}_{scan}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.nii.gz").touch()
