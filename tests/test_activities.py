"""The activity of a process: slices that come twice, late, and for workflows that have ended."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pow.longwork.engines.activities import FAILURE, Activities
from pow.longwork.overhead import Overhead
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork

HANG_SECONDS = 60.0
# Nobody finds its nonce.
ENDLESS = {"index": 1, "previous_hash": "GENESIS", "difficulty": 250, "start": 0}
QUICK = {**ENDLESS, "difficulty": 8}


@pytest.fixture
def pool() -> Iterator[MinerPool]:
    """Mining in this process."""
    with MinerPool(1) as running:
        yield running


@pytest.fixture
def activities(pool: MinerPool) -> Iterator[Activities]:
    """The process's."""
    made = Activities(MiningWork(pool), Overhead(0.005))
    yield made
    made.close()


def given(request: dict[str, Any], seconds: float = HANG_SECONDS, workflow_id: str = "a") -> dict[str, Any]:
    return {"request": request, "seconds": seconds, "workflow_id": workflow_id}


def test_a_slice_that_comes_twice_is_searched_once(pool: MinerPool, activities: Activities) -> None:
    first = activities.run(given(QUICK))
    tried = pool.hashes
    # A further start of it is shorter.
    assert activities.run(given(QUICK, seconds=1.0)) == first
    assert pool.hashes == tried
    # A third time it is done again: the work may have got nowhere, and want just that.
    assert activities.run(given(QUICK))["nonce"] == first["nonce"]
    assert pool.hashes > tried
    tried = pool.hashes
    # Another workflow's is another one.
    assert activities.run(given(QUICK, workflow_id="b"))["nonce"] == first["nonce"]
    assert pool.hashes > tried


def test_a_slice_that_comes_again_while_it_runs_gets_the_same_answer(activities: Activities) -> None:
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(activities.run, given(ENDLESS, seconds=0.3)) for _ in range(2)]
        first, second = (answer.result(HANG_SECONDS) for answer in answers)
    assert first is second


def test_the_slices_of_a_cancelled_workflow_end_and_later_ones_try_nothing(
    pool: MinerPool, activities: Activities
) -> None:
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(activities.run, given(ENDLESS))
        until(lambda: pool.searches > 0)
        activities.cancel("a")
        running.result(HANG_SECONDS)
    tried = pool.hashes
    assert activities.run(given({**ENDLESS, "start": 10**9}))["next_nonce"] == 10**9
    assert pool.hashes == tried
    assert activities.run(given(QUICK, workflow_id="b"))["nonce"] is not None


def test_a_slice_ends_when_its_workflow_was_ended_elsewhere(pool: MinerPool, activities: Activities) -> None:
    ended = threading.Event()
    asked: list[str] = []

    def has_ended(workflow_id: str) -> bool:
        asked.append(workflow_id)
        if len(asked) == 2:
            raise OSError("not now")
        return ended.is_set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(activities.run, given(ENDLESS), has_ended=has_ended)
        until(lambda: len(asked) > 3)
        assert not running.done()
        ended.set()
        running.result(HANG_SECONDS)
    assert set(asked) == {"a"}


def test_a_work_that_fails_answers_so_and_a_process_without_memory_fails(
    pool: MinerPool, activities: Activities, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = activities.run(given({**ENDLESS, "difficulty": 300}))
    assert answer == {FAILURE: "difficulty must be an integer from 0 to 256, not 300"}

    def without_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pool, "search", without_memory)
    with pytest.raises(MemoryError):
        activities.run(given(ENDLESS, workflow_id="b"))


def test_what_passes_between_two_slices_is_measured(activities: Activities) -> None:
    for start in range(50):
        activities.run(given({**QUICK, "start": start}))
    assert activities.overhead.seconds > 0.0
    assert activities.overhead.seconds != 0.005  # which was the guess


def until(condition: Any) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
