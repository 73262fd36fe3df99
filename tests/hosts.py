"""The ways to host the tools, as a test that is the same for all of them needs them.

Self-hosted, the server is `pow-mcp serve`. On Functions, the unchanged function_app.py runs in the test
host, and MCP comes by the extension's endpoint or by the gateway's.
"""

import asyncio
import json
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from functions_process import FunctionsProcess, transport
from mcp import Client
from python_process import HANG_SECONDS
from server_process import ServerProcess

from pow.longwork.engines.journal import Journal
from pow.longwork.orchestration import first_input
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork

# No tool lets such a job through: this is what an engine does with one all the same.
WORK = MiningWork(MinerPool(1))
FAILING = MiningJob(difficulty=300, blocks=1, genesis="GENESIS")


class Host(ABC):
    """A running host of the tools, and what only its operators can do. Leaving the context kills it."""

    @abstractmethod
    def client(self, mode: str = "auto", **headers: str) -> Client:
        """A real MCP client of it."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it serves MCP."""

    @abstractmethod
    async def failing_workflow(self) -> str:
        """The id of a workflow that must fail."""

    @abstractmethod
    async def lose_a_slice(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool that starts a workflow, and let one of its slices get lost, to be delivered again."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __enter__(self) -> Self:
        return self

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """A tool's result, by a client of its own."""
        async with self.client() as client:
            result = await client.call_tool(tool, arguments)
        assert not result.is_error, result.content
        content: dict[str, Any] = result.structured_content
        return content

    async def poll(self, workflow_id: str) -> dict[str, Any]:
        """Ask as an agent does, only more eagerly, until the workflow has ended."""
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                result = await self.call("get_mining_result", workflow_id=workflow_id)
                if result["status"] != "running":
                    return result
                await asyncio.sleep(0.1)


class SelfHosted(Host):
    """`pow-mcp serve` with a journal."""

    def __init__(self, state_dir: Path, storage: str | None = None, **settings: str) -> None:
        self._state_dir = state_dir
        self._settings = settings | ({} if storage is None else {"AzureWebJobsStorage": storage})
        self._failing = str(uuid.uuid4())
        journal = Journal(state_dir, lambda given, slices: (given, given))
        journal.insert(self._failing, None, "", json.dumps(FAILING), json.dumps(WORK.begin(FAILING)))
        journal.close()
        self._server = ServerProcess(state_dir=state_dir, **self._settings)

    def client(self, mode: str = "auto", **headers: str) -> Client:
        return Client(transport(self.url, headers), mode=mode, read_timeout_seconds=HANG_SECONDS)

    @property
    def url(self) -> str:
        return f"{self._server.url}/mcp"

    async def failing_workflow(self) -> str:
        return self._failing

    async def lose_a_slice(self, tool: str, **arguments: Any) -> dict[str, Any]:
        started = await self.call(tool, **arguments)
        await self._server.until_mining()
        self._server.kill()
        self._server = ServerProcess(state_dir=self._state_dir, **self._settings)
        return started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.__exit__(kind, error, trace)


class OnFunctions(Host):
    """The Functions app, by the MCP extension's endpoint."""

    path = "/runtime/webhooks/mcp"

    def __init__(self, state_dir: Path, storage: str | None = None, **settings: str) -> None:
        del state_dir  # nothing is kept unless a test kills the host
        self._process = FunctionsProcess(None, azurite=storage, state=None, **settings)

    def client(self, mode: str = "auto", **headers: str) -> Client:
        return self._process.client(mode, self.path, headers=headers)

    @property
    def url(self) -> str:
        return f"{self._process.url}{self.path}"

    async def failing_workflow(self) -> str:
        workflow_id = str(uuid.uuid4())
        given = first_input(WORK, FAILING, slice_seconds=1.0)
        start = {"orchestrator": WORK.name, "id": workflow_id, "input": given}
        self._process.admin("POST", "/test/start", start)
        return workflow_id

    async def lose_a_slice(self, tool: str, **arguments: Any) -> dict[str, Any]:
        self.faults(lose_next=1, delay_seconds=0.1)
        return await self.call(tool, **arguments)

    def faults(self, **faults: Any) -> None:
        """Let the test host do wrong what a real one may."""
        self._process.admin("POST", "/test/faults", faults)

    def instance(self, workflow_id: str) -> dict[str, Any]:
        """What the test host knows of a workflow."""
        return self._process.instance(workflow_id)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)


class ByGateway(OnFunctions):
    """The Functions app, by the official SDK's server behind its HTTP trigger."""

    path = "/api/mcp"


HOSTS: dict[str, type[SelfHosted] | type[OnFunctions]] = {
    "self-hosted": SelfHosted,
    "functions": OnFunctions,
    "gateway": ByGateway,
}
