"""What structures_of says of the demo cohort's reports, against what was drawn and what each sentence was written of.

The lists of abnormalities are drawn at random without their volumes, which take a third of a second each.
Usage: ``python tests/ct/structures/demo_scores.py`` prints the tables of docs/explanation/ct-text.md.
"""

from collections import Counter
from typing import Any

import numpy as np

from d2rnet.ct.demo.anatomy import LOBES
from d2rnet.ct.demo.chest_findings import NODES
from d2rnet.ct.demo.drawn import Drawn, side_of
from d2rnet.ct.demo.phantom import OTHER_PREVALENCE, PREVALENCE
from d2rnet.ct.demo.reports import Report, write_report
from d2rnet.ct.structures.rates import one_rate, rate_lines
from d2rnet.ct.structures.structures import StructuredReport, structures_of
from d2rnet.ct.structures.table import load_table

REPORTS = 200
HEART = "heart_mediastinum_vessels"
WALL = "breast_axilla_chest_wall"
KINDS: dict[str, tuple[tuple[str, str], ...]] = {  # label -> structure and kind of wording, as the drawing functions note them
    "Medical material": (
        (WALL, "pacemaker"),
        (WALL, "port"),
        ("bone", "sternotomy"),
        (HEART, "valve"),
        (HEART, "central line"),
    ),
    "Arterial wall calcification": ((HEART, "aortic calcification"),),
    "Cardiomegaly": ((HEART, "cardiomegaly"),),
    "Pericardial effusion": ((HEART, "pericardial effusion"),),
    "Coronary artery wall calcification": ((HEART, "coronary calcification"),),
    "Hiatal hernia": (("oesophagus", "hiatal hernia"),),
    "Lymphadenopathy": ((HEART, "mediastinal nodes"), (WALL, "axillary nodes")),
    "Emphysema": (("lung", "emphysema"),),
    "Atelectasis": (("lung", "atelectasis"),),
    "Lung nodule": (("lung", "nodule"), ("lung", "calcified nodule")),
    "Lung opacity": (("lung", "ground glass"),),
    "Pulmonary fibrotic sequela": (("lung", "fibrotic sequela"),),
    "Pleural effusion": (("pleura", "effusion"),),
    "Mosaic attenuation pattern": (("lung", "mosaic"),),
    "Peribronchial thickening": (("trachea_bronchi", "peribronchial"),),
    "Consolidation": (("lung", "consolidation"),),
    "Bronchiectasis": (("trachea_bronchi", "bronchiectasis"),),
    "Interlobular septal thickening": (("lung", "septal thickening"),),
    "Fatty liver": (("abdomen", "fatty liver"),),
    "Liver lesion": (("abdomen", "liver lesion"),),
    "Low bone density": (("bone", "low bone density"),),
    "Bone metastases": (("bone", "bone metastases"),),
    "Goitre": (("thyroid", "goitre"),),
    "Chest wall mass": ((WALL, "breast mass"), (WALL, "chest wall mass")),
    "Tracheal secretion": (("trachea_bronchi", "tracheal secretion"),),
}


def draw_list(rng: np.random.Generator) -> list[Drawn]:
    """Draw the abnormalities of a patient, as often as the cohort has them, without a volume."""
    return [_draw(label, rng) for label, share in (PREVALENCE | OTHER_PREVALENCE).items() if rng.random() < share]


def _draw(label: str, rng: np.random.Generator) -> Drawn:
    structure, kind = KINDS[label][int(rng.integers(len(KINDS[label])))]
    place = str(rng.choice(list(NODES if kind == "mediastinal nodes" else LOBES)))
    side = side_of(place)
    if kind in ("effusion", "ground glass") and rng.random() < 0.3:
        side, place = "bilateral", "both lungs"
    grade = str(rng.choice(["small", "moderate", "large"] if kind == "hiatal hernia" else ["mild", "moderate", "severe"]))
    count = int(rng.integers(1, 4))
    return Drawn(label, structure, kind, side, place, int(rng.integers(7, 30)), grade, count)


def read_reports(number: int = REPORTS) -> list[tuple[list[Drawn], Report, StructuredReport]]:
    """Write reports of drawn lists and cut them into the ten structures."""
    table = load_table("ten")
    found = []
    for seed in range(number):
        rng = np.random.default_rng([seed, 7])
        drawn = draw_list(rng)
        report = write_report(drawn, rng)
        found.append((drawn, report, structures_of(report.findings, table)))
    return found


def demo_rates() -> dict[str, dict[str, dict[str, Any]]]:
    """Rates by what is asked: which sentences a structure gets, which structures are mentioned, and the labels of a report."""
    counts: dict[str, dict[str, Counter[str]]] = {"sentence of": {}, "structure mentioned": {}, "abnormality": {}}
    for drawn, report, read in read_reports():
        homes = {(name, text) for name, texts in report.sentences.items() for text in texts}
        dealt = {(name, one.text.strip()) for one in read.sentences for name in one.structures}
        mentioned = {name for name, entry in read.structures.items() if entry["text"]}
        _count(counts["sentence of"], homes, dealt)
        _count(counts["structure mentioned"], {(name,) for name in report.sentences}, {(name,) for name in mentioned})
        labelled = {(one.label,) for one in drawn if one.label in PREVALENCE}
        _count(counts["abnormality"], labelled, {(label,) for label in read.labels})
    return {kind: _rates(by_name) for kind, by_name in counts.items()}


def _count(counts: dict[str, Counter[str]], true: set[Any], said: set[Any]) -> None:
    for item in true | said:
        entry = counts.setdefault(item[0], Counter())
        entry.update(true=item in true, said=item in said, hit=item in true and item in said)


def _rates(counts: dict[str, Counter[str]]) -> dict[str, dict[str, Any]]:
    every = {**dict(sorted(counts.items())), "all": sum(counts.values(), Counter())}
    return {name: one_rate(entry["hit"], entry["true"], entry["said"]) for name, entry in every.items()}


if __name__ == "__main__":
    for kind, rates in demo_rates().items():
        print("\n".join(rate_lines(rates, kind)), end="\n\n")
