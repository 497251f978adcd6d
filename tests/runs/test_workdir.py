"""Work folders resume their own state only, one process at a time."""

import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata

import pytest

from d2rnet.errors import D2RNetError
from d2rnet.runs.earlier_work import IDENTITY
from d2rnet.runs.workdir import LockHolder, hold_lock, holder_file, open_work_dir, read_holder
from d2rnet.settings import Section


class Rate(Section):
    """Settings of a stage."""

    lr: float = 0.1


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "train.json"
    path.write_text("[1]")
    return path


def test_same_settings_and_inputs_resume(tmp_path, source):
    with open_work_dir(tmp_path / "work", settings=Rate(lr=0.1), inputs={"train": source}) as first:
        (first / "checkpoint").write_text("state")
    with open_work_dir(tmp_path / "work", settings=Rate(lr=0.1), inputs={"train": source}) as second:
        assert (second / "checkpoint").read_text() == "state"


@pytest.mark.parametrize("change", ["settings", "input"])
def test_anything_else_starts_afresh_and_says_so(tmp_path, source, caplog, change):
    with open_work_dir(tmp_path / "work", settings=Rate(lr=0.1), inputs={"train": source}) as first:
        pass
    if change == "input":
        source.write_text("[1, 2]")
    new = Rate(lr=0.2 if change == "settings" else 0.1)
    caplog.set_level(logging.INFO)
    with open_work_dir(tmp_path / "work", settings=new, inputs={"train": source}) as second:
        assert second != first
    reason = "lr 0.1 there, 0.2 now" if change == "settings" else "input 'train' of other contents now"
    assert f"left as it is: work folder {first.name} (" in caplog.text and f"of another run: {reason}" in caplog.text


def test_second_process_is_refused(tmp_path, source):
    with (
        open_work_dir(tmp_path / "work", settings=Rate(), inputs={"train": source}),
        pytest.raises(D2RNetError, match=f"process {os.getpid()} on "),
        open_work_dir(tmp_path / "work", settings=Rate(), inputs={"train": source}),
    ):
        pass


def test_missing_input_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"gone\.pth: no such file; expected the input 'backbone_weights'"),
        open_work_dir(tmp_path / "work", settings=Rate(), inputs={"backbone_weights": tmp_path / "gone.pth"}),
    ):
        pass


def test_a_folder_killed_before_it_was_named_is_new_not_resumed(tmp_path, source, caplog):
    with open_work_dir(tmp_path / "work", settings=Rate(), inputs={"train": source}) as folder:
        (folder / IDENTITY).unlink()
    caplog.set_level(logging.INFO)
    with open_work_dir(tmp_path / "work", settings=Rate(), inputs={"train": source}):
        assert (folder / IDENTITY).is_file()
    assert f"{folder}: new" in caplog.text and "resuming" not in caplog.text


def test_a_folder_of_another_run_under_our_name_is_refused(tmp_path, source):
    """As after a rename, or an edit of fingerprint.json."""
    with open_work_dir(tmp_path / "work", settings=Rate(lr=0.1), inputs={"train": source}) as theirs:
        pass
    with open_work_dir(tmp_path / "work", settings=Rate(lr=0.2), inputs={"train": source}) as ours:
        pass
    (ours / IDENTITY).write_bytes((theirs / IDENTITY).read_bytes())
    with (
        pytest.raises(D2RNetError, match=r"fingerprint\.json: says other settings or inputs than this run"),
        open_work_dir(tmp_path / "work", settings=Rate(lr=0.2), inputs={"train": source}),
    ):
        pass


def test_half_written_files_of_a_killed_run_are_removed_and_nothing_else(tmp_path, source, caplog):
    with open_work_dir(tmp_path / "work", settings=Rate(), inputs={"train": source}) as folder:
        for name in (".checkpoint.x1.part.pth", "checkpoint.pth", ".hidden", "my.part.pth"):
            (folder / name).write_text("half")
    caplog.set_level(logging.INFO)
    with open_work_dir(tmp_path / "work", settings=Rate(), inputs={"train": source}):
        kept = {path.name for path in folder.iterdir()}
    assert kept >= {"checkpoint.pth", ".hidden", "my.part.pth"} and ".checkpoint.x1.part.pth" not in kept
    assert "removed 1 half-written file(s)" in caplog.text


HOLD = """
import sys, time
from pathlib import Path
from d2rnet.runs.workdir import hold_lock
sys.argv = ["d2rnet", "train-detector"]
with hold_lock(Path("lock"), what="folder", doing="training"):
    print("held", flush=True)
    time.sleep(float(sys.stdin.readline()))
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock ``lock`` until it is told for how many seconds longer."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD], cwd=tmp_path, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_message_names_the_process_that_holds_a_lock_and_how_to_end_it(tmp_path, holder):
    with (
        pytest.raises(D2RNetError, match=rf"process {holder.pid} on .* \(train-detector, since .*'kill {holder.pid}'"),
        hold_lock(tmp_path / "lock", what="folder", doing="training"),
    ):
        pass
    assert read_holder(tmp_path / "lock").pid == holder.pid


def test_waiting_for_a_lock_says_for_whom(tmp_path, holder, caplog):
    caplog.set_level(logging.INFO)
    holder.stdin.write("0.5\n")
    holder.stdin.flush()
    begun = time.monotonic()
    with hold_lock(tmp_path / "lock", what="folder", doing="training", wait=True):
        assert time.monotonic() - begun >= 0.5
    assert f"waiting for process {holder.pid}" in caplog.text


def test_the_lock_of_a_killed_process_is_free_and_its_name_is_replaced(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert read_holder(tmp_path / "lock").pid == holder.pid, "a killed process cannot take its name back"
    assert read_holder(tmp_path / "lock").has_ended(tmp_path / "lock")
    with hold_lock(tmp_path / "lock", what="folder", doing="training"):
        assert read_holder(tmp_path / "lock").pid == os.getpid()
        assert not read_holder(tmp_path / "lock").has_ended(tmp_path / "lock")
    assert read_holder(tmp_path / "lock") is None


def test_a_process_that_got_the_number_of_a_killed_one_is_not_taken_for_it(tmp_path):
    (tmp_path / "lock").touch()
    stranger = LockHolder(os.getpid(), socket.gethostname(), "train-detector", "2026-01-01T00:00:00+00:00")
    assert stranger.has_ended(tmp_path / "lock")
    assert not replace(stranger, host="another").has_ended(tmp_path / "lock"), "nothing is known of other hosts"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, code):
    """As on NFS without its lock service."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(D2RNetError, match=r"lock: this file system has no locks .*Lustre: -o flock"),
        hold_lock(tmp_path / "lock", what="folder", doing="training"),
    ):
        pass


def test_a_full_disk_is_not_taken_for_missing_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="No space left"), hold_lock(tmp_path / "lock", what="folder", doing="training"):
        pass


def test_the_lock_file_of_a_dead_machine_is_to_be_deleted_where_flock_is_missing(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    if tuple(map(int, metadata.version("filelock").split(".")[:2])) < (4, 0):
        pytest.skip("this filelock does not make do without flock")
    (tmp_path / "lock").write_text("123\nanother\n")
    with (
        pytest.warns(UserWarning, match="falling back to SoftFileLock"),
        pytest.raises(D2RNetError, match=r"if its machine was switched off, delete .*lock, then run again"),
        hold_lock(tmp_path / "lock", what="folder", doing="training"),
    ):
        pass


@pytest.mark.parametrize(
    "change", [{"pid": "1; rm -rf x"}, {"pid": "1\0"}, {"pid": True}, {"host": 3}, {"command": "a\x1b[2J"}, {"host": "a\nb"}]
)
def test_a_holder_that_cannot_be_shown_counts_as_none(tmp_path, change):
    """The message tells people what to type."""
    holder = {"pid": 1, "host": "h", "command": "train-detector", "since_utc": "2026-01-01T00:00:00+00:00"}
    holder_file(tmp_path / "lock").write_text(json.dumps(holder))
    assert read_holder(tmp_path / "lock") == LockHolder(**holder)
    holder_file(tmp_path / "lock").write_text(json.dumps(holder | change))
    assert read_holder(tmp_path / "lock") is None
