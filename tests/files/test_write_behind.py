"""Files written while the next ones are computed: all there at the end, no error lost, memory bounded."""

import os
import threading
from pathlib import Path

import pytest

from d2rnet.files.atomic import write_text
from d2rnet.files.write_behind import MOST_WAITING, THREADS, WriteBehind


def test_all_files_are_there_at_the_end_with_the_rights_of_any_other(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with WriteBehind() as write:
            for number in range(200):
                write(write_text, tmp_path / f"{number}.txt", str(number))
        assert os.umask(0o027) == 0o027, "no thread changes it"
    finally:
        os.umask(before)
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {f"{number}.txt": str(number) for number in range(200)}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@pytest.mark.parametrize("fails_at", [0, MOST_WAITING + 3, 59])
def test_an_error_of_a_writer_is_raised(fails_at: int) -> None:
    def work(number: int) -> None:
        if number == fails_at:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"), WriteBehind() as write:
        for number in range(60):
            write(work, number)


def test_only_so_many_wait() -> None:
    begun = threading.Semaphore(0)
    go_on = threading.Event()
    asked = []

    def work() -> None:
        begun.release()
        go_on.wait(60)

    def ask() -> None:
        with WriteBehind() as write:
            for number in range(MOST_WAITING + 5):
                write(work)
                asked.append(number)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(THREADS):
        assert begun.acquire(timeout=60)
    asking.join(0.2)
    assert len(asked) <= MOST_WAITING, "the one that asks waits, too"
    go_on.set()
    asking.join(60)
    assert len(asked) == MOST_WAITING + 5


def test_what_was_computed_before_an_error_of_the_block_is_written(tmp_path: Path) -> None:
    def fail() -> None:
        with WriteBehind() as write:
            for number in range(MOST_WAITING):
                write(write_text, tmp_path / str(number), "")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(list(tmp_path.iterdir())) == MOST_WAITING
