"""Mining workflows as tasks of MCP: the task's id is the workflow's, so a task survives what the workflow does."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pydantic_core
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult, TextContent

from pow.errors import EngineError
from pow.longwork.engine import WorkflowState
from pow.mcp.tasks import INLINE_SECONDS, TasksExtension, TaskState
from pow.mining.odds import poll_after_seconds
from pow.tools.mining import WAIT_BUDGET, MiningResult, MiningTools

TOOLS = ("start_mining",)
"""The tools that start workflows."""


def mining_tasks(mining: MiningTools, *, inline_seconds: float = INLINE_SECONDS) -> TasksExtension:
    """The extension, for `MCPServer(extensions=[tasks], middleware=[tasks.serve_listening])`.

    Args:
        mining: what the server's tools do; None on a server that is only asked what it offers.
        inline_seconds: how long a caller that knows tasks waits for a result before it gets one.
    """
    return TasksExtension(MiningTasks(mining), tools=TOOLS, inline_seconds=inline_seconds)


class MiningTasks:
    """`TaskBackend` over the mining tools, which know the engine and whose a workflow is."""

    def __init__(self, mining: MiningTools) -> None:
        self._mining = mining

    @property
    def closing(self) -> bool:
        return self._mining.engine.closing

    @contextmanager
    def wait_at_most(self, seconds: float) -> Iterator[None]:
        before = WAIT_BUDGET.set(min(seconds, self._mining.wait_budget_seconds))
        try:
            yield
        finally:
            WAIT_BUDGET.reset(before)

    def task_of(self, tool: str, result: CallToolResult) -> str | None:
        document = result.structured_content
        if isinstance(document, dict) and document.get("status") == "running":
            return str(document["workflow_id"])
        return None

    async def get(self, task_id: str) -> TaskState | None:
        with _errors_for_callers():
            state = await self._mining.state(task_id)
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
                    # is for errors of JSON-RPC.
                    result = await self._mining.get_mining_result(task_id)
                    return replace(_task(state), result=_tool_result(result), status_message=result.get("error"))

    async def cancel(self, task_id: str) -> None:
        with _errors_for_callers():
            await self._mining.cancel_mining(task_id)

    async def update(self, task_id: str, input_responses: Mapping[str, Any]) -> None:
        """Mining asks for no input, so no key is one that it waits for."""

    async def wait(self, task_id: str, seconds: float) -> None:
        with _errors_for_callers():
            await self._mining.engine.wait(task_id, seconds)

    def _working(self, state: WorkflowState) -> TaskState:
        progress = self._mining.progress(state)
        return replace(
            _task(state),
            status="working",
            ended_at=None,
            status_message=self._mining.sentence(state),
            poll_interval_ms=1000 * poll_after_seconds(progress["expected_seconds_left"]),
        )


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


def _tool_result(document: MiningResult) -> CallToolResult:
    """What the SDK makes of a tool's return value."""
    text = pydantic_core.to_json(document, indent=2).decode()
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=dict(document))


@contextmanager
def _errors_for_callers() -> Iterator[None]:
    """Say in its own words that the engine can't be reached; the SDK hides what it doesn't know."""
    try:
        yield
    except EngineError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from error
