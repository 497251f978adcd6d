"""The loss on attention: which boxes are right at which token, its value by hand, and what it changes."""

import math
from typing import Any

import pytest
import torch
from report_samples import make_batch, make_model
from torch import Tensor

from d2rnet.cxr.boxes.evidence import SIDES
from d2rnet.cxr.report_model.dataset import ChestBatch
from d2rnet.cxr.report_model.pointer import Pointer, right_boxes
from d2rnet.cxr.report_model.settings import D2RNetTrainingSettings
from d2rnet.errors import ConfigError
from d2rnet.findings.classes import CATEGORY_NAMES
from d2rnet.report.text.vocabulary import BOS_ID, EOS_ID, PAD_ID, SPECIAL_TOKENS, Vocabulary
from d2rnet.report.training_task import Losses, report_task

WORDS = (
    "heart",
    "normal",
    "left",
    "right",
    "pleural",
    "effusion",
    "nodule",
    "no",
    "bilateral",
    ".",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
)
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS), (0, 0, 0, 0, *[5] * 16), "r2gen", "findings", 1)
EFFUSION, NODULE = (CATEGORY_NAMES.index(name) + 1 for name in ("Pleural effusion", "Nodule/Mass"))


def told(report: str, boxes: list[tuple[int, str]]) -> ChestBatch:
    """A batch of two entries: one with this report and boxes of (class, side), one with as long a report and none."""
    ids = [VOCABULARY.ids[word] for word in report.split()]
    batch = make_batch(lesions=(len(boxes), 0), length=len(ids) + 3)
    batch.token_ids[0] = torch.tensor([BOS_ID, *ids, EOS_ID, PAD_ID])
    batch.category_ids[0] = torch.tensor([category for category, _ in boxes])
    batch.lesion_sides[0] = torch.tensor([SIDES.index(side) for _, side in boxes])
    return batch


BOXES = [(EFFUSION, "right"), (EFFUSION, "left"), (NODULE, "left")]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("pleural effusion .", [{0, 1}] * 3),
        ("left pleural effusion .", [{1}] * 4),
        ("right pleural effusion .", [{0}] * 4),
        ("bilateral pleural effusion .", [{0, 1}] * 4),
        ("right nodule .", [set()] * 3),  # its only box is on the left
        ("no pleural effusion .", [set()] * 4),
        ("heart normal . left nodule .", [set()] * 3 + [{2}] * 3),
        ("left nodule . heart normal . right pleural effusion .", [{2}] * 3 + [set()] * 3 + [{0}] * 4),
        ("nodule", [{2}]),  # cut before its end
    ],
)
def test_right_boxes_at_each_token_by_hand(report: str, expected: list[set[int]]) -> None:
    right = right_boxes(told(report, BOXES), VOCABULARY)
    found = [set(row.nonzero().flatten().tolist()) for row in right[0]]
    assert found == [*expected, set(), set()]  # the end token and padding are in no sentence
    assert not right[1].any()


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("pleural effusion .", {0, 1}),
        ("bilateral pleural effusion .", {0, 1}),
        ("left pleural effusion .", {0}),
        ("right pleural effusion .", set()),  # the lateral image does not tell
        ("left nodule .", set()),
        ("nodule .", {2}),
    ],
)
def test_a_box_on_a_lateral_image_is_of_no_side(report: str, expected: set[int]) -> None:
    right = right_boxes(told(report, [(EFFUSION, "left"), (EFFUSION, ""), (NODULE, "")]), VOCABULARY)
    assert set(right[0, 0].nonzero().flatten().tolist()) == expected


def test_places_of_absent_boxes_are_passed_over() -> None:
    batch = told("left nodule .", BOXES)
    batch.lesion_mask[0, 2] = False
    assert not right_boxes(batch, VOCABULARY).any()


def test_loss_by_hand() -> None:
    """Two tokens of four, whose sentence names something: shares 3/4 and 1/4 of what goes to lesions."""
    batch = told("nodule .", [(NODULE, "left"), (EFFUSION, "right")])
    attention = torch.zeros(2, 4, 2)
    attention[0] = torch.tensor([[0.3, 0.1], [0.01, 0.03], [0.5, 0.5], [0.0, 1.0]])
    pointer = Pointer(2.0, VOCABULARY, lesion_branch="crop")
    assert float(pointer(attention, batch)) == pytest.approx(2 * (math.log(4 / 3) + math.log(4)))
    pointer.after_step()
    assert pointer.values() == {"pointer_share": pytest.approx(0.5)}
    blind = attention.clone()
    blind[0, :2, 0] = 0
    assert float(pointer(blind, batch)) > 100
    pointer(attention, batch)
    pointer.after_step()  # of two micro-batches: 0 and 1/2
    assert pointer.values()["pointer_share"] == pytest.approx((0.5 + 0.25) / 2)
    pointer.eval()(attention, batch)
    pointer.after_step()
    assert int(pointer.measured) == 2
    assert float(Pointer(1.0, VOCABULARY, lesion_branch="crop")(attention, told("no nodule", BOXES[:2]))) == 0


def test_what_is_looked_at_is_the_last_layer_s_and_changes_no_logits() -> None:
    model = make_model(num_layers=2)
    batch = make_batch()
    encoded = model.encode(batch)
    logits, looked = model.logits_and_look(encoded, batch.token_ids)
    assert torch.equal(logits, model.logits(encoded, batch.token_ids))
    transformer, ids = model.transformer, batch.token_ids[:, :-1]
    layers = [transformer.decode(encoded.tokens, encoded.mask, ids, recorded=[layer])[1] for layer in (0, 1)]
    assert torch.equal(looked, layers[1][..., -looked.shape[-1] :]) and not torch.allclose(*layers)
    torch.testing.assert_close(sum(layers) / 2, transformer.cross_attention(encoded.tokens, encoded.mask, ids))
    assert looked.shape == (3, 6, 3) and not looked[~batch.lesion_mask.unsqueeze(1).expand_as(looked)].any()


def losses_of(batch: ChestBatch, weight: float | None, **model: Any) -> dict[str, Tensor]:
    pointer = None if weight is None else Pointer(weight, VOCABULARY, lesion_branch="roi_align")
    return Losses(make_model(**model), None, 0.0, looking=pointer)(batch)


def test_it_is_a_term_per_token_beside_the_cross_entropy() -> None:
    """Over all tokens that are taught: 6 of the first report, 7 of the second."""
    batch = told("left nodule . heart .", BOXES)
    alone, both = losses_of(batch, None), losses_of(batch, 0.5)
    assert list(alone) == ["train"] and list(both) == ["train", "pointer"]
    assert torch.equal(alone["train"], both["train"])
    model = make_model()
    attention = model.logits_and_look(model.encode(batch), batch.token_ids)[1]
    expected = -0.5 * (attention[0, :3, 2] / attention[0, :3].sum(dim=1)).log().sum() / 13
    torch.testing.assert_close(both["pointer"], expected)


class Entries:
    """Stands for a data set: a task asks for its length only."""

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize("reports", [("nodule .", "left pleural effusion . a ."), ("heart normal .", "nodule .")])
def test_micro_batches_make_the_step_of_the_whole(reports: tuple[str, str]) -> None:
    """Parts count by their tokens, whichever of them name a lesion."""
    batch = make_batch(lesions=(3, 3), length=9)
    for entry, report in enumerate(reports):
        ids = [BOS_ID, *(VOCABULARY.ids[word] for word in report.split()), EOS_ID]
        batch.token_ids[entry] = torch.tensor(ids + [PAD_ID] * (9 - len(ids)))
        batch.category_ids[entry] = torch.tensor([category for category, _ in BOXES])
        batch.lesion_sides[entry] = torch.tensor([SIDES.index(side) for _, side in BOXES])
    found = []
    for micro_batches in (1, 2):
        settings = D2RNetTrainingSettings(batch_size=2, accumulation_steps=micro_batches, gradient_clip=1e9)
        model = make_model(dropout=0.0, patch_dropout=0.0)
        model.extractor.eval()  # batch norm sees a micro-batch
        pointer = Pointer(1.0, VOCABULARY, lesion_branch="roi_align")
        task = report_task(model, Entries(), settings, device=torch.device("cpu"), looking=pointer)
        task.train_step(batch)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        found.append((task.loss_sums["pointer"], gradients))
        assert task.mean_losses()["pointer_loss"] > 0 and "pointer_share" in task.mean_losses()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)


def test_attention_learns_to_point() -> None:
    batch = told("left nodule . right pleural effusion .", BOXES)
    model = make_model(dropout=0.0, patch_dropout=0.0)
    pointer = Pointer(1.0, VOCABULARY, lesion_branch="roi_align")
    losses = Losses(model, None, 0.0, looking=pointer)
    optimizer = torch.optim.Adam(model.transformer.parameters(), lr=0.01)
    shares = []
    for _ in range(15):
        optimizer.zero_grad()
        losses(batch)["pointer"].backward()
        optimizer.step()
        pointer.measured.zero_()  # the next share is its own mean
        losses.after_step()
        shares.append(float(pointer.share))
    assert shares[0] < 0.6 and shares[-1] > 0.95


def test_a_pointer_without_lesion_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"pointer_weight: got 0.5, but cxr.report.model.lesion_branch is 'none'"):
        Pointer(0.5, VOCABULARY, lesion_branch="none")
