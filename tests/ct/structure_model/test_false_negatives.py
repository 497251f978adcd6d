"""False negatives of a batch, against pairs counted one by one."""

from itertools import permutations
from typing import Any

import pytest

from d2rnet.ct.structure_model.false_negatives import false_negatives
from d2rnet.ct.structure_model.settings import StructureModelSettings
from d2rnet.ct.structures.table import load_table
from d2rnet.findings.ct_classes import CT_ABNORMALITIES

TABLE = load_table("ten")
HEART = "heart_mediastinum_vessels"


def entry(text: str, *labels: str, abnormal: bool | None = False, unknown: str = "") -> dict[str, Any]:
    """An entry whose report says this of the heart, and nothing else."""
    nothing = {"text": "", "abnormal": None}
    return {
        "id": "x",
        "structures": {name: {"text": text, "abnormal": abnormal} if name == HEART else nothing for name in TABLE.structures},
        "labels": [None if label == unknown else int(label in labels) for label in CT_ABNORMALITIES],
    }


NORMAL, OTHER_WORDS, LARGE, MASS = "Heart size is normal.", "Normal heart.", "The heart is large.", "A mass lies before it."
# Five say something that is known: 0, 1 and 2 that the heart is normal, 3 and 4 that it is large.
ENTRIES = [
    entry(NORMAL, "Lung nodule"),  # of another structure: does not tell hearts apart
    entry(NORMAL),
    entry(OTHER_WORDS),
    entry(LARGE, "Cardiomegaly", abnormal=True),
    entry("Cardiomegaly.", "Cardiomegaly", abnormal=True),
    entry(LARGE, unknown="Cardiomegaly", abnormal=True),
    entry(MASS, abnormal=True),  # none of the 18
    entry(MASS, abnormal=True),
    entry("It was not judged.", abnormal=None),
    entry(""),
]
SAME = {(0, 1), (0, 2), (1, 2), (3, 4)}


def settings_of(batch_size: int, *, equal_texts: bool, missing: str = "mask") -> StructureModelSettings:
    contrast = {"equal_texts": equal_texts}
    return StructureModelSettings.read(
        {"text": {"missing": missing}, "training": {"batch_size": batch_size, "contrast": contrast}}
    )


def counted(*, equal_texts: bool) -> tuple[int, int]:
    """Ordered pairs that the contrast pushes apart, and those among them of which one's text is true of the other."""
    texts = [one["structures"][HEART]["text"] for one in ENTRIES[:-1]]
    pairs = [pair for pair in permutations(range(9), 2) if not equal_texts or texts[pair[0]] != texts[pair[1]]]
    return len(pairs), sum(tuple(sorted(pair)) in SAME for pair in pairs)


@pytest.mark.parametrize("equal_texts", [False, True])
def test_pairs_are_those_counted_one_by_one(equal_texts: bool) -> None:
    pairs, false = counted(equal_texts=equal_texts)
    assert (pairs, false) == ((72 - 6, 6) if equal_texts else (72, 8))
    found = false_negatives(ENTRIES, TABLE, settings_of(4, equal_texts=equal_texts))[HEART]
    share = 3 / 9  # of the nine other volumes three are in a batch of four
    assert found["batch_negatives"] == pytest.approx(share * pairs / 9)  # nine reports speak of the heart
    assert found["batch_false_negatives"] == pytest.approx(share * false / 9)


def test_a_batch_holds_no_more_than_all_volumes() -> None:
    found = false_negatives(ENTRIES, TABLE, settings_of(100, equal_texts=False))[HEART]
    assert (found["batch_negatives"], found["batch_false_negatives"]) == (8.0, 8 / 9)


def test_structures_that_nobody_mentions() -> None:
    masked = false_negatives(ENTRIES, TABLE, settings_of(3, equal_texts=True))["bone"]
    assert masked == {"batch_negatives": None, "batch_false_negatives": None}
    normal = false_negatives(ENTRIES, TABLE, settings_of(10, equal_texts=False, missing="normal"))["bone"]
    assert normal == {"batch_negatives": 9.0, "batch_false_negatives": 9.0}  # each has the normal sentence
    both = false_negatives(ENTRIES, TABLE, settings_of(10, equal_texts=True, missing="normal"))["bone"]
    assert both == {"batch_negatives": 0.0, "batch_false_negatives": 0.0}
