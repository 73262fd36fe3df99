"""Mining as a long work: the smallest nonce from any workers, its requests and answers, what older versions wrote."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from works import chain, control, over_after

from pow.errors import InvalidArgument, MiningStopped
from pow.limits import NONCE_STOP
from pow.mining.chain import block_digest
from pow.mining.messages import MiningState, SliceAnswer, SliceRequest
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

# No thread of it ever starts: these tests only plan and merge.
WORK = MiningWork(MinerPool(1))
JOB = WORK.parse({"difficulty": 24, "blocks": 3})


def answer_of(request: SliceRequest, hits: list[int], tried: int) -> SliceAnswer:
    """What a worker answers that tries so many nonces in a second for each million of them."""
    start = request["start"]
    until = min(start + tried, request.get("stop", NONCE_STOP))
    first = next((hit for hit in hits if start <= hit < until), None)
    next_nonce = until if first is None else first + 1
    return {"nonce": first, "next_nonce": next_nonce, "seconds": (next_nonce - start) / 1e6}


# No deadline: the machine may have other things to do.
@settings(deadline=None)
@given(
    found=st.lists(st.integers(0, 2**25), min_size=3, max_size=3),
    width=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_any_workers_mine_the_smallest_nonce_of_each_block(found: list[int], width: int, seed: int) -> None:
    chance = random.Random(seed)
    hits = [[first, *(first + chance.randrange(1, 2**22) for _ in range(3))] for first in found]
    state = WORK.begin(JOB)
    in_flight: list[SliceRequest] = []
    hashes = 0
    while wanted := WORK.plan(state, width, in_flight):
        # Now and then one is delivered twice, and at times all are lost.
        in_flight = [*in_flight, *(new for new in wanted if new not in in_flight for _ in range(chance.choice([1, 2])))]
        request = in_flight.pop(chance.randrange(len(in_flight)))
        tried = chance.choice([0, 1, 10**6, 10**8, 10**8])
        # Partial answers, and others that don't come in their order.
        for part in (tried, tried // 2):
            state = WORK.merge(state, request, answer_of(request, sorted(hits[request["index"] - 1]), part))
        assert state["hashes"] >= hashes
        hashes = state["hashes"]
        if chance.random() < 0.05:
            in_flight = []
    assert state["nonces"] == found


def test_the_state_names_the_last_block_s_hash() -> None:
    state = WORK.begin(JOB)
    for index, nonce in enumerate([5, 9], start=1):
        (request,) = WORK.plan(state, 1, [])
        assert (request["index"], request["previous_hash"]) == (index, state["previous_hash"])
        digest = block_digest(index, state["previous_hash"], nonce).hex().upper()
        state = WORK.merge(state, request, answer_of(request, [nonce], 100))
        assert state["previous_hash"] == digest


def test_a_request_is_one_block_s_work() -> None:
    assert WORK.plan(WORK.begin(JOB), 1, []) == [
        {"index": 1, "previous_hash": "GENESIS", "difficulty": 24, "start": 0},
    ]
    assert WORK.plan(WORK.begin(JOB), 2, [])[1] == {
        "index": 1,
        "previous_hash": "GENESIS",
        "difficulty": 24,
        "start": 2**21,
        "stop": 2 * 2**21,
        "width": 2,
    }


@pytest.mark.parametrize("width", [2, 3, 8])
def test_each_worker_has_a_range_and_one_lies_ready(width: int) -> None:
    assert len(WORK.plan(WORK.begin(JOB), width, [])) == width + 1


def test_what_is_left_of_a_part_of_a_gap_is_searched_by_itself() -> None:
    """As the first version did: its histories are replayed."""
    state: MiningState = {**WORK.begin(JOB), "tried": [[0, 100], [1_000_000, 3_000_000]], "rate": 1e6}
    first, *_ = WORK.plan(state, 2, [])
    assert (first["start"], first["stop"]) == (100, 524_388)
    state = WORK.merge(state, first, answer_of(first, [], 200_000))
    assert [(request["start"], request["stop"]) for request in WORK.plan(state, 2, [])] == [
        (200_100, 524_388),
        (524_388, 1_000_000),
        (3_000_000, 3_524_288),
    ]


def test_a_block_too_small_to_share_is_one_worker_s() -> None:
    easy = WORK.begin(WORK.parse({"difficulty": 12}))
    assert len(WORK.plan(easy, 4, [])) == 1


def test_seconds_are_those_of_all_workers_side_by_side() -> None:
    state = WORK.begin(JOB)
    for request in WORK.plan(state, 2, []):
        state = WORK.merge(state, request, answer_of(request, [], 10**9))
    assert state["hashes"] == 3 * 2**21
    assert state["seconds"] == pytest.approx(3 * 2**21 / 1e6 / 2)
    assert state["rate"] == pytest.approx(1e6)


def test_a_block_without_any_nonce_stops_the_work() -> None:
    state: MiningState = {**WORK.begin(JOB), "tried": [[0, NONCE_STOP]]}
    with pytest.raises(MiningStopped, match="no nonce of block 1 meets difficulty 24"):
        WORK.plan(state, 1, [])


def test_a_report_of_the_longest_chain_is_small() -> None:
    state: MiningState = {
        **WORK.begin({"difficulty": 1, "blocks": 1000, "genesis": "GENESIS"}),
        "nonces": [NONCE_STOP - 1] * 999,
        "hashes": 2**80,
    }
    report = WORK.report(state)
    assert report["blocks_done"] == 999
    # Durable Functions fails an orchestration that reports more.
    assert len(json.dumps(report).encode("utf-16-le")) <= 16 * 1024


def test_a_result_is_the_chain_for_people_and_for_programs() -> None:
    known = chain(12)
    state: MiningState = {
        **WORK.begin(WORK.parse({"difficulty": 12})),
        "nonces": [block["nonce"] for block in known["blocks"]],
    }
    result = WORK.result(state)
    assert result.document == known
    first = known["blocks"][0]
    assert result.text.splitlines()[:3] == [
        "**Mined 4 blocks at difficulty 12**",
        "",
        f"- Block 1: nonce {first['nonce']:,}, {first['attempts']:,} attempts, hash `{first['hash'][:16]}…`",
    ]


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        ({"difficulty": 0}, "difficulty must be an integer from 1 to 40, not 0"),
        ({"difficulty": 41}, "difficulty must be an integer from 1 to 40, not 41"),
        ({"blocks": "many"}, "blocks must be an integer from 1 to 9, not 'many'"),
        ({"genesis": 8}, "genesis must be "),
        ({"genesis": "x" * 65}, "genesis must be at most 64 bytes of UTF-8, not 65"),
    ],
)
def test_a_server_s_limits_hold_for_every_job(arguments: dict[str, Any], begins: str) -> None:
    work = MiningWork(WORK.pool, default_difficulty=20, max_difficulty=40, default_blocks=2, max_blocks=9)
    assert work.parse({"genesis": None}) == {"difficulty": 20, "blocks": 2, "genesis": "GENESIS"}
    with pytest.raises(InvalidArgument) as caught:
        work.parse(arguments)
    assert str(caught.value).startswith(begins)


# --- runs


@pytest.fixture
def work() -> Iterator[MiningWork]:
    with MinerPool(2) as pool:
        yield MiningWork(pool)


def request_from(start: int, **fields: Any) -> SliceRequest:
    request: Any = {"index": 1, "previous_hash": "GENESIS", "difficulty": 16, "start": start, **fields}
    return request  # type: ignore[no-any-return]


def test_a_run_answers_with_the_nonce_and_the_next_one(work: MiningWork) -> None:
    answer = work.run(request_from(80_000), control())
    assert answer == {"nonce": 88_270, "next_nonce": 88_271, "seconds": answer["seconds"]}
    assert answer["seconds"] >= 0


def test_a_run_whose_time_is_up_answers_with_the_next_nonce_to_try(work: MiningWork) -> None:
    answer = work.run(request_from(10_000, difficulty=200), control(over_after(0)))
    assert answer["nonce"] is None
    assert answer["next_nonce"] > 10_000
    assert work.pool.hashes == answer["next_nonce"] - 10_000


def test_a_run_ends_with_its_range(work: MiningWork) -> None:
    answer = work.run(request_from(10_000, stop=12_345), control())
    assert (answer["nonce"], answer["next_nonce"]) == (None, 12_345)


def test_a_run_on_a_closed_pool_has_ruled_nothing_out(work: MiningWork) -> None:
    work.pool.close()
    answer = work.run(request_from(10_000), control())
    assert (answer["nonce"], answer["next_nonce"]) == (None, 10_000)


# --- what the first version wrote


FIRST_VERSION_INPUT = {
    "difficulty": 12,
    "blocks": 4,
    "genesis": "GENESIS",
    "slice_seconds": 1.0,
    "fan_out": 1,
    "restart_lost_slices": False,
    "owner": None,
    "nonces": [904],
    "next_nonce": 5000,
    "gaps": [[10, 20], [20, 30], [4000, 4100]],
    "hit": 4200,
    "rate": 2e6,
    "turnaround": 1.5,
    "hashes": 5905,
    "seconds": 1.25,
}


def test_an_input_of_the_first_version_is_read() -> None:
    assert WORK.job_of(FIRST_VERSION_INPUT) == {"difficulty": 12, "blocks": 4, "genesis": "GENESIS"}
    state = WORK.restore(FIRST_VERSION_INPUT)
    assert state == {
        "difficulty": 12,
        "blocks": 4,
        "genesis": "GENESIS",
        "nonces": [904],
        "previous_hash": chain(12)["blocks"][0]["hash"],
        # Two gaps that touch are handed out one by one, as they were.
        "tried": [[0, 10], [20, 20], [30, 4000], [4100, 5000]],
        "hit": 4200,
        "rate": 2e6,
        "hashes": 5905,
        "seconds": 1.25,
    }
    assert [(request["start"], request["stop"]) for request in WORK.plan(state, 8, [])] == [(10, 20)]


def test_a_chain_as_the_first_version_returned_it_is_a_done_state() -> None:
    state = WORK.restore(chain(12))
    assert WORK.plan(state, 1, []) == []
    assert mined_chain(state).to_dict() == chain(12)
    assert WORK.report(state)["hashes"] == sum(block["attempts"] for block in chain(12)["blocks"])


def test_an_answer_of_the_first_version_counts() -> None:
    state = WORK.begin(JOB)
    (request,) = WORK.plan(state, 1, [])
    partly: Any = {"found": False, "next_nonce": 1000, "seconds": 0.5}
    whole: Any = {"found": True, "next_nonce": 2000, "seconds": 0.5}
    state = WORK.merge(state, request, partly)
    (request,) = WORK.plan(state, 1, [])
    assert request["start"] == 1000
    assert WORK.merge(state, request, whole)["nonces"] == [1999]


def test_a_report_of_the_first_version_is_read() -> None:
    report = {"blocks_done": 1, "blocks_total": 4, "hashes": 2_000_000, "seconds": 2.0}
    progress = WORK.progress(JOB, report)
    assert progress.document["hashes_per_second"] == 1_000_000
    assert progress.done == 2_000_000


@pytest.mark.parametrize(
    "broken",
    [
        {"difficulty": 257},
        {"difficulty": "8"},
        {"genesis": "\n"},
        {"genesis": "x" * 65},
        {"blocks": "4"},
        {"nonces": None},
        {"gaps": 7},
    ],
    ids=str,
)
def test_a_state_that_could_not_have_been_written_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        WORK.restore({**FIRST_VERSION_INPUT, **broken})
