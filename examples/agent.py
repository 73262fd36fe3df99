"""Mine a chain on a pow-mcp server with the official SDK's client, however long it takes.

    python examples/agent.py --difficulty 26

A call that takes long comes back as a task where the server offers them (`io.modelcontextprotocol/tasks`), and as
a handle for get_mining_result where it doesn't. The report goes to standard output, progress to standard error.

Exit codes: 0 mined, 1 the server refused, failed or cancelled the work, 2 bad arguments or no server.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import httpx2
from mcp import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result, TextContent

# Longer than any answer takes: the server ends a wait after its own budget, 20 s unless set otherwise.
READ_TIMEOUT_SECONDS = 60.0
DONE, FAILED, NO_SERVER = 0, 1, 2


class WorkFailed(Exception):
    """The server has no chain for us, and says why."""


class Task(Result):
    """A task, as tools/call returns it when it has created one."""

    result_type: Literal["task"]
    task_id: str


class TaskState(Result):
    """A task, as tasks/get returns it."""

    status: Literal["working", "input_required", "completed", "cancelled", "failed"]
    status_message: str | None = None
    poll_interval_ms: int = 1000
    result: CallToolResult | None = None
    error: dict[str, Any] | None = None


class TaskParams(RequestParams):
    """Which task."""

    task_id: str


class GetTask(Request[TaskParams, Literal["tasks/get"]]):
    """How is the task?"""

    # The SDK puts this parameter into the header Mcp-Name, which the extension demands.
    name_param: ClassVar[str | None] = "taskId"
    method: Literal["tasks/get"] = "tasks/get"
    params: TaskParams


class Tasks(ClientExtension):
    """Tells the server that we know tasks, and follows each to its end: call_tool returns the work's own result."""

    identifier = "io.modelcontextprotocol/tasks"

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Task, resolve=self._follow)]

    async def _follow(self, task: Task, context: ClaimContext) -> CallToolResult:
        say(f"task {task.task_id}")
        while True:
            state = await context.session.send_request(GetTask(params=TaskParams(task_id=task.task_id)), TaskState)
            if state.status == "completed" and state.result is not None:
                return state.result
            if state.status != "working":
                raise WorkFailed(f"the task is {state.status}: {state.error or state.status_message}")
            say(state.status_message or state.status)
            await asyncio.sleep(state.poll_interval_ms / 1000)


async def mine(client: Client, **arguments: Any) -> str:
    """The report on a chain.

    Raises:
        WorkFailed: there is none.
    """
    answer = await call(client, "start_mining", arguments)
    # Only where there are no tasks: with them, the work is over when the call is.
    while answer["status"] == "running":
        say(f"workflow {answer['workflow_id']}: {answer['progress']['hashes_tried']:,} hashes tried")
        await asyncio.sleep(answer["poll_after_seconds"])
        answer = await call(client, "get_mining_result", {"workflow_id": answer["workflow_id"]})
    if answer["status"] != "completed":
        raise WorkFailed(answer["error"])
    return str(answer["result"])


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> Any:
    """What a tool returns."""
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise WorkFailed(" ".join(block.text for block in result.content if isinstance(block, TextContent)))
    return result.structured_content


def say(line: str) -> None:
    """Tell of progress."""
    print(line, file=sys.stderr, flush=True)


async def run(options: argparse.Namespace) -> int:
    """Connect, mine, and print; the exit code."""
    given = {"difficulty": options.difficulty, "blocks": options.blocks, "genesis": options.genesis}
    arguments = {name: value for name, value in given.items() if value is not None}
    mode = "legacy" if options.legacy else "auto"
    client = Client(options.url, mode=mode, extensions=[Tasks()], read_timeout_seconds=READ_TIMEOUT_SECONDS)
    code = DONE
    try:
        async with client:
            try:
                print(await mine(client, **arguments))
            except WorkFailed as failure:
                say(f"error: {failure}")
                code = FAILED
    except* (MCPError, httpx2.HTTPError) as errors:  # the SDK's tasks raise groups
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        say(f"error: {options.url}: {error}")
        code = NO_SERVER
    return code


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description="Mine a chain on a pow-mcp server.")
    parser.add_argument("--url", default="http://127.0.0.1:7071/mcp", help="where the server is (%(default)s)")
    parser.add_argument("--difficulty", type=int, help="leading zero bits of each hash (the server's default)")
    parser.add_argument("--blocks", type=int, help="how many blocks (the server's default)")
    parser.add_argument("--genesis", help="what the first block links to (GENESIS)")
    parser.add_argument("--legacy", action="store_true", help="speak revision 2025-11-25, which has no tasks")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
