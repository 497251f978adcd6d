"""Work in several processes: order, bounded memory, errors, killed workers, killed parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from d2rnet.errors import D2RNetError
from d2rnet.runs.parallel import CHUNKS_IN_FLIGHT, map_in_processes


class CountedItems(list[int]):
    """A sequence that remembers how far it was read."""

    read_to = 0

    def __getitem__(self, key: slice) -> list[int]:  # type: ignore[override]
        self.read_to = key.stop
        return list.__getitem__(self, key)


@pytest.mark.parametrize(("workers", "count"), [(1, 7), (2, 7), (3, 1), (2, 0)])
def test_results_come_in_order(workers: int, count: int) -> None:
    items = [-number for number in range(count)]
    assert list(map_in_processes(abs, items, workers=workers, what="count", chunk_size=2)) == list(range(count))


def make(number: int) -> tuple[int, float]:
    time.sleep(0.01)  # less than to store the one before, so that whether it is beside that is no close race
    return number, time.monotonic()


def store(made: tuple[int, float]) -> tuple[int, float, float]:
    if made[0] == 5:
        raise OSError(28, "No space left on device", "5.npy")
    time.sleep(0.1)
    return *made, time.monotonic()


@pytest.mark.parametrize("workers", [1, 2])
def test_what_follows_is_done_beside_the_next_item_of_the_chunk(workers: int) -> None:
    results = list(map_in_processes(make, range(5), workers=workers, what="count", chunk_size=5, then=store))
    assert [number for number, *_ in results] == list(range(5))
    beside = [made < stored for (*_, stored), (_, made, _) in pairwise(results)]
    later = [made < stored for (*_, stored), (_, made, _) in zip(results, results[2:], strict=False)]
    assert any(beside) is (workers == 2) and not any(later), "one at a time"
    with pytest.raises(OSError, match="No space left on device") as caught:
        list(map_in_processes(make, range(8), workers=workers, what="count", then=store))
    assert caught.value.filename == "5.npy"


def test_only_a_few_chunks_are_in_flight() -> None:
    items = CountedItems(range(1000))
    results: Iterator[int] = map_in_processes(abs, items, workers=2, what="count", chunk_size=3)
    assert next(results) == 0
    assert items.read_to == CHUNKS_IN_FLIGHT * 2 * 3
    results.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_exception_of_the_function_is_raised_here(workers: int) -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_processes(int, ["1", "2", "x", "4"], workers=workers, what="count"))


def test_a_killed_worker_is_an_error_that_names_the_items_not_a_hang() -> None:
    with pytest.raises(
        D2RNetError, match=r"count: a worker process was killed near item 1 of 3.*memory.*\n  7\n  8"
    ) as caught:
        list(map_in_processes(os._exit, [7, 8, 9], workers=2, what="count", chunk_size=1))
    assert "runtime.workers (now 2)" in str(caught.value)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import time\nfrom d2rnet.runs.parallel import map_in_processes\n"
        "if __name__ == '__main__':\n"
        "    list(map_in_processes(time.sleep, [60.0] * 4, workers=2, what='sleep', chunk_size=1))\n"
    )
    (tmp_path / "sleep.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "sleep.py")], start_new_session=True)
    deadline = time.monotonic() + 20
    while len(group := processes_of_group(parent.pid)) < 4 and time.monotonic() < deadline:  # parent, server, two workers
        time.sleep(0.05)
    assert len(group) >= 4
    time.sleep(0.3)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while processes_of_group(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of_group(parent.pid) == []


def processes_of_group(group: int) -> list[int]:
    """Ids of the running processes of a process group (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(process_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found
