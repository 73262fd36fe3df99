"""The orchestration of any long work: plan, run, merge, written once for every engine that replays histories.

`orchestrate` is a plain generator that yields what it wants done and is sent what came of it. It is
deterministic, so an engine may replay it from its recorded answers after a crash. Its one activity is the work's
`run`, bounded in time; a run that didn't finish what it was asked for answers with how far it came, and
the next one goes on from there. So a crash loses one slice, a cancel takes effect within one, and progress shows.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NotRequired, TypedDict

from pow.errors import EngineError
from pow.longwork.patience import MOST_FAILURES, EarlierPatience, Patience, pause_seconds
from pow.longwork.work import AnyWork, Message

# An engine replays a history from its beginning at every step, so a long one is cut off and continued
# as new after so many slices; those side by side have to end first, so that is worth more of them there.
SLICES_PER_HISTORY = 25
_SLICES_PER_SHARED_HISTORY = 100

# The slowest of the latest slices counts, and a little less with each that follows it.
_TURNAROUND_DECAY = 0.8
# A timer that fires this much before a slice counts as lost is in time: sums of times aren't exact.
_TICK_SECONDS = 0.001


class WorkflowInput(TypedDict):
    """An orchestration's input, at its start and when it continues as new."""

    job: Message
    state: Message
    owner: str | None
    """Who started it; None where callers aren't known."""
    created_at: NotRequired[float]
    """Unix seconds of the start; engines count a history that is continued as new as created then."""
    slice_seconds: float
    """How long one activity runs at most."""
    width: int
    """How many workers run slices of it side by side."""
    restart_lost_slices: NotRequired[bool]
    """Only of earlier versions: whether the workflow itself starts a slice again that doesn't come back."""
    turnaround: float | None
    """What slices have taken lately, queueing included, in seconds."""


class SlicesFailed(EngineError):
    """A slice has failed too often. The work is none the worse for it, and may go on from its state."""

    def __init__(self, message: str, state: Message) -> None:
        super().__init__(message)
        self.state = state


@dataclass(frozen=True, slots=True)
class StartSlice:
    """A step: run the work on this request, and go on without waiting. Numbers count from 0 in each history."""

    number: int
    request: Message
    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitSlice:
    """A step: send in a `SliceEnded` or a `SliceFailed` when any of the slices in flight comes to that.

    With a time-out, send in `TimedOut` when none has within so many seconds.
    """

    time_out: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A step: let this be seen by whoever asks for the workflow's state."""

    report: Message


@dataclass(frozen=True, slots=True)
class ContinueAsNew:
    """The last step of a long history: begin a new one from this input. Forget slices that haven't ended."""

    input: WorkflowInput


Step = StartSlice | AwaitSlice | Report | ContinueAsNew


@dataclass(frozen=True, slots=True)
class SliceEnded:
    """What came of `AwaitSlice`: a slice's answer, and the orchestration's own clock, in seconds."""

    number: int
    answer: Message
    now: float


@dataclass(frozen=True, slots=True)
class SliceFailed:
    """What came of `AwaitSlice`: a slice has no answer, and why; the orchestration's own clock, in seconds."""

    number: int
    error: str
    final: bool
    """Whether the work itself has failed, so that trying again would be of no use."""
    now: float


@dataclass(frozen=True, slots=True)
class TimedOut:
    """What came of `AwaitSlice`: nothing within its time-out."""

    now: float


Event = SliceEnded | SliceFailed | TimedOut


def first_input(
    work: AnyWork,
    job: Message,
    *,
    slice_seconds: float,
    width: int = 1,
    owner: str | None = None,
    created_at: float | None = None,
    state: Message | None = None,
) -> WorkflowInput:
    """The orchestration's input for a new workflow; the arguments are its fields."""
    given: WorkflowInput = {
        "job": job,
        "state": work.begin(job) if state is None else state,
        "owner": owner,
        "slice_seconds": slice_seconds,
        "width": width,
        "turnaround": None,
    }
    if created_at is not None:
        given["created_at"] = created_at
    return given


def read_input(work: AnyWork, document: Message) -> WorkflowInput:
    """An input as it was written, by this version or by the first one, which had all fields side by side.

    Raises:
        ValueError, KeyError, TypeError: it is none.
    """
    fields: Any = document
    first_version = "state" not in fields
    given: WorkflowInput = {
        "job": work.job_of(fields if first_version else fields["job"]),
        "state": work.restore(fields if first_version else fields["state"]),
        "owner": fields.get("owner"),
        "slice_seconds": fields["slice_seconds"],
        "width": fields.get("fan_out", 1) if first_version else fields["width"],
        "turnaround": fields.get("turnaround"),
    }
    if "created_at" in fields:
        given["created_at"] = fields["created_at"]
    if first_version or "restart_lost_slices" in fields:
        given["restart_lost_slices"] = fields.get("restart_lost_slices", False)
    return given


def orchestrate(work: AnyWork, given: WorkflowInput, now: float) -> Generator[Step, Any, Message | None]:
    """The orchestration, from its input to the work's last state (None when it continues as new).

    Args:
        work: what it is about.
        given: what `first_input`, `read_input` or a `ContinueAsNew` step made.
        now: the orchestration's own clock, in seconds: the same whenever it is replayed.

    Raises:
        SlicesFailed: a slice has failed too often.
        EngineError: the work itself has failed.
    """
    run = _History(work, given, now)
    while True:
        yield Report(work.report(run.state))
        wanted = run.plan()
        if not wanted:
            return run.state
        if run.is_long and not run.awaits_any(wanted):
            break
        for slice_ in run.slices_to_start(wanted):
            yield slice_
        event = yield AwaitSlice(run.time_out())
        run.take_in(event)
        for slice_ in run.slices_to_restart():
            yield slice_
    yield ContinueAsNew(run.next_input())
    return None


@dataclass(frozen=True, slots=True)
class _Flight:
    """A slice that was started and hasn't ended; the how manieth start of its request."""

    request: Message
    since: float
    starts: int = 1
    failures: int = 0
    """How many starts of it have failed, one after the other."""


class _History:
    """One history of the orchestration: what it knows at each step."""

    def __init__(self, work: AnyWork, given: WorkflowInput, now: float) -> None:
        self.state = given["state"]
        self._work = work
        self._input = given
        self._width = given["width"]
        self._patience = _patience(given)
        self._flights: dict[int, _Flight] = {}
        # Failed ones that are to be started again, and when.
        self._pausing: list[tuple[float, _Flight]] = []
        # The requests whose answers count: a slice that was started twice may answer twice, and only the first
        # answer does, since the work has been planned on from there.
        self._awaited: list[Message] = []
        self._started = 0
        self._now = now
        self._turnaround = given["turnaround"]

    @property
    def is_long(self) -> bool:
        return self._started >= (SLICES_PER_HISTORY if self._width == 1 else _SLICES_PER_SHARED_HISTORY)

    def plan(self) -> list[Message]:
        """What should be in flight now."""
        wanted = list(self._work.plan(self.state, self._width, self._awaited))
        self._awaited = [request for request in self._awaited if request in wanted]
        return wanted

    def awaits_any(self, wanted: list[Message]) -> bool:
        """Whether a slice is in flight that still matters."""
        return any(request in self._awaited for request in wanted)

    def slices_to_start(self, wanted: list[Message]) -> list[StartSlice]:
        """Those of the wanted ones that aren't in flight, unless the history is to end."""
        new = [request for request in wanted if request not in self._awaited]
        return [self._start(_Flight(request, self._now)) for request in takewhile(lambda _: not self.is_long, new)]

    def take_in(self, event: Event) -> None:
        """Learn what time it is, and maybe what came of a slice.

        Raises:
            EngineError: that was the last try.
        """
        self._now = event.now
        if isinstance(event, TimedOut):
            return
        flight = self._flights.pop(event.number)
        if isinstance(event, SliceFailed):
            self._take_in_failure(flight, event)
            return
        self._turnaround = max(event.now - flight.since, (self._turnaround or 0.0) * _TURNAROUND_DECAY)
        if flight.request in self._awaited:
            self._awaited.remove(flight.request)
            self.state = self._work.merge(self.state, flight.request, event.answer)

    def _take_in_failure(self, flight: _Flight, event: SliceFailed) -> None:
        if event.final:
            raise EngineError(event.error)
        started_again = any(flight.request == other.request for other in (*self._flights.values(), *self._paused()))
        if flight.request not in self._awaited or started_again:
            return
        failures = flight.failures + 1
        if failures >= MOST_FAILURES:
            raise SlicesFailed(
                f"a part of the work was tried {failures} times and failed each time; the last time {event.error}",
                self.state,
            )
        again = replace(flight, starts=flight.starts + 1, failures=failures)
        self._pausing.append((self._now + pause_seconds(failures), again))

    def time_out(self) -> float | None:
        """Seconds after which to look at the slices again if none ends; None when that needn't be."""
        waits = [
            self._patience.left(self._turnaround, flight.starts, self._now - flight.since)
            for flight in self._newest_starts()
        ]
        waits += [due - self._now for due, flight in self._pausing if flight.request in self._awaited]
        shortest = min(waits, default=float("inf"))
        return None if shortest == float("inf") else max(shortest, 0.0)

    def slices_to_restart(self) -> list[StartSlice]:
        """Those that haven't come back for too long, and failed ones that have paused long enough."""
        soon = self._now + _TICK_SECONDS
        due = [flight for at, flight in self._pausing if at < soon]
        lost = [
            replace(flight, starts=flight.starts + 1)
            for flight in self._newest_starts()
            if self._now - flight.since > self._patience.time_out(self._turnaround, flight.starts) - _TICK_SECONDS
        ]
        if not due and not lost:
            return []
        self._pausing = [(at, flight) for at, flight in self._pausing if at >= soon]
        wanted = self.plan()
        again = [flight for flight in (*due, *lost) if flight.request in wanted and flight.request in self._awaited]
        return [self._start(replace(flight, since=self._now)) for flight in again]

    def next_input(self) -> WorkflowInput:
        given: WorkflowInput = {**self._input, "state": self.state, "turnaround": self._turnaround}
        given.pop("restart_lost_slices", None)
        return given

    def _newest_starts(self) -> list[_Flight]:
        """Of each request that is still wanted, and isn't pausing, the flight that was started last."""
        newest: list[_Flight] = []
        pausing = [flight.request for flight in self._paused()]
        for flight in self._flights.values():
            if flight.request not in self._awaited or flight.request in pausing:
                continue
            requests = [other.request for other in newest]
            if flight.request in requests:
                newest[requests.index(flight.request)] = flight
            else:
                newest.append(flight)
        return newest

    def _paused(self) -> list[_Flight]:
        return [flight for _, flight in self._pausing]

    def _start(self, flight: _Flight) -> StartSlice:
        number = self._started
        self._flights[number] = flight
        if flight.request not in self._awaited:
            self._awaited.append(flight.request)
        self._started += 1
        return StartSlice(number, flight.request, self._patience.seconds_of(flight.starts))


def _patience(given: WorkflowInput) -> Patience:
    if "restart_lost_slices" in given:
        return EarlierPatience(given["slice_seconds"], given["restart_lost_slices"])
    return Patience(given["slice_seconds"])
