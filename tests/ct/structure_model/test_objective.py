"""The objective of stage 1 with made-up embeddings: whose texts join the queue, what follows what, how targets are made."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from d2rnet.ct.structure_model.dataset import StructureBatch
from d2rnet.ct.structure_model.objective import StructureContrast, target_rule
from d2rnet.ct.structure_model.settings import ContrastSettings, StructureModelSettings
from d2rnet.ct.structure_model.text_tower import embed_known
from d2rnet.training.contrastive import grouped_contrast

WINDOW_HU = (-1000.0, 1000.0)
KNOWN = torch.tensor([[True, False], [True, True], [False, True]])  # three volumes, two structures
NUMBERS = torch.tensor([[5, 0], [5, 6], [0, 7]])  # the first two say the same of the first structure


class Tower(nn.Module):
    """Adds up the embeddings of a text's tokens."""

    width = 4
    pad_id = 0

    def __init__(self, *, is_frozen: bool = False) -> None:
        super().__init__()
        self.is_frozen = is_frozen
        self.words = nn.Embedding(9, self.width, padding_idx=self.pad_id)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(N, T) -> (N, 4) of length 1."""
        return nn.functional.normalize(self.words(token_ids).sum(dim=1), dim=-1)


class Model(nn.Module):
    """Gives the same embeddings (3, 2, 4) whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Parameter(torch.randn(3, 2, 4))

    def forward(self, volumes: Tensor) -> Tensor:
        """(3, 1, Z, Y, X) -> (3, 2, 4) of length 1."""
        return nn.functional.normalize(self.seen, dim=-1)


def batch_of() -> StructureBatch:
    # Texts of one number have other words here: of equal vectors it would not matter which is the positive.
    token_ids = torch.tensor([[[1, 2, 3], [0, 0, 0]], [[7, 2, 3], [4, 0, 0]], [[0, 0, 0], [5, 6, 0]]])
    normal = torch.tensor([[True, False], [True, False], [False, True]])
    values = torch.zeros(3, 1, 2, 2, 2, dtype=torch.uint8)
    return StructureBatch(values=values, token_ids=token_ids, known=KNOWN, numbers=NUMBERS, normal=normal)


def objective(*, is_frozen: bool = False, **training: Any) -> StructureContrast:
    torch.manual_seed(4)
    queue = {"length": 3, "rule": "fifo", "equal_texts": "always"}
    settings = StructureModelSettings.read({"training": {"queue": queue}, "text": {"momentum": 0.75}}).replaced(
        training=training
    )
    return StructureContrast(Model(), Tower(is_frozen=is_frozen), settings, num_structures=2, window_hu=WINDOW_HU)  # type: ignore[arg-type]


def test_targets_are_made_as_the_settings_say():
    rule = target_rule(ContrastSettings(soft_share=0.3, target_temperature=0.09, other_structures_weight=0.4,
                                        other_structures_as_negatives=True, normalise_targets=False))  # fmt: skip
    assert (rule.soft_share, rule.temperature, rule.other_groups_weight) == (0.3, 0.09, 0.4)
    assert (rule.other_groups_in_denominator, rule.normalise) == (True, False)
    rule = target_rule(ContrastSettings(other_structures_weight=0.0, other_structures_as_negatives=False))
    assert (rule.other_groups_in_denominator, rule.normalise) == (False, True)


@pytest.mark.parametrize("equal_texts", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_loss_is_the_contrast_of_observations_texts_and_queue(equal_texts, symmetric):
    made = objective(contrast={"equal_texts": equal_texts, "symmetric": symmetric, "temperature": 0.2})
    batch = batch_of()
    made(batch)
    made.after_step()  # the queue holds what another batch would meet
    assert made.queue is not None and int(made.queue.valid.sum()) == 4
    expected = grouped_contrast(
        made.model(batch.values),
        embed_known(made.tower, batch.token_ids, KNOWN),
        KNOWN,
        made.queue.features,
        made.queue.valid,
        temperature=0.2,
        targets=made.targets,
        equal_texts=(NUMBERS, made.queue.numbers) if equal_texts else None,
        symmetric=symmetric,
    )
    torch.testing.assert_close(made(batch)["contrast"], expected)


def test_texts_of_the_momentum_copy_join_the_queue_of_their_structure():
    made = objective()
    with torch.no_grad():
        made.slow_tower.words.weight.normal_()
    batch = batch_of()
    made(batch)
    assert made.queue is not None and not made.queue.valid.any(), "a text is no negative of its own step"
    slow = embed_known(made.slow_tower, batch.token_ids, KNOWN)  # before it follows the tower
    made.after_step()
    for structure, places in ((0, [0, 1]), (1, [1, 2])):
        there = made.queue.valid[structure]
        assert made.queue.numbers[structure][there].tolist() == NUMBERS[places, structure].tolist()
        assert made.queue.normal[structure][there].tolist() == batch.normal[places, structure].tolist()
        torch.testing.assert_close(made.queue.features[structure][there], slow[places, structure])


def test_the_momentum_copy_follows_the_tower_slowly():
    made = objective()
    before = made.slow_tower.words.weight.clone()
    torch.testing.assert_close(before, made.tower.words.weight)
    with torch.no_grad():
        made.tower.words.weight.add_(1.0)
    made.after_step()
    torch.testing.assert_close(made.slow_tower.words.weight, before + 0.25)  # a quarter of the way: momentum 0.75
    assert "slow_tower" in {name for name, part in made.parts().items() if part is not None}


def test_a_frozen_tower_is_its_own_copy():
    made = objective(is_frozen=True)
    assert made.slow_tower is made.tower and made.parts()["slow_tower"] is None


def test_without_a_queue_the_batch_is_compared_with_itself():
    made = objective(queue={"length": 0})
    batch = batch_of()
    first = made(batch)["contrast"].item()
    made.after_step()
    assert made.queue is None and made(batch)["contrast"].item() == first


def test_texts_are_embedded_in_their_places_as_each_one_alone():
    tower, batch = objective().tower, batch_of()
    found = embed_known(tower, batch.token_ids, KNOWN)
    assert found.shape == (3, 2, 4) and not found[~KNOWN].any()
    for volume, structure in KNOWN.nonzero().tolist():
        torch.testing.assert_close(found[volume, structure], tower(batch.token_ids[volume, structure][None])[0])
    nothing = embed_known(tower, batch.token_ids, torch.zeros_like(KNOWN))
    assert nothing.shape == (3, 2, 4) and not nothing.any()
