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

    def __init__(self) -> None:
        """Start with nothing to write."""
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="write")
        self._waiting: deque[Future[Any]] = deque()

    def __enter__(self) -> Self:
        return self

    def __call__(self, write: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Have ``write(*arguments, **options)`` called soon; nothing of these may be changed afterwards.

        Raises:
            Exception: what an earlier writer raised, such as OSError for a full disk.
        """
        if len(self._waiting) == MOST_WAITING:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(write, *arguments, **options))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Wait until all is written, also where the block failed: it was computed, and the next run need not do so again."""
        self._pool.shutdown(wait=True)
        if error is None:
            for written in self._waiting:
                written.result()
