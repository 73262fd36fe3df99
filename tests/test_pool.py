"""The pool: the smallest hit from many threads, fair turns, and stops that lose and skip nothing.

Threads meet at gates: the real kernels run, but a test may hold one chunk back until something else
has happened. Nothing here waits for time to pass.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from pool_gates import ENDLESS, Gates, Search

from pow.mining import pool as pool_module
from pow.mining.pool import MinerPool, Reached, SearchResult
from pow.scanning.backends import scan, supported_backends

each_backend = pytest.mark.parametrize("backend", supported_backends())

GENESIS = b"1:GENESIS:"
# The hits of difficulty 8 after GENESIS begin 251, 430; those of other blocks' prefixes lie elsewhere.
FIRST, SECOND = 251, 430
OTHER = b"2:00347DB6331B227553FF9DFCF8F9F6A3BEA235A4616CE01F103C42DE9F4ED074:"
OTHER_FIRST = 554


@contextmanager
def open_pool(threads: int, backend: str | None = None) -> Iterator[MinerPool]:
    """A pool that is closed behind a test that passes; one that fails may leave a thread that never ends."""
    pool = MinerPool(threads, backend)
    yield pool
    pool.close()


_FOREIGN: set[threading.Thread] = set()


def miner_threads() -> list[threading.Thread]:
    """The living threads of pools that began in this test."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("miner-") and thread not in _FOREIGN]


@pytest.fixture(autouse=True)
def other_tests_threads_do_not_count() -> None:
    _FOREIGN.update(threading.enumerate())


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> Gates:
    return Gates(monkeypatch)


@pytest.fixture
def chunks_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes every chunk so many nonces, whatever the measured rate, and hands even easy blocks out to the threads."""

    def set_size(nonces: int) -> None:
        monkeypatch.setattr(pool_module, "_CHUNK_NONCES", nonces)
        monkeypatch.setattr(pool_module, "_CHUNK_SECONDS", 0.0)
        monkeypatch.setattr(pool_module, "_HERE_NONCES", 0)

    return set_size


# --- what a search finds


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_a_search_finds_the_smallest_hit_with_the_forced_backend(backend: str, threads: int) -> None:
    with open_pool(threads, backend) as pool:
        assert pool.backend == backend
        assert pool.search(GENESIS, 0, 8) == SearchResult(FIRST, FIRST + 1)
        assert pool.search(GENESIS, FIRST, 8) == SearchResult(FIRST, FIRST + 1)
        assert pool.search(GENESIS, FIRST + 1, 8) == SearchResult(SECOND, SECOND + 1)
        assert pool.search(GENESIS, 0, 16) == SearchResult(88_270, 88_271)
        assert pool.searches == 0


def test_a_hit_waits_for_the_chunks_below_it(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    release, later_hit = gates.hold(200), gates.ended(400)
    with open_pool(2) as pool:
        search = Search(pool, GENESIS, 0, 8)
        later_hit.wait()
        # The one free thread serves this only after it has handed the later hit in.
        assert pool.search(OTHER, 10**6, 0).nonce == 10**6
        assert search.is_alive()
        release.set()
        assert search.wait() == SearchResult(FIRST, FIRST + 1)


def test_a_hit_stops_the_chunks_above_it(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(2**40)
    below, above = gates.hold(0), gates.hold(2**40)
    gates.endless.add(2**40)
    with open_pool(2) as pool:
        search = Search(pool, GENESIS, 0, 8)
        assert {gates.waiting.get(), gates.waiting.get()} == {0, 2**40}
        above.set()
        below.set()
        assert search.wait() == SearchResult(FIRST, FIRST + 1)


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_every_nonce_of_a_range_without_a_hit_is_counted_once(backend: str, threads: int) -> None:
    with open_pool(threads, backend) as pool:
        assert pool.search(GENESIS, 5, ENDLESS, stop=50_005) == SearchResult(None, 50_005)
        assert pool.hashes == 50_000


@pytest.mark.parametrize("threads", [1, 2])
def test_an_easy_block_is_begun_by_the_thread_that_asks_for_it(threads: int) -> None:
    with open_pool(threads) as pool:
        assert pool.search(GENESIS, 0, 8) == SearchResult(FIRST, FIRST + 1)
        assert pool.hashes == FIRST + 1
        assert not miner_threads()
        # What that doesn't find in a few chunks is handed out to all.
        assert pool.search(GENESIS, 5_062, 12) == SearchResult(17_502, 17_503)
        assert len(miner_threads()) == threads


# --- searches that are over


def test_no_chunk_begins_once_a_search_is_over(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    with open_pool(1) as pool:
        result = pool.search(GENESIS, 0, ENDLESS, until=lambda: len(gates.began) >= 3)
    assert result == SearchResult(None, 300)
    assert [start for _, start in gates.began] == [0, 100, 200]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_search_that_is_over_at_once_tries_one_chunk(
    threads: int, gates: Gates, chunks_of: Callable[[int], None]
) -> None:
    chunks_of(100)
    with open_pool(threads) as pool:
        assert pool.search(GENESIS, 7, ENDLESS, until=lambda: True) == SearchResult(None, 107)
        assert pool.hashes == 100


# --- cancelling


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_cancel_ends_a_search_in_the_middle_of_its_chunks(threads: int, chunks_of: Callable[[int], None]) -> None:
    chunks_of(2**40)
    with open_pool(threads) as pool:
        search = Search(pool, GENESIS, 12_345, ENDLESS, "me")
        assert pool.cancel("me") == 1
        assert search.wait() == SearchResult(None, 12_345, stopped=True)
        assert pool.cancel("me") == 0
        # The threads' flags must not stay set.
        assert pool.search(GENESIS, 0, 16).nonce == 88_270


def test_cancel_leaves_other_owners_searches_alone(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    # So far away that the first search never gets there.
    far = 10**12
    release_a, release_b = gates.hold(300), gates.hold(far)
    with open_pool(2) as pool:
        a = Search(pool, GENESIS, 300, ENDLESS, "a")
        assert gates.waiting.get() == 300
        b = Search(pool, OTHER, far, 8, "b")
        assert gates.waiting.get() == far
        assert pool.searches == 2
        assert pool.cancel("nobody") == pool.cancel(None) == 0
        assert pool.cancel("a") == 1
        release_a.set()
        assert a.wait() == SearchResult(None, 300, stopped=True)
        assert pool.searches == 1
        release_b.set()
        nonce = scan(OTHER, far, far + 10_000, 8)
        assert nonce is not None
        assert b.wait() == SearchResult(nonce, nonce + 1)


def test_cancel_stops_all_searches_of_its_owner(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    starts = [10**12, 2 * 10**12]
    releases = [gates.hold(start) for start in starts]
    with open_pool(2) as pool:
        searches = [Search(pool, GENESIS, start, ENDLESS, ("job", 7)) for start in starts]
        assert {gates.waiting.get(), gates.waiting.get()} == set(starts)
        assert pool.cancel(("job", 7)) == 2
        for release in releases:
            release.set()
        results = [search.wait() for search in searches]
    assert results == [SearchResult(None, start, stopped=True) for start in starts]


def test_what_lies_below_a_cancelled_chunk_is_kept(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    release, beyond = gates.hold(300), gates.ended(1_000)
    with open_pool(2) as pool:
        search = Search(pool, GENESIS, 0, ENDLESS, "me")
        beyond.wait()
        assert pool.cancel("me") == 1
        release.set()
        # Chunks above it are done too, but a search goes on from one nonce only.
        assert search.wait() == SearchResult(None, 300, stopped=True)
    assert gates.rules_out(0, 300)


def test_a_hit_above_a_cancelled_chunk_is_not_reported(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    release, later_hit = gates.hold(200), gates.ended(400)
    with open_pool(2) as pool:
        search = Search(pool, GENESIS, 0, 8, "me")
        later_hit.wait()
        # The one free thread serves this only after it has handed the later hit in.
        assert pool.search(OTHER, 10**6, 0).nonce == 10**6
        assert pool.cancel("me") == 1
        release.set()
        assert search.wait() == SearchResult(None, 200, stopped=True)
        assert pool.search(GENESIS, 200, 8) == SearchResult(FIRST, FIRST + 1)


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_cancelled_again_and_again_a_search_skips_nothing(
    backend: str, threads: int, gates: Gates, chunks_of: Callable[[int], None]
) -> None:
    chunks_of(2_000)
    first_cancel = gates.hold(20_000)
    with open_pool(threads, backend) as pool:

        def cancel_soon(reached: Reached) -> None:
            # Not before some chunks are done, or the search would never get on.
            if reached.tried >= 4_000:
                pool.cancel("me")
                first_cancel.set()

        start, cancelled = 0, 0
        while (
            result := pool.search(GENESIS, start, 16, owner="me", progress=cancel_soon, progress_seconds=0.0)
        ).nonce is None:
            assert result.stopped
            assert result.next_nonce >= start
            assert gates.rules_out(start, result.next_nonce)
            start = result.next_nonce
            cancelled += 1
        assert result == SearchResult(88_270, 88_271)
        assert cancelled


# --- sharing


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_small_search_ends_beside_an_endless_one(backend: str, threads: int, gates: Gates) -> None:
    with open_pool(threads, backend) as pool:
        endless = Search(pool, GENESIS, 0, ENDLESS, "endless")
        for _ in range(3):
            assert pool.search(GENESIS, 0, 12).nonce == 904
            assert pool.search(OTHER, 0, 8).nonce == OTHER_FIRST
        assert endless.is_alive()
        assert pool.cancel("endless") == 1
        assert endless.wait().stopped


def last_of(prefix: bytes, turns: list[bytes]) -> int:
    return max(turn for turn, served in enumerate(turns) if served == prefix)


def test_equal_searches_take_turns(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    release = gates.hold(1_000)
    with open_pool(1) as pool:
        endless = Search(pool, GENESIS, 0, ENDLESS, "endless")
        gates.waiting.get()
        small = Search(pool, OTHER, 0, 8)
        release.set()
        assert small.wait().nonce == OTHER_FIRST
        pool.cancel("endless")
        endless.wait()
    turns = [prefix for prefix, _ in gates.began[gates.began.index((GENESIS, 1_000)) + 1 :]]
    assert turns.count(OTHER) == 6
    for turn in range(last_of(OTHER, turns) + 1):
        assert abs(turns[:turn].count(GENESIS) - turns[:turn].count(OTHER)) <= 1


def test_a_small_search_does_not_wait_for_every_chunk_of_huge_ones(
    gates: Gates, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Time stands still, and the rate with it: a huge search's chunk is 200,000 nonces here.
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=lambda: 0.0, perf_counter=lambda: 0.0))
    huge, release = 8, gates.hold(0)
    with open_pool(1) as pool:
        # No public way leads to a rate without a clock that runs.
        pool._thread_rate = 200_000 / pool_module._CHUNK_SECONDS
        searches = [Search(pool, GENESIS, 10**12 * i, ENDLESS, "huge") for i in range(huge)]
        gates.waiting.get()
        before = len(gates.began)
        small = Search(pool, OTHER, 1, 16)
        release.set()
        assert small.wait().nonce == scan(OTHER, 0, 10**6, 16)
        pool.cancel("huge")
        for search in searches:
            search.wait()
    turns = [prefix for prefix, _ in gates.began][before:]
    assert turns.count(OTHER) > 1
    assert turns[: last_of(OTHER, turns)].count(GENESIS) <= huge


def test_a_search_is_not_starved_by_a_stream_of_later_ones(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    rounds = 40
    releases = {10**12 * i: gates.hold(10**12 * i) for i in range(1, rounds + 3)}
    starts = iter(releases)
    first_chunk = gates.hold(0)
    with open_pool(1) as pool:
        endless = Search(pool, GENESIS, 0, ENDLESS, "endless")
        gates.waiting.get()
        # Never fewer than two of them: one runs, the others wait.
        stream = [Search(pool, OTHER, next(starts), 0) for _ in range(2)]
        first_chunk.set()
        for _ in range(rounds):
            running = gates.waiting.get()
            stream.append(Search(pool, OTHER, next(starts), 0))
            releases[running].set()
        chunks = sum(prefix == GENESIS for prefix, _ in gates.began)
        for release in releases.values():
            release.set()
        for search in stream:
            search.wait()
        pool.cancel("endless")
        endless.wait()
    # A third would be its fair share of turns.
    assert chunks >= rounds // 8


# --- the end


def test_close_ends_a_running_search_and_keeps_what_was_ruled_out(
    gates: Gates, chunks_of: Callable[[int], None]
) -> None:
    chunks_of(100)
    release, beyond = gates.hold(300), gates.ended(1_000)
    pool = MinerPool(2)
    search = Search(pool, GENESIS, 0, ENDLESS)
    assert gates.waiting.get() == 300
    beyond.wait()
    (free,) = set(miner_threads()) - {gates.waiting_thread[300]}
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    # It ends because the pool is closed, and nothing else.
    free.join()
    release.set()
    closing.join()
    next_nonce = search.wait().next_nonce
    assert search.wait() == SearchResult(None, next_nonce, stopped=True)
    assert next_nonce >= 1_100
    assert gates.rules_out(0, next_nonce)
    assert pool.hashes == next_nonce
    assert pool.searches == 0
    assert not miner_threads()


def test_close_lets_a_running_chunk_find_its_hit(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(1_000)
    release = gates.hold(0)
    pool = MinerPool(2)
    search = Search(pool, GENESIS, 0, 8)
    gates.waiting.get()
    (free,) = set(miner_threads()) - {gates.waiting_thread[0]}
    closing = threading.Thread(target=pool.close, daemon=True)
    closing.start()
    free.join()
    release.set()
    closing.join()
    assert search.wait() == SearchResult(FIRST, FIRST + 1)


def test_a_search_of_a_closed_pool_ends_at_once() -> None:
    with MinerPool(2) as pool:
        assert pool.search(GENESIS, 0, 8).nonce == FIRST
    pool.close()  # a second time does no harm
    assert pool.search(GENESIS, 77, 0) == SearchResult(None, 77, stopped=True)
    assert pool.searches == 0
    assert not miner_threads()


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failing_progress_callback_leaves_no_search_behind(
    failure: type[BaseException], gates: Gates, chunks_of: Callable[[int], None]
) -> None:
    chunks_of(2**40)

    def fail(_reached: Reached) -> None:
        raise failure("on purpose")

    with open_pool(1) as pool:
        with pytest.raises(failure, match="on purpose"):
            pool.search(GENESIS, 10**12, ENDLESS, progress=fail, progress_seconds=0.001)
        # The one thread is free again: it was stopped in the middle of its chunk.
        assert pool.search(GENESIS, 0, 8).nonce == FIRST
        assert pool.searches == 0


def test_progress_tells_the_nonces_tried_so_far(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    release = gates.hold(500)
    told: list[Reached] = []

    def progress(reached: Reached) -> None:
        told.append(reached)
        if reached.tried == 500:
            release.set()

    with open_pool(1) as pool:
        pool.search(GENESIS, 0, ENDLESS, stop=600, progress=progress, progress_seconds=0.001)
    assert Reached(500, 500) in told
    assert told == sorted(told)


def test_progress_tells_up_to_where_nothing_was_left_out(gates: Gates, chunks_of: Callable[[int], None]) -> None:
    chunks_of(100)
    release, beyond = gates.hold(300), gates.ended(1_000)
    told: list[Reached] = []

    def progress(reached: Reached) -> None:
        told.append(reached)
        if beyond.is_set() and reached.tried >= 900:
            release.set()

    with open_pool(2) as pool:
        pool.search(GENESIS, 0, ENDLESS, stop=2_000, progress=progress, progress_seconds=0.001)
    held = [reached for reached in told if reached.tried > 300 and reached.next_nonce == 300]
    # The other thread is far beyond the chunk that is held back; what it has tried doesn't show in the next nonce.
    assert held
    assert all(reached.next_nonce <= reached.tried or reached.next_nonce == 300 for reached in told)
