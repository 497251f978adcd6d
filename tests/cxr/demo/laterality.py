"""A check of laterality: boxes of the demo cohort lie on the side that its reports name."""

import re
from collections.abc import Sequence

_TERMS: dict[str, str] = {
    "Aortic enlargement": r"aort(a|ic)\b",
    "Atelectasis": r"atelectasis",
    "Calcification": r"calcifi(ed|cation)",
    "Clavicle fracture": r"clavicle",
    "Consolidation": r"consolidation",
    "Infiltration": r"infiltrat",
    "Lung Opacity": r"opacity\b",
    "Lung cavity": r"cavit(y|ary)",
    "Lung cyst": r"cyst\b",
    "Mediastinal shift": r"(mediastinal shift|mediastinum (is|are) (shifted|displaced)|deviation of the trachea)",
    "Nodule/Mass": r"(nodule|mass)\b",
    "Pleural effusion": r"effusion",
    "Pleural thickening": r"pleural thickening",
    "Pneumothorax": r"pneumothorax",
    "Pulmonary fibrosis": r"fibrosis",
    "Rib fracture": r"\brib\b",
    "Other lesion": r"(pacemaker|generator|pacer)",
}


def check_laterality(
    boxes: Sequence[tuple[str, tuple[float, float, float, float]]], report: str, image_width: float
) -> list[str]:
    """Compare the side of boxes with the side that a report names: a mirrored picture is caught.

    Only classes with one side in the text count; negated sentences, "bilateral" and boxes that straddle the midline do not.

    Args:
        boxes: class name and ``bbox_xywh`` in pixels of each box.
        report: findings text; left and right are the patient's.
        image_width: pixels, same frame as the boxes.

    Returns:
        One line per contradiction; empty where all agree.
    """
    contradictions = []
    for sentence in re.split(r"(?<=[.])\s+", report):
        sides = set(re.findall(r"\b(left|right)\b", sentence.lower()))
        if len(sides) != 1 or re.search(r"\b(no|without)\b", sentence.lower()):
            continue
        (said,) = sides
        for category, pattern in _TERMS.items():
            if not re.search(pattern, sentence.lower()):
                continue
            seen = {side for name, box in boxes if name == category and (side := _box_side(box, image_width))}
            if seen and said not in seen:
                contradictions.append(
                    f"{category}: report says {said} ({sentence!r}), boxes lie on the patient's {seen.pop()}"
                )
    return contradictions


def _box_side(bbox_xywh: tuple[float, float, float, float], image_width: float) -> str:
    """The patient's side of a box centre, "" within 2 % of the midline."""
    offset = (bbox_xywh[0] + bbox_xywh[2] / 2) / image_width - 0.5
    if abs(offset) < 0.02:
        return ""
    return "left" if offset > 0 else "right"
