"""Sentences of a written CT report and the structures that they speak of, with the patches that each structure looked at."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from d2rnet.ct.report_model.dataset import CtBatch
from d2rnet.ct.report_model.selection import NONE
from d2rnet.ct.structures.structures import structures_of
from d2rnet.ct.structures.table import StructureTable
from d2rnet.errors import ConfigError
from d2rnet.report.generation import Written
from d2rnet.report.interface import Encoded
from d2rnet.report.model_files import LoadedModel

ATTENTION_DIGITS = 6


@dataclass(frozen=True)
class StructureGrounding:
    """Grounds sentences in structures (see :class:`d2rnet.report.generation.Grounding`).

    Attributes:
        table: structures, by the words that name them.
        names: structures of stage 1, in the order of the batch's rows.
        count: patches of a structure that are told; no more than were selected.
    """

    table: StructureTable
    names: tuple[str, ...]
    count: int

    def __call__(
        self, loaded: LoadedModel, batch: CtBatch, encoded: Encoded, token_ids: Tensor, written: Sequence[Written]
    ) -> list[list[dict[str, Any]]]:
        """Return ``text``, ``structures``, ``structure`` and ``patches`` of each sentence of each report.

        ``structures`` are those that the sentence speaks of, in the order of the table, at least one; ``structure`` is the
        first of them, and ``patches`` those that its queries attend to most: ``patch``, its place in raster order of the grid,
        and its ``attention``.
        """
        top = batch.top[:, :, : self.count].tolist()  # (B, S, k)
        attention = batch.top_attention[:, :, : self.count].tolist()
        return [
            [self._sentence(one.text.strip(), one.structures, *looked) for one in self._read(report)]
            for report, *looked in zip(written, top, attention, strict=True)
        ]

    def _read(self, report: Written) -> Any:
        return structures_of(" ".join(report.tokens), self.table).sentences

    def _sentence(
        self, text: str, structures: tuple[str, ...], top: list[list[int]], attention: list[list[float]]
    ) -> dict[str, Any]:
        row = self.names.index(structures[0])
        patches = [
            {"patch": patch, "attention": round(share, ATTENTION_DIGITS)}
            for patch, share in zip(top[row], attention[row], strict=True)
            if patch != NONE
        ]
        return {"text": text, "structures": list(structures), "structure": structures[0], "patches": patches}


def make_grounding(table: StructureTable, names: tuple[str, ...], *, count: int) -> StructureGrounding:
    """Return the grounding of a model whose stage 1 looks at structures.

    Raises:
        ConfigError: the table's structures are not those of stage 1.
    """
    if set(names) != set(table.structures):
        raise ConfigError(
            f"ct.structures.table: '{table.name}' has structures {', '.join(table.structures)}; stage 1 was trained on "
            f"{', '.join(names)}. Give the table of that training."
        )
    return StructureGrounding(table, names, count)
