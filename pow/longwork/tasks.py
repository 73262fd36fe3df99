"""Workflows as tasks: what a protocol with tasks (MCP's extension, say) asks of the long work behind them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from pow.longwork.call import CallContext
from pow.longwork.engine import WorkflowState
from pow.longwork.service import LongWorkService
from pow.longwork.work import Message

TaskStatus = Literal["working", "input_required", "completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task as its backend knows it. Times are Unix seconds.

    `result` goes with completed, also where it is a tool's error: the document that the tool would have returned, or
    the protocol's own object. `error`, the protocol's, goes with failed; `input_requests` with input_required.
    A task whose `ended_at` isn't known never expires.
    """

    task_id: str
    status: TaskStatus
    created_at: float
    last_updated_at: float
    ended_at: float | None = None
    status_message: str | None = None
    poll_interval_ms: int | None = None
    result: object = None
    error: Mapping[str, Any] | None = None
    input_requests: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether it will never change again."""
        return self.status in ("completed", "cancelled", "failed")


class TaskBackend(Protocol):
    """The long work behind tasks.

    Another caller's task is an unknown one. Ids are unguessable, and a task outlives the process where its work does.
    """

    @property
    def closing(self) -> bool:
        """Whether the host is shutting down, so that nobody should wait any longer."""

    def task_of(self, tool: str, result: Message) -> str | None:
        """The id of the task that goes on behind a tool's result; None for a result that is final."""

    async def get(self, call: CallContext, task_id: str) -> TaskState | None:
        """The task now; None when the caller has none with this id."""

    async def cancel(self, call: CallContext, task_id: str) -> None:
        """Ask for the end of a task that `get` has found. Idempotent; may return before it has ended."""

    async def update(self, call: CallContext, task_id: str, input_responses: Mapping[str, Any]) -> None:
        """Answer input requests of a task that `get` has found; keys that none is waiting for are ignored."""

    async def wait(self, call: CallContext, task_id: str, seconds: float) -> None:
        """Return when the task has ended, when the host is closing, or after so many seconds."""


class WorkTasks:
    """`TaskBackend` over a long work's service: the task's id is the workflow's, so a task survives what that does."""

    def __init__(self, service: LongWorkService) -> None:
        self._service = service

    @property
    def closing(self) -> bool:
        return self._service.engine.closing

    def task_of(self, tool: str, result: Message) -> str | None:
        return str(result["workflow_id"]) if result.get("status") == "running" else None

    async def get(self, call: CallContext, task_id: str) -> TaskState | None:
        state = await self._service.state(call, task_id)
        # The tools forgive how an id is written; a task has one id.
        if state is None or state.workflow_id != task_id:
            return None
        match state.status:
            case "running":
                return self._working(state)
            case "terminated":
                return replace(_task(state), status="cancelled")
            case "completed" | "failed":
                # A workflow that failed has a result, too, the tool's own: the status `failed` of a task
                # is for errors of the protocol.
                result = await self._service.get(call, task_id)
                return replace(_task(state), result=result, status_message=result.get("error"))

    async def cancel(self, call: CallContext, task_id: str) -> None:
        await self._service.cancel(call, task_id)

    async def update(self, call: CallContext, task_id: str, input_responses: Mapping[str, Any]) -> None:
        """A long work asks for no input, so no key is one that it waits for."""

    async def wait(self, call: CallContext, task_id: str, seconds: float) -> None:
        await self._service.engine.wait(call, task_id, seconds)

    def _working(self, state: WorkflowState) -> TaskState:
        working = replace(_task(state), status="working", ended_at=None)
        if state.job is None:
            return working
        progress = self._service.progress(state)
        return replace(working, status_message=progress.sentence, poll_interval_ms=1000 * progress.poll_after_seconds)


def _task(state: WorkflowState) -> TaskState:
    """What a task has of its workflow, if it is completed."""
    created_at = time.time() if state.created_at is None else state.created_at
    return TaskState(
        task_id=state.workflow_id,
        status="completed",
        created_at=created_at,
        last_updated_at=created_at if state.updated_at is None else state.updated_at,
        ended_at=state.updated_at,
    )
