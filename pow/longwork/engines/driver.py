"""Drives the orchestration's steps on an SDK's context, and runs its activity: the same way on every such engine."""

import threading
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypedDict

from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.orchestration import (
    AwaitSlice,
    ContinueAsNew,
    Report,
    SliceEnded,
    StartSlice,
    TimedOut,
    WorkflowInput,
    orchestrate,
    read_input,
)
from pow.longwork.work import AnyWork, Control, Message

# The scheduler bills each slice and takes some time to hand it out; a crash repeats it.
SLICE_SECONDS = 10.0

# Of a workflow's id; the next one says which version of a GUID it is.
_PREFIX_DIGITS = 12


class ActivityInput(TypedDict):
    """What an activity is asked for."""

    request: Message
    seconds: float
    workflow_id: str


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
        """What an activity answered; raises what it failed with."""

    def report(self, report: Message) -> None:
        """Let this be seen by whoever asks for the state."""

    def continue_as_new(self, given: WorkflowInput) -> None:
        """Begin a new history from this input when the orchestration returns."""


def drive(work: AnyWork, document: Message, context: OrchestrationContext) -> Generator[Any, Any, Message | None]:
    """The orchestration: yields tasks and is sent their results, as both SDKs want it."""
    steps = orchestrate(work, read_input(work, document), context.now())
    slices: dict[int, tuple[int, Any]] = {}  # the task's identity -> its slice's number, the task
    timer: Any = None
    timer_seconds = 0.0
    answer: SliceEnded | TimedOut | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = None
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
                    answer = TimedOut(context.now())
                    continue
                if timer is not None and context.fresh_timers:
                    timer.cancel()
                    timer = None
                number, _ = slices.pop(id(ended))
                answer = SliceEnded(number, context.answer(ended), context.now())
            case Report(report):
                context.report(report)
            case ContinueAsNew(given):
                context.continue_as_new(given)


class Activities:
    """The activity of a process, and the runs that are under way in it. Thread-safe."""

    def __init__(self, work: AnyWork) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._running: dict[str, list[Control[Any]]] = {}
        self._closing = False

    def run(self, document: Message, workflow_id: str | None = None) -> Message:
        """The activity: run the work on an input for as long as that says.

        Args:
            document: an `ActivityInput`, or the first version's: a request with the seconds beside its fields.
            workflow_id: whose it is, where the SDK says so.
        """
        given: Any = document
        deadline = time.monotonic() + given["seconds"]
        control: Control[Any] = Control(
            workflow_id or str(given["workflow_id"]), lambda: self._closing or time.monotonic() >= deadline
        )
        with self._registered(control):
            answer: Message = self._work.run(given.get("request", given), control)
            return answer

    def cancel(self, workflow_id: str) -> None:
        """End the workflow's runs in this process at once."""
        with self._lock:
            controls = list(self._running.get(workflow_id, ()))
        for control in controls:
            control.cancel()

    def close(self) -> None:
        """Let every run return soon with what it has, now and from now on."""
        self._closing = True

    @contextmanager
    def _registered(self, control: Control[Any]) -> Iterator[None]:
        with self._lock:
            self._running.setdefault(control.workflow_id, []).append(control)
        try:
            yield
        finally:
            with self._lock:
                controls = self._running[control.workflow_id]
                controls.remove(control)
                if not controls:
                    del self._running[control.workflow_id]


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
    given: Message | None,
    report: Message | None,
    output: Message | None,
    error: str | None,
    created_at: float,
    updated_at: float,
) -> WorkflowState:
    """A workflow as a durable engine tells of it: its orchestration's input, custom status and output, as JSON."""
    fields: Any = given or {}
    try:
        job = work.job_of(fields.get("job", fields))
    except (ValueError, KeyError, TypeError):
        job = None
    return WorkflowState(
        workflow_id,
        status,
        job=job,
        report=report,
        output=work.restore(output) if status == "completed" and output else None,
        error=error,
        owner=fields.get("owner"),
        created_at=fields.get("created_at", created_at),
        updated_at=updated_at,
    )
