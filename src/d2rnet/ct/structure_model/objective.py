"""What stage 1 learns: observations of a volume's structures beside the texts of them, with a queue of earlier texts.

Source: released code of arXiv 2603.04878 (see :mod:`d2rnet.training.contrastive` and :mod:`d2rnet.training.diverse_queue`).

Shapes: B volumes, S structures, E width of the shared space.
"""

import copy

import torch
from torch import Tensor, nn

from d2rnet.ct.structure_model.dataset import StructureBatch
from d2rnet.ct.structure_model.model import StructureModel, scaled
from d2rnet.ct.structure_model.settings import ContrastSettings, StructureModelSettings
from d2rnet.ct.structure_model.text_tower import TextTower, embed_known
from d2rnet.training.contrastive import TargetRule, Temperature, grouped_contrast
from d2rnet.training.diverse_queue import DiverseQueue
from d2rnet.training.task import Objective


def target_rule(settings: ContrastSettings) -> TargetRule:
    """Return how targets are made."""
    return TargetRule(
        soft_share=settings.soft_share,
        temperature=settings.target_temperature,
        other_groups_weight=settings.other_structures_weight,
        other_groups_in_denominator=settings.other_structures_as_negatives,
        normalise=settings.normalise_targets,
    )


class StructureContrast(Objective):
    """Model, text tower with its momentum copy, queue and temperature; one loss, ``contrast``."""

    def __init__(
        self,
        model: StructureModel,
        tower: TextTower,
        settings: StructureModelSettings,
        *,
        num_structures: int,
        window_hu: tuple[float, float],
    ) -> None:
        """Make queue and momentum copy.

        Args:
            model: of volumes.
            tower: of texts.
            settings: section ``ct.structure_model``.
            num_structures: S.
            window_hu: of the conversion.
        """
        super().__init__()
        contrast = settings.training.contrast
        queue = settings.training.queue
        self.model = model
        self.tower = tower
        self.slow_tower = tower if tower.is_frozen else copy.deepcopy(tower).requires_grad_(False)
        self.queue = (
            DiverseQueue(
                num_structures,
                queue.length,
                tower.width,
                rule=queue.rule,
                admit_equal_texts=queue.equal_texts,
                temperature=contrast.temperature,
                start=queue.start,
            )
            if queue.length
            else None
        )
        self.temperature = Temperature(contrast.temperature, learnable=contrast.learn_temperature)
        self.momentum = settings.text.momentum
        self.contrast = contrast
        self.targets = target_rule(contrast)
        self.num_structures = num_structures
        self.window_hu = window_hu
        self._arrived: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def parts(self) -> dict[str, nn.Module | None]:
        """All of it resumes; the momentum copy of a frozen tower is the tower itself."""
        slow = None if self.tower.is_frozen else self.slow_tower
        parts = {"model": self.model, "tower": self.tower, "slow_tower": slow, "queue": self.queue}
        return {**parts, "temperature": self.temperature}

    def forward(self, batch: StructureBatch) -> dict[str, Tensor]:
        """Return the contrast of this process's volumes."""
        if len(batch):
            images = self.model(scaled(batch.values, self.window_hu))
        else:  # other processes have the few volumes of an epoch's last batch
            nothing = sum(parameter.sum() for parameter in self.parameters() if parameter.requires_grad) * 0.0
            of_no_volume = self.model.observer.queries.flatten(0, 1).expand(0, -1, -1)  # (0, S * K, D)
            images = self.model.embed(self.model.observer.finish(of_no_volume)) + nothing
        texts = embed_known(self.tower, batch.token_ids, batch.known)
        slow = texts if self.tower.is_frozen else self._slow(batch)
        queue, queue_valid, queue_numbers = self._queued(images)
        equal = (batch.numbers, queue_numbers) if self.contrast.equal_texts else None
        loss = grouped_contrast(
            images,
            texts,
            batch.known,
            queue,
            queue_valid,
            temperature=self.temperature(),
            targets=self.targets,
            equal_texts=equal,
            symmetric=self.contrast.symmetric,
        )
        groups = torch.arange(self.num_structures, device=batch.known.device).expand_as(batch.known)
        known = batch.known
        self._arrived = (slow.detach()[known], groups[known], batch.numbers[known], batch.normal[known])
        return {"contrast": loss}

    @torch.no_grad()
    def _slow(self, batch: StructureBatch) -> Tensor:
        return embed_known(self.slow_tower, batch.token_ids, batch.known)

    def _queued(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, validity and numbers of the queue; of no place without one."""
        if self.queue is not None:
            return self.queue.features, self.queue.valid, self.queue.numbers
        places = torch.zeros(self.num_structures, 0, device=like.device)
        return places.new_zeros(self.num_structures, 0, self.tower.width), places.bool(), places.long()

    @torch.no_grad()
    def after_step(self) -> None:
        """Let the momentum copy follow the tower, and the texts of the step join the queue."""
        if not self.tower.is_frozen:
            for slow, fast in zip(self.slow_tower.parameters(), self.tower.parameters(), strict=True):
                slow.lerp_(fast, 1 - self.momentum)
        if self.queue is not None and self._arrived is not None:
            features, groups, numbers, normal = self._arrived
            self.queue.add(features, groups, numbers, normal)
        self._arrived = None

    def values(self) -> dict[str, float]:
        """Temperature, and what the queue holds: of all structures, and of the poorest one."""
        found = {"temperature": float(self.temperature().detach())}
        if self.queue is not None:
            found |= {f"queue_{name}": value for name, value in (self.queue.report() | self.queue.poorest()).items()}
        return found
