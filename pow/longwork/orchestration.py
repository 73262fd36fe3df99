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

from pow.longwork.work import AnyWork, Message

# An engine replays a history from its beginning at every step, so a long one is cut off and continued
# as new after so many slices; those side by side have to end first, so that is worth more of them there.
SLICES_PER_HISTORY = 25
_SLICES_PER_SHARED_HISTORY = 100

# A slice that isn't back after so many times what slices have taken lately, queueing included, was lost
# with its worker; but a slice is never given up before the first number of seconds, nor, while nothing is
# known, before the second.
_TIME_OUT_FACTOR = 3.0
_SHORTEST_TIME_OUT_SECONDS = 10.0
_FIRST_TIME_OUT_SECONDS = 60.0
# The slowest of the latest slices counts, and a little less with each that follows it.
_TURNAROUND_DECAY = 0.8


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
    restart_lost_slices: bool
    """Whether the workflow itself starts a slice again that doesn't come back."""
    turnaround: float | None
    """What slices have taken lately, queueing included, in seconds."""


@dataclass(frozen=True, slots=True)
class StartSlice:
    """A step: run the work on this request, and go on without waiting. Numbers count from 0 in each history."""

    number: int
    request: Message
    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitSlice:
    """A step: send in a `SliceEnded` when any of the slices that were started and haven't ended does.

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
class TimedOut:
    """What came of `AwaitSlice`: nothing within its time-out."""

    now: float


def first_input(
    work: AnyWork,
    job: Message,
    *,
    slice_seconds: float,
    width: int = 1,
    restart_lost_slices: bool = False,
    owner: str | None = None,
    created_at: float | None = None,
) -> WorkflowInput:
    """The orchestration's input for a new workflow; the arguments are its fields."""
    given: WorkflowInput = {
        "job": job,
        "state": work.begin(job),
        "owner": owner,
        "slice_seconds": slice_seconds,
        "width": width,
        "restart_lost_slices": restart_lost_slices,
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
        "restart_lost_slices": fields.get("restart_lost_slices", False),
        "turnaround": fields.get("turnaround"),
    }
    if "created_at" in fields:
        given["created_at"] = fields["created_at"]
    return given


def orchestrate(work: AnyWork, given: WorkflowInput, now: float) -> Generator[Step, Any, Message | None]:
    """The orchestration, from its input to the work's last state (None when it continues as new).

    Args:
        work: what it is about.
        given: what `first_input`, `read_input` or a `ContinueAsNew` step made.
        now: the orchestration's own clock, in seconds: the same whenever it is replayed.
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


@dataclass(slots=True)
class _Flight:
    """A slice that was started and hasn't ended; the how manieth start of its request."""

    request: Message
    since: float
    starts: int = 1


class _History:
    """One history of the orchestration: what it knows at each step."""

    def __init__(self, work: AnyWork, given: WorkflowInput, now: float) -> None:
        self.state = given["state"]
        self._work = work
        self._input = given
        self._width = given["width"]
        self._flights: dict[int, _Flight] = {}
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

    def take_in(self, event: SliceEnded | TimedOut) -> None:
        """Learn what time it is, and maybe a slice's answer."""
        self._now = event.now
        if isinstance(event, TimedOut):
            return
        flight = self._flights.pop(event.number)
        self._turnaround = max(event.now - flight.since, (self._turnaround or 0.0) * _TURNAROUND_DECAY)
        if flight.request in self._awaited:
            self._awaited.remove(flight.request)
            self.state = self._work.merge(self.state, flight.request, event.answer)

    def time_out(self) -> float | None:
        """Seconds after which a slice counts as lost; None when the engine itself sees to lost ones."""
        if not self._input["restart_lost_slices"]:
            return None
        if self._turnaround is None:
            return _FIRST_TIME_OUT_SECONDS
        return max(_SHORTEST_TIME_OUT_SECONDS, _TIME_OUT_FACTOR * self._turnaround)

    def slices_to_restart(self) -> list[StartSlice]:
        """Those that haven't come back for too long. The time-out doubles with each start: exponential backoff."""
        time_out = self.time_out()
        if time_out is None:
            return []
        wanted = self.plan()
        newest: list[_Flight] = []
        for flight in self._flights.values():
            if flight.request not in wanted or flight.request not in self._awaited:
                continue
            requests = [other.request for other in newest]
            if flight.request in requests:
                newest[requests.index(flight.request)] = flight
            else:
                newest.append(flight)
        return [
            self._start(replace(flight, since=self._now, starts=flight.starts + 1))
            for flight in newest
            if self._now - flight.since >= time_out * 2 ** (flight.starts - 1)
        ]

    def next_input(self) -> WorkflowInput:
        return {**self._input, "state": self.state, "turnaround": self._turnaround}

    def _start(self, flight: _Flight) -> StartSlice:
        number = self._started
        self._flights[number] = flight
        if flight.request not in self._awaited:
            self._awaited.append(flight.request)
        self._started += 1
        return StartSlice(number, flight.request, self._input["slice_seconds"])
