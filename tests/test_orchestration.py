"""The orchestration, driven by hand as an engine would: through JSON, replayed, cut off, lost, repeated."""

import json
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from works import MINING, PRIMES, Case, chain, control, each_work, over_after, through_json

from pow.longwork import orchestration
from pow.longwork.orchestration import (
    AwaitSlice,
    ContinueAsNew,
    Report,
    SliceEnded,
    StartSlice,
    Step,
    TimedOut,
    WorkflowInput,
    first_input,
    orchestrate,
    read_input,
)
from pow.longwork.work import AnyWork, Message
from pow.mining import window
from pow.mining.work import mined_chain

Activity = Callable[[Message], Message]
Choose = Callable[[list[int]], int]
"""The numbers of the slices in flight, oldest first -> the one that ends next."""

# Histories as the first version recorded them, with answers of made-up workers.
OLD_HISTORIES: list[Any] = json.loads(Path(__file__).with_name("first_version_histories.json").read_text("utf-8"))


@dataclass
class History:
    """What an engine records of one run of the generator: its input, its steps, and what came of each wait."""

    given: Message
    steps: list[Step] = field(default_factory=list)
    events: list[SliceEnded | TimedOut] = field(default_factory=list)
    output: Any = None
    most_in_flight: int = 0

    @property
    def starts(self) -> list[Any]:
        return [step.request for step in self.steps if isinstance(step, StartSlice)]

    @property
    def answers(self) -> list[SliceEnded]:
        return [event for event in self.events if isinstance(event, SliceEnded)]

    @property
    def waits(self) -> list[float | None]:
        return [step.time_out for step in self.steps if isinstance(step, AwaitSlice)]

    @property
    def reports(self) -> list[Any]:
        return [step.report for step in self.steps if isinstance(step, Report)]


def oldest(numbers: list[int]) -> int:
    return numbers[0]


def run(
    work: AnyWork, given: WorkflowInput, activity: Activity, choose: Choose = oldest, lost: Collection[int] = ()
) -> History:
    """Drive the generator once, to its output or to where it continues as new.

    A slice's end takes a second. Those that are `lost` never end: a time-out does, when nothing else is in flight.
    """
    history = History(through_json(given))
    now = 1000.0
    steps = orchestrate(work, read_input(work, history.given), now)
    in_flight: dict[int, Message] = {}
    event: SliceEnded | TimedOut | None = None
    while True:
        try:
            step = steps.send(event)
        except StopIteration as end:
            history.output = end.value
            return history
        history.steps.append(step)
        event = None
        match step:
            case StartSlice(number, request, seconds):
                assert number not in in_flight
                assert seconds == given["slice_seconds"]
                in_flight[number] = through_json(request)
            case AwaitSlice(time_out):
                history.most_in_flight = max(history.most_in_flight, len(in_flight))
                coming = [number for number in in_flight if number not in lost]
                if coming:
                    now += 1
                    number = choose(coming)
                    event = SliceEnded(number, through_json(activity(in_flight.pop(number))), now)
                else:
                    assert time_out is not None, "nobody is left to wait for"
                    now += time_out
                    event = TimedOut(now)
                history.events.append(event)
            case Report(report):
                through_json(report)


def run_all(
    work: AnyWork, given: WorkflowInput, activity: Activity, choose: Choose = oldest, lost: Collection[int] = ()
) -> list[History]:
    """Drive the generator to its end, through all of its histories; the first one's slices may get lost."""
    histories = [run(work, given, activity, choose, lost)]
    while histories[-1].output is None:
        last = histories[-1].steps[-1]
        assert isinstance(last, ContinueAsNew)
        histories.append(run(work, last.input, activity, choose))
    return histories


def replay(work: AnyWork, history: History) -> list[Step]:
    """The steps that the recorded events lead to, as an engine sees them after a crash."""
    steps = orchestrate(work, read_input(work, history.given), 1000.0)
    events = iter(history.events)
    replayed: list[Step] = [next(steps)]
    while True:
        try:
            replayed.append(steps.send(next(events) if isinstance(replayed[-1], AwaitSlice) else None))
        except StopIteration:
            return replayed


def activity_of(case: Case, looks: int = 1) -> Activity:
    """The work's run, over after so many looks at its control."""
    return lambda request: case.work.run(request, control(over_after(looks)))


def remembering(answered: list[SliceEnded], activity: Activity) -> Activity:
    """The activity, but what was answered before a crash is not done again."""
    left = iter([ended.answer for ended in answered])
    return lambda request: next(left, None) or activity(request)


def input_of(case: Case, **changes: Any) -> WorkflowInput:
    return first_input(case.work, case.job(), **{"slice_seconds": 10.0, **changes})


def document_of(case: Case, histories: list[History]) -> Message:
    document: Message = case.work.result(case.work.restore(histories[-1].output)).document
    return document


# --- what engines do to it


@each_work
@pytest.mark.parametrize("looks", [1, 3, 10**9], ids=["shortest-slices", "short-slices", "whole-slices"])
def test_the_orchestration_comes_to_the_work_s_result(case: Case, looks: int) -> None:
    assert document_of(case, run_all(case.work, input_of(case), activity_of(case, looks))) == case.document


@each_work
def test_replaying_recorded_events_gives_the_same_steps(case: Case) -> None:
    for history in run_all(case.work, input_of(case), activity_of(case)):
        assert replay(case.work, history) == history.steps


@each_work
def test_a_crash_at_any_step_leads_to_the_same_result(case: Case) -> None:
    history = run(case.work, input_of(case), activity_of(case, 2))
    for known in range(len(history.answers) + 1):
        # What was answered before the crash is not done again.
        histories = run_all(case.work, input_of(case), remembering(history.answers[:known], activity_of(case, 2)))
        assert document_of(case, histories) == case.document


@each_work
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_long_history_is_cut_off_and_continued_to_the_same_result(
    case: Case, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestration, "SLICES_PER_HISTORY", limit)
    given = input_of(case, owner="somebody", created_at=12.5)
    histories = run_all(case.work, given, activity_of(case))
    assert len(histories) > 1
    assert [len(history.starts) for history in histories[:-1]] == [limit] * (len(histories) - 1)
    assert document_of(case, histories) == case.document
    for history in histories:
        assert replay(case.work, history) == history.steps
        kept = {**history.given, "state": given["state"], "turnaround": None}
        assert kept == given


@each_work
def test_progress_is_told_before_each_slice_and_at_the_end(case: Case) -> None:
    history = run(case.work, input_of(case), activity_of(case, 10**9))
    steps = [type(step) for step in history.steps]
    assert steps == [Report, StartSlice, AwaitSlice] * len(history.starts) + [Report]


@each_work
def test_progress_never_goes_back(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestration, "SLICES_PER_HISTORY", 3)
    reports = [
        report for history in run_all(case.work, input_of(case), activity_of(case)) for report in history.reports
    ]
    done = [case.done(case.job(), report) for report in reports]
    assert done == sorted(done)
    for before, after in pairwise(reports):
        assert before.keys() == after.keys()


# --- slices that get lost


@each_work
@pytest.mark.parametrize("lost", [{0}, {1}, {0, 1, 2}, {0, 2, 4}], ids=str)
def test_lost_slices_are_started_again(case: Case, lost: set[int]) -> None:
    histories = run_all(case.work, input_of(case, restart_lost_slices=True), activity_of(case, 2), lost=lost)
    assert document_of(case, histories) == case.document
    requests = [json.dumps(request) for request in histories[0].starts]
    assert {request for request in requests if requests.count(request) > 1} == {requests[number] for number in lost}


@each_work
def test_the_time_out_follows_what_slices_take_and_doubles_with_each_start(case: Case) -> None:
    # The only slice is lost three times over.
    history = run(case.work, input_of(case, restart_lost_slices=True), activity_of(case, 10**9), lost={0, 1, 2})
    assert history.output is not None
    # Started again after 60 s, after 120 s more, after 240 s more.
    assert history.waits[:8] == [60.0] * 8
    later = run(
        case.work, input_of(case, restart_lost_slices=True) | {"turnaround": 100.0}, activity_of(case, 10**9), lost={0}
    )
    assert later.waits[:2] == [300.0, 300.0]


@each_work
def test_an_engine_that_sees_to_lost_slices_itself_has_no_time_outs(case: Case) -> None:
    assert set(run(case.work, input_of(case), activity_of(case)).waits) == {None}


@each_work
def test_of_a_slice_that_was_started_twice_the_first_answer_counts(case: Case) -> None:
    """Its second one comes when the work has gone on from the first."""
    steps = orchestrate(case.work, input_of(case, restart_lost_slices=True), 0.0)
    assert isinstance(next(steps), Report)
    first = next(steps)
    assert isinstance(first, StartSlice)
    assert next(steps) == AwaitSlice(60.0)
    assert steps.send(TimedOut(60.0)) == StartSlice(1, first.request, first.seconds)
    part = case.work.run(first.request, control(over_after(1)))
    whole = case.work.run(first.request, control(over_after(2)))
    next(steps)
    next(steps)
    next_report = steps.send(SliceEnded(1, part, 61.0))
    second = next(steps)
    assert isinstance(second, StartSlice)
    assert second.request == case.work.plan(case.work.merge(input_of(case)["state"], first.request, part), 1, [])[0]
    next(steps)
    assert steps.send(SliceEnded(0, whole, 62.0)) == next_report
    assert isinstance(next(steps), AwaitSlice)


# --- several slices of a block at once


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges so small that a block takes many of them."""
    monkeypatch.setattr(window, "_FIRST_NONCES", 3000)
    monkeypatch.setattr(window, "_TELLING_NONCES", 2**64)


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("order", ["oldest", "newest", "any"])
def test_slices_side_by_side_mine_the_same_chain_in_whatever_order_they_end(width: int, order: str) -> None:
    choose: Choose = {
        "oldest": oldest,
        "newest": lambda numbers: numbers[-1],
        "any": random.Random(width).choice,
    }[order]
    histories = run_all(MINING.work, input_of(MINING, width=width), activity_of(MINING, 10**9), choose)
    assert document_of(MINING, histories) == MINING.document
    # One for each worker and one ready; those above a hit may still be in flight when the next block's begin.
    assert width + 1 <= max(history.most_in_flight for history in histories) <= 2 * (width + 1)
    for history in histories:
        assert replay(MINING.work, history) == history.steps


@pytest.mark.usefixtures("small_ranges")
def test_each_worker_has_a_slice_at_once_and_one_lies_ready() -> None:
    history = run(MINING.work, input_of(MINING, width=4), activity_of(MINING))
    assert [type(step) for step in history.steps[:7]] == [Report, *[StartSlice] * 5, AwaitSlice]
    assert [(request["start"], request["stop"]) for request in history.starts[:2]] == [(0, 3000), (3000, 6000)]


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize("lost", [{0}, {1}, {2, 3}, {5, 9, 13, 17}], ids=str)
def test_lost_slices_beside_others_are_started_again(lost: set[int]) -> None:
    given = input_of(MINING, width=2, restart_lost_slices=True)
    histories = run_all(MINING.work, given, activity_of(MINING, 10**9), lost=lost)
    assert document_of(MINING, histories) == MINING.document
    requests = [json.dumps(request) for request in histories[0].starts]
    restarted = {request for request in requests if requests.count(request) > 1}
    assert restarted
    assert restarted <= {requests[number] for number in lost}


def test_a_work_that_only_steps_forward_has_one_slice_whatever_the_width() -> None:
    history = run(PRIMES.work, input_of(PRIMES, width=4), activity_of(PRIMES))
    assert history.most_in_flight == 1


# --- what the first version wrote


@pytest.mark.parametrize("recorded", OLD_HISTORIES, ids=lambda recorded: f"{recorded['input']['fan_out']}-side-by-side")
def test_a_history_that_the_first_version_began_is_replayed_step_by_step(recorded: Any) -> None:
    """Its slices came back whole, in part, twice and not at all; a step that differs would fail the workflow."""
    steps = orchestrate(MINING.work, read_input(MINING.work, recorded["input"]), recorded["now"])
    events = iter(recorded["events"])
    event: SliceEnded | TimedOut | None = None
    replayed: list[Any] = []
    output: Any = None
    while True:
        try:
            step = steps.send(event)
        except StopIteration as end:
            output = end.value
            break
        event = None
        match step:
            case StartSlice(_, request, seconds):
                slice_: Any = request
                assert seconds == 10.0
                replayed.append(["start", slice_["index"], slice_["start"], slice_.get("stop")])
            case AwaitSlice(time_out):
                replayed.append(["await", time_out])
                kind, *values = next(events)
                event = SliceEnded(*values) if kind == "ended" else TimedOut(*values)
            case ContinueAsNew():
                replayed.append(["continue"])
    assert replayed == recorded["steps"]
    assert recorded["chain"] == (None if output is None else mined_chain(output).to_dict())


def test_an_input_of_the_first_version_is_read() -> None:
    flat = {
        "difficulty": 12,
        "blocks": 4,
        "genesis": "GENESIS",
        "slice_seconds": 10.0,
        "fan_out": 4,
        "restart_lost_slices": True,
        "owner": "somebody",
        "nonces": [904],
        "next_nonce": 100,
        "gaps": [],
        "hit": None,
        "rate": None,
        "turnaround": 2.5,
        "hashes": 1005,
        "seconds": 1.0,
    }
    given = read_input(MINING.work, flat)
    assert given["job"] == {"difficulty": 12, "blocks": 4, "genesis": "GENESIS"}
    assert (given["width"], given["owner"], given["restart_lost_slices"]) == (4, "somebody", True)
    assert (given["slice_seconds"], given["turnaround"]) == (10.0, 2.5)
    histories = run_all(MINING.work, given, activity_of(MINING))
    assert histories[0].starts[0]["start"] == 100
    assert document_of(MINING, histories) == chain(12)


def test_an_input_of_the_first_version_s_first_days_is_read() -> None:
    flat = {"difficulty": 12, "blocks": 4, "genesis": "GENESIS", "slice_seconds": 10.0}
    assert read_input(MINING.work, flat) == first_input(MINING.work, MINING.job({"difficulty": 12}), slice_seconds=10.0)


@each_work
def test_an_input_is_what_it_was_when_it_is_read_again(case: Case) -> None:
    given = input_of(case, width=3, restart_lost_slices=True, owner="somebody", created_at=12.5)
    assert read_input(case.work, through_json(given)) == given
