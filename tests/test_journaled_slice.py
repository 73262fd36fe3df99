"""Slices in portions: what the journal keeps of one, and how long one is beside many others."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pow.limits import MAX_DIFFICULTY
from pow.longwork.engines import journaled_slice
from pow.longwork.engines.journal import Journal
from pow.longwork.engines.journaled_slice import mine_journaled_slice
from pow.mining.pool import MinerPool
from pow.mining.workflow import SliceReached

ID = "a-workflow"
# Nothing meets it.
REQUEST: dict[str, Any] = {
    "index": 1,
    "previous_hash": "GENESIS",
    "difficulty": MAX_DIFFICULTY,
    "start": 0,
    "seconds": 3600.0,
}


@pytest.fixture
def journal() -> Iterator[Journal]:
    kept = Journal(None)
    kept.accept(ID, "mine_chain", "{}")
    yield kept
    kept.close()


@pytest.fixture(autouse=True)
def short_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journaled_slice, "_PORTION_SECONDS", 0.01)


def kept_portions(journal: Journal) -> list[dict[str, Any]]:
    """What the journal has of the slice, portion after portion."""
    portions: list[dict[str, Any]] = []
    while answer := journal.recorded_slice(ID, {**REQUEST, "start": portions[-1]["next_nonce"] if portions else 0}):
        portions.append(answer)
    return portions


def mine_until_kept(journal: Journal, portions: int) -> dict[str, Any]:
    """The answer of a slice of an hour that was stopped once the journal had so many portions of it."""
    answers: list[dict[str, Any]] = []
    with MinerPool() as pool:
        mining = threading.Thread(target=lambda: answers.append(mine_journaled_slice(pool, journal, ID, REQUEST)))
        mining.start()
        while len(kept_portions(journal)) < portions:
            time.sleep(0.001)
    mining.join()
    return answers[0]


def test_a_crash_repeats_at_most_a_portion(journal: Journal) -> None:
    mine_until_kept(journal, 3)
    known = kept_portions(journal)
    stop = known[-1]["next_nonce"] + 1000
    # The rest of a range that ends soon after what is known; asked for from its beginning, as after a crash.
    for start, portion in zip([0, *(answer["next_nonce"] for answer in known)], known, strict=False):
        journal.record_slice(ID, {**REQUEST, "start": start, "stop": stop}, portion)
    with MinerPool() as pool:
        answer = mine_journaled_slice(pool, journal, ID, {**REQUEST, "stop": stop})
        assert pool.hashes == 1000
    assert (answer["found"], answer["next_nonce"]) == (False, stop)
    assert answer["seconds"] >= sum(portion["seconds"] for portion in known)


def test_each_portion_is_told_of_as_it_ends(journal: Journal) -> None:
    mine_until_kept(journal, 2)
    portions = kept_portions(journal)
    last = portions[-1]["next_nonce"]
    told: list[SliceReached] = []
    with MinerPool() as pool:
        for start, portion in zip([0, *(answer["next_nonce"] for answer in portions)], portions, strict=False):
            journal.record_slice(ID, {**REQUEST, "start": start, "stop": last}, portion)
        mine_journaled_slice(pool, journal, ID, {**REQUEST, "stop": last}, told.append)
        assert pool.hashes == 0
    assert [reached.block for reached in told] == [1] * len(portions)
    assert [reached.next_nonce for reached in told] == [answer["next_nonce"] for answer in portions]
    assert told[-1].seconds == pytest.approx(sum(portion["seconds"] for portion in portions))


def test_a_slice_that_is_stopped_answers_with_all_its_portions(journal: Journal) -> None:
    answer = mine_until_kept(journal, 2)
    known = kept_portions(journal)
    assert not answer["found"]
    assert answer["next_nonce"] == known[-1]["next_nonce"]
    assert answer["seconds"] == pytest.approx(sum(portion["seconds"] for portion in known), abs=0.01)


def test_the_hit_ends_the_slice(journal: Journal, genesis_chain: dict[int, dict[str, Any]]) -> None:
    request = {**REQUEST, "difficulty": 20}
    with MinerPool() as pool:
        answer = mine_journaled_slice(pool, journal, ID, request)
        again = mine_journaled_slice(pool, journal, ID, request)
    assert (answer["found"], answer["next_nonce"]) == (True, genesis_chain[20]["blocks"][0]["nonce"] + 1)
    assert again == answer


def test_a_finished_workflow_s_slice_is_not_mined(journal: Journal) -> None:
    journal.finish(ID, status=5, output=None, error=None, custom_status=None)
    with MinerPool() as pool:
        assert mine_journaled_slice(pool, journal, ID, REQUEST) == {"found": False, "next_nonce": 0, "seconds": 0.0}
        assert pool.hashes == 0


def test_slices_are_longer_the_more_searches_there_are(journal: Journal) -> None:
    request = {**REQUEST, "seconds": 0.02}
    with MinerPool() as pool:
        searches = [
            threading.Thread(target=pool.search, args=(b"1:other:", 0, MAX_DIFFICULTY), kwargs={"owner": "others"})
            for _ in range(20)
        ]
        for search in searches:
            search.start()
        while pool.searches < len(searches):
            time.sleep(0.001)
        # Ten times as many as have slices of the length that was asked for.
        assert mine_journaled_slice(pool, journal, ID, request)["seconds"] >= 0.9 * 10 * request["seconds"]
        pool.cancel("others")
        for search in searches:
            search.join()
