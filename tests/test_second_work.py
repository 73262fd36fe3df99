"""Another long work in the miner's place: the example that counts primes, on all hosts, by a real client."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from functions_process import REPOSITORY, FunctionsProcess
from mcp import Client
from python_process import HANG_SECONDS, PythonProcess
from scheduler.process import SchedulerProcess

pytestmark = pytest.mark.anyio

PRIMES = REPOSITORY / "examples" / "primes"
# Primes below ten million.
COUNT = 664_579


class PrimesServer(PythonProcess):
    """The example's self-hosted server."""

    def __init__(self, state_dir: Path | None, **settings: str) -> None:
        where = () if state_dir is None else (str(state_dir),)
        super().__init__(
            *(str(PRIMES / "server.py"), "0", *where), ready=r"primes .* serves MCP at (http://\S+)/mcp ", **settings
        )

    def client(self) -> Client:
        return Client(f"{self.ready[1]}/mcp", read_timeout_seconds=HANG_SECONDS)


@pytest.fixture(params=["embedded", "scheduler", "functions"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PrimesServer | FunctionsProcess]:
    with ExitStack() as stack:
        if request.param == "functions":
            yield stack.enter_context(FunctionsProcess(PRIMES, WaitBudgetSeconds="0", TASKHUB_NAME="primes"))
        elif request.param == "scheduler":
            scheduler = stack.enter_context(SchedulerProcess())
            settings = {"DURABLE_TASK_SCHEDULER_CONNECTION_STRING": scheduler.connection_string}
            yield stack.enter_context(PrimesServer(None, WaitBudgetSeconds="0", **settings))
        else:
            yield stack.enter_context(PrimesServer(tmp_path, WaitBudgetSeconds="0"))


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    document: dict[str, Any] = result.structured_content
    return document


async def ended(client: Client, workflow_id: str) -> dict[str, Any]:
    async with asyncio.timeout(HANG_SECONDS):
        while (result := await call(client, "get_count", workflow_id=workflow_id))["status"] == "running":
            await asyncio.sleep(0.05)
    return result


async def test_the_second_work_has_the_miner_s_tools_under_its_own_names(
    host: PrimesServer | FunctionsProcess,
) -> None:
    async with host.client() as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"start_count", "get_count", "cancel_count", "list_counts", "whoami"}
        output = tools["get_count"].output_schema
        assert output is not None
        assert set(output["properties"]["count"]["properties"]) == {"below", "primes"}

        started = await call(client, "start_count", below=10_000_000)
        assert started["status"] == "running"
        assert "get_count" in started["next"]
        assert 0 <= started["progress"]["share_done"] <= 1
        result = await ended(client, started["workflow_id"])
        assert result["count"] == {"below": 10_000_000, "primes": COUNT}
        assert result["result"] == "There are **664,579** primes below 10,000,000."

        endless = await call(client, "start_count", below=10**11)
        twin = await call(client, "start_count", below=10**11)
        assert (twin["workflow_id"], twin["joined"]) == (endless["workflow_id"], True)
        cancelled = await call(client, "cancel_count", workflow_id=endless["workflow_id"])
        assert (cancelled["status"], cancelled["reason"]) == ("failed", "terminated")
        listed = (await call(client, "list_counts"))["counts"]
        assert [(one["below"], one["status"]) for one in listed] == [(10**11, "failed"), (10_000_000, "completed")]

        refused = await client.call_tool("start_count", {"below": "many"})
        assert refused.is_error
        assert refused.content[0].type == "text"
        assert refused.content[0].text == "below must be an integer from 1 to 1000000000000, not 'many'"


async def test_a_count_survives_a_kill(tmp_path: Path) -> None:
    with PrimesServer(tmp_path, WaitBudgetSeconds="0") as server:
        async with server.client() as client:
            started = await call(client, "start_count", below=200_000_000)
            async with asyncio.timeout(HANG_SECONDS):
                while (await call(client, "get_count", workflow_id=started["workflow_id"]))["progress"]["primes"] == 0:
                    await asyncio.sleep(0.05)
        server.kill()

    with PrimesServer(tmp_path, WaitBudgetSeconds="0") as server:
        async with server.client() as client:
            result = await ended(client, started["workflow_id"])
    assert result["count"] == {"below": 200_000_000, "primes": 11_078_937}
