"""Validation of stage 1: the contrast of all volumes of a split with each other's texts, without the queue.

Shapes: N volumes, S structures, E width of the shared space.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d2rnet.ct.structure_model.dataset import StructureEntries
from d2rnet.ct.structure_model.model import scaled
from d2rnet.ct.structure_model.objective import StructureContrast
from d2rnet.ct.structure_model.text_tower import embed_known
from d2rnet.training.collectives import gather_objects, num_processes, process_rank
from d2rnet.training.contrastive import grouped_contrast
from d2rnet.training.task import make_loader

MOST_VOLUMES = 300  # as the released code; all of them are compared with all
CHUNK = 32


@dataclass(frozen=True)
class Embedded:
    """Observations and texts of N volumes: (N, S, E) each, ``known`` and ``numbers`` (N, S); on the CPU."""

    images: Tensor
    texts: Tensor
    known: Tensor
    numbers: Tensor


@torch.no_grad()
def embed_entries(
    objective: StructureContrast, entries: StructureEntries, *, device: torch.device, batch_size: int, loader_workers: int
) -> Embedded:
    """Embed volumes spread over a split, each process its part; every process gets all of them, in order."""
    count = min(len(entries), MOST_VOLUMES)
    places = [number * len(entries) // count for number in range(count)]
    batches = [places[first : first + batch_size] for first in range(0, count, batch_size)]
    own = batches[process_rank() :: num_processes()]
    parts = []
    for batch in make_loader(entries, own, entries.collate, workers=loader_workers):
        batch = batch.to(device)
        images = objective.model(scaled(batch.values, objective.window_hu))
        texts = embed_known(objective.tower, batch.token_ids, batch.known)
        parts.append(
            tuple(
                part.float().cpu() if part.is_floating_point() else part.cpu()
                for part in (images, texts, batch.known, batch.numbers)
            )
        )
    gathered = gather_objects(parts)
    # Batch b was embedded by process b mod processes.
    ordered = [gathered[number % num_processes()][number // num_processes()] for number in range(len(batches))]
    return Embedded(*(torch.cat(columns) for columns in zip(*ordered, strict=True)))


def validate_structures(
    objective: StructureContrast, entries: StructureEntries, *, device: torch.device, batch_size: int, loader_workers: int
) -> dict[str, float]:
    """Score stage 1 on a split; its mode is left as it was.

    Returns:
        ``val_loss`` (nats per observation, over chunks of 32 volumes, without the queue), ``val_recall_at_1`` (share of
        observations whose nearest text of the same structure, among distinct ones, is their own), ``val_mean_length`` (of the
        mean observation of a structure; near 1: collapsed).
    """
    was_training = objective.training
    objective.eval()
    embedded = embed_entries(objective, entries, device=device, batch_size=batch_size, loader_workers=loader_workers)
    objective.train(was_training)
    structures = objective.num_structures
    nothing = torch.zeros(structures, 0, embedded.texts.shape[2])
    total = 0.0
    rows = 0
    for chunk in torch.arange(len(embedded.images)).split(CHUNK):
        known = int(embedded.known[chunk].sum())
        total += _contrast_of(objective, embedded, chunk, nothing) * known
        rows += known
    hits = [_hits_at_1(embedded, structure) for structure in range(structures)]
    lengths = [embedded.images[:, structure].mean(dim=0).norm() for structure in range(structures)]
    return {
        "val_loss": total / max(rows, 1),
        "val_recall_at_1": float(torch.cat(hits).float().mean()) if rows else 0.0,
        "val_mean_length": float(torch.stack(lengths).mean()),
    }


def _contrast_of(objective: StructureContrast, embedded: Embedded, chunk: Tensor, nothing: Tensor) -> float:
    """Return the contrast of the volumes of a chunk; each process takes a part of its rows."""
    own = chunk.tensor_split(num_processes())[process_rank()]
    empty = torch.zeros(len(nothing), 0)
    loss = grouped_contrast(
        embedded.images[own],
        embedded.texts[own],
        embedded.known[own],
        nothing,
        empty.bool(),
        temperature=objective.temperature().detach().cpu(),
        targets=objective.targets,
        equal_texts=(embedded.numbers[own], empty.long()),
    )
    losses: list[float] = gather_objects(float(loss))
    return sum(losses) / len(losses)


def _hits_at_1(embedded: Embedded, structure: int) -> Tensor:
    """Return (n,) bool of the volumes whose report speaks of the structure: is the nearest distinct text their own."""
    known = embedded.known[:, structure]
    numbers = embedded.numbers[known, structure]
    distinct, place = numbers.unique(return_inverse=True)
    first = torch.stack([(place == number).nonzero()[0, 0] for number in range(len(distinct))]) if len(distinct) else place
    texts = embedded.texts[known, structure][first]
    if not len(texts):
        return torch.zeros(0, dtype=torch.bool)
    return (embedded.images[known, structure] @ texts.T).argmax(dim=1) == place


def is_better(row: dict[str, float], best: dict[str, float]) -> bool:
    """Compare validation scores: the lower loss."""
    return not best or row["val_loss"] < best["val_loss"]
