"""Drives the workflow's steps on an SDK's orchestration context: the same way on every engine."""

from collections.abc import Generator
from typing import Any, Protocol

from pow.mining.workflow import (
    AwaitSlice,
    ContinueAsNew,
    Document,
    PatienceOver,
    ReportProgress,
    SliceEnded,
    StartSlice,
    mine_chain_steps,
)

# The scheduler bills each slice and takes some time to hand it out; a crash repeats it.
SCHEDULER_SLICE_SECONDS = 10.0


class OrchestrationContext(Protocol):
    """What the driver needs of an SDK. Tasks are the SDK's own objects, compared by identity."""

    fresh_timers: bool
    """Whether each wait needs a timer of its own, and takes it back at its end."""

    def now(self) -> float:
        """The orchestration's own clock, in seconds."""

    def call_activity(self, request: Document) -> Any:
        """A task: `mine_slice` on this input."""

    def create_timer(self, seconds: float) -> Any:
        """A task that ends after so many seconds, and has a method `cancel`."""

    def any_of(self, tasks: list[Any]) -> Any:
        """A task that gives the first of these that ends."""

    def answer(self, ended: Any) -> Document:
        """What an activity answered; raises what it failed with."""

    def report(self, progress: Document) -> None:
        """Let this be seen by whoever asks for the state."""

    def continue_as_new(self, state: Document) -> None:
        """Begin a new history from this input when the orchestration returns."""


def drive(state: Document, context: OrchestrationContext) -> Generator[Any, Any, Document | None]:
    """The orchestration: yields tasks and is sent their results, as both SDKs want it."""
    steps = mine_chain_steps(state, context.now())
    slices: dict[int, tuple[int, Any]] = {}  # the task's identity -> its slice's number, the task
    timer: Any = None
    timer_seconds = 0.0
    answer: SliceEnded | PatienceOver | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        answer = None
        match step:
            case StartSlice(number, request):
                called = context.call_activity(request)
                slices[id(called)] = number, called
            case AwaitSlice(patience):
                # A timer that runs is good enough, unless patience has become much shorter.
                if timer is not None and patience is not None and 2 * patience < timer_seconds:
                    timer.cancel()
                    timer = None
                if timer is None and patience is not None:
                    timer, timer_seconds = context.create_timer(patience), patience
                waiting = [called for _, called in slices.values()]
                ended = yield context.any_of(waiting if timer is None else [*waiting, timer])
                if ended is timer:
                    timer = None
                    answer = PatienceOver(context.now())
                    continue
                if timer is not None and context.fresh_timers:
                    timer.cancel()
                    timer = None
                number, _ = slices.pop(id(ended))
                answer = SliceEnded(number, context.answer(ended), context.now())
            case ReportProgress(progress):
                context.report(progress)
            case ContinueAsNew(new_state):
                context.continue_as_new(new_state)
