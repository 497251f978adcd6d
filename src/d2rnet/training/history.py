"""Metrics of a training over time: JSON lines, which the gallery and the cards read, and TensorBoard.

Writes: ``metrics.jsonl`` and ``tensorboard/`` in the work folder.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from d2rnet.files.atomic import full_disk_named
from d2rnet.files.documents import read_jsonl_of_killed, write_jsonl
from d2rnet.training.collectives import process_rank

HISTORY_NAME = "metrics.jsonl"


class History:
    """Writes one JSON object per line, and the numbers in it to TensorBoard; with several processes the first one does.

    A run calls :meth:`cut` with what its checkpoint has done, then :meth:`write` for each row, and :meth:`close` at the end.
    """

    def __init__(self, folder: Path, key: str) -> None:
        """Write below ``folder``, the work folder; ``key`` is the clock of the rows, such as ``step``."""
        self._path = folder / HISTORY_NAME
        self._events = folder / "tensorboard"
        self._key = key
        self._writer: SummaryWriter | None = None

    def cut(self, done: int) -> None:
        """Begin to write; rows later than ``done`` are removed, for a killed run wrote them after its last checkpoint.

        Args:
            done: what the checkpoint says of the clock; 0 begins afresh.
        """
        if process_rank() > 0:
            return
        kept = [row for row in read_jsonl_of_killed(self._path) if row[self._key] <= done]
        write_jsonl(self._path, kept)
        self._writer = SummaryWriter(str(self._events), purge_step=done + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; it holds the clock, numbers and, for the JSON lines alone, anything else that JSON has."""
        if self._writer is None:
            return
        with full_disk_named(self._path), self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        with full_disk_named(self._events):
            for name, value in row.items():
                if name != self._key and isinstance(value, int | float):
                    self._writer.add_scalar(name, value, row[self._key])
            self._writer.flush()  # a run that is stopped or killed keeps what its JSON lines have

    def close(self) -> None:
        """Close the TensorBoard file."""
        if self._writer is not None:
            self._writer.close()
