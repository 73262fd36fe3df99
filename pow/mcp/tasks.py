"""The Tasks extension of MCP (`io.modelcontextprotocol/tasks`, SEP-2663), for servers on the official SDK.

A tool that is still at work when a short inline budget is over answers a caller that knows the
extension with a task: an id to poll, to cancel, and to listen to. Everybody else gets what the tool
itself returns. What the work is, and where it is kept, is a `TaskBackend`'s to know: nothing in this
file is about any work in particular, so it serves in any server:

    tasks = TasksExtension(backend, tools={"render_video"})
    server = MCPServer("videos", extensions=[tasks], middleware=[add_call, tasks.serve_listening])

(`pow.mcp.calls.add_call` is only needed where backends tell callers apart.)

Sections named in docstrings are those of the extension's specification.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NoReturn

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types import (
    HEADER_MISMATCH,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CallToolRequestParams,
    CallToolResult,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel
from starlette.requests import Request

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.tasks import TaskBackend, TaskState
from pow.mcp.calls import call_of, with_call
from pow.mcp.results import tool_result

TASKS = "io.modelcontextprotocol/tasks"

# A caller that knows tasks needs no longer wait than it takes to save quick work the second request.
INLINE_SECONDS = 1.0
# How long a task that has ended can be asked for.
RETENTION_SECONDS = 3600.0

_LISTEN = "subscriptions/listen"
# Between two looks at a task that somebody listens to; an end is told at once.
_LISTEN_SECONDS = 1.0
# Of one stream; what it listens to stands in its acknowledgement.
_TASKS_PER_STREAM = 100

# The extension exists since revision 2026-07-28 only.
_REVISIONS = frozenset(MODERN_PROTOCOL_VERSIONS)


class _TaskParams(RequestParams):
    task_id: str


class _UpdateParams(_TaskParams):
    input_responses: dict[str, Any]


class _Notification(BaseModel):
    """A notification whose parameters are ready for the wire."""

    method: str
    params: dict[str, Any]


class TasksExtension(Extension):
    """Makes tasks of tool calls that take long, and serves them to the callers that know the extension."""

    identifier = TASKS

    def __init__(
        self,
        backend: TaskBackend,
        *,
        tools: Collection[str],
        required: Collection[str] = (),
        inline_seconds: float = INLINE_SECONDS,
        retention_seconds: float = RETENTION_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            backend: where the work is.
            tools: names of the tools whose calls may become tasks.
            required: those of them that have nothing to answer a caller with that doesn't know tasks.
            inline_seconds: how long such a call may take before it becomes a task.
            retention_seconds: how long a task can be asked for after its end.
            clock: now, in Unix seconds.
        """
        self._backend = backend
        self._tools = frozenset(tools) | frozenset(required)
        self._required = frozenset(required)
        self._inline_seconds = inline_seconds
        self._retention_seconds = retention_seconds
        self._clock = clock

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", _TaskParams, self._get, _REVISIONS),
            MethodBinding("tasks/update", _UpdateParams, self._update, _REVISIONS),
            MethodBinding("tasks/cancel", _TaskParams, self._cancel, _REVISIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Task Creation: a task in lieu of a result that isn't final, where the caller has declared the extension."""
        if params.name not in self._tools:
            return await call_next(ctx)
        if not _declared(ctx):
            if params.name in self._required:
                _refuse_undeclared()
            return await call_next(ctx)
        call = call_of(ctx).waiting_at_most(self._inline_seconds)
        result = await call_next(with_call(ctx, call))
        document = result.structured_content if isinstance(result, CallToolResult) else None
        task_id = self._backend.task_of(params.name, document) if isinstance(document, Mapping) else None
        state = None if task_id is None else await self._find(call, task_id)
        # Only a task that can be asked for is one: until then the tool's own answer is worth more.
        return result if state is None else {"resultType": "task", **self._task(state)}

    async def serve_listening(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Task Status Notifications: middleware, since the SDK leaves `subscriptions/listen` to itself.

        A stream that asks for tasks is about tasks only, and ends when they all have; the acknowledgement
        says so. Other kinds take a stream of their own, which the SDK serves.
        """
        wanted = _wanted_tasks(ctx)
        if wanted is None:
            return await call_next(ctx)
        if not _declared(ctx):
            _refuse_undeclared()
        call = call_of(ctx)
        agreed = [task_id for task_id in wanted[:_TASKS_PER_STREAM] if await self._find(call, task_id) is not None]
        await _notify(ctx, "notifications/subscriptions/acknowledged", {"notifications": {"taskIds": agreed}})
        await self._tell_changes(ctx, set(agreed))
        return {"resultType": "complete", "_meta": {SUBSCRIPTION_ID_META_KEY: ctx.request_id}}

    async def _tell_changes(self, ctx: ServerRequestContext[Any, Any], listening: set[str]) -> None:
        """Tell of each task as it is now, and again whenever it differs, until all have ended.

        What happens between two looks is not told, so a slow reader never has a backlog of stale news.
        """
        call = call_of(ctx)
        told: dict[str, dict[str, Any]] = {}
        while listening and not self._backend.closing:
            for task_id in sorted(listening):
                state = await self._find(call, task_id)
                if state is None or state.ended:
                    listening.discard(task_id)
                if state is None:
                    continue
                news = self._detailed(state)
                if told.get(task_id) != news:
                    told[task_id] = news
                    await _notify(ctx, "notifications/tasks", news)
            if listening:
                await self._any_end(call, listening, _LISTEN_SECONDS)

    async def _any_end(self, call: CallContext, task_ids: Collection[str], seconds: float) -> None:
        """Return when one of the tasks has ended, or after so many seconds."""
        async with anyio.create_task_group() as waits:

            async def wait(task_id: str) -> None:
                with _errors_for_callers():
                    await self._backend.wait(call, task_id, seconds)
                waits.cancel_scope.cancel()

            for task_id in task_ids:
                waits.start_soon(wait, task_id)

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: _TaskParams) -> HandlerResult:
        state = await self._addressed(ctx, params)
        return {"resultType": "complete", **self._detailed(state)}

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: _UpdateParams) -> HandlerResult:
        state = await self._addressed(ctx, params)
        with _errors_for_callers():
            await self._backend.update(call_of(ctx), state.task_id, params.input_responses)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: _TaskParams) -> HandlerResult:
        state = await self._addressed(ctx, params)
        if not state.ended:
            with _errors_for_callers():
                await self._backend.cancel(call_of(ctx), state.task_id)
        return {"resultType": "complete"}

    async def _addressed(self, ctx: ServerRequestContext[Any, Any], params: _TaskParams) -> TaskState:
        """The task that a request is about.

        Raises:
            MCPError: its headers name another one, its caller hasn't declared the extension, or there is
                no such task.
        """
        _check_routing(ctx, params.task_id)
        if not _declared(ctx):
            _refuse_undeclared()
        state = await self._find(call_of(ctx), params.task_id)
        if state is None:
            raise MCPError(INVALID_PARAMS, "Task not found: it is unknown, or its time to live is over")
        return state

    async def _find(self, call: CallContext, task_id: str) -> TaskState | None:
        with _errors_for_callers():
            state = await self._backend.get(call, task_id)
        if state is None or state.ended_at is None:
            return state
        return None if self._clock() > state.ended_at + self._retention_seconds else state

    def _task(self, state: TaskState) -> dict[str, Any]:
        """`Task`, as it goes over the wire."""
        task: dict[str, Any] = {
            "taskId": state.task_id,
            "status": state.status,
            "createdAt": _iso_8601(state.created_at),
            "lastUpdatedAt": _iso_8601(state.last_updated_at),
            "ttlMs": self._ttl_ms(state),
        }
        if state.status_message is not None:
            task["statusMessage"] = state.status_message
        if state.poll_interval_ms is not None:
            task["pollIntervalMs"] = state.poll_interval_ms
        return task

    def _ttl_ms(self, state: TaskState) -> int | None:
        """Milliseconds from the creation, as the specification counts them, to some time after the end.

        Nobody knows how long work will take, so a task that is at it has no limit.
        """
        if state.ended_at is None:
            return None
        return round((state.ended_at - state.created_at + self._retention_seconds) * 1000)

    def _detailed(self, state: TaskState) -> dict[str, Any]:
        """`DetailedTask`, as it goes over the wire."""
        task = self._task(state)
        match state.status:
            case "completed" if state.result is not None:
                task["result"] = _result(state.result).model_dump(by_alias=True, mode="json", exclude_none=True)
            case "failed":
                task["error"] = dict(state.error or {})
            case "input_required":
                task["inputRequests"] = dict(state.input_requests or {})
        return task


def _result(result: object) -> CallToolResult:
    """A task's result as a tool's: its backend has that, or the document that the tool would have returned."""
    if isinstance(result, CallToolResult):
        return result
    assert isinstance(result, Mapping), "a tool's result is a document"
    return tool_result(result)


@contextmanager
def _errors_for_callers() -> Iterator[None]:
    """Say in its own words that the engine can't be reached; the SDK hides what it doesn't know."""
    try:
        yield
    except EngineError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from error


def _declared(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether this very request declares the extension: what earlier ones declared does not count."""
    capabilities = ctx.session.client_capabilities
    extensions = (capabilities.extensions if capabilities is not None else None) or {}
    return ctx.protocol_version in _REVISIONS and TASKS in extensions


async def refuse_listening(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """In place of `serve_listening` on hosts that can't stream, where a listener would wait for nothing."""
    if ctx.method == _LISTEN:
        raise MCPError(METHOD_NOT_FOUND, f"this endpoint can't stream, so {_LISTEN} isn't served: poll with tasks/get")
    return await call_next(ctx)


def _refuse_undeclared() -> NoReturn:
    raise MCPError(
        MISSING_REQUIRED_CLIENT_CAPABILITY,
        f"Missing required client capability: the extension {TASKS}",
        {"requiredCapabilities": {"extensions": {TASKS: {}}}},
    )


def _check_routing(ctx: ServerRequestContext[Any, Any], task_id: str) -> None:
    """Streamable HTTP: Routing Headers. The SDK checks those of its own methods only."""
    if isinstance(ctx.request, Request) and decode_header_value(ctx.request.headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(
            HEADER_MISMATCH, f"{MCP_NAME_HEADER} header does not match the request body's 'taskId' parameter"
        )


def _wanted_tasks(ctx: ServerRequestContext[Any, Any]) -> list[str] | None:
    """The ids of the tasks that a request wants to listen to; None when it is none about tasks."""
    if ctx.method != _LISTEN or ctx.params is None or ctx.protocol_version not in _REVISIONS:
        return None
    wanted = ctx.params.get("notifications")
    task_ids = wanted.get("taskIds") if isinstance(wanted, Mapping) else None
    if task_ids is None:
        return None
    if not isinstance(task_ids, list) or not all(isinstance(task_id, str) for task_id in task_ids):
        raise MCPError(INVALID_PARAMS, "notifications.taskIds must be an array of strings")
    return list(dict.fromkeys(task_ids))


async def _notify(ctx: ServerRequestContext[Any, Any], method: str, params: dict[str, Any]) -> None:
    """Send a notification on the stream of the listener."""
    notification = _Notification(method=method, params={**params, "_meta": {SUBSCRIPTION_ID_META_KEY: ctx.request_id}})
    # The SDK's type lists the notifications of the core; it sends any.
    await ctx.session.send_notification(notification, related_request_id=ctx.request_id)  # type: ignore[arg-type]


def _iso_8601(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
