"""What the service needs from a workflow engine, and how an engine tells of a workflow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, Self

from pow.longwork.call import CallContext
from pow.longwork.work import Message

KEEP_SECONDS = 7 * 24 * 3600.0
"""How long engines keep workflows that have ended, where nobody else sees to that."""

EngineStatus = Literal["running", "completed", "failed", "terminated"]


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """One workflow as its engine knows it. Engines say pending, suspended, …: all that is `running`."""

    workflow_id: str
    status: EngineStatus
    job: Message | None = None  # None when it can't be read
    report: Message | None = None  # what the work's `progress` needs; None where nothing was reported
    output: Message | None = None  # of a completed one, its last state; lists may leave it out
    error: str | None = None
    kept: Message | None = None  # of a failed one, the state from which an equal workflow may go on
    owner: str | None = None  # who started it, where callers are known
    created_at: float | None = None  # Unix seconds; the first time, whatever was restarted since
    updated_at: float | None = None  # likewise; of its end, once it has ended

    @property
    def ended(self) -> bool:
        """Whether it will never change again."""
        return self.status != "running"


class Started(NamedTuple):
    """A workflow that was started, or found running."""

    workflow_id: str
    joined: bool = False


class Engine(Protocol):
    """Runs workflows of one work durably. Every method raises EngineError when the engine can't be reached."""

    @property
    def closing(self) -> bool:
        """Whether the host is shutting down: a wait is over then, whatever its budget."""

    @property
    def run_overhead(self) -> float:
        """Seconds from one run of a workflow to the next one, beside the work itself, as measured here."""

    def describe(self) -> str:
        """What and where it is, for operators."""

    def fault(self) -> str | None:
        """Why it can't keep what it does at the moment, for operators; None when all is well."""

    async def start(self, call: CallContext, job: Message, twin_key: str, *, fresh: bool = False) -> Started:
        """Accept a workflow of the call's caller; it is durable when this returns.

        Args:
            call: the caller becomes its owner.
            job: what the work's `parse` made.
            twin_key: the same for equal jobs of one caller, and for nothing else.
            fresh: whether to start a new one even if one with this key is running.
        """

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        """The workflow now, whoever owns it; None when the id is unknown."""

    async def wait(self, call: CallContext, workflow_id: str, seconds: float) -> WorkflowState | None:
        """The workflow when it has ended, or after so many seconds; None when the id is unknown."""

    async def cancel(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        """End the workflow; its state thereafter; None when the id is unknown. Idempotent."""

    async def newest(self, call: CallContext, limit: int) -> Sequence[WorkflowState]:
        """The caller's newest workflows, newest first."""

    async def counts(self, call: CallContext) -> Mapping[EngineStatus, int]:
        """How many workflows there are, everybody's, by their status; some engines count the newest only."""


class HostedEngine(Engine, Protocol):
    """An engine that runs in this process: an asynchronous context manager, which ends without losing work."""

    def begin_shutdown(self) -> None:
        """End what runs in this process, and let every `wait` return now, so that callers get their handle in time."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...
