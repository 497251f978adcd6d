"""Which volumes of a split stage 1 is validated on."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.utils.data import Dataset

from d2rnet.ct.structure_model import validation


class Numbers(Dataset[Any]):
    """Ten volumes of one voxel, its own number, with reports that say nothing."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, place: int) -> int:
        return place

    def collate(self, places: list[int]) -> Any:
        values = torch.tensor(places, dtype=torch.float32)
        none = torch.zeros(len(places), 1, dtype=torch.bool)
        batch = SimpleNamespace(values=values, token_ids=none.long().unsqueeze(2), known=none, numbers=none.long())
        batch.to = lambda device: batch
        return batch


@pytest.mark.parametrize(("most", "places"), [(20, list(range(10))), (10, list(range(10))), (4, [0, 2, 5, 7]), (1, [0])])
def test_validation_looks_at_volumes_spread_over_the_split(
    monkeypatch: pytest.MonkeyPatch, most: int, places: list[int]
) -> None:
    """The first ones of a sorted split are of few patients, and with several reconstructions of fewer scans."""
    monkeypatch.setattr(validation, "MOST_VOLUMES", most)
    monkeypatch.setattr(validation, "scaled", lambda values, window: values)
    tower = SimpleNamespace(width=1, parameters=list)
    objective = SimpleNamespace(model=lambda values: values[:, None, None], tower=tower, window_hu=(-1000, 1000))
    found = validation.embed_entries(
        cast(Any, objective), cast(Any, Numbers()), device=torch.device("cpu"), batch_size=3, loader_workers=0
    )
    assert found.images[:, 0, 0].tolist() == places
