"""Which code worked on a run: one part per change, none for work that was lost."""

from pathlib import Path
from typing import Any

import pytest

from d2rnet.runs import code_parts as module
from d2rnet.runs.code_parts import code_parts, code_words, note_code


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls note_code as the code of a commit, with a version of torch."""

    def call(done: int, commit: str, torch: str = "2.0") -> list[tuple[int, str]]:
        code = {"d2rnet": "0.1.0", "commit": commit, "dirty": False}
        monkeypatch.setattr(module, "code_version", lambda: code)
        monkeypatch.setattr(module, "versions", lambda: {"python": "3.11", "torch": torch})
        note_code(tmp_path, done, "iteration")
        return [(part["from"], part["code"]["commit"] if part["code"] else "?") for part in code_parts(tmp_path)]

    return call


def test_a_part_per_change(work: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert work(0, "a") == [(0, "a")]
    assert work(40, "a") == [(0, "a")]
    assert caplog.messages == []
    assert work(60, "b") == [(0, "a"), (60, "b")]
    assert "resuming with other code: d2rnet 0.1.0, commit b; until iteration 60: d2rnet 0.1.0, commit a" in caplog.text
    assert work(80, "b", torch="2.1") == [(0, "a"), (60, "b"), (80, "b")]
    assert "until iteration 80: d2rnet 0.1.0, commit b, torch 2.0" in caplog.text
    assert code_words(*code_parts(tmp_path)[1:]) == "d2rnet 0.1.0, commit b, torch 2.0"


def test_work_that_a_kill_threw_away_has_no_part(work: Any) -> None:
    work(0, "a")
    assert work(0, "b") == [(0, "b")]  # killed before the first checkpoint
    work(40, "c")
    assert work(40, "d") == [(0, "b"), (40, "d")]  # killed before the next one
    assert work(40, "b") == [(0, "b")]


def test_a_work_folder_of_an_earlier_version(work: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert work(7, "a") == [(0, "?"), (7, "a")]
    assert "until iteration 7: unknown code" in caplog.text
