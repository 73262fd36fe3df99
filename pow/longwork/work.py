"""What a long work is, to everything that runs, keeps, shows and cancels one.

`LongWork` is the whole of it. A work's state is a small JSON document; `plan` says which requests should be
in flight, `run` answers one of them and is the only part that takes time, `merge` takes an answer into
the state. Whatever stops in between, the work goes on from its last state. A work that only steps
forward is easier to write as a `StepWork`.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypedDict, TypeVar

Message = Mapping[str, object]
"""A JSON object on the wire or on disk. Works have TypedDicts of their own for theirs."""

JobT = TypeVar("JobT", bound=Message)
StateT = TypeVar("StateT", bound=Message)
RequestT = TypeVar("RequestT", bound=Message)
AnswerT = TypeVar("AnswerT", bound=Message)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a work is, for people and for programs."""

    done: float
    """How much was done so far, in the work's own unit; it never goes back."""
    sentence: str
    """For people, in one line."""
    poll_after_seconds: int
    """When to ask again."""
    document: Message
    """For programs: the work's own fields."""
    total: float | None = None
    """How much there is to do, where that is known."""
    reached: str | None = None
    """For people, in one line: what was done, without what is still to come; the sentence where that says no more."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a work came to, for people and for programs."""

    text: str
    """For people, in Markdown."""
    document: Message
    """For programs, under the work's `result_key`."""


class Vital(NamedTuple):
    """One thing that an operator wants to know of a work in this process: a text, or a number that metrics have too."""

    name: str
    value: str | int
    what: str
    """What it is, in a few words."""
    kind: Literal["gauge", "counter"] = "gauge"


class Control(Generic[AnswerT]):
    """What a run is told by its engine, and what it may tell it. Thread-safe."""

    def __init__(
        self,
        workflow_id: str,
        is_over: Callable[[], bool] = lambda: False,
        take_partial: Callable[[AnswerT], object] = lambda answer: None,
    ) -> None:
        """
        Args:
            workflow_id: whose run this is.
            is_over: whether its time is up; called often, so it has to be fast and must not block.
            take_partial: is given each partial answer.
        """
        self.workflow_id = workflow_id
        self._is_over = is_over
        self._take_partial = take_partial
        self._lock = threading.Lock()
        self._cancelled = False
        self._callbacks: list[Callable[[], object]] = []

    @property
    def over(self) -> bool:
        """Whether to return soon with what there is: its time is up, others wait, or nobody wants it any more."""
        return self._cancelled or self._is_over()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants the answer any more."""
        return self._cancelled

    def partial(self, answer: AnswerT) -> None:
        """Tell what the run has come to so far: progress that shows, and that a crash doesn't take back.

        The embedded engine takes it in; on the others a run's slice is short, and only its answer counts.
        """
        self._take_partial(answer)

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call this when the run is cancelled, in whichever thread cancels it; at once if it is already."""
        with self._lock:
            if not self._cancelled:
                self._callbacks.append(callback)
                return
        callback()

    def cancel(self) -> None:
        """End the run at once. Idempotent."""
        with self._lock:
            self._cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class LongWork(Protocol[JobT, StateT, RequestT, AnswerT]):
    """A long work. Its messages are JSON objects; `plan` and `merge` are deterministic: engines may replay them."""

    name: str
    """What engines register its orchestration under; never changes."""
    activity_name: str
    """What engines register its `run` under; never changes."""
    result_key: str
    """What the document of its result is called in a tool's answer."""
    concurrency: int
    """How many of its runs one process should have at once."""

    def parse(self, arguments: Mapping[str, object]) -> JobT:
        """The job that a caller's arguments ask for; None or absence of one stands for its default.

        Raises:
            InvalidArgument: one isn't allowed; says what was given and what is.
        """

    def begin(self, job: JobT) -> StateT:
        """The state before anything was done."""

    def plan(self, state: StateT, width: int, in_flight: Sequence[RequestT]) -> Sequence[RequestT]:
        """The requests that should be in flight now: those of `in_flight` that still matter, and new ones.

        Args:
            state: what was merged so far.
            width: how many workers there are; one more request may lie ready for whoever is done first.
            in_flight: the requests that were begun and haven't ended.

        Returns:
            None at all when the work is done.
        """

    def run(self, request: RequestT, control: Control[AnswerT]) -> AnswerT:
        """Do what a request asks for until it is done or `control` says that it is over; the answer.

        It may run twice, and at the same time on two machines. What it raises fails the workflow; an answer must have
        no key "work_failed", by which engines carry that about. It should look at `control.over` ten times a
        second, and give a partial answer about once a second.
        """

    def merge(self, state: StateT, request: RequestT, answer: AnswerT) -> StateT:
        """The state with an answer, partial or whole, taken in; the same one for an answer that changes nothing.

        Answers come late, twice, and in any order.
        """

    def report(self, state: StateT) -> Message:
        """What `progress` needs of a state, in 7 kB of JSON at most: engines carry it about."""

    def progress(self, job: JobT, report: Message, run_overhead: float = 0.0) -> Progress:
        """How far the work is, here and now.

        Args:
            job: what was asked for.
            report: what `report` made of its state.
            run_overhead: seconds that the engine takes from one run to the next.
        """

    def result(self, state: StateT) -> Result:
        """What a done work came to."""

    def restore(self, document: Message) -> StateT:
        """A state or an output as it was written, by this version or an earlier one.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """

    def job_of(self, document: Message) -> JobT:
        """A job as it was written, by this version or an earlier one.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """

    def capacity(self) -> str:
        """What this process can do for the work, in a few words, for the server's start line."""

    def vitals(self) -> Sequence[Vital]:
        """What an operator wants to know of the work in this process."""


AnyWork = LongWork[Any, Any, Any, Any]
"""A long work, to those who only carry its messages."""


class Steps(TypedDict):
    """A `StepWork`'s state in its envelope: how many runs and parts of one led to it."""

    turn: int
    part: int
    state: Any


class StepWork(ABC, Generic[JobT, StateT]):
    """A long work that only steps forward: an adapter that makes a `LongWork` of `step` and what it needs.

    A subclass has `name`, `result_key`, `parse`, `first`, `step`, `finished`, `describe` and `conclude`. It takes no
    part in a fan-out: one step follows the other.
    """

    name: str
    activity_name: str = "step"
    result_key: str = "output"
    concurrency: int = 1

    @abstractmethod
    def parse(self, arguments: Mapping[str, object]) -> JobT:
        """As in `LongWork`."""

    @abstractmethod
    def first(self, job: JobT) -> StateT:
        """The state before anything was done."""

    @abstractmethod
    def step(self, state: StateT, control: "StepControl[StateT]") -> StateT:
        """A state further on: work until it is finished or `control.over`, and call `control.reached` now and then."""

    @abstractmethod
    def finished(self, state: StateT) -> bool:
        """Whether nothing is left to do."""

    @abstractmethod
    def describe(self, job: JobT, state: StateT) -> Progress:
        """How far a state is."""

    @abstractmethod
    def conclude(self, state: StateT) -> Result:
        """What a finished work came to."""

    def begin(self, job: JobT) -> Steps:
        return {"turn": 0, "part": 0, "state": self.first(job)}

    def plan(self, state: Steps, width: int, in_flight: Sequence[Steps]) -> Sequence[Steps]:
        if self.finished(state["state"]):
            return []
        # A run whose partial answers were taken in still has the turn that it began in.
        return [request for request in in_flight if request["turn"] == state["turn"]] or [state]

    def run(self, request: Steps, control: Control[Steps]) -> Steps:
        # A step may change its state in place, while the engine writes down the one that it began from.
        reached = self.step(deepcopy(request["state"]), StepControl(request, control))
        return {"turn": request["turn"] + 1, "part": 0, "state": reached}

    def merge(self, state: Steps, request: Steps, answer: Steps) -> Steps:
        later = (answer["turn"], answer["part"]) > (state["turn"], state["part"])
        return answer if later else state

    def report(self, state: Steps) -> Message:
        return state

    def progress(self, job: JobT, report: Message, run_overhead: float = 0.0) -> Progress:
        return self.describe(job, self.restore(report)["state"])

    def result(self, state: Steps) -> Result:
        return self.conclude(state["state"])

    def restore(self, document: Message) -> Steps:
        turn, part = document["turn"], document["part"]
        if not isinstance(turn, int) or not isinstance(part, int):
            raise TypeError("a state's turn and part are integers")
        return {"turn": turn, "part": part, "state": document["state"]}

    def job_of(self, document: Message) -> JobT:
        return document  # type: ignore[return-value]  # what `parse` made, as JSON gives it back

    def capacity(self) -> str:
        return f"work {self.name}"

    def vitals(self) -> Sequence[Vital]:
        return ()


class StepControl(Generic[StateT]):
    """What a step is told, and may tell."""

    def __init__(self, request: Steps, control: Control[Steps]) -> None:
        self._turn, self._part = request["turn"], request["part"]
        self._control = control

    @property
    def over(self) -> bool:
        """Whether to return soon with the state that was reached."""
        return self._control.over

    def reached(self, state: StateT) -> None:
        """Tell how far the step is: progress that shows, and that a crash doesn't take back."""
        self._part += 1
        self._control.partial({"turn": self._turn, "part": self._part, "state": deepcopy(state)})

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Call this when the step is cancelled: to end a subprocess, say."""
        self._control.on_cancel(callback)
