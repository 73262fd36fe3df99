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

from pow.errors import EngineError
from pow.longwork import orchestration
from pow.longwork.orchestration import (
    AwaitSlice,
    ContinueAsNew,
    Event,
    Report,
    SliceEnded,
    SliceFailed,
    SlicesFailed,
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

_SLICE_SECONDS = 0.125

# Histories as the first version recorded them, with answers of made-up workers.
OLD_HISTORIES: list[Any] = json.loads(Path(__file__).with_name("first_version_histories.json").read_text("utf-8"))


@dataclass
class History:
    """What an engine records of one run of the generator: its input, its steps, and what came of each wait."""

    given: Message
    steps: list[Step] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    output: Any = None
    most_in_flight: int = 0

    @property
    def starts(self) -> list[Any]:
        return [step.request for step in self.steps if isinstance(step, StartSlice)]

    @property
    def answers(self) -> list[SliceEnded]:
        return [event for event in self.events if isinstance(event, SliceEnded)]

    @property
    def seconds(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, StartSlice)]

    @property
    def waits(self) -> list[float | None]:
        return [step.time_out for step in self.steps if isinstance(step, AwaitSlice)]

    @property
    def reports(self) -> list[Any]:
        return [step.report for step in self.steps if isinstance(step, Report)]


def oldest(numbers: list[int]) -> int:
    return numbers[0]


def run(
    work: AnyWork,
    given: WorkflowInput,
    activity: Activity,
    choose: Choose = oldest,
    lost: Collection[int] = (),
    failing: Collection[int] = (),
) -> History:
    """Drive the generator once, to its output or to where it continues as new.

    A slice ends every eighth of a second. Those that are `lost` never do: a time-out does, when no other is in flight.
    Those that are `failing` end as those whose worker was killed do.
    """
    history = History(through_json(given))
    now = 1000.0
    steps = orchestrate(work, read_input(work, history.given), now)
    in_flight: dict[int, Message] = {}
    event: Event | None = None
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
                assert seconds <= given["slice_seconds"]
                in_flight[number] = through_json(request)
            case AwaitSlice(time_out):
                history.most_in_flight = max(history.most_in_flight, len(in_flight))
                coming = [number for number in in_flight if number not in lost]
                if coming:
                    now += _SLICE_SECONDS
                    number = choose(coming)
                    request = in_flight.pop(number)
                    if number in failing:
                        event = SliceFailed(number, "its worker process was killed", final=False, now=now)
                    else:
                        event = SliceEnded(number, through_json(activity(request)), now)
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
    histories = run_all(case.work, input_of(case), activity_of(case, 2), lost=lost)
    assert document_of(case, histories) == case.document
    requests = [json.dumps(request) for request in histories[0].starts]
    assert {request for request in requests if requests.count(request) > 1} == {requests[number] for number in lost}


@each_work
def test_a_slice_is_lost_after_its_length_and_a_margin_and_the_next_start_of_it_is_shorter(case: Case) -> None:
    # The only slice is lost three times over.
    history = run(case.work, input_of(case), activity_of(case, 10**9), lost={0, 1, 2})
    assert history.output is not None
    assert history.seconds[:4] == [10.0, 5.0, 2.5, 1.25]
    assert history.waits[:4] == pytest.approx([12.0, 7.0 * 1.4, 4.5 * 1.4**2, 3.25 * 1.4**3])
    # Where slices queue for long, no slice is lost for being slow.
    queueing: WorkflowInput = {**input_of(case), "turnaround": 100.0}
    assert run(case.work, queueing, activity_of(case, 10**9), lost={0}).waits[0] == 150.0


@pytest.mark.usefixtures("small_ranges")
def test_the_time_that_has_passed_counts() -> None:
    """Of slices side by side one ends; what is left of the others' time is waited for."""
    steps = orchestrate(MINING.work, input_of(MINING, width=2), 0.0)
    step = next(steps)
    started: list[StartSlice] = []
    while not isinstance(step, AwaitSlice):
        if isinstance(step, StartSlice):
            started.append(step)
        step = next(steps)
    assert step.time_out == 12.0
    last = started[-1]
    step = steps.send(SliceEnded(last.number, activity_of(MINING, 10**9)(last.request), 4.0))
    while not isinstance(step, AwaitSlice):
        step = next(steps)
    assert step.time_out == 8.0


# --- slices that fail: their worker was killed, or their host gave them up


@each_work
@pytest.mark.parametrize("failing", [{0}, {0, 1, 2}, set(range(9))], ids=str)
def test_failed_slices_are_tried_again_after_a_pause(case: Case, failing: set[int]) -> None:
    given = input_of(case)
    histories = [run(case.work, given, activity_of(case, 10**9), failing=failing)]
    assert document_of(case, histories) == case.document
    pauses = [
        wait
        for step, wait in zip(histories[0].events, histories[0].waits[1:], strict=False)
        if isinstance(step, SliceFailed)
    ]
    assert pauses[0] == 0.5
    assert all(pause <= 8.0 for pause in pauses if pause is not None)
    for history in histories:
        assert replay(case.work, history) == history.steps


@each_work
def test_a_slice_that_fails_too_often_fails_the_workflow_which_another_one_may_go_on_from(case: Case) -> None:
    given = input_of(case)
    with pytest.raises(
        SlicesFailed, match=r"tried 10 times and failed each time.*its worker process was killed"
    ) as end:
        run(case.work, given, activity_of(case, 2), failing=range(1, 100))
    # The first slice had been answered.
    assert end.value.state != given["state"]
    histories = run_all(case.work, input_of(case, state=end.value.state), activity_of(case))
    assert document_of(case, histories) == case.document


@each_work
def test_a_work_that_fails_is_not_tried_again(case: Case) -> None:
    steps = orchestrate(case.work, input_of(case), 0.0)
    next(steps)
    next(steps)
    next(steps)
    with pytest.raises(EngineError, match="no such thing"):
        steps.send(SliceFailed(0, "no such thing", final=True, now=1.0))


@each_work
def test_a_start_that_fails_while_a_later_one_runs_is_nothing(case: Case) -> None:
    """A host that restarted its worker may never end a slice, and gives it up when it has long been done again."""
    steps = orchestrate(case.work, input_of(case), 0.0)
    next(steps)
    first = next(steps)
    next(steps)
    assert isinstance(first, StartSlice)
    assert steps.send(TimedOut(12.0)) == StartSlice(1, first.request, 5.0)
    next(steps)
    next(steps)
    steps.send(SliceFailed(0, "it took too long", final=False, now=13.0))
    step = next(steps)
    assert isinstance(step, AwaitSlice)
    assert step.time_out == pytest.approx(7.0 * 1.4 - 1.0)


@each_work
def test_of_a_slice_that_was_started_twice_the_first_answer_counts(case: Case) -> None:
    """Its second one comes when the work has gone on from the first."""
    steps = orchestrate(case.work, input_of(case), 0.0)
    assert isinstance(next(steps), Report)
    first = next(steps)
    assert isinstance(first, StartSlice)
    assert next(steps) == AwaitSlice(12.0)
    assert steps.send(TimedOut(12.0)) == StartSlice(1, first.request, first.seconds / 2)
    part = case.work.run(first.request, control(over_after(1)))
    whole = case.work.run(first.request, control(over_after(2)))
    next(steps)
    next(steps)
    next_report = steps.send(SliceEnded(1, part, 14.0))
    second = next(steps)
    assert isinstance(second, StartSlice)
    assert second.request == case.work.plan(case.work.merge(input_of(case)["state"], first.request, part), 1, [])[0]
    next(steps)
    assert steps.send(SliceEnded(0, whole, 15.0)) == next_report
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
    given = input_of(MINING, width=2)
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
    event: Event | None = None
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
    first = first_input(MINING.work, MINING.job({"difficulty": 12}), slice_seconds=10.0)
    assert read_input(MINING.work, flat) == {**first, "restart_lost_slices": False}


def test_a_history_that_began_under_the_earlier_rule_goes_on_under_the_present_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orchestration, "SLICES_PER_HISTORY", 1)
    given: WorkflowInput = {**input_of(MINING), "restart_lost_slices": False}
    first, second, *_ = run_all(MINING.work, given, activity_of(MINING))
    assert set(first.waits) == {None}
    assert second.waits[0] is not None


@each_work
def test_an_input_is_what_it_was_when_it_is_read_again(case: Case) -> None:
    given = input_of(case, width=3, owner="somebody", created_at=12.5)
    assert read_input(case.work, through_json(given)) == given
