"""The hand-labelled sentences of this folder, and how well structures_of reads them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from d2rnet.ct.structures.structures import ReportSentence, structures_of
from d2rnet.ct.structures.table import load_table
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

STRUCTURES = {
    "air": "trachea_bronchi",
    "hmv": "heart_mediastinum_vessels",
    "lung": "lung",
    "oes": "oesophagus",
    "pleura": "pleura",
    "bone": "bone",
    "thy": "thyroid",
    "brw": "breast_axilla_chest_wall",
    "abdo": "abdomen",
    "oth": "others",
}
SHORT = (
    "MM",
    "AC",
    "CM",
    "PE",
    "CAC",
    "HH",
    "LAP",
    "EMP",
    "ATE",
    "NOD",
    "OPA",
    "FIB",
    "EFF",
    "MOS",
    "PBT",
    "CON",
    "BRX",
    "SEP",
)
LABELS = dict(zip(SHORT, CT_ABNORMALITIES, strict=True))
FILES = {
    "development": "development_sentences.tsv",
    "traps": "trap_sentences.tsv",
    "held out": "held_out_sentences.tsv",
}


@dataclass(frozen=True)
class LabelledSentence:
    """A sentence with what a reader says of it."""

    text: str
    structures: frozenset[str]
    abnormal: frozenset[str]
    not_judged: frozenset[str]
    labels: frozenset[str]


def read_reports(file_name: str) -> list[list[LabelledSentence]]:
    """Reports of a file: a line that begins with > goes on in the report of the line above it."""
    reports: list[list[LabelledSentence]] = []
    for line in Path(__file__).with_name(file_name).read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        text, structures, labels = (*line.split("\t"), "")[:3]
        names = structures.split()
        sentence = LabelledSentence(
            text.removeprefix("> "),
            frozenset(STRUCTURES[name.rstrip("!?")] for name in names),
            frozenset(STRUCTURES[name.removesuffix("!")] for name in names if name.endswith("!")),
            frozenset(STRUCTURES[name.removesuffix("?")] for name in names if name.endswith("?")),
            frozenset(LABELS[name] for name in labels.split()),
        )
        if text.startswith("> "):
            reports[-1].append(sentence)
        else:
            reports.append([sentence])
    return reports


def read_and_found(file_name: str) -> list[tuple[LabelledSentence, ReportSentence]]:
    """Each labelled sentence beside what structures_of says of it, with the table of ten."""
    table = load_table("ten")
    pairs = []
    for report in read_reports(file_name):
        found = structures_of(" ".join(sentence.text for sentence in report), table).sentences
        assert [sentence.text.strip() for sentence in found] == [sentence.text for sentence in report]
        pairs += list(zip(report, found, strict=True))
    return pairs


def count(file_name: str) -> dict[str, Counter[str]]:
    """Counts (hit, missed, invented) by what was asked: "names lung", "abnormal lung", "not judged lung", "label Nodule"."""
    counts: dict[str, Counter[str]] = {}
    kinds = dict.fromkeys(("names", "abnormal", "not judged"), tuple(STRUCTURES.values())) | {"label": CT_ABNORMALITIES}
    for kind, names in kinds.items():
        for name in names:
            counts[f"{kind} {name}"] = Counter(hit=0, missed=0, invented=0)
    for truth, found in read_and_found(file_name):
        for kind, true, said in (
            ("names", truth.structures, set(found.structures)),
            ("abnormal", truth.abnormal, set(found.abnormal)),
            ("not judged", truth.not_judged, set(found.not_judged)),
            ("label", truth.labels, set(found.labels)),
        ):
            for name in true | said:
                what = "invented" if name not in true else "hit" if name in said else "missed"
                counts[f"{kind} {name}"][what] += 1
    return counts
