"""Searches in threads of their own, and a pool's kernel with gates: a test may hold one chunk back until it is time."""

import queue
import threading
from collections.abc import Hashable

import pytest

from pow.mining import pool as pool_module
from pow.mining.pool import MinerPool, SearchResult
from pow.scanning.backends import Backend, Kernel, StopFlag, active_backend

ENDLESS = 256
"""A difficulty that no nonce has."""


class Search(threading.Thread):
    """A search in a thread of its own, under way when this returns; `wait` gives its result."""

    def __init__(self, pool: MinerPool, prefix: bytes, start: int, difficulty: int, owner: Hashable = None) -> None:
        # A daemon: a search that a bug makes endless must not outlive the tests.
        super().__init__(daemon=True)
        self._pool, self._work = pool, (prefix, start, difficulty)
        self._owner = owner
        self._result: SearchResult | None = None
        self._under_way = threading.Event()
        self.start()
        self._under_way.wait()

    def run(self) -> None:
        try:
            self._result = self._pool.search(
                *self._work,
                owner=self._owner,
                progress=lambda _reached: self._under_way.set(),
                progress_seconds=0.001,
            )
        finally:
            self._under_way.set()

    def wait(self) -> SearchResult:
        self.join()
        assert self._result is not None
        return self._result


class Gates:
    """Wraps the pool's kernel: records what ran, and holds chosen chunks back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began: list[tuple[bytes, int]] = []
        self.ruled_out: list[tuple[int, int]] = []
        # The starts of chunks that wait at their gate, each put in as it gets there.
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.waiting_thread: dict[int, threading.Thread] = {}
        # In the chunks from these starts the kernel looks for what isn't there, until it is told to stop.
        self.endless: set[int] = set()
        self._held: dict[int, threading.Event] = {}
        self._ended: dict[int, threading.Event] = {}

        def choose(name: str | None) -> Backend:
            backend = active_backend(name)
            return backend._replace(kernel=self._around(backend.kernel))

        monkeypatch.setattr(pool_module, "active_backend", choose)

    def hold(self, start: int) -> threading.Event:
        """The chunk from `start` won't run before this event."""
        self._held[start] = threading.Event()
        return self._held[start]

    def ended(self, start: int) -> threading.Event:
        """The event that the kernel came back from the chunk from `start`."""
        self._ended[start] = threading.Event()
        return self._ended[start]

    def rules_out(self, start: int, stop: int) -> bool:
        """Whether finished chunks cover every nonce of [start, stop)."""
        for first, after in sorted(self.ruled_out):
            if first <= start < after:
                start = after
        return start >= stop

    def _around(self, kernel: Kernel) -> Kernel:
        def gated(prefix: bytes, first: int, last: int, difficulty: int, stop_flag: StopFlag | None) -> int | None:
            self.began.append((prefix, first))
            if first in self._held:
                self.waiting_thread[first] = threading.current_thread()
                self.waiting.put(first)
                self._held[first].wait()
            nonce = kernel(prefix, first, last, ENDLESS if first in self.endless else difficulty, stop_flag)
            if nonce is None and stop_flag is not None and not stop_flag[0]:
                self.ruled_out.append((first, last + 1))
            if first in self._ended:
                self._ended[first].set()
            return nonce

        return gated
