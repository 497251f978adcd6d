"""What a demo radiograph shows: which findings share a picture, on which side, in which zone and how large.

Classes are dealt from a balanced deck, so that every one of the 22 gets about as many pictures as any other, and each finding
takes *slots* of the chest (a lung zone, the heart, a clavicle), so that no two findings cover each other.

Reads and writes: nothing. Own work.
"""

from dataclasses import dataclass, field
from itertools import product

import numpy as np

from d2rnet.findings.classes import CATEGORY_NAMES

Box = tuple[float, float, float, float]
NORMAL_FRACTION = 0.27
COUNT_WEIGHTS = (0.15, 0.30, 0.32, 0.23)  # of 1, 2, 3, 4 findings in an abnormal picture
SIZE_WORDS = ("small", "moderate", "large")
SEVERITY_WORDS = ("mild", "moderate", "severe")  # of diffuse changes and enlarged organs
GRADED = frozenset(
    (
        "Aortic enlargement",
        "Atelectasis",
        "Cardiomegaly",
        "Edema",
        "Emphysema",
        "Enlarged PA",
        "ILD",
        "Mediastinal shift",
        "Pleural thickening",
        "Pulmonary fibrosis",
    )
)


@dataclass(frozen=True)
class Finding:
    """One finding of a study, the truth behind boxes and report.

    Attributes:
        category: one of CATEGORY_NAMES.
        side: the patient's "left" or "right", "bilateral", or "" for the midline.
        zone: "upper", "mid", "lower", or "" where the class has its own place.
        size: 0 smallest to 1 largest of its class.
        kind: variant of a class: "nodule" or "mass", "device" or "hernia"; else "".
    """

    category: str
    side: str = ""
    zone: str = ""
    size: float = 0.5
    kind: str = ""

    @property
    def size_word(self) -> str:
        """Small, moderate, large (or mild, moderate, severe): thirds of ``size``, so it follows the box."""
        words = SEVERITY_WORDS if self.category in GRADED else SIZE_WORDS
        return words[min(int(self.size * 3), 2)]


@dataclass(frozen=True)
class Style:
    """How easily lesions are seen: contrast and size factors, film noise."""

    contrast: float
    scale: float
    noise: float

    @classmethod
    def of_difficulty(cls, difficulty: float) -> "Style":
        """Style of a difficulty between 0 (easy) and 1 (hard)."""
        return cls(contrast=1.3 - 0.85 * difficulty, scale=1.12 - 0.3 * difficulty, noise=0.006 + 0.024 * difficulty)


@dataclass(frozen=True)
class _Option:
    """One way to place a class: side, zone, kind, and the slots it takes."""

    side: str
    zone: str = ""
    kind: str = ""
    slots: frozenset[str] = field(default_factory=frozenset)


def _sided(zones: tuple[str, ...], slots: str, kind: str = "") -> list[_Option]:
    """Options on both sides; ``{s}`` and ``{z}`` in the space-separated slots stand for side and zone."""
    return [
        _Option(side, zone, kind, frozenset(slots.format(s=side, z=zone).split()))
        for side, zone in product(("left", "right"), zones)
    ]


def _fixed(side: str, slots: str, kind: str = "") -> list[_Option]:
    return [_Option(side, "", kind, frozenset(slots.split()))]


_ZONES = ("upper", "mid", "lower")
_LUNGS = " ".join(f"{side}-{zone}" for side in ("left", "right") for zone in (*_ZONES, "base", "wall"))
OPTIONS: dict[str, list[_Option]] = {
    "Aortic enlargement": _fixed("left", "aorta left-mid"),
    "Atelectasis": _sided(("lower",), "{s}-lower"),
    "Calcification": _sided(_ZONES, "{s}-{z}"),
    "Cardiomegaly": _fixed("", "heart left-lower"),
    "Clavicle fracture": _sided(("",), "{s}-clavicle {s}-upper"),
    "Consolidation": _sided(("upper", "lower"), "{s}-{z}"),
    "Edema": _fixed("bilateral", "left-mid right-mid pulmonary aorta left-lower right-lower"),
    "Emphysema": _fixed("bilateral", _LUNGS),
    "Enlarged PA": _fixed("left", "pulmonary left-mid"),
    "ILD": _fixed("bilateral", "left-lower right-lower left-base right-base"),
    "Infiltration": _sided(_ZONES, "{s}-{z}"),
    "Lung Opacity": _sided(_ZONES, "{s}-{z}"),
    "Lung cavity": _sided(("upper", "mid"), "{s}-{z}"),
    "Lung cyst": _sided(_ZONES, "{s}-{z}"),
    "Mediastinal shift": _sided(("",), "trachea aorta pulmonary heart {s}-upper"),
    "Nodule/Mass": _sided(_ZONES, "{s}-{z}", "nodule") + _sided(("mid", "lower"), "{s}-{z}", "mass"),
    "Pleural effusion": _sided(("",), "{s}-base {s}-lower"),
    "Pleural thickening": _sided(("",), "{s}-wall {s}-mid"),
    "Pneumothorax": _sided(("",), "{s}-upper {s}-wall {s}-clavicle"),
    "Pulmonary fibrosis": _sided(("upper", "mid"), "{s}-{z}"),
    "Rib fracture": _sided(("",), "{s}-wall {s}-mid"),
    "Other lesion": _sided(("",), "{s}-clavicle {s}-upper", "device") * 2 + _fixed("", "heart", "hernia"),
}


def deal_findings(count: int, rng: np.random.Generator) -> list[list[Finding]]:
    """Deal findings to ``count`` pictures (or studies): about 27 % none, the others 1 to 4, classes balanced.

    Returns:
        One list a picture, in the order of the pictures, in no particular order within.
    """
    dealt = dict.fromkeys(CATEGORY_NAMES, 0)
    normal = round(count * NORMAL_FRACTION) if count > 3 else 0
    pictures: list[list[Finding]] = [[] for _ in range(normal)]
    for wanted in rng.choice(4, size=count - normal, p=COUNT_WEIGHTS) + 1:
        pictures.append(_deal_one(int(wanted), dealt, rng))
    return [pictures[i] for i in rng.permutation(count)]


def _deal_one(wanted: int, dealt: dict[str, int], rng: np.random.Generator) -> list[Finding]:
    """Take the classes dealt least so far that still fit, breaking ties at random."""
    findings: list[Finding] = []
    taken: set[str] = set()
    order = sorted(CATEGORY_NAMES, key=lambda name: dealt[name] + rng.random() * 1.5)
    most = min(dealt.values()) + 2  # a class that fits beside everything must not run ahead of the others
    for category in order:
        if dealt[category] > most:
            break
        free = [option for option in OPTIONS[category] if not option.slots & taken]
        if not free:
            continue
        option = free[int(rng.integers(len(free)))]
        taken |= option.slots
        dealt[category] += 1
        findings.append(Finding(category, option.side, option.zone, round(float(rng.random()), 3), option.kind))
        if len(findings) == wanted:
            break
    return findings
