"""Files written by a few threads while the next ones are computed: to flush one takes longer than to make many a one."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

THREADS = 4
MOST_WAITING = 4 * THREADS  # so much is held in memory


class WriteBehind:
    """Calls writers in threads. All files are there, or an error is raised, at the end of its ``with`` block."""

    def __init__(self, *, threads: int = THREADS, most_waiting: int = MOST_WAITING) -> None:
        """Start with nothing to write; so many threads write, so many calls at most are not done yet."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self._most_waiting = most_waiting
        self._waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __call__(self, write: Callable[..., Any], *arguments: Any, **options: Any) -> Future[Any]:
        """Have ``write(*arguments, **options)`` called soon; nothing of these may be changed afterwards.

        Returns:
            What holds the writer's result once it is done.

        Raises:
            Exception: what an earlier writer raised, such as OSError for a full disk.
        """
        if len(self._waiting) == self._most_waiting:
            self._waiting.popleft().result()
        written = self._pool.submit(write, *arguments, **options)
        self._waiting.append(written)
        return written

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait until all is written, also where the block failed: it was computed, and the next run need not do so again."""
        self._pool.shutdown(wait=True)
        if error is None:
            for written in self._waiting:
                written.result()
