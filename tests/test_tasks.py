"""Tasks: long calls as a caller meets them that knows the extension, and as everybody else does."""

import asyncio
import os
import re
import signal
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from python_process import HANG_SECONDS
from raw_caller import Answer, RawCaller
from server_process import ServerProcess

from pow.longwork.call import NOBODY, CallContext
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.service import LongWorkService
from pow.longwork.tasks import WorkTasks
from pow.mcp.calls import add_call, call_of
from pow.mcp.tasks import RETENTION_SECONDS, TASKS, TasksExtension
from pow.mining.chain import Chain, verify_chain
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork
from pow.scanning.backends import native_missing
from pow.tools.mining import NAMES
from pow.web.app import MCP_PATH, mcp_app

pytestmark = pytest.mark.anyio

ENDLESS = 40
# The fields that a task has beside its result.
TASK_FIELDS = {"taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs", "statusMessage", "pollIntervalMs"}
SUBSCRIPTION = {"io.modelcontextprotocol/subscriptionId": 1}


def caller_of(server: ServerProcess, **given: Any) -> RawCaller:
    return RawCaller(f"{server.url}/mcp", **given)


def poll(caller: RawCaller, task_id: str, until: Callable[[Answer], bool]) -> Answer:
    """Ask again and again, more eagerly than a caller should."""
    deadline = time.monotonic() + HANG_SECONDS
    while not until(task := caller.get(task_id)):
        assert time.monotonic() < deadline, task
        time.sleep(0.02)
    return task


def ended(task: Answer) -> bool:
    return task["status"] in ("completed", "cancelled", "failed")


def until_idle(server: ServerProcess) -> int:
    """Wait until nothing is searched; how many hashes were tried by then."""
    deadline = time.monotonic() + HANG_SECONDS
    while (health := server.health())["searches"]:
        assert time.monotonic() < deadline, health
        time.sleep(0.01)
    return int(health["hashes"])


def test_the_server_offers_the_extension(server: ServerProcess) -> None:
    capabilities = caller_of(server).result("server/discover")["capabilities"]

    assert capabilities["extensions"][TASKS] == {}
    assert "tasks" not in capabilities


def test_quick_work_is_no_task(server: ServerProcess, genesis_chain: dict[int, dict[str, Any]]) -> None:
    result = caller_of(server).call("start_mining", difficulty=4)

    assert result["resultType"] == "complete"
    assert result["structuredContent"]["chain"] == genesis_chain[4]


def test_a_task_ends_with_what_the_tool_would_have_returned(genesis_chain: dict[int, dict[str, Any]]) -> None:
    with ServerProcess(WaitBudgetSeconds="0") as server:
        caller = caller_of(server)
        created = caller.call("start_mining", difficulty=21)
        assert created["resultType"] == "task"
        task = poll(caller, created["taskId"], ended)
        result = caller.call("get_mining_result", workflow_id=created["taskId"])
        tools = {tool["name"]: tool for tool in caller.result("tools/list")["tools"]}

    assert task["resultType"] == "complete"
    assert task["status"] == "completed"
    assert task["result"]["structuredContent"]["chain"] == genesis_chain[21]
    for part in ("content", "structuredContent", "isError"):
        assert task["result"][part] == result[part]
    jsonschema.validate(task["result"]["structuredContent"], tools["start_mining"]["outputSchema"])
    lived = datetime.fromisoformat(task["lastUpdatedAt"]) - datetime.fromisoformat(task["createdAt"])
    # Milliseconds are rounded three times over.
    assert task["ttlMs"] == pytest.approx((lived.total_seconds() + RETENTION_SECONDS) * 1000, abs=2)


@pytest.fixture(scope="module")
def endless(server: ServerProcess) -> Answer:
    """A task that goes on as long as the server does."""
    created = caller_of(server).call("start_mining", difficulty=ENDLESS, genesis="endless")
    assert created["resultType"] == "task"
    return created


def test_a_task_is_an_unguessable_id_and_when_to_ask(endless: Answer) -> None:
    assert str(uuid.UUID(endless["taskId"])) == endless["taskId"]
    assert endless["status"] == "working"
    assert endless["ttlMs"] is None
    assert endless["pollIntervalMs"] == 30_000
    assert set(endless) == {*TASK_FIELDS, "resultType", "_meta"}
    for moment in ("createdAt", "lastUpdatedAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", endless[moment])


def test_a_task_at_work_tells_how_far_it_is(server: ServerProcess, endless: Answer) -> None:
    task = poll(caller_of(server), endless["taskId"], lambda task: " 0 hashes" not in task["statusMessage"])

    assert task["status"] == "working"
    assert "0 of 4 blocks mined, " in task["statusMessage"]
    assert set(task) == {*TASK_FIELDS, "resultType", "_meta"}


def test_an_update_that_nobody_waits_for_is_acknowledged_and_changes_nothing(
    server: ServerProcess, endless: Answer
) -> None:
    caller = caller_of(server)

    acknowledged = caller.result("tasks/update", taskId=endless["taskId"], inputResponses={"name": {"action": "x"}})

    assert set(acknowledged) == {"resultType", "_meta"}
    assert acknowledged["resultType"] == "complete"
    assert caller.get(endless["taskId"])["status"] == "working"


def test_a_cancelled_task_stops_hashing_and_can_be_cancelled_again() -> None:
    with ServerProcess() as server:
        caller = caller_of(server)
        task_id = caller.call("start_mining", difficulty=ENDLESS)["taskId"]
        acknowledgements = [caller.result("tasks/cancel", taskId=task_id) for _ in range(2)]
        task = poll(caller, task_id, ended)
        hashes = until_idle(server)
        workflow = caller.call("get_mining_result", workflow_id=task_id)["structuredContent"]
        assert server.health()["hashes"] == hashes

    for acknowledged in acknowledgements:
        assert set(acknowledged) == {"resultType", "_meta"}
        assert acknowledged["resultType"] == "complete"
    assert task["status"] == "cancelled"
    assert task["ttlMs"] > RETENTION_SECONDS * 1000
    assert not {"result", "error"} & set(task)
    assert (workflow["status"], workflow["reason"]) == ("failed", "terminated")


def test_who_listens_hears_of_progress_and_of_the_end() -> None:
    with ServerProcess() as server:
        caller = caller_of(server)
        task_id = caller.call("start_mining", difficulty=ENDLESS)["taskId"]
        stream = caller.listen(taskIds=[task_id, "nobody's"])
        heard = [next(stream)]
        while " 0 hashes" in heard[-1]["params"].get("statusMessage", " 0 hashes"):
            heard.append(next(stream))
        caller.result("tasks/cancel", taskId=task_id)
        heard += stream
        task = caller.get(task_id)

    acknowledged, *news, end = heard
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"] == {"notifications": {"taskIds": [task_id]}, "_meta": SUBSCRIPTION}
    assert {message["method"] for message in news} == {"notifications/tasks"}
    assert [message["params"]["status"] for message in news] == ["working"] * (len(news) - 1) + ["cancelled"]
    assert all(message["params"]["_meta"] == SUBSCRIPTION for message in news)
    told, asked = news[-1]["params"], {key: value for key, value in task.items() if key != "resultType"}
    assert {**told, "_meta": None} == {**asked, "_meta": None}
    assert end["result"] == {"resultType": "complete", "_meta": SUBSCRIPTION}


def test_a_stream_about_unknown_tasks_only_says_so_and_ends(server: ServerProcess) -> None:
    acknowledged, end = caller_of(server).listen(taskIds=[str(uuid.uuid4())])

    assert acknowledged["params"]["notifications"] == {"taskIds": []}
    assert "result" in end


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_server_told_to_end_ends_its_streams_too() -> None:
    with ServerProcess() as server:
        task_id = caller_of(server).call("start_mining", difficulty=ENDLESS)["taskId"]
        stream = caller_of(server).listen(taskIds=[task_id])
        heard = [next(stream), next(stream)]
        server._process.send_signal(signal.SIGTERM)
        heard += stream
        server.finish()

    assert heard[-1]["result"]["resultType"] == "complete"
    assert server._process.returncode == 0


def test_listening_to_anything_else_is_the_sdk_s(server: ServerProcess) -> None:
    stream = caller_of(server, declares_tasks=False).listen(toolsListChanged=True)

    assert next(stream)["params"]["notifications"] == {"toolsListChanged": True}
    stream.close()  # type: ignore[attr-defined]


UNKNOWN = "6f820914-1bc1-4487-97fd-3f33b803aebc"
REQUIRED: Answer = {"requiredCapabilities": {"extensions": {TASKS: {}}}}


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_a_caller_that_has_not_declared_the_extension_is_told_to(
    server: ServerProcess, endless: Answer, method: str
) -> None:
    caller = caller_of(server, declares_tasks=False)

    status, answer = caller.request(method, taskId=endless["taskId"], inputResponses={})

    assert (status, answer["error"]["code"], answer["error"]["data"]) == (400, -32021, REQUIRED)


def test_who_listens_to_tasks_has_to_declare_the_extension(server: ServerProcess, endless: Answer) -> None:
    caller = caller_of(server, declares_tasks=False)

    status, answer = caller.request("subscriptions/listen", notifications={"taskIds": [endless["taskId"]]})

    assert (status, answer["error"]["code"], answer["error"]["data"]) == (400, -32021, REQUIRED)


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
@pytest.mark.parametrize("task_id", [UNKNOWN, "no id at all"])
def test_an_unknown_task_is_an_error(server: ServerProcess, method: str, task_id: str) -> None:
    status, answer = caller_of(server).request(method, taskId=task_id, inputResponses={})

    assert (status, answer["error"]["code"]) == (400, -32602)


def test_a_task_has_one_id(server: ServerProcess, endless: Answer) -> None:
    spelled_otherwise = endless["taskId"].upper()
    status, answer = caller_of(server).request("tasks/get", taskId=spelled_otherwise)
    acknowledged = next(caller_of(server).listen(taskIds=[spelled_otherwise]))

    assert (status, answer["error"]["code"]) == (400, -32602)
    assert acknowledged["params"]["notifications"] == {"taskIds": []}


@pytest.mark.parametrize("method", ["tasks/get", "tasks/update", "tasks/cancel"])
def test_a_header_that_names_another_task_is_an_error(server: ServerProcess, endless: Answer, method: str) -> None:
    caller = caller_of(server, headers={"Mcp-Name": UNKNOWN})

    status, answer = caller.request(method, taskId=endless["taskId"], inputResponses={})

    assert (status, answer["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize(
    ("given", "method", "params", "error"),
    [
        ({"headers": {"Mcp-Method": "tasks/cancel"}}, "tasks/get", {"taskId": UNKNOWN}, (400, -32020)),
        ({"headers": {"Mcp-Name": ""}}, "tasks/get", {"taskId": UNKNOWN}, (400, -32020)),
        ({"revision": "2027-01-01"}, "tasks/get", {"taskId": UNKNOWN}, (400, -32022)),
        ({}, "tasks/get", {}, (400, -32602)),
        ({}, "tasks/update", {"taskId": UNKNOWN}, (400, -32602)),
        ({}, "tasks/result", {"taskId": UNKNOWN}, (404, -32601)),
        ({}, "tasks/list", {}, (404, -32601)),
        ({}, "subscriptions/listen", {"notifications": {"taskIds": "all"}}, (400, -32602)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_request_that_is_none_is_an_error(
    server: ServerProcess, given: dict[str, Any], method: str, params: dict[str, Any], error: tuple[int, int]
) -> None:
    status, answer = caller_of(server, **given).request(method, **params)

    assert (status, answer["error"]["code"]) == error


def test_everybody_else_gets_the_handle_which_is_the_task_s_id() -> None:
    with ServerProcess(WaitBudgetSeconds="0.1") as server:
        result = caller_of(server, declares_tasks=False).call("start_mining", difficulty=ENDLESS)
        handle = result["structuredContent"]
        task = caller_of(server).get(handle["workflow_id"])

    assert result["resultType"] == "complete"
    assert handle["status"] == "running"
    assert task["status"] == "working"


async def test_revision_2025_11_25_has_no_tasks() -> None:
    with ServerProcess(WaitBudgetSeconds="0.1") as server:
        async with server.client("legacy") as client:
            result = await client.call_tool("start_mining", {"difficulty": ENDLESS})

    assert result.structured_content["status"] == "running"


@pytest.mark.skipif(native_missing(), reason="hashlib would take minutes")
def test_a_task_outlives_the_server(tmp_path: Path) -> None:
    # At first one slow thread, so that the kill hits work; its 88 million hashes take the rest some seconds.
    arguments = {"difficulty": 28, "blocks": 1, "genesis": "crash 18"}
    with ServerProcess(state_dir=tmp_path, POW_BACKEND="portable", MiningThreads="1") as server:
        caller = caller_of(server)
        created = caller.call("start_mining", **arguments)
        poll(caller, created["taskId"], lambda task: " 0 hashes" not in task["statusMessage"])
        server.kill()

    with ServerProcess(state_dir=tmp_path) as server:
        task = poll(caller_of(server), created["taskId"], ended)

    assert task["createdAt"] == created["createdAt"]
    assert task["status"] == "completed"
    chain = Chain.from_dict(task["result"]["structuredContent"]["chain"])
    assert verify_chain(chain)
    assert [block.nonce for block in chain.blocks] == [87_935_060]


def service_on(pool: MinerPool, engine: EmbeddedEngine, wait_budget_seconds: float = 20.0) -> LongWorkService:
    return LongWorkService(MiningWork(pool), engine, NAMES, wait_budget_seconds)


@asynccontextmanager
async def served(service: LongWorkService, **options: Any) -> AsyncIterator[RawCaller]:
    """A server in this process with a tool that mines and the extension, and a caller of it."""
    extension = TasksExtension(WorkTasks(service), tools=["start_mining"], **options)
    server: MCPServer[Any] = MCPServer("test", log_level="WARNING", extensions=[extension], middleware=[add_call])

    async def start_mining(difficulty: int, context: Context[Any, Any]) -> dict[str, Any]:
        """Mine."""
        return dict(await service.start(call_of(context.request_context), {"difficulty": difficulty}))

    server.add_tool(start_mining)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = mcp_app(server, MCP_PATH, (), json_response=False)
        host = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
        serving = asyncio.create_task(host.serve([listener]))
        try:
            yield RawCaller(f"http://127.0.0.1:{listener.getsockname()[1]}{MCP_PATH}")
        finally:
            host.should_exit = True
            await serving


async def test_a_task_expires_some_time_after_its_end_not_after_its_start(
    pool: MinerPool, engine: EmbeddedEngine
) -> None:
    now = time.time()
    async with served(service_on(pool, engine), inline_seconds=0, clock=lambda: now) as caller:
        running, quick = [
            (await asyncio.to_thread(caller.call, "start_mining", difficulty=difficulty))["taskId"]
            for difficulty in (ENDLESS, 18)
        ]
        state = await engine.wait(NOBODY, quick, HANG_SECONDS)
        assert state is not None
        assert state.updated_at is not None
        now = state.updated_at + RETENTION_SECONDS
        kept = await asyncio.to_thread(caller.get, quick)
        now += 1
        refusals = [
            await asyncio.to_thread(caller.request, method, taskId=quick, inputResponses={})
            for method in ("tasks/get", "tasks/update", "tasks/cancel")
        ]
        working = await asyncio.to_thread(caller.get, running)

    assert kept["status"] == "completed"
    assert [(status, answer["error"]["code"]) for status, answer in refusals] == [(400, -32602)] * 3
    assert working["status"] == "working"


async def test_nobody_sees_another_caller_s_task(pool: MinerPool, engine: EmbeddedEngine) -> None:
    anne, bert = CallContext(caller="anne"), CallContext(caller="bert")
    service = service_on(pool, engine, wait_budget_seconds=0)
    tasks = WorkTasks(service)
    task_id = (await service.start(anne, {"difficulty": ENDLESS}))["workflow_id"]

    assert await tasks.get(bert, task_id) is None
    assert await tasks.get(NOBODY, task_id) is None
    found = await tasks.get(anne, task_id)
    assert found is not None
    assert found.status == "working"


async def test_a_workflow_that_failed_is_a_completed_task_as_the_tool_s_own_answer_would_be(
    pool: MinerPool, engine: EmbeddedEngine
) -> None:
    service = service_on(pool, engine)
    # No tool lets such a job through: this is what an engine does with one all the same.
    workflow_id, _ = await engine.start(NOBODY, MiningJob(difficulty=300, blocks=1, genesis="GENESIS"), "no twin")
    await engine.wait(NOBODY, workflow_id, HANG_SECONDS)

    async with served(service) as caller:
        task = await asyncio.to_thread(caller.get, workflow_id)

    result = await service.get(NOBODY, workflow_id)
    assert result["status"] == "failed"
    assert task["status"] == "completed"
    assert task["result"]["structuredContent"] == result
    assert task["statusMessage"] == result["error"]


async def test_an_engine_out_of_reach_is_said_in_so_many_words(pool: MinerPool) -> None:
    async with served(service_on(pool, EmbeddedEngine(MiningWork(pool)))) as caller:
        answers = [
            await asyncio.to_thread(caller.request, method, taskId=UNKNOWN, inputResponses={})
            for method in ("tasks/get", "tasks/update", "tasks/cancel")
        ]

    for _, answer in answers:
        assert answer["error"]["code"] == -32603
        assert answer["error"]["message"] == "the workflow engine is not running"


async def test_the_inline_wait_is_the_shorter_of_both_budgets(
    pool: MinerPool, engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def wait(call: CallContext, workflow_id: str, seconds: float) -> None:
        waited.append(round(seconds, 1))

    monkeypatch.setattr(engine, "wait", wait)
    for budget in (20.0, 0.5):
        async with served(service_on(pool, engine, budget), inline_seconds=1.0) as caller:
            await asyncio.to_thread(caller.call, "start_mining", difficulty=1)
    async with served(service_on(pool, engine, 20.0), inline_seconds=1.0) as caller:
        await asyncio.to_thread(replace(caller, declares_tasks=False).call, "start_mining", difficulty=1)

    assert waited == [1.0, 0.5, 20.0]
