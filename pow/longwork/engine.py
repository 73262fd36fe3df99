"""What the tools need from a workflow engine, and how an engine tells of a workflow."""

from dataclasses import dataclass
from typing import Literal, Protocol

from pow.mining.workflow import Document, MiningJob, Progress

EngineStatus = Literal["running", "completed", "failed", "terminated"]


@dataclass(frozen=True, slots=True)
class WorkflowState:
    """One workflow as its engine knows it. Engines say pending, suspended, …: all that is `running`."""

    workflow_id: str
    status: EngineStatus
    job: MiningJob | None = None  # None when the input can't be read
    progress: Progress | None = None
    output: Document | None = None
    error: str | None = None
    owner: str | None = None  # who started it, where callers are known
    created_at: float | None = None  # Unix seconds
    updated_at: float | None = None  # likewise; of its end, once it has ended

    @property
    def ended(self) -> bool:
        """Whether it will never change again."""
        return self.status != "running"


class Engine(Protocol):
    """Runs mining workflows durably. Every method raises EngineError when the engine can't be reached."""

    @property
    def closing(self) -> bool:
        """Whether the host is shutting down: a wait is over then, whatever its budget."""

    async def start(self, workflow_id: str, job: MiningJob, owner: str | None = None) -> None:
        """Accept a workflow under an id that the tools have made; it is durable when this returns."""

    async def state(self, workflow_id: str) -> WorkflowState | None:
        """The workflow now; None when the id is unknown."""

    async def wait(self, workflow_id: str, seconds: float) -> WorkflowState | None:
        """The workflow when it has ended, or after so many seconds; None when the id is unknown."""

    async def cancel(self, workflow_id: str) -> WorkflowState | None:
        """End the workflow; its state thereafter; None when the id is unknown. Idempotent."""

    async def list(self, limit: int, *, running_only: bool = False) -> list[WorkflowState]:
        """The newest workflows, newest first."""
