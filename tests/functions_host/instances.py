"""Orchestration instances as the engine keeps them."""

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from functions_host import history
from functions_host.history import Event

ENDED = ("Completed", "Failed", "Terminated")


@dataclass
class Delivery:
    """One run of an activity."""

    task_id: int
    execution_id: str
    name: str
    input: str
    outcome: str = "running"

    def to_dict(self) -> dict[str, Any]:
        """As JSON for tests."""
        return {
            "task_id": self.task_id,
            "execution_id": self.execution_id,
            "name": self.name,
            "input": json.loads(json.loads(self.input)[0]),
            "outcome": self.outcome,
        }


@dataclass(eq=False)
class ActivityMessage:
    """A scheduled activity in its queue, until its answer has been taken."""

    instance_id: str
    execution_id: str
    event: Event
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: datetime = field(default_factory=lambda: datetime.now(UTC))
    # It was handed out, and nobody else gets it before this.
    hidden_until: datetime | None = None


@dataclass(eq=False)
class Instance:
    """An orchestration instance; `raw_*` are JSON texts as they are stored."""

    id: str
    name: str
    raw_input: str | None
    status: str = "Pending"
    raw_output: str | None = None
    custom_status: Any = None
    execution_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    updated: datetime = field(default_factory=lambda: datetime.now(UTC))
    events: list[Event] = field(default_factory=list)
    inbox: list[Event] = field(default_factory=list)
    earlier: list[list[Event]] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    # When each that is set fires.
    timers: dict[int, str] = field(default_factory=dict)
    episodes: int = 0

    @property
    def ended(self) -> bool:
        """Whether nothing happens any more."""
        return self.status in ENDED

    def begin(self) -> None:
        """Let the next episode start the orchestrator."""
        self.inbox.append(history.execution_started(self.name, self.id, self.execution_id, self.raw_input))
