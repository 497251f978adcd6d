"""Reports of the demo patients: sentences per structure, of what was drawn and of what is normal.

Reads and writes: nothing. A report says nothing that is not in its volume; a structure may go unmentioned, as in real reports.
"""

from dataclasses import dataclass

import numpy as np

from d2rnet.ct.demo.drawn import Drawn
from d2rnet.ct.demo.wording import ABNORMAL, FILLER, IMPRESSION, NORMAL

# How often a structure without findings is mentioned; of the order of real reports, where the thyroid is rare.
MENTIONED = {
    "trachea_bronchi": 0.9,
    "heart_mediastinum_vessels": 0.97,
    "lung": 0.95,
    "oesophagus": 0.75,
    "pleura": 0.85,
    "bone": 0.9,
    "thyroid": 0.12,
    "breast_axilla_chest_wall": 0.4,
    "abdomen": 0.9,
    "others": 0.0,
}
_COUNTS = ("", "one", "two", "three", "four", "five")
# sentences of NORMAL["heart_mediastinum_vessels"], in order -> labels with which they would be wrong
_HEART_NORMAL = (
    {"Cardiomegaly"},
    {"Arterial wall calcification", "Coronary artery wall calcification"},
    {"Lymphadenopathy"},
    {"Pericardial effusion"},
)
_LUNG = {
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
}
_WRONG_WITH: dict[str, tuple[set[str], ...]] = {
    "heart_mediastinum_vessels": _HEART_NORMAL,
    "trachea_bronchi": ({"Tracheal secretion"},),
    "lung": (_LUNG,),
    "oesophagus": ({"Hiatal hernia"},),
    "pleura": ({"Pleural effusion"},),
    "bone": ({"Bone metastases", "Low bone density"},),
    "thyroid": ({"Goitre"},),
    "breast_axilla_chest_wall": ({"Lymphadenopathy", "Medical material", "Chest wall mass"},),
    "abdomen": ({"Fatty liver", "Liver lesion"},),
}


@dataclass(frozen=True)
class Report:
    """A report.

    Attributes:
        findings: its text.
        impression: its summary.
        sentences: structure -> the sentences written of it, for evaluation only.
    """

    findings: str
    impression: str
    sentences: dict[str, list[str]]


def write_report(drawn: list[Drawn], rng: np.random.Generator) -> Report:
    """Write the report of a body.

    Args:
        drawn: its abnormalities.
        rng: choice of words and of what is left unmentioned.
    """
    labels = {one.label for one in drawn}
    sentences: dict[str, list[str]] = {}
    for structure, share in MENTIONED.items():
        found = [_abnormal(one, rng) for one in drawn if one.structure == structure]
        if found or rng.random() < share:
            found += _normal(structure, labels, bool(found), rng)
        if found:
            sentences[structure] = found
    if rng.random() < 0.3:
        sentences.setdefault("others", []).insert(0, _choose(FILLER, rng))
    text = " ".join(sentence for structure in _order(list(sentences), rng) for sentence in sentences[structure])
    summary = ". ".join(sorted({IMPRESSION[label] for label in labels})) or "No pathology is detected in the chest"
    return Report(text, f"{summary}.", sentences)


def _order(structures: list[str], rng: np.random.Generator) -> list[str]:
    """Put fillers first and keep the usual order, but for one exchange in some reports."""
    ordered = sorted(structures, key=lambda name: name != "others")
    if len(ordered) > 3 and rng.random() < 0.3:
        place = int(rng.integers(1, len(ordered) - 1))
        ordered[place], ordered[place + 1] = ordered[place + 1], ordered[place]
    return ordered


def _normal(structure: str, labels: set[str], has_findings: bool, rng: np.random.Generator) -> list[str]:
    """Return normal sentences that are true beside the findings."""
    found = []
    for options, wrong_with in zip(NORMAL.get(structure, ()), _WRONG_WITH.get(structure, ()), strict=True):
        mentioned = rng.random() < (0.5 if has_findings else 0.85) or (
            structure != "heart_mediastinum_vessels" and not has_findings
        )
        if mentioned and not wrong_with & labels:
            found.append(_choose(options, rng))
    return found


def _choose(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _abnormal(one: Drawn, rng: np.random.Generator) -> str:
    """Return a sentence that tells an abnormality."""
    a_side = "bilateral" if one.side == "bilateral" else f"a {one.side}-sided"
    several = one.count > 1
    noun = "lesion" if one.kind == "liver lesion" else "nodule"
    a_count = f"{_COUNTS[one.count]} {noun}s" if several else f"a {noun}"
    words = {
        "lobe": one.place,
        "place": one.place,
        "side": one.side,
        "size": str(one.size_mm),
        "grade": one.grade,
        "Grade": one.grade.capitalize(),
        "a_side": a_side,
        "A_side": a_side[:1].upper() + a_side[1:],
        "on_side": "on both sides" if one.side == "bilateral" else f"on the {one.side} side",
        "a_count": a_count,
        "A_count": a_count[:1].upper() + a_count[1:],
        "is_are": "are" if several else "is",
    }
    text = _choose(ABNORMAL[one.kind], rng).format(**words)
    return text.replace("the both lungs", "both lungs")
