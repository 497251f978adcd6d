"""What a report loses in the search for findings that it was told and does not name."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from report_samples import make_batch, make_model

from d2rnet.cxr.report_model.unsaid import UnsaidFindings
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.model_files import LoadedModel
from d2rnet.report.text.vocabulary import EOS_ID, PAD_ID, SPECIAL_TOKENS, Vocabulary

WORDS = ("no", "pneumothorax", "cardiomegaly", ".")
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 0, 0, *[5] * 4), "r2gen", "findings", 1)
PNEUMOTHORAX, CARDIOMEGALY = (CATEGORY_NAMES.index(name) for name in ("Pneumothorax", "Cardiomegaly"))


def loaded(**settings: Any) -> LoadedModel:
    """A model whose words are those above."""
    model = make_model(**settings).eval()
    return cast(LoadedModel, SimpleNamespace(model=model, tokens=VOCABULARY, facts={"categories": list(CATEGORY_NAMES)}))


def read(text: str) -> list[int]:
    ids = [*(VOCABULARY.ids[word] for word in text.split()), EOS_ID]
    return ids + [PAD_ID] * (8 - len(ids))


def test_each_class_told_and_not_named_costs() -> None:
    """The first entry is told both classes, the second one, the third none; the second source has left the batch."""
    given = loaded(findings="told")
    named = torch.zeros(3, len(CATEGORY_NAMES), dtype=torch.bool)
    named[0, [PNEUMOTHORAX, CARDIOMEGALY]] = named[1, PNEUMOTHORAX] = True
    encoded = given.model.findings.tell(given.model.encode(make_batch()), named)
    lost = UnsaidFindings(2.5)(given, encoded)
    assert lost is not None
    texts = [["pneumothorax .", "no pneumothorax .", "cardiomegaly . pneumothorax ."], ["", "pneumothorax .", "no ."]]
    token_ids = torch.tensor([[read(text) for text in row] for row in texts])
    ended = torch.tensor([[True, True, True], [True, True, False]])
    assert lost(torch.tensor([0, 2]), token_ids, ended).tolist() == [[2.5, 5.0, 0.0], [0.0, 0.0, 0.0]]
    assert lost(torch.tensor([0, 1]), token_ids, ended).tolist() == [[2.5, 5.0, 0.0], [2.5, 0.0, 0.0]], "not of open ones"


@pytest.mark.parametrize("change", [{"findings": "none"}, {"findings": "taught"}, {}])
def test_nothing_is_lost_where_nothing_is_told_or_it_is_off(change: dict[str, Any]) -> None:
    given = loaded(**{"findings": "told"} | change)
    encoded = given.model.encode(make_batch())
    assert UnsaidFindings(2.5 if change else 0.0)(given, encoded) is None
