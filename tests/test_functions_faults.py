"""What real Functions hosts do to an app at work, and that none of it costs work: time-outs, deaths, long lists."""

import asyncio
import json
import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from functions_process import MCP_PATH, FunctionsProcess
from python_process import HANG_SECONDS

from pow.longwork.orchestration import first_input
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork
from pow.scanning.backends import native_missing

pytestmark = pytest.mark.anyio

GATEWAY = "/api/mcp"
TASK_FAILED = 6  # DTFx's number of the event
TIME_OUT = "AzureFunctionsJobHost__functionTimeout"
SSE = {"Accept": "text/event-stream"}
# One thread of the slowest native kernel takes some seconds for this block.
LONG: dict[str, Any] = {"difficulty": 26, "blocks": 1}
LONG_NONCE = 35154319
SLOW: dict[str, Any] = {"MiningThreads": "1", "POW_BACKEND": "portable"}
needs_native = pytest.mark.skipif(native_missing(), reason="hashlib would take minutes")
# Its pool starts no thread until somebody mines.
WORK = MiningWork(MinerPool(1))


async def call(
    host: FunctionsProcess, tool: str, path: str = MCP_PATH, *, owner: str | None = None, **arguments: Any
) -> dict[str, Any]:
    headers = {} if owner is None else {"X-MS-CLIENT-PRINCIPAL-ID": owner}
    async with host.client("legacy", path, headers=headers) as client:
        result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


async def end_of(host: FunctionsProcess, workflow_id: str) -> dict[str, Any]:
    """The result of a workflow at its end."""
    async with asyncio.timeout(HANG_SECONDS):
        while (result := await call(host, "get_mining_result", workflow_id=workflow_id))["status"] == "running":
            await asyncio.sleep(0.2)
    return result


def running_slices(host: FunctionsProcess, workflow_id: str) -> int:
    return [activity["outcome"] for activity in host.instance(workflow_id)["activities"]].count("running")


async def until_mining(host: FunctionsProcess, workflow_id: str) -> None:
    """Wait until a slice of the workflow has been under way for a moment."""
    async with asyncio.timeout(HANG_SECONDS):
        while not running_slices(host, workflow_id):
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)


# --- no invocation comes near the host's time-out


async def test_clients_that_ask_for_streams_cost_no_work() -> None:
    """The official TypeScript client asks by GET after each handshake."""
    settings: dict[str, Any] = {TIME_OUT: "00:00:08", "WaitBudgetSeconds": "60"}
    with FunctionsProcess(None, **settings) as host:
        began = time.monotonic()
        started = await call(host, "start_mining", GATEWAY, difficulty=40)
        asked: list[tuple[int, str | None]] = []
        while time.monotonic() < began + 10:
            for method in ("GET", "DELETE"):
                status, headers, _ = await asyncio.to_thread(host.request, method, GATEWAY, None, SSE)
                asked.append((status, headers.get("allow")))
            await asyncio.sleep(0.3)
        slices = host.instance(started["workflow_id"])["activities"]
        starts = host.admin("GET", "/test/state")["worker_starts"]

    assert set(asked) == {(405, "POST")}
    # The budget is cut to what the host grants.
    assert started["status"] == "running"
    assert {activity["outcome"] for activity in slices[:-1]} == {"recorded"}
    assert starts == 1


async def test_a_domain_of_one_s_own_reaches_the_gateway_and_no_other_does() -> None:
    hello = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    with FunctionsProcess(None, AllowedHosts="pow.example.com, other.example.com") as host:
        answers = {
            name: host.request("POST", GATEWAY, json.dumps(hello).encode(), {**accept, "Host": name})[0]
            for name in ("pow.example.com", "other.example.com", "evil.example")
        }
    assert answers == {"pow.example.com": 200, "other.example.com": 200, "evil.example": 421}


# --- deaths


@needs_native
async def test_a_worker_that_is_killed_again_and_again_costs_its_slices_only() -> None:
    with FunctionsProcess(None, WaitBudgetSeconds="0", **SLOW) as host:
        workflow_id = (await call(host, "start_mining", **LONG))["workflow_id"]
        for _ in range(4):
            await until_mining(host, workflow_id)
            await asyncio.sleep(random.uniform(0.0, 0.3))
            os.kill(host.worker_pid, signal.SIGKILL)
            async with asyncio.timeout(15.0):
                while running_slices(host, workflow_id):
                    await asyncio.sleep(0.01)
        result = await end_of(host, workflow_id)
        failed = [event for event in host.instance(workflow_id)["history"] if event["EventType"] == TASK_FAILED]

    assert result["chain"]["blocks"][0]["nonce"] == LONG_NONCE
    assert len(failed) == 4
    assert "exited with code 137" in failed[0]["Reason"]


@needs_native
async def test_a_host_that_is_killed_goes_on_after_a_slice_s_length_and_a_margin(tmp_path: Path) -> None:
    """Its queue hides the slice for five minutes."""
    # A slice is 0.8 s then.
    settings: dict[str, Any] = {TIME_OUT: "00:00:02", "WaitBudgetSeconds": "0", **SLOW}
    with FunctionsProcess(None, state=tmp_path, **settings) as host:
        workflow_id = (await call(host, "start_mining", **LONG))["workflow_id"]
        await until_mining(host, workflow_id)
        host.kill()
    killed = time.monotonic()
    with FunctionsProcess(None, state=tmp_path, **settings) as host:
        await until_mining(host, workflow_id)
        standstill = time.monotonic() - killed
        result = await end_of(host, workflow_id)

    assert result["chain"]["blocks"][0]["nonce"] == LONG_NONCE
    assert standstill < 15.0


# --- long lists

OWNERS = [f"owner-{number}" for number in range(30)]
OWN_JOB = MiningJob(difficulty=8, blocks=1, genesis="GENESIS")


@pytest.fixture(scope="module")
def crowded() -> Iterator[tuple[FunctionsProcess, dict[str, list[str]]]]:
    """A host with 450 workflows of 30 owners, and some of another app; the owners' ids, the newest first."""
    random.seed(13)
    now = time.time()
    planted: list[dict[str, Any]] = []
    ids: dict[str, list[str]] = {owner: [] for owner in OWNERS}
    for number in range(450):
        # In the order of their starts, the newest first; what the host says of it has moved on.
        owner, workflow_id = OWNERS[number % 30], str(uuid.uuid4())
        ids[owner].append(workflow_id)
        given = first_input(WORK, OWN_JOB, slice_seconds=10.0, owner=owner, created_at=now - 60.0 * number)
        report = WORK.report(WORK.restore(given["state"]))
        # As this version shows it, as the one before, and before the first turn.
        shown = [{"workflow": {"owner": owner, "created_at": given.get("created_at")}, "report": report}, report, None]
        moved = now - 60.0 * number + random.uniform(0.0, 60.0 * number)
        planted.append(
            {
                "name": "mine_chain",
                "id": workflow_id,
                "input": json.dumps(given),
                "customStatus": shown[number % 3],
                "runtimeStatus": "Running" if number % 2 else "Terminated",
                "createdTime": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(moved)),
            }
        )
    foreign = [
        {"name": "elsewhere", "input": given, "customStatus": shown}
        for given, shown in (([1, 2], "half"), ("text", {"report": 1}), (None, [3]), ({"state": 1}, None))
    ]
    random.shuffle(planted)
    with FunctionsProcess(None, WEBSITE_AUTH_ENABLED="true", WaitBudgetSeconds="0") as host:
        host.admin("POST", "/test/plant", [*planted, *foreign])
        yield host, ids


async def test_a_list_has_the_callers_newest_whatever_the_pages(
    crowded: tuple[FunctionsProcess, dict[str, list[str]]],
) -> None:
    host, ids = crowded
    for owner in (OWNERS[0], OWNERS[7], OWNERS[29]):
        for limit in (1, 5, 100):
            listed = await call(host, "list_minings", owner=owner, limit=limit)
            assert [entry["workflow_id"] for entry in listed["minings"]] == ids[owner][:limit]


async def test_an_id_with_a_slip_is_recognised_among_many(
    crowded: tuple[FunctionsProcess, dict[str, list[str]]],
) -> None:
    host, ids = crowded
    right = ids[OWNERS[3]][-1]
    slip = right[:-1] + ("0" if right[-1] != "0" else "1")
    result = await call(host, "get_mining_result", owner=OWNERS[3], workflow_id=slip)
    assert (result["status"], result["closest"]) == ("not_found", right)


async def test_a_running_twin_is_found_among_many(crowded: tuple[FunctionsProcess, dict[str, list[str]]]) -> None:
    host, _ = crowded
    first = await call(host, "start_mining", owner=OWNERS[5], difficulty=40)
    again = await call(host, "start_mining", owner=OWNERS[5], difficulty=40)
    other = await call(host, "start_mining", owner=OWNERS[6], difficulty=40)
    assert (again["workflow_id"], again["joined"]) == (first["workflow_id"], True)
    assert other["workflow_id"] != first["workflow_id"]
    for owner, started in ((OWNERS[5], first), (OWNERS[6], other)):
        await call(host, "cancel_mining", owner=owner, workflow_id=started["workflow_id"])


# --- what the extension shows


async def test_the_page_keeps_its_policy_and_its_border() -> None:
    with FunctionsProcess(None) as host:
        async with host.client("legacy") as client:
            (page,) = (await client.list_resources()).resources
            (content,) = (await client.read_resource(str(page.uri))).contents
    assert content.meta is not None
    assert content.meta["ui"]["prefersBorder"] is True
    assert content.meta["ui"]["csp"]["connectDomains"] == []
