"""The workflow's generator, driven by hand as an engine would: through JSON, replayed, cut off, cancelled, repeated."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pow import pool as pool_module
from pow import workflow
from pow.errors import InvalidArgument
from pow.pool import MinerPool
from pow.workflow import (
    CallActivity,
    ContinueAsNew,
    Document,
    MiningJob,
    Progress,
    ReportProgress,
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
    """What an engine records of one run of the generator: its input, its steps, and the activities' answers."""

    state: Document
    steps: list[Step] = field(default_factory=list)
    answers: list[Document] = field(default_factory=list)
    result: Document | None = None

    @property
    def slices(self) -> int:
        return sum(isinstance(step, CallActivity) for step in self.steps)


def through_json(document: Document) -> Document:
    """Engines store and send nothing but JSON: what doesn't survive that fails here."""
    copy: Document = json.loads(json.dumps(document))
    assert copy == document
    return copy


def run(state: Document, activity: Activity) -> History:
    """Drive the generator once, to its result or to where it continues as new."""
    history = History(through_json(state))
    steps = mine_chain_steps(history.state)
    answer: Any = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            history.result = end.value
            return history
        history.steps.append(step)
        answer = None
        if isinstance(step, CallActivity):
            answer = through_json(activity(through_json(step.input)))
            history.answers.append(answer)
        elif isinstance(step, ReportProgress):
            through_json(step.progress)


def run_all(state: Document, activity: Activity) -> list[History]:
    """Drive the generator to its end, through all of its histories."""
    histories = [run(state, activity)]
    while histories[-1].result is None:
        last = histories[-1].steps[-1]
        assert isinstance(last, ContinueAsNew)
        histories.append(run(last.state, activity))
    return histories


def replay(history: History) -> History:
    """Drive it again with the recorded answers, as an engine does after a crash."""
    answers = iter(history.answers)
    return run(history.state, lambda _request: next(answers))


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
    calls = [step.input for step in history.steps if isinstance(step, CallActivity)]
    assert len(calls) > len(TWELVE["blocks"])
    for call, answer, following in zip(calls, history.answers, calls[1:], strict=False):
        if answer["found"]:
            assert (following["index"], following["start"]) == (call["index"] + 1, 0)
        else:
            assert following == {**call, "start": answer["next_nonce"]}


def test_an_activity_s_input_is_one_block_s_work(activity: Activity) -> None:
    history = run(state_for(TWELVE, 60.0), activity)
    assert [step.input for step in history.steps if isinstance(step, CallActivity)] == [
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
        assert run(history.state, remembering(history.answers[:known], activity)).result == TWELVE


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
    assert histories[-1].slices < limit
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
            "seconds": history.state["seconds"],
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
    assert told[0] == {"blocks_done": 0, "blocks_total": 12, "hashes": 0, "seconds": 0.0}
    for before, after in pairwise(told):
        assert before["blocks_done"] <= after["blocks_done"]
        assert before["hashes"] <= after["hashes"]
        assert before["seconds"] <= after["seconds"]
    assert told[-1]["blocks_done"] == told[-1]["blocks_total"] == 12
    assert told[-1]["hashes"] == sum(block["attempts"] for block in TWELVE["blocks"])


def test_progress_is_told_before_each_slice_and_at_the_end(activity: Activity) -> None:
    history = run(state_for(TWELVE, 60.0), activity)
    assert [type(step) for step in history.steps] == [ReportProgress, CallActivity] * 12 + [ReportProgress]


def test_the_expected_time_left_comes_from_the_job_s_own_rate_once_there_is_one() -> None:
    fresh = Progress(blocks_done=0, blocks_total=4, hashes=0, seconds=0.0)
    assert fresh.rate is None
    assert fresh.expected_seconds_left(20, fallback_rate=2.0**20) == 4.0
    under_way = Progress(blocks_done=1, blocks_total=4, hashes=2**22, seconds=2.0)
    assert under_way.rate == 2.0**21
    assert under_way.expected_seconds_left(20, fallback_rate=1.0) == 1.5
    assert Progress(4, 4, 2**22, 2.0).expected_seconds_left(20, 1.0) == 0.0


# --- inputs and answers


def test_a_new_workflow_s_state_is_its_job_and_nothing_done() -> None:
    assert initial_state(MiningJob(21, 4, "GENESIS"), 1.5) == {
        "difficulty": 21,
        "blocks": 4,
        "genesis": "GENESIS",
        "slice_seconds": 1.5,
        "nonces": [],
        "next_nonce": 0,
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
        next(mine_chain_steps(state))


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
