"""Drives the orchestration's steps on an SDK's context, the same way on every such engine."""

import json
import uuid
from collections.abc import Generator
from typing import Any, Protocol

from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.activities import FAILURE, ActivityInput
from pow.longwork.orchestration import (
    AwaitSlice,
    ContinueAsNew,
    Event,
    Report,
    SliceEnded,
    SliceFailed,
    SlicesFailed,
    StartSlice,
    TimedOut,
    WorkflowInput,
    orchestrate,
    read_input,
)
from pow.longwork.work import AnyWork, Message

# The scheduler bills each slice and takes some time to hand it out; a crash repeats it.
SLICE_SECONDS = 10.0

# Durable Functions takes 16 KB of UTF-16 as a custom status.
_SHOWN_CHARACTERS = 7500

# Of a workflow's id; the next one says which version of a GUID it is.
_PREFIX_DIGITS = 12


class ActivityFailed(Exception):
    """An activity has no answer: its process has died, or its host has given it up; says which, for people."""


class OrchestrationContext(Protocol):
    """What the driver needs of an SDK. Tasks are the SDK's own objects, compared by identity."""

    fresh_timers: bool
    """Whether each wait needs a timer of its own, and takes it back at its end."""

    @property
    def workflow_id(self) -> str:
        """The id of the workflow."""

    def now(self) -> float:
        """The orchestration's own clock, in seconds."""

    def call_activity(self, given: ActivityInput) -> Any:
        """A task: `Activities.run` on this input."""

    def create_timer(self, seconds: float) -> Any:
        """A task that ends after so many seconds, and has a method `cancel`."""

    def any_of(self, tasks: list[Any]) -> Any:
        """A task that gives the first of these that ends."""

    def answer(self, ended: Any) -> Message:
        """What an activity answered.

        Raises:
            ActivityFailed: nothing.
        """

    def report(self, report: Message) -> None:
        """Let this be seen by whoever asks for the state."""

    def continue_as_new(self, given: WorkflowInput) -> None:
        """Begin a new history from this input when the orchestration returns."""


def drive(work: AnyWork, document: Message, context: OrchestrationContext) -> Generator[Any, Any, Message | None]:
    """The orchestration: yields tasks and is sent their results, as both SDKs want it."""
    given = read_input(work, document)
    steps = orchestrate(work, given, context.now())
    slices: dict[int, tuple[int, Any]] = {}  # the task's identity -> its slice's number, the task
    timer: Any = None
    timer_seconds = 0.0
    event: Event | None = None
    while True:
        try:
            step = steps.send(event)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        except SlicesFailed as failed:
            context.report(_shown(given, work.report(failed.state), failed.state))
            raise
        event = None
        match step:
            case StartSlice(number, request, seconds):
                called = context.call_activity(
                    {"request": request, "seconds": seconds, "workflow_id": context.workflow_id}
                )
                slices[id(called)] = number, called
            case AwaitSlice(time_out):
                # A timer that runs is good enough, unless the time-out has become much shorter.
                if timer is not None and time_out is not None and 2 * time_out < timer_seconds:
                    timer.cancel()
                    timer = None
                if timer is None and time_out is not None:
                    timer, timer_seconds = context.create_timer(time_out), time_out
                waiting = [called for _, called in slices.values()]
                ended = yield context.any_of(waiting if timer is None else [*waiting, timer])
                if ended is timer:
                    timer = None
                    event = TimedOut(context.now())
                    continue
                if timer is not None and context.fresh_timers:
                    timer.cancel()
                    timer = None
                number, _ = slices.pop(id(ended))
                event = _slice_event(number, context, ended)
            case Report(report):
                context.report(_shown(given, report))
            case ContinueAsNew(next_input):
                context.continue_as_new(next_input)


def _shown(given: WorkflowInput, report: Message, state: Message | None = None) -> Message:
    """A custom status: lists of a service have it, where they have no inputs.

    Args:
        given: tells whose the workflow is.
        report: how far it is.
        state: from which an equal workflow may go on; left out where a custom status has no room for it.
    """
    shown = {"workflow": {"owner": given["owner"], "created_at": given.get("created_at")}, "report": report}
    if state is not None and len(json.dumps([report, state])) < _SHOWN_CHARACTERS:
        return {**shown, "state": state}
    return shown


def shown_owner(shown: Any) -> tuple[bool, str | None]:
    """Whether a custom status tells who started its workflow, and who that is."""
    if isinstance(shown, dict) and isinstance(shown.get("workflow"), dict) and "owner" in shown["workflow"]:
        return True, shown["workflow"]["owner"]
    return False, None


def _report_of(shown: Any) -> Message | None:
    """The report in a custom status, as this version or an earlier one set it."""
    if isinstance(shown, dict) and {"workflow", "report"} <= shown.keys():
        report: Message = shown["report"]
        return report
    return shown if isinstance(shown, dict) else None


def _slice_event(number: int, context: OrchestrationContext, ended: Any) -> Event:
    try:
        answer = context.answer(ended)
    except ActivityFailed as failed:
        return SliceFailed(number, str(failed), final=False, now=context.now())
    if FAILURE in answer:
        return SliceFailed(number, str(answer[FAILURE]), final=True, now=context.now())
    return SliceEnded(number, answer, context.now())


def id_prefix(twin_key: str) -> str:
    """What the ids of workflows with a key begin with: 12 hex digits of it, as a dashed GUID has them."""
    return f"{twin_key[:8]}-{twin_key[8:_PREFIX_DIGITS]}"


def new_id(twin_key: str) -> str:
    """An unguessable id with the key's prefix: a GUID of version 8, whose other 74 bits are random."""
    rest = uuid.uuid4().hex[_PREFIX_DIGITS + 1 :]
    return str(uuid.UUID(f"{twin_key[:_PREFIX_DIGITS]}8{rest}"))


def workflow_state(
    work: AnyWork,
    workflow_id: str,
    status: EngineStatus,
    *,
    given: Any,
    shown: Any,
    output: Any,
    error: str | None,
    created_at: float,
    updated_at: float,
) -> WorkflowState:
    """A workflow as a durable engine tells of it: its orchestration's input, custom status and output, as JSON."""
    fields: dict[str, Any] = given if isinstance(given, dict) else {}
    try:
        job = work.job_of(fields.get("job", fields))
    except (ValueError, KeyError, TypeError):
        job = None
    return WorkflowState(
        workflow_id,
        status,
        job=job,
        report=_report_of(shown),
        output=work.restore(output) if status == "completed" and output else None,
        error=error,
        kept=work.restore(shown["state"]) if status == "failed" and "state" in (shown or ()) else None,
        owner=fields.get("owner"),
        created_at=fields.get("created_at", created_at),
        updated_at=updated_at,
    )
