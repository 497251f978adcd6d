"""The 22 VinDr-CXR local labels and how other sources' names map to them: the only place where classes are numbered.

Source: VinDr-CXR 1.0.0, column order of image_labels_train.csv, local labels only (Nguyen et al., Sci Data 2022).
"""

import difflib
from collections.abc import Mapping
from types import MappingProxyType

CATEGORY_NAMES: tuple[str, ...] = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation", "Edema",
    "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst", "Mediastinal shift",
    "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary fibrosis", "Rib fracture",
    "Other lesion",
)  # fmt: skip
CATEGORY_IDS: Mapping[str, int] = MappingProxyType({name: index for index, name in enumerate(CATEGORY_NAMES, start=1)})

# VinBigData's 14 challenge classes carry the same names; its class_id order differs and is never used.
VINBIGDATA_NAMES: tuple[str, ...] = (
    "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD", "Infiltration",
    "Lung Opacity", "Nodule/Mass", "Other lesion", "Pleural effusion", "Pleural thickening", "Pneumothorax",
    "Pulmonary fibrosis",
)  # fmt: skip

# NIH ChestX-ray14 boxes and RSNA pneumonia boxes: names that differ from ours (design: our reading of the closest label).
NIH_TO_CATEGORY: Mapping[str, str] = MappingProxyType(
    {
        "Atelectasis": "Atelectasis",
        "Cardiomegaly": "Cardiomegaly",
        "Effusion": "Pleural effusion",
        "Infiltrate": "Infiltration",
        "Infiltration": "Infiltration",
        "Mass": "Nodule/Mass",
        "Nodule": "Nodule/Mass",
        "Pneumonia": "Lung Opacity",
        "Lung Opacity": "Lung Opacity",
        "Pneumothorax": "Pneumothorax",
    }
)


def coco_categories() -> list[dict[str, object]]:
    """Return the ``categories`` list of a COCO file: ids 1..22, fixed."""
    return [{"id": index, "name": name, "supercategory": "finding"} for name, index in CATEGORY_IDS.items()]


def suggest_category(name: str, known: Mapping[str, object] | tuple[str, ...] = CATEGORY_NAMES) -> str:
    """Return a hint for an unknown class name: the closest known one, then the whole list."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known classes: {', '.join(known)}."
