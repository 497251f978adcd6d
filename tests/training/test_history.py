"""The history of a run: what is written, and what is removed when a killed run goes on."""

from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from d2rnet.files.documents import read_jsonl
from d2rnet.training import history
from d2rnet.training.history import History


def write(folder: Path, done: int, rows: list[dict[str, Any]]) -> None:
    written = History(folder, "step")
    written.cut(done)
    for row in rows:
        written.write(row)
    written.close()


def test_a_killed_run_goes_on_after_its_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 0, [{"step": step, "loss": step / 2, "by_class": {"Mass": step}} for step in (1, 2, 3)])
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')  # killed while it wrote
    write(tmp_path, 2, [{"step": 3, "loss": 9.0}])
    rows = list(read_jsonl(tmp_path / "metrics.jsonl"))
    assert rows[:2] == [{"step": 1, "loss": 0.5, "by_class": {"Mass": 1}}, {"step": 2, "loss": 1.0, "by_class": {"Mass": 2}}]
    assert rows[2:] == [{"step": 3, "loss": 9.0}]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]


def test_rows_of_a_run_that_does_not_close_its_history_are_kept(tmp_path: Path) -> None:
    stopped = History(tmp_path, "step")
    stopped.cut(0)
    stopped.write({"step": 1, "loss": 0.5})
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.5)]


def test_a_new_run_begins_afresh(tmp_path: Path) -> None:
    write(tmp_path, 0, [{"step": 1, "loss": 1.0}])
    write(tmp_path, 0, [])
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_the_first_process_alone_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "process_rank", lambda: 1)
    write(tmp_path, 0, [{"step": 1, "loss": 1.0}])
    assert not list(tmp_path.iterdir())
