"""Mining: the same blocks from every backend, number of threads and part of a search; and what mining refuses."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pow.errors import BackendError, InvalidArgument, MiningStopped
from pow.mining import miner
from pow.mining import pool as pool_module
from pow.mining.chain import Block, block_prefix
from pow.mining.miner import MiningProgress, mine_block, mine_chain, shared_pool
from pow.mining.pool import MinerPool, Reached, SearchResult
from pow.scanning import backends as scanning
from pow.scanning.backends import Backend, Kernel, StopFlag, active_backend, native_missing, supported_backends

Document = dict[str, Any]

CHAINS: list[Document] = json.loads(Path(__file__).with_name("genesis_chains.json").read_text("utf-8"))["chains"]

each_backend = pytest.mark.parametrize("backend", supported_backends())
needs_native = pytest.mark.skipif(native_missing(), reason="takes minutes with hashlib")

GENESIS = b"1:GENESIS:"
FIRST = 251  # GENESIS's first hit at difficulty 8
ENDLESS = 256


def chain_of(difficulty: int) -> Document:
    return next(chain for chain in CHAINS if chain["difficulty"] == difficulty)


def each_chain(lowest: int, highest: int) -> pytest.MarkDecorator:
    chains = [chain for chain in CHAINS if lowest <= chain["difficulty"] <= highest]
    return pytest.mark.parametrize("document", chains, ids=[f"{c['difficulty']}-{c['genesis']}" for c in chains])


def mined_like(document: Document, threads: int, backend: str) -> Document:
    return mine_chain(
        document["genesis"],
        difficulty=document["difficulty"],
        blocks=len(document["blocks"]),
        threads=threads,
        backend=backend,
    ).to_dict()


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the backends whose kernels were called."""
    names: set[str] = set()

    def recording(backend: Backend) -> Backend:
        def kernel(prefix: bytes, first: int, last: int, difficulty: int, stop_flag: StopFlag | None) -> int | None:
            names.add(backend.name)
            return backend.kernel(prefix, first, last, difficulty, stop_flag)

        spy: Kernel = kernel
        return backend._replace(kernel=spy)

    recorded = {name: recording(backend) for name, backend in scanning.all_backends().items()}
    monkeypatch.setattr(scanning, "all_backends", lambda: recorded)
    return names


# --- chains


@each_backend
@each_chain(0, 16)
@pytest.mark.parametrize("threads", range(1, 9))
def test_a_chain_is_the_same_from_every_backend_and_number_of_threads(
    document: Document, threads: int, backend: str, ran: set[str]
) -> None:
    assert mined_like(document, threads, backend) == document
    assert ran == {backend}


@needs_native
@each_chain(17, 20)
@pytest.mark.parametrize("threads", range(1, 9))
def test_a_harder_chain_is_the_same_from_every_number_of_threads(document: Document, threads: int) -> None:
    assert mined_like(document, threads, supported_backends()[0]) == document


@needs_native
@each_chain(21, 24)
def test_the_hardest_chains_are_the_same_too(document: Document) -> None:
    assert mined_like(document, 2, supported_backends()[0]) == document


def test_a_chain_has_four_blocks_after_genesis_unless_asked_otherwise() -> None:
    assert mine_chain(difficulty=8).to_dict() == chain_of(8)
    assert mine_chain(difficulty=8, blocks=1).to_dict() == {**chain_of(8), "blocks": chain_of(8)["blocks"][:1]}


def test_at_difficulty_0_every_nonce_is_0() -> None:
    chain = mine_chain("", difficulty=0, blocks=3, threads=2)
    assert [block.nonce for block in chain.blocks] == [0, 0, 0]
    assert chain.blocks[0] == Block.from_nonce(1, "", 0)


def test_without_choices_all_chains_of_the_process_share_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_pool() is shared_pool()
    monkeypatch.setattr(miner, "MinerPool", pytest.fail)
    mine_chain(difficulty=1)


@each_backend
def test_a_pool_of_a_chain_s_own_ends_with_it(backend: str) -> None:
    before = set(threading.enumerate())
    mine_chain(difficulty=8, threads=3, backend=backend)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("blocks", [0, -1, True, 1.0, "4", None], ids=repr)
def test_a_number_of_blocks_below_1_or_of_another_kind_is_refused(blocks: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        mine_chain(difficulty=1, blocks=blocks)
    assert str(caught.value) == f"blocks must be an integer of at least 1, not {blocks!r}"


@pytest.mark.parametrize(
    ("arguments", "error", "begins"),
    [
        ({"difficulty": 257}, InvalidArgument, "difficulty must be an integer from 0 to 256, not 257"),
        ({"difficulty": 1, "genesis": "\n"}, InvalidArgument, "genesis must not contain control characters"),
        ({"difficulty": 1, "genesis": "x" * 65}, InvalidArgument, "genesis must be at most 64 bytes of UTF-8, not 65"),
        ({"difficulty": 1, "threads": 0}, InvalidArgument, "threads must be an integer from 1 to 1024, not 0"),
        ({"difficulty": 1, "backend": "avx9"}, BackendError, "backend 'avx9' is not known; valid here: auto, "),
    ],
)
def test_other_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], begins: str) -> None:
    with pytest.raises(error) as caught:
        mine_chain(**arguments)
    assert str(caught.value).startswith(begins)


# --- progress


def test_progress_tells_every_block_and_ends_with_the_last() -> None:
    told: list[MiningProgress] = []
    chain = mine_chain(difficulty=16, threads=1, progress=told.append)
    assert {(progress.blocks_total, progress.difficulty) for progress in told} == {(4, 16)}
    assert [progress.blocks_done for progress in told] == sorted(progress.blocks_done for progress in told)
    assert {progress.blocks_done for progress in told} >= {1, 2, 3, 4}
    assert [progress.hashes for progress in told] == sorted(progress.hashes for progress in told)
    assert told[-1].blocks_done == 4
    assert told[-1].hashes == sum(block.attempts for block in chain.blocks)


def test_progress_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two threads; the chunk with the hit is held back until the chunks above it have been told of.
    release, told = threading.Event(), list[int]()

    def choose(name: str | None) -> Backend:
        backend = active_backend(name)

        def kernel(prefix: bytes, first: int, last: int, difficulty: int, stop_flag: StopFlag | None) -> int | None:
            if first == 200:
                release.wait()
            return backend.kernel(prefix, first, last, difficulty, stop_flag)

        held: Kernel = kernel
        return backend._replace(kernel=held)

    def progress(progress: MiningProgress) -> None:
        told.append(progress.hashes)
        # 0, 100, 300 and the start of 400, where a later hit is.
        if progress.hashes >= 331:
            release.set()

    monkeypatch.setattr(pool_module, "active_backend", choose)
    monkeypatch.setattr(pool_module, "_HERE_NONCES", 0)
    monkeypatch.setattr(pool_module, "_CHUNK_NONCES", 100)
    monkeypatch.setattr(pool_module, "_CHUNK_SECONDS", 0.0)
    assert mine_chain(difficulty=8, blocks=1, threads=2, progress=progress).blocks[0].nonce == FIRST
    assert told == sorted(told)


def test_a_rate_and_an_expected_time_need_hashes_and_seconds() -> None:
    nothing = MiningProgress(blocks_done=0, blocks_total=4, difficulty=20, hashes=0, seconds=0.0)
    assert nothing.rate == 0.0
    assert nothing.expected_seconds_left is None
    assert nothing._replace(seconds=3.0).rate == 0.0
    assert nothing._replace(seconds=3.0).expected_seconds_left is None
    some = nothing._replace(hashes=2**21, seconds=2.0)
    assert some.rate == 2**20
    assert some.expected_seconds_left == 4.0
    assert some._replace(blocks_done=3).expected_seconds_left == 1.0
    assert some._replace(blocks_done=4).expected_seconds_left == 0.0


# --- searches in parts


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("difficulty", [1, 8, 12, 16])
def test_searches_that_are_over_at_once_lead_to_the_same_nonce(backend: str, threads: int, difficulty: int) -> None:
    for expected in chain_of(difficulty)["blocks"]:
        prefix, start, parts = block_prefix(expected["index"], expected["previous_hash"]), 0, 1
        with MinerPool(threads, backend) as pool:
            assert pool.backend == backend
            while (found := pool.search(prefix, start, difficulty, until=lambda: True)).nonce is None:
                # Each one tries something, and nothing is tried that can't be the nonce.
                assert start < found.next_nonce <= expected["nonce"]
                start, parts = found.next_nonce, parts + 1
        assert found == SearchResult(expected["nonce"], expected["nonce"] + 1)
        assert parts > 1 or expected["nonce"] < 50_000


@pytest.fixture
def pool() -> Iterator[MinerPool]:
    with MinerPool(2) as made:
        yield made


def test_a_block_is_mined_in_one_go(pool: MinerPool) -> None:
    assert mine_block(pool, 1, "GENESIS", 16) == Block.from_nonce(1, "GENESIS", 88_270)


def test_a_block_tells_how_many_nonces_were_tried(pool: MinerPool) -> None:
    told: list[int] = []

    def stop_when_told(tried: int) -> None:
        told.append(tried)
        if tried:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mine_block(pool, 1, "GENESIS", ENDLESS, progress=stop_when_told)
    assert 0 < told[-1] <= pool.hashes


def test_mining_that_is_stopped_says_so() -> None:
    with MinerPool(1) as pool:
        pass
    with pytest.raises(MiningStopped) as caught:
        mine_block(pool, 3, "GENESIS", 8)
    assert str(caught.value) == "mining block 3 was stopped before its nonce was found"


@each_backend
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 3, 100, 251, 252, 1023, 1024, 1025, 4097])
def test_windows_of_any_size_give_the_same_nonce(backend: str, threads: int, size: int) -> None:
    with MinerPool(threads, backend) as pool:
        start = 0
        while (result := pool.search(GENESIS, start, 8, stop=start + size)).nonce is None:
            assert result == SearchResult(None, start + size)
            start = result.next_nonce
        assert result == SearchResult(FIRST, FIRST + 1)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_windows_of_odd_sizes_give_the_same_nonce_at_a_higher_difficulty(threads: int) -> None:
    with MinerPool(threads) as pool:
        start, size = 0, 1
        while (result := pool.search(GENESIS, start, 16, stop=start + size)).nonce is None:
            assert result.next_nonce == start + size
            start, size = result.next_nonce, 3 * size + 1
        assert result.nonce == 88_270


@pytest.mark.parametrize("start", [0, 7, 2**64 - 1, 2**64])
def test_an_empty_range_ends_at_once(start: int) -> None:
    with MinerPool(2) as pool:
        assert pool.search(GENESIS, start, 0, stop=start) == SearchResult(None, start)
        assert pool.hashes == 0


def test_a_search_ends_at_the_last_64_bit_nonce() -> None:
    with MinerPool(2) as pool:
        assert pool.search(GENESIS, 2**64 - 5000, ENDLESS) == SearchResult(None, 2**64)
        assert pool.search(GENESIS, 2**64 - 1, 0) == SearchResult(2**64 - 1, 2**64)


def test_a_hit_counts_the_nonces_up_to_it() -> None:
    with MinerPool(1) as pool:
        pool.search(GENESIS, 0, 8)
        assert pool.hashes == FIRST + 1
        pool.search(GENESIS, 0, 16)
        assert pool.hashes == FIRST + 1 + 88_270 + 1


# --- what a pool refuses, and its rate


@pytest.mark.parametrize("difficulty", [-1, 257, "8"], ids=repr)
def test_a_pool_refuses_a_difficulty_out_of_range(difficulty: Any, pool: MinerPool) -> None:
    with pytest.raises(InvalidArgument, match=r"^difficulty must be an integer from 0 to 256, not "):
        pool.search(GENESIS, 0, difficulty)
    assert pool.searches == 0


def test_an_error_in_the_kernel_reaches_the_caller_and_leaves_the_threads_to_others() -> None:
    text: Any = "no bytes"
    with MinerPool(1) as pool:
        with pytest.raises(TypeError):
            pool.search(text, 0, ENDLESS)
        assert pool.searches == 0
        assert pool.search(GENESIS, 0, 8).nonce == FIRST


@pytest.mark.parametrize(("start", "stop"), [(-1, 100), (2**64 - 100, 2**64 + 1), (8, 7)])
def test_a_pool_refuses_a_range_that_is_not_of_64_bit_nonces(start: int, stop: int) -> None:
    before = set(threading.enumerate())

    def guard(_reached: Reached) -> None:
        # Without its thread the search would wait for ever.
        assert set(threading.enumerate()) - before, "the range ended the pool's thread"

    with MinerPool(1) as pool, pytest.raises(InvalidArgument):
        pool.search(GENESIS, start, ENDLESS, stop=stop, progress=guard)


@pytest.mark.parametrize("backend", supported_backends())
@pytest.mark.parametrize("threads", [1, 4])
def test_the_rate_is_measured_when_no_search_has_told_it(
    threads: int, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonces = 0

    def kernel(_prefix: bytes, first: int, last: int, _difficulty: int, _flag: StopFlag | None) -> int | None:
        nonlocal nonces
        nonces += last - first + 1
        return None

    # On this clock a nonce takes a microsecond, and there are two cores to share.
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(perf_counter=lambda: nonces / 1e6))
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 2)
    fake: Kernel = kernel
    monkeypatch.setattr(pool_module, "active_backend", lambda name: active_backend(name)._replace(kernel=fake))
    pool = MinerPool(threads, backend)
    side_by_side = 1 if backend == "hashlib" else min(threads, 2)
    assert pool.rate == pytest.approx(side_by_side * 1e6)
    measured = nonces
    assert pool.rate == pytest.approx(side_by_side * 1e6)
    assert nonces == measured
