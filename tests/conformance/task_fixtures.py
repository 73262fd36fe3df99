"""The suite's tools that take long, and the jobs behind them: a `TaskBackend` that keeps nothing."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from core_fixtures import AnyContext, Server, field_of, form_request, name_request
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult, InputRequest, InputRequiredResult, TextContent

from pow.longwork.call import CallContext
from pow.longwork.tasks import TaskState
from pow.longwork.work import Message
from pow.mcp.calls import call_of
from pow.mcp.tasks import TasksExtension

# The suite's shortest job takes a second and is to become a task.
INLINE_SECONDS = 0.2
POLL_INTERVAL_MS = 100
# Where the answer that isn't final has its id.
RUNNING = "running_job"

TOOLS = ("slow_compute",)
REQUIRED = ("failing_job", "protocol_error_job", "confirm_delete", "multi_input", "test_tool_with_task")

Work = Callable[["Job"], Awaitable[CallToolResult]]


@dataclass
class Job:
    """One call's work, which may ask its caller."""

    task_id: str
    created_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    asked: dict[str, InputRequest] = field(default_factory=dict)
    answers: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    work: asyncio.Task[CallToolResult] = field(init=False)

    async def ask(self, key: str, request: InputRequest) -> Any:
        """The caller's answer to a request."""
        self.asked[key] = request
        self.answers[key] = asyncio.get_running_loop().create_future()
        self.updated_at = time.time()
        return await self.answers[key]


class Jobs:
    """All jobs of the server."""

    closing = False

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    async def run(self, context: AnyContext, work: Work) -> CallToolResult:
        """Start a job; its result, or the answer that it is still running when the caller waits no longer."""
        job = Job(str(uuid.uuid4()))
        self._jobs[job.task_id] = job
        job.work = asyncio.ensure_future(work(job))
        job.work.add_done_callback(lambda _: setattr(job, "updated_at", time.time()))
        await asyncio.wait([job.work], timeout=call_of(context.request_context).wait_seconds)
        return job.work.result() if job.work.done() else self._running(job)

    @staticmethod
    def _running(job: Job) -> CallToolResult:
        return CallToolResult(content=[], structured_content={RUNNING: job.task_id})

    def task_of(self, tool: str, result: Message) -> str | None:
        task_id = result.get(RUNNING)
        return None if task_id is None else str(task_id)

    async def get(self, call: CallContext, task_id: str) -> TaskState | None:
        job = self._jobs.get(task_id)
        return None if job is None else _state(job)

    async def cancel(self, call: CallContext, task_id: str) -> None:
        self._jobs[task_id].work.cancel()

    async def update(self, call: CallContext, task_id: str, input_responses: Mapping[str, Any]) -> None:
        job = self._jobs[task_id]
        for key in job.asked.keys() & input_responses.keys():
            del job.asked[key]
            job.answers[key].set_result(input_responses[key])
            job.updated_at = time.time()

    async def wait(self, call: CallContext, task_id: str, seconds: float) -> None:
        await asyncio.wait([self._jobs[task_id].work], timeout=seconds)


def _state(job: Job) -> TaskState:
    now = TaskState(
        task_id=job.task_id,
        status="working",
        created_at=job.created_at,
        last_updated_at=job.updated_at,
        poll_interval_ms=POLL_INTERVAL_MS,
    )
    if job.asked:
        requests = {
            key: request.model_dump(by_alias=True, mode="json", exclude_none=True) for key, request in job.asked.items()
        }
        now = replace(now, status="input_required", input_requests=requests)
    if not job.work.done():
        return now
    ended = replace(now, ended_at=job.updated_at)
    if job.work.cancelled():
        return replace(ended, status="cancelled")
    error = job.work.exception()
    if isinstance(error, MCPError):
        return replace(ended, status="failed", error={"code": error.code, "message": error.message})
    return replace(ended, status="completed", result=job.work.result())


def text(content: str, *, is_error: bool = False) -> CallToolResult:
    """A result that is a text."""
    return CallToolResult(content=[TextContent(type="text", text=content)], is_error=is_error)


def tasks_extension(jobs: Jobs) -> TasksExtension:
    """The product's extension over the jobs."""
    return TasksExtension(jobs, tools=TOOLS, required=REQUIRED, inline_seconds=INLINE_SECONDS)


def add_task_fixtures(server: Server, jobs: Jobs) -> None:
    """Add the tools that take long, and one that doesn't."""

    @server.tool()
    def greet(name: str) -> str:
        """Greet."""
        return f"Hello, {name}!"

    @server.tool()
    async def slow_compute(context: AnyContext, seconds: float, label: str = "") -> CallToolResult:
        """Take so many seconds."""

        async def work(_: Job) -> CallToolResult:
            await asyncio.sleep(seconds)
            return text(f"Computed {label} in {seconds} s")

        return await jobs.run(context, work)

    @server.tool()
    async def failing_job(context: AnyContext) -> CallToolResult:
        """Fail as a tool does."""

        async def work(_: Job) -> CallToolResult:
            await asyncio.sleep(1)
            return text("The job failed", is_error=True)

        return await jobs.run(context, work)

    @server.tool()
    async def protocol_error_job(context: AnyContext) -> CallToolResult:
        """Fail as a server does."""

        async def work(_: Job) -> CallToolResult:
            await asyncio.sleep(1)
            raise MCPError(INTERNAL_ERROR, "The server failed")

        return await jobs.run(context, work)

    @server.tool()
    async def confirm_delete(context: AnyContext, filename: str) -> CallToolResult:
        """Ask once."""

        async def work(job: Job) -> CallToolResult:
            answer = await job.ask("confirm", form_request(f"Delete {filename}?", confirm="boolean"))
            return text(f"{filename}: {answer['action']}")

        return await jobs.run(context, work)

    @server.tool()
    async def multi_input(context: AnyContext) -> CallToolResult:
        """Ask for two things at once."""

        async def work(job: Job) -> CallToolResult:
            answers = await asyncio.gather(*(job.ask(key, name_request()) for key in ("first", "second")))
            return text(f"Got {len(answers)} answers")

        return await jobs.run(context, work)

    @server.tool()
    async def test_tool_with_task(context: AnyContext) -> CallToolResult | InputRequiredResult:
        """Ask by a result first, then take long."""
        name = field_of((context.input_responses or {}).get("user_name"), "name")
        if name is None:
            return InputRequiredResult(input_requests={"user_name": name_request()})

        async def work(_: Job) -> CallToolResult:
            await asyncio.sleep(1)
            return text(f"Hello, {name}!")

        return await jobs.run(context, work)
