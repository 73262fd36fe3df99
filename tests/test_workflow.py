"""The workflow's generator, driven by hand as an engine would: through JSON, replayed, cut off, cancelled, repeated."""

import json
import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pow.errors import InvalidArgument
from pow.limits import NONCE_STOP
from pow.mining import pool as pool_module
from pow.mining import window, workflow
from pow.mining.pool import MinerPool
from pow.mining.workflow import (
    AwaitSlice,
    ContinueAsNew,
    Document,
    MiningJob,
    PatienceOver,
    Progress,
    ReportProgress,
    SliceEnded,
    SliceReached,
    StartSlice,
    Step,
    initial_state,
    job_of,
    mine_chain_steps,
    mine_slice,
)

CHAINS: list[Document] = json.loads(Path(__file__).with_name("genesis_chains.json").read_text("utf-8"))["chains"]
MINED = [chain for chain in CHAINS if chain["difficulty"] <= 16]
each_chain = pytest.mark.parametrize("document", MINED, ids=[f"{c['difficulty']}-{c['genesis']}" for c in MINED])
TWELVE = next(chain for chain in CHAINS if chain["difficulty"] == 12)

Activity = Callable[[Document], Document]
Choose = Callable[[list[int]], int]
"""The numbers of the slices in flight, oldest first -> the one that ends next."""


def oldest(numbers: list[int]) -> int:
    return numbers[0]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[MinerPool]:
    # Slices without any time try one chunk, so these make many of them.
    monkeypatch.setattr(pool_module, "_CHUNK_NONCES", 2_000)
    monkeypatch.setattr(pool_module, "_CHUNK_SECONDS", 0.0)
    with MinerPool(2) as made:
        yield made


@pytest.fixture
def activity(pool: MinerPool) -> Activity:
    return lambda request: mine_slice(pool, request, "test")


@dataclass
class History:
    """What an engine records of one run of the generator: its input, its steps, and the slices' ends."""

    state: Document
    steps: list[Step] = field(default_factory=list)
    ends: list[SliceEnded] = field(default_factory=list)
    result: Document | None = None
    most_in_flight: int = 0
    waits: list[float] = field(default_factory=list)

    @property
    def calls(self) -> list[Document]:
        return [step.input for step in self.steps if isinstance(step, StartSlice)]

    @property
    def slices(self) -> int:
        return len(self.calls)

    @property
    def answers(self) -> list[Document]:
        return [end.answer for end in self.ends]


def through_json(document: Document) -> Document:
    """Engines store and send nothing but JSON: what doesn't survive that fails here."""
    copy: Document = json.loads(json.dumps(document))
    assert copy == document
    return copy


def run(state: Document, activity: Activity, choose: Choose = oldest, lost: Collection[int] = ()) -> History:
    """Drive the generator once, to its result or to where it continues as new.

    A slice's end takes a second. Those that are `lost` never end: patience does, when nothing else is in flight.
    """
    history = History(through_json(state))
    now = 1000.0
    steps = mine_chain_steps(history.state, now)
    in_flight: dict[int, Document] = {}
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            history.result = end.value
            return history
        history.steps.append(step)
        answer = None
        match step:
            case StartSlice(number, request):
                assert number not in in_flight
                in_flight[number] = through_json(request)
            case AwaitSlice(patience):
                history.most_in_flight = max(history.most_in_flight, len(in_flight))
                coming = [number for number in in_flight if number not in lost]
                if not coming:
                    assert patience is not None, "nobody is left to wait for"
                    now += patience
                    history.waits.append(patience)
                    answer = PatienceOver(now)
                    continue
                now += 1
                number = choose(coming)
                answer = SliceEnded(number, through_json(activity(in_flight.pop(number))), now)
                history.ends.append(answer)
            case ReportProgress(progress):
                through_json(progress)


def run_all(state: Document, activity: Activity, choose: Choose = oldest, lost: Collection[int] = ()) -> list[History]:
    """Drive the generator to its end, through all of its histories; the first one's slices may get lost."""
    histories = [run(state, activity, choose, lost)]
    while histories[-1].result is None:
        last = histories[-1].steps[-1]
        assert isinstance(last, ContinueAsNew)
        histories.append(run(last.state, activity, choose))
    return histories


def replay(history: History) -> History:
    """Drive it again with the recorded answers, as an engine does after a crash."""
    answers, numbers = iter(history.answers), iter([end.number for end in history.ends])
    return run(history.state, lambda _request: next(answers), lambda _numbers: next(numbers))


def remembering(answers: list[Document], activity: Activity) -> Activity:
    """The activity, but what was answered before a crash is not done again."""
    left = iter(answers)
    return lambda request: next(left, None) or activity(request)


def state_for(document: Document, slice_seconds: float = 0.0) -> Document:
    job = MiningJob(document["difficulty"], len(document["blocks"]), document["genesis"])
    return initial_state(job, slice_seconds)


def progress_of(histories: list[History]) -> list[Document]:
    return [step.progress for history in histories for step in history.steps if isinstance(step, ReportProgress)]


# --- the chain


@each_chain
@pytest.mark.parametrize("slice_seconds", [0.0, 60.0], ids=["shortest-slices", "one-slice-a-block"])
def test_the_workflow_mines_the_chain(document: Document, slice_seconds: float, activity: Activity) -> None:
    histories = run_all(state_for(document, slice_seconds), activity)
    assert histories[-1].result == document
    if slice_seconds:
        assert sum(history.slices for history in histories) == len(document["blocks"])


def test_a_block_that_outlasts_its_slice_goes_on_from_the_next_nonce(activity: Activity) -> None:
    history = run(state_for(TWELVE), activity)
    calls = history.calls
    assert len(calls) > len(TWELVE["blocks"])
    for call, answer, following in zip(calls, history.answers, calls[1:], strict=False):
        if answer["found"]:
            assert (following["index"], following["start"]) == (call["index"] + 1, 0)
        else:
            assert following == {**call, "start": answer["next_nonce"]}


def test_an_activity_s_input_is_one_block_s_work(activity: Activity) -> None:
    history = run(state_for(TWELVE, 60.0), activity)
    assert history.calls == [
        {
            "index": block["index"],
            "previous_hash": block["previous_hash"],
            "difficulty": 12,
            "start": 0,
            "seconds": 60.0,
        }
        for block in TWELVE["blocks"]
    ]


# --- what engines do to it


@each_chain
def test_replaying_recorded_answers_gives_the_same_steps(document: Document, activity: Activity) -> None:
    for history in run_all(state_for(document), activity):
        assert replay(history) == history


def test_after_a_crash_at_any_step_it_goes_on_to_the_same_chain(activity: Activity) -> None:
    history = run(state_for(TWELVE), activity)
    for known in range(len(history.answers) + 1):
        assert run_all(history.state, remembering(history.answers[:known], activity))[-1].result == TWELVE


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12])
def test_a_long_history_is_cut_off_and_continued_to_the_same_chain(
    limit: int, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "SLICES_PER_HISTORY", limit)
    histories = run_all(state_for(TWELVE), activity)
    assert len(histories) > 2
    for history in histories[:-1]:
        assert history.slices == limit
        assert replay(history) == history
    assert histories[-1].slices <= limit
    assert histories[-1].result == TWELVE


def test_a_continued_history_keeps_the_job_and_how_far_it_is(
    activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "SLICES_PER_HISTORY", 2)
    histories = run_all(state_for(TWELVE, 60.0), activity)
    nonces = [block["nonce"] for block in TWELVE["blocks"]]
    for done, history in enumerate(histories):
        assert history.state == {
            **state_for(TWELVE, 60.0),
            "nonces": nonces[: 2 * done],
            "hashes": sum(nonces[: 2 * done]) + 2 * done,
            **{name: history.state[name] for name in ("seconds", "rate", "turnaround")},
        }


def test_slices_that_are_run_twice_give_the_same_chain(activity: Activity) -> None:
    # Engines deliver an activity at least once, and may record either answer.
    def twice(request: Document) -> Document:
        activity(request)
        return activity(request)

    assert run_all(state_for(TWELVE), twice)[-1].result == TWELVE


def test_slices_that_are_stopped_early_give_the_same_chain(pool: MinerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    search = pool.search

    def stopped_now_and_then(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 3:
            kwargs["progress"] = lambda _tried: pool.cancel(kwargs["owner"])
        return search(*args, **kwargs)

    monkeypatch.setattr(pool_module, "_PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr(pool, "search", stopped_now_and_then)
    histories = run_all(state_for(TWELVE, 60.0), lambda request: mine_slice(pool, request, "stopped"))
    assert histories[-1].result == TWELVE
    assert sum(history.slices for history in histories) > len(TWELVE["blocks"])


# --- progress


@pytest.mark.parametrize("limit", [3, 100])
def test_progress_never_goes_back_and_ends_with_the_whole_chain(
    limit: int, activity: Activity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "SLICES_PER_HISTORY", limit)
    told = progress_of(run_all(state_for(TWELVE), activity))
    assert told[0] == {"blocks_done": 0, "blocks_total": 12, "hashes": 0, "seconds": 0.0, "nonces": []}
    for before, after in pairwise(told):
        assert before["blocks_done"] <= after["blocks_done"]
        assert before["hashes"] <= after["hashes"]
        assert before["seconds"] <= after["seconds"]
    assert told[-1]["blocks_done"] == told[-1]["blocks_total"] == 12
    assert told[-1]["hashes"] == sum(block["attempts"] for block in TWELVE["blocks"])


def test_a_report_of_progress_is_small_however_long_the_chain() -> None:
    longest = MiningJob(difficulty=0, blocks=1000, genesis="GENESIS")
    state = initial_state(longest, 60.0) | {"nonces": [NONCE_STOP - 1] * 999, "hashes": 2**80}
    report = next(mine_chain_steps(state, 0.0))
    assert isinstance(report, ReportProgress)
    assert report.progress["blocks_done"] == 999
    # Durable Functions fails an orchestration that reports more.
    assert len(json.dumps(report.progress).encode("utf-16-le")) <= 16 * 1024


def test_progress_is_told_before_each_slice_and_at_the_end(activity: Activity) -> None:
    history = run(state_for(TWELVE, 60.0), activity)
    each = [ReportProgress, StartSlice, AwaitSlice]
    assert [type(step) for step in history.steps] == each * 12 + [ReportProgress]


def test_the_expected_time_left_comes_from_the_job_s_own_rate_once_there_is_one() -> None:
    fresh = Progress(blocks_done=0, blocks_total=4, hashes=0, seconds=0.0)
    assert fresh.rate is None
    assert fresh.expected_seconds_left(20, fallback_rate=2.0**20) == 4.0
    under_way = Progress(blocks_done=1, blocks_total=4, hashes=2**22, seconds=2.0)
    assert under_way.rate == 2.0**21
    assert under_way.expected_seconds_left(20, fallback_rate=1.0) == 1.5
    assert Progress(4, 4, 2**22, 2.0).expected_seconds_left(20, 1.0) == 0.0


def test_progress_counts_a_slice_that_has_not_ended_once() -> None:
    one_mined = Progress(blocks_done=1, blocks_total=4, hashes=1500, seconds=3.0, nonces=[999])

    # 1,000 nonces of block 1, and 500 of block 2 in slices that have ended.
    assert one_mined.with_slice(SliceReached(block=2, next_nonce=700, seconds=0.5)) == one_mined._replace(
        hashes=1700, seconds=3.5
    )
    # The report has it already; it is of a block that was mined since; it is of one that the report doesn't know of.
    for known in (SliceReached(2, 500, 1.0), SliceReached(1, 1000, 2.0), SliceReached(3, 10**6, 1.0)):
        assert one_mined.with_slice(known) == one_mined
    # A report that doesn't name all nonces can't be added to.
    shortened = Progress(blocks_done=2, blocks_total=4, hashes=3000, seconds=3.0, nonces=[999])
    assert shortened.with_slice(SliceReached(3, 5000, 1.0)) == shortened


# --- several slices of a block at once


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges so small that a block takes many of them."""
    monkeypatch.setattr(window, "_FIRST_NONCES", 300)
    monkeypatch.setattr(window, "_TELLING_NONCES", 1)
    monkeypatch.setattr(window.Pace, "range_nonces", lambda *_: 300)


def fan_out_state(fan_out: int, **changes: Any) -> Document:
    return state_for(TWELVE, 60.0) | {"fan_out": fan_out} | changes


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("fan_out", [2, 3, 8])
@pytest.mark.parametrize("order", ["oldest", "newest", "any"])
def test_several_slices_at_once_mine_the_same_chain_in_whatever_order_they_end(
    fan_out: int, order: str, activity: Activity
) -> None:
    chance = random.Random(order)
    choose = {"oldest": oldest, "newest": lambda numbers: numbers[-1], "any": chance.choice}[order]
    histories = run_all(fan_out_state(fan_out), activity, choose)
    assert histories[-1].result == TWELVE
    # One for each worker and one ready; those above a hit may still be in flight when the next block's begin.
    assert fan_out + 1 <= max(history.most_in_flight for history in histories) <= 2 * (fan_out + 1)
    for history in histories:
        assert replay(history).steps == history.steps


@pytest.mark.usefixtures("small_ranges")
def test_all_workers_have_a_slice_at_once_and_one_lies_ready(activity: Activity) -> None:
    history = run(fan_out_state(4), activity)
    first = [type(step) for step in history.steps[:7]]
    assert first == [ReportProgress, *[StartSlice] * 5, AwaitSlice]
    assert [(call["start"], call["stop"]) for call in history.calls[:3]] == [(0, 300), (300, 600), (600, 900)]


def test_blocks_too_small_to_share_are_mined_by_one_slice_each(activity: Activity) -> None:
    history = run(fan_out_state(4), activity)
    assert history.result == TWELVE
    assert history.slices == 12
    assert history.most_in_flight == 1


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("lost", [{0}, {1}, {2, 3}, {5, 9, 13, 17}], ids=str)
def test_lost_slices_are_started_again(lost: set[int], activity: Activity) -> None:
    state = fan_out_state(2, blocks=3, restart_lost_slices=True)
    histories = run_all(state, activity, lost=lost)
    assert histories[-1].result == {**TWELVE, "blocks": TWELVE["blocks"][:3]}
    requests = [json.dumps(call) for call in histories[0].calls]
    restarted = {request for request in requests if requests.count(request) > 1}
    assert restarted
    assert restarted <= {requests[number] for number in lost}


@pytest.mark.usefixtures("small_ranges")
def test_patience_follows_what_slices_take_and_grows_with_each_start(activity: Activity) -> None:
    # The only slice is lost three times over.
    history = run(fan_out_state(1, blocks=1, restart_lost_slices=True), activity, lost={0, 1, 2})
    assert history.result is not None
    first, *waits = history.waits
    assert first == 60.0
    # Restarted after 60 s, after 120 s more, after 240 s more: each wait is for the same patience.
    assert waits == [60.0] * 6
    later = run(fan_out_state(1, blocks=1, restart_lost_slices=True, turnaround=100.0), activity, lost={0})
    assert later.waits == [300.0]


@pytest.mark.usefixtures("small_ranges")
def test_an_engine_that_sees_to_lost_slices_itself_sets_no_patience(activity: Activity) -> None:
    history = run(fan_out_state(2), activity)
    assert {step.patience for step in history.steps if isinstance(step, AwaitSlice)} == {None}


# --- inputs and answers


def test_a_workflow_that_an_older_version_accepted_goes_on(activity: Activity) -> None:
    old = {"slice_seconds": 60.0, "nonces": [904], "next_nonce": 5000, "hashes": 5905, "seconds": 1.0}
    job = {"difficulty": 12, "blocks": 12, "genesis": "GENESIS"}
    history = run({**job, **old}, activity)
    assert history.result == TWELVE
    assert history.calls[0]["start"] == 5000


def test_a_new_workflow_s_state_is_its_job_and_nothing_done() -> None:
    assert initial_state(MiningJob(21, 4, "GENESIS"), 1.5) == {
        "difficulty": 21,
        "blocks": 4,
        "genesis": "GENESIS",
        "slice_seconds": 1.5,
        "fan_out": 1,
        "restart_lost_slices": False,
        "owner": None,
        "nonces": [],
        "next_nonce": 0,
        "gaps": [],
        "hit": None,
        "rate": None,
        "turnaround": None,
        "hashes": 0,
        "seconds": 0.0,
    }


def test_a_state_tells_its_job() -> None:
    job = MiningJob(21, 4, "é中文")
    assert job_of(through_json(initial_state(job, 1.0))) == job


@pytest.mark.parametrize(
    ("field_name", "value"), [("difficulty", 257), ("difficulty", "8"), ("genesis", "\n"), ("genesis", "x" * 65)]
)
def test_a_state_whose_job_could_not_have_been_accepted_is_refused(field_name: str, value: object) -> None:
    state = state_for(TWELVE) | {field_name: value}
    with pytest.raises(InvalidArgument, match=f"^{field_name} must "):
        job_of(state)
    with pytest.raises(InvalidArgument, match=f"^{field_name} must "):
        next(mine_chain_steps(state, 0.0))


def slice_request(start: int, seconds: float) -> Document:
    return {"index": 1, "previous_hash": "GENESIS", "difficulty": 16, "start": start, "seconds": seconds}


def test_a_slice_answers_with_the_nonce_before_its_next_one(pool: MinerPool) -> None:
    answer = mine_slice(pool, slice_request(80_000, 60.0), "me")
    assert answer.keys() == {"found", "next_nonce", "seconds"}
    assert (answer["found"], answer["next_nonce"]) == (True, 88_271)
    assert answer["seconds"] >= 0


def test_a_slice_out_of_time_answers_with_the_next_nonce_to_try(pool: MinerPool) -> None:
    answer = mine_slice(pool, slice_request(10_000, 0.0), "me")
    assert (answer["found"], answer["next_nonce"]) == (False, 12_000)


def test_a_slice_of_a_closed_pool_has_ruled_nothing_out(pool: MinerPool) -> None:
    pool.close()
    answer = mine_slice(pool, slice_request(10_000, 60.0), "me")
    assert (answer["found"], answer["next_nonce"]) == (False, 10_000)
