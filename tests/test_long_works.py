"""What engines, tools and hosts rely on in any long work: its contract, held by every work there is."""

import json
import threading
from itertools import pairwise
from typing import Any

import pytest
from works import MINING, Case, control, each_work, over_after, through_json

from pow.errors import InvalidArgument
from pow.longwork.work import Message

HANG_SECONDS = 120.0


def states_on_the_way(case: Case, job: Message, looks: int | None = None) -> list[Any]:
    """The states from the first to the last; each run is over once it has looked so many times."""
    work = case.work
    states = [work.begin(job)]
    while requests := work.plan(states[-1], 1, []):
        answer = work.run(requests[0], control() if looks is None else control(over_after(looks)))
        states.append(work.merge(states[-1], requests[0], answer))
    return states


def parts_and_answer(case: Case, state: Message) -> tuple[Any, list[Any], Any]:
    """What is asked for next, the partial answers of its run, and the whole one."""
    (request,) = case.work.plan(state, 1, [])
    parts: list[Any] = []
    answer = case.work.run(request, control(take_partial=parts.append))
    return request, parts, answer


@each_work
def test_a_job_that_is_run_to_its_end_has_the_known_result(case: Case) -> None:
    result = case.work.result(states_on_the_way(case, case.job())[-1])
    assert result.document == case.document
    assert case.text in result.text


@each_work
@pytest.mark.parametrize("looks", [1, 2, 3, 5])
def test_runs_that_are_cut_off_anywhere_lead_to_the_same_result(case: Case, looks: int) -> None:
    states = states_on_the_way(case, case.job(), looks)
    assert len(states) > len(states_on_the_way(case, case.job()))
    assert case.work.result(states[-1]).document == case.document


@each_work
def test_the_work_goes_on_from_any_state_that_was_written_down(case: Case) -> None:
    for state in states_on_the_way(case, case.job(), 2):
        restored = case.work.restore(through_json(state))
        assert restored == state
        while requests := case.work.plan(restored, 1, []):
            restored = case.work.merge(restored, requests[0], case.work.run(through_json(requests[0]), control()))
        assert case.work.result(restored).document == case.document


@each_work
def test_a_job_is_what_it_was_when_it_is_read_again(case: Case) -> None:
    for arguments in (case.quick, case.other, case.endless):
        assert case.work.job_of(through_json(case.job(arguments))) == case.job(arguments)


@each_work
@pytest.mark.parametrize("document", [{}, {"state": None}, {"difficulty": 8}, {"turn": "1", "part": 0, "state": {}}])
def test_what_is_no_state_is_refused(case: Case, document: Message) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        case.work.restore(document)


@each_work
def test_an_answer_that_comes_twice_or_late_changes_nothing(case: Case) -> None:
    work = case.work
    answered: list[tuple[Any, Any]] = []
    state = work.begin(case.job())
    while requests := work.plan(state, 1, []):
        answered.append((requests[0], work.run(requests[0], control(over_after(2)))))
        state = work.merge(state, *answered[-1])
        for request, answer in answered:
            assert work.merge(state, request, answer) is state
    assert work.result(state).document == case.document


@each_work
def test_partial_answers_move_the_state_forward_and_the_whole_one_ends_it(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.let_talk(monkeypatch)
    work, job = case.work, case.job()
    state, told = work.begin(job), 0
    done = [0.0]
    while work.plan(state, 1, []):
        request, parts, answer = parts_and_answer(case, state)
        told += len(parts)
        for part in [*parts, answer, *parts]:
            state = work.merge(state, request, through_json(part))
            done.append(case.done(job, through_json(work.report(state))))
    assert told
    assert done == sorted(done)
    assert work.result(state).document == case.document


@each_work
def test_partial_answers_count_in_whatever_order_they_come(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.let_talk(monkeypatch)
    first = case.work.begin(case.job())
    request, parts, answer = parts_and_answer(case, first)
    states = []
    for order in (parts, parts[::-1], [parts[-1]]):
        state = first
        for part in order:
            state = case.work.merge(state, request, part)
        states.append(case.work.merge(state, request, answer))
    progress = [case.work.progress(case.job(), case.work.report(state)).done for state in states]
    assert progress == [progress[0]] * 3
    assert [len(case.work.plan(state, 1, [])) for state in states] == [len(case.work.plan(states[0], 1, []))] * 3


@each_work
def test_a_run_leaves_its_request_as_it_was(case: Case) -> None:
    (request,) = case.work.plan(case.work.begin(case.job()), 1, [])
    before = through_json(request)
    case.work.run(request, control())
    assert request == before


@each_work
@pytest.mark.parametrize("width", [1, 3])
def test_a_plan_is_always_the_same_and_keeps_what_is_in_flight(case: Case, width: int) -> None:
    for state in states_on_the_way(case, case.job(), 2)[:-1]:
        wanted = case.work.plan(state, width, [])
        assert wanted
        for begun in range(len(wanted) + 1):
            assert case.work.plan(state, width, wanted[:begun]) == wanted


@each_work
def test_nothing_is_planned_for_a_done_work_whatever_is_in_flight(case: Case) -> None:
    states = states_on_the_way(case, case.job(), 2)
    old = [request for state in states[:-1] for request in case.work.plan(state, 1, [])]
    assert case.work.plan(states[-1], 3, old) == []


@each_work
def test_progress_never_goes_back_and_says_when_to_ask_again(case: Case) -> None:
    job = case.job()
    told = [case.work.progress(job, through_json(case.work.report(state))) for state in states_on_the_way(case, job, 1)]
    for before, after in pairwise(told):
        assert before.done <= after.done
    for progress in told:
        assert 1 <= progress.poll_after_seconds <= 30
        assert "\n" not in progress.sentence
        through_json(progress.document)
    assert told[-1].total in (None, told[-1].done)


@each_work
def test_a_report_is_small(case: Case) -> None:
    for state in states_on_the_way(case, case.job(), 2):
        assert len(json.dumps(case.work.report(state))) <= 7168


@each_work
def test_a_run_that_nobody_wants_any_more_ends_at_once(case: Case) -> None:
    (request,) = case.work.plan(case.work.begin(case.job(case.endless)), 1, [])
    looked = threading.Event()

    def is_over() -> bool:
        looked.set()
        return False

    control_ = control(is_over)
    answers: list[Any] = []
    running = threading.Thread(target=lambda: answers.append(case.work.run(request, control_)), daemon=True)
    running.start()
    assert looked.wait(HANG_SECONDS)
    control_.cancel()
    running.join(HANG_SECONDS)
    state = case.work.merge(case.work.begin(case.job(case.endless)), request, answers[0])
    assert case.work.plan(state, 1, [])


@each_work
def test_an_argument_that_is_not_allowed_is_refused_with_a_sentence(case: Case) -> None:
    with pytest.raises(InvalidArgument) as caught:
        case.job(case.refused)
    assert str(caught.value) == case.sentence


@each_work
def test_an_argument_that_is_absent_has_its_default(case: Case) -> None:
    job = case.work.parse({})
    assert job == case.work.parse(dict.fromkeys(job))


@each_work
def test_operators_are_told_what_a_process_can_do(case: Case) -> None:
    assert case.work.capacity()
    for vital in case.work.vitals():
        assert vital.what
        assert vital.kind in ("gauge", "counter")


def test_mining_tells_operators_of_its_pool() -> None:
    vitals = {vital.name: vital.value for vital in MINING.work.vitals()}
    assert vitals.keys() >= {"backend", "threads", "hashes_per_second", "hashes", "searches"}
