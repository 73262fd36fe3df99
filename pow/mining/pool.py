"""The pool: fans the nonce ranges of many searches out over the cores, and finds each smallest hit.

Each search is cut into chunks of some milliseconds, handed out in the order of their nonces. A free
thread takes the next chunk of the search that has had the fewest nonces tried, so that searches share
the cores fairly and a small one beside huge ones is soon done. When a chunk hits, chunks above it are
stopped and chunks below it run on: the hit that is left when they are done is the smallest.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from pow.errors import InvalidArgument
from pow.limits import MAX_THREADS, NONCE_STOP, check_difficulty
from pow.mining.cores import usable_cores
from pow.mining.odds import expected_hashes
from pow.scanning.backends import active_backend, check_range

# Long enough that handing chunks out costs nothing (some 20 µs each), short enough that another
# search gets a core before anybody notices the wait.
_CHUNK_SECONDS = 0.02
_CHUNK_NONCES = 1024
_PROGRESS_SECONDS = 0.1
# A block that takes no more nonces on average is begun by the thread that asks for it: waking another one takes longer.
_HERE_NONCES = 4 * _CHUNK_NONCES
# The weight of the newest chunk in the running average of the rate.
_RATE_WEIGHT = 0.1


class SearchResult(NamedTuple):
    """How a search ended. Every nonce from its start up to `next_nonce` has been ruled out, or is the hit."""

    nonce: int | None
    next_nonce: int
    stopped: bool = False


class Reached(NamedTuple):
    """How far a search is: nonces tried, and the one before which all of its range were tried without a hit."""

    tried: int
    next_nonce: int


# Plain classes, since they change, and see pow/mining/chain.py for why they are no dataclasses.
class _Chunk:
    __slots__ = ("job", "start", "stop", "stop_flag")

    def __init__(self, job: "_Job", start: int, stop: int, stop_flag: bytearray) -> None:
        self.job = job
        self.start = start
        self.stop = stop
        self.stop_flag = stop_flag


class _Job:
    __slots__ = (
        *("prefix", "start", "stop", "difficulty", "until", "owner", "virtual_time"),
        *("next", "best", "cut", "tried", "stopped", "error", "running", "done"),
    )

    def __init__(
        self,
        prefix: bytes,
        start: int,
        stop: int,
        difficulty: int,
        until: Callable[[], bool],
        owner: Hashable,
        virtual_time: float,
    ) -> None:
        self.prefix = prefix
        self.start = start
        self.stop = stop
        self.difficulty = difficulty
        self.until = until
        self.owner = owner
        self.virtual_time = virtual_time  # nonces handed out, counted from where it was let begin
        self.next = start
        self.best: int | None = None
        self.cut: int | None = None  # the smallest start of a chunk that was stopped before its end
        self.tried = 0
        self.stopped = False
        self.error: Exception | None = None
        self.running: list[_Chunk] = []
        self.done = threading.Event()

    def exhausted(self) -> bool:
        """Whether no further chunk is to be handed out; the first one always is, for progress."""
        if self.stopped or self.best is not None or self.next >= self.stop:
            return True
        return self.next > self.start and self.until()

    def reached(self) -> Reached:
        ends = [self.next if self.cut is None else self.cut, *(chunk.start for chunk in self.running)]
        return Reached(self.tried, min(ends if self.best is None else [*ends, self.best]))

    def result(self) -> SearchResult:
        if self.best is not None and (self.cut is None or self.best < self.cut):
            return SearchResult(self.best, self.best + 1)
        return SearchResult(None, self.next if self.cut is None else self.cut, self.stopped)


class MinerPool:
    """Threads that share their cores fairly between searches. Thread-safe; they start on first use."""

    def __init__(self, threads: int | None = None, backend: str | None = None) -> None:
        """
        Args:
            threads: how many, 1 to 1024; None for one per usable core (one in all where the backend
                holds the GIL).
            backend: a scan backend's name; None or "auto" for POW_BACKEND, else the fastest.

        Raises:
            InvalidArgument: the number of threads is out of range.
            BackendError: the backend is unknown or can't be used here.
        """
        self._backend = active_backend(backend)
        if threads is None:
            threads = min(usable_cores(), MAX_THREADS) if self._backend.releases_gil else 1
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise InvalidArgument(f"threads must be an integer from 1 to {MAX_THREADS}, not {threads!r}")
        self.threads = threads
        self._thread_rate = 0.0
        self._hashes = 0
        self._closed = False
        self._workers: list[threading.Thread] = []
        self._jobs: list[_Job] = []  # the oldest first
        # Nonces that a search would have been handed by now, had it been here always.
        self._fair_share = 0.0
        self._changed = threading.Condition()

    @property
    def backend(self) -> str:
        """The name of the scan backend."""
        return self._backend.name

    @property
    def hashes(self) -> int:
        """Nonces tried since the start by chunks that ran to their end."""
        return self._hashes

    @property
    def searches(self) -> int:
        """How many searches are under way."""
        return len(self._jobs)

    @property
    def rate(self) -> float:
        """Nonces a second of all threads together, a running average; measured now if it never was."""
        if not self._thread_rate:
            side_by_side = min(self.threads, usable_cores()) if self._backend.releases_gil else 1
            self._thread_rate = self._measure() * side_by_side / self.threads
        return self._thread_rate * self.threads

    def search(
        self,
        prefix: bytes,
        start: int,
        difficulty: int,
        *,
        stop: int = NONCE_STOP,
        until: Callable[[], bool] = lambda: False,
        owner: Hashable = None,
        progress: Callable[[Reached], None] | None = None,
        progress_seconds: float = _PROGRESS_SECONDS,
    ) -> SearchResult:
        """Find the smallest nonce of [start, stop) that meets the difficulty, on every thread.

        Blocks until it is found, ruled out, over, or stopped. Even when it is over at once it tries one chunk.

        Args:
            prefix: bytes that are hashed before the decimal nonce.
            start: the first nonce.
            difficulty: leading zero bits, 0 to 256.
            stop: one past the last nonce, at most 2**64.
            until: no new chunk begins once this is true; asked before each, by the threads that mine.
            owner: what `cancel` knows the search by.
            progress: called now and then, in the calling thread, with how far the search is.
            progress_seconds: how often.

        Raises:
            InvalidArgument: the range or the difficulty is none.
            Exception: whatever the kernel or the progress callback raised.
        """
        check_range(start, stop)
        check_difficulty(difficulty)
        if self._closed or start == stop:
            return SearchResult(None, start, self._closed)
        nonce, begin = self._search_here(prefix, start, stop, difficulty)
        if nonce is not None or begin == stop:
            return SearchResult(nonce, begin)
        with self._changed:
            if self._closed:
                return SearchResult(None, begin, stopped=True)
            self._start_workers()
            job = _Job(prefix, begin, stop, difficulty, until, owner, self._newcomers_virtual_time())
            job.tried = begin - start
            self._jobs.append(job)
            self._changed.notify_all()
        try:
            while not job.done.wait(None if progress is None else progress_seconds):
                if progress is not None:
                    with self._changed:
                        reached = job.reached()
                    progress(reached)
        except BaseException:
            # Ctrl-C, or a progress callback that fails: leave no thread working for nobody.
            self._stop([job])
            raise
        if job.error is not None:
            raise job.error
        return job.result()

    def _search_here(self, prefix: bytes, start: int, stop: int, difficulty: int) -> tuple[int | None, int]:
        """Try a few chunks of an easy block in the calling thread: sooner done than handed out to others.

        Returns:
            The hit, and the next nonce to try.
        """
        if expected_hashes(difficulty) > _HERE_NONCES:
            return None, start
        stop = min(stop, start + _HERE_NONCES)
        began, next_nonce, nonce = time.perf_counter(), start, None
        while nonce is None and next_nonce < stop:
            chunk_stop = min(next_nonce + _CHUNK_NONCES, stop)
            nonce = self._backend.kernel(prefix, next_nonce, chunk_stop - 1, difficulty, None)
            next_nonce = chunk_stop if nonce is None else nonce + 1
        with self._changed:
            self._count_rate(next_nonce - start, time.perf_counter() - began)
        return nonce, next_nonce

    def cancel(self, owner: Hashable) -> int:
        """Stop the owner's searches at once, in the middle of their chunks; how many they were."""
        with self._changed:
            jobs = [job for job in self._jobs if job.owner == owner]
        self._stop(jobs)
        return len(jobs)

    def close(self) -> None:
        """End every search at the end of its running chunks, and the threads with them.

        What the chunks have ruled out is kept in the searches' results. Later searches end at once.
        """
        with self._changed:
            self._closed = True
            for job in list(self._jobs):
                job.stopped = True
                self._settle(job)
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()

    def __enter__(self) -> "MinerPool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_workers(self) -> None:
        while len(self._workers) < self.threads:
            worker = threading.Thread(target=self._work, name=f"miner-{len(self._workers)}", daemon=True)
            self._workers.append(worker)
            worker.start()

    def _stop(self, jobs: list[_Job], error: Exception | None = None) -> None:
        with self._changed:
            for job in jobs:
                job.stopped = True
                job.error = job.error or error
                for chunk in job.running:
                    chunk.stop_flag[0] = 1
                self._settle(job)

    def _work(self) -> None:
        # Each thread has a flag of its own: another search's stop must never reach it.
        stop_flag = bytearray(1)
        while True:
            chunk = self._take(stop_flag)
            if chunk is None:
                return
            began = time.perf_counter()
            nonce = None
            try:
                nonce = self._backend.kernel(
                    chunk.job.prefix, chunk.start, chunk.stop - 1, chunk.job.difficulty, stop_flag
                )
            except Exception as error:
                # Its caller will hear of it; this thread has other searches to serve.
                self._stop([chunk.job], error)
            self._finish(chunk, nonce, time.perf_counter() - began)

    def _take(self, stop_flag: bytearray) -> _Chunk | None:
        """The next chunk of the search whose turn it is; waits for one; None when the pool is closed."""
        with self._changed:
            while True:
                for job in sorted(self._jobs, key=lambda job: job.virtual_time):  # of equal ones the oldest first
                    if job.exhausted():
                        self._settle(job)
                    else:
                        return self._hand_out(job, stop_flag)
                if self._closed:
                    return None
                self._changed.wait()

    def _newcomers_virtual_time(self) -> float:
        # Level with the search that has had the least, so that a small one is soon done; but at most a
        # chunk behind everybody's share, or a stream of newcomers would starve the searches before them.
        least = min((job.virtual_time for job in self._jobs), default=self._fair_share)
        return max(least, self._fair_share - self._longest_chunk())

    def _hand_out(self, job: _Job, stop_flag: bytearray) -> _Chunk:
        stop_flag[0] = 0
        chunk = _Chunk(job, job.next, min(job.next + self._chunk_nonces(job), job.stop), stop_flag)
        job.next = chunk.stop
        job.virtual_time += chunk.stop - chunk.start
        self._fair_share += (chunk.stop - chunk.start) / len(self._jobs)
        job.running.append(chunk)
        return chunk

    def _chunk_nonces(self, job: _Job) -> int:
        # An easy block's chunks stay small, so that the threads don't all overshoot its nonce.
        wanted = expected_hashes(job.difficulty) // (8 * self.threads)
        return max(min(wanted, self._longest_chunk()), _CHUNK_NONCES)

    def _longest_chunk(self) -> int:
        return max(int(self._thread_rate * _CHUNK_SECONDS), _CHUNK_NONCES)

    def _finish(self, chunk: _Chunk, nonce: int | None, seconds: float) -> None:
        job = chunk.job
        with self._changed:
            job.running.remove(chunk)
            if nonce is not None:
                self._count(job, nonce + 1 - chunk.start, seconds)
                if job.best is None or nonce < job.best:
                    job.best = nonce
                    for other in job.running:
                        if other.start > nonce:
                            other.stop_flag[0] = 1
            elif chunk.stop_flag[0]:
                job.cut = chunk.start if job.cut is None else min(job.cut, chunk.start)
            else:
                self._count(job, chunk.stop - chunk.start, seconds)
            self._settle(job)

    def _count(self, job: _Job, nonces: int, seconds: float) -> None:
        job.tried += nonces
        self._count_rate(nonces, seconds)

    def _count_rate(self, nonces: int, seconds: float) -> None:
        self._hashes += nonces
        # A chunk that hit at once says nothing about the rate.
        if nonces >= _CHUNK_NONCES and seconds > 0:
            measured = nonces / seconds
            old = self._thread_rate or measured
            self._thread_rate = old + _RATE_WEIGHT * (measured - old)

    def _settle(self, job: _Job) -> None:
        """Let the search go when it is over. Called with the lock held, after any change to the job."""
        if job.running or job.done.is_set() or not job.exhausted():
            return
        self._jobs.remove(job)
        job.done.set()

    def _measure(self) -> float:
        """Nonces a second of one thread that has a core for itself."""
        nonces = _CHUNK_NONCES
        while True:
            began = time.perf_counter()
            self._backend.kernel(b"1:RATE:", 10**9, 10**9 + nonces - 1, 256, None)
            seconds = time.perf_counter() - began
            if seconds >= _CHUNK_SECONDS / 2:
                return nonces / seconds
            nonces *= 2
