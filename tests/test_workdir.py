"""Work folders resume their own state only, one process at a time."""

import logging

import pytest

from d2rnet.errors import D2RNetError
from d2rnet.workdir import open_work_dir


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "train.json"
    path.write_text("[1]")
    return path


def test_same_settings_and_inputs_resume(tmp_path, source):
    with open_work_dir(tmp_path / "work", settings={"lr": 0.1}, inputs={"train": source}) as first:
        (first / "checkpoint").write_text("state")
    with open_work_dir(tmp_path / "work", settings={"lr": 0.1}, inputs={"train": source}) as second:
        assert (second / "checkpoint").read_text() == "state"


@pytest.mark.parametrize("change", ["settings", "input"])
def test_anything_else_starts_afresh_and_says_so(tmp_path, source, caplog, change):
    with open_work_dir(tmp_path / "work", settings={"lr": 0.1}, inputs={"train": source}) as first:
        pass
    if change == "input":
        source.write_text("[1, 2]")
    new = {"lr": 0.2} if change == "settings" else {"lr": 0.1}
    caplog.set_level(logging.INFO)
    with open_work_dir(tmp_path / "work", settings=new, inputs={"train": source}) as second:
        assert second != first
    assert f"left alone: {first.name}" in caplog.text


def test_second_process_is_refused(tmp_path, source):
    with (
        open_work_dir(tmp_path / "work", settings={}, inputs={"train": source}),
        pytest.raises(D2RNetError, match="another process"),
        open_work_dir(tmp_path / "work", settings={}, inputs={"train": source}),
    ):
        pass


def test_missing_input_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"gone\.pth: no such file; expected the input 'backbone_weights'"),
        open_work_dir(tmp_path / "work", settings={}, inputs={"backbone_weights": tmp_path / "gone.pth"}),
    ):
        pass
