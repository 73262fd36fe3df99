"""The self-hosted server, as real MCP clients meet it over HTTP."""

import asyncio
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from python_process import HANG_SECONDS
from server_process import ServerProcess

from pow import __version__

pytestmark = pytest.mark.anyio

ENDLESS = 40
REVISIONS = pytest.mark.parametrize(
    ("mode", "revision"), [("legacy", "2025-11-25"), ("auto", "2026-07-28")], ids=["2025-11-25", "2026-07-28"]
)
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


@REVISIONS
@pytest.mark.parametrize("path", ["/mcp", "/runtime/webhooks/mcp"])
async def test_both_revisions_mine_at_both_paths(
    server: ServerProcess, mode: str, revision: str, path: str, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    async with server.client(mode, path) as client:
        assert client.protocol_version == revision
        started = await call(client, "start_mining", difficulty=16)
        again = await call(client, "get_mining_result", workflow_id=started["workflow_id"])

    assert started["status"] == "completed"
    assert started["chain"] == genesis_chain[16]
    assert again == started


@REVISIONS
async def test_the_tools_describe_themselves(server: ServerProcess, mode: str, revision: str) -> None:
    async with server.client(mode) as client:
        assert client.protocol_version == revision
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("pow-mcp", __version__)
        assert "start_mining" in (client.instructions or "")
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert set(tools) == {
        *("start_mining", "get_mining_result", "cancel_mining"),
        *("list_minings", "estimate_mining", "verify_chain"),
        *("save_chain", "get_chain", "whoami"),
    }
    start, get = tools["start_mining"], tools["get_mining_result"]
    properties = start.input_schema["properties"]
    assert {name: schema["type"] for name, schema in properties.items()} == {
        "difficulty": "integer",
        "blocks": "integer",
        "genesis": "string",
        "fresh": "boolean",
    }
    assert (properties["difficulty"]["default"], properties["difficulty"]["maximum"]) == (21, 40)
    assert "required" not in start.input_schema
    assert get.input_schema["required"] == ["workflow_id"]
    for tool in (start, get):
        assert tool.description
        assert tool.output_schema is not None
        assert tool.output_schema["required"] == ["status", "workflow_id"]
        assert set(tool.output_schema["properties"]["status"]["enum"]) == {
            "completed",
            "running",
            "failed",
            "not_found",
        }
    assert get.annotations is not None
    assert get.annotations.read_only_hint


async def test_the_result_stands_in_the_text_too(server: ServerProcess) -> None:
    async with server.client() as client:
        result = await client.call_tool("start_mining", {"difficulty": 4})

    (content,) = result.content
    assert content.type == "text"
    assert json.loads(content.text) == result.structured_content


async def test_a_second_session_finds_what_the_first_one_started() -> None:
    with ServerProcess(WaitBudgetSeconds="0") as server:
        async with server.client("legacy") as first:
            started = await call(first, "start_mining", difficulty=ENDLESS)
        async with server.client("auto") as second:
            found = await call(second, "get_mining_result", workflow_id=started["workflow_id"])

    assert started["status"] == found["status"] == "running"
    assert found["workflow_id"] == started["workflow_id"]


BAD_CALLS: list[tuple[str, dict[str, Any], str]] = [
    ("start_mining", {"difficulty": 41}, "difficulty must be an integer from 1 to 40, not 41"),
    ("start_mining", {"difficulty": 0}, "difficulty must be an integer from 1 to 40, not 0"),
    ("start_mining", {"difficulty": "hard"}, "difficulty must be an integer from 1 to 40, not 'hard'"),
    ("start_mining", {"difficulty": 20.5}, "difficulty must be an integer from 1 to 40, not 20.5"),
    ("start_mining", {"blocks": 65}, "blocks must be an integer from 1 to 64, not 65"),
    ("start_mining", {"blocks": [1]}, "blocks must be an integer from 1 to 64, not [1]"),
    ("start_mining", {"genesis": "a\nb"}, "genesis must not contain control characters or line breaks"),
    ("start_mining", {"genesis": "x" * 65}, "genesis must be at most 64 bytes of UTF-8, not 65"),
    ("start_mining", {"genesis": 1}, "genesis must be text, not 1"),
    (
        "start_mining",
        {"dificulty": 8},
        "start_mining has no argument 'dificulty'; it takes difficulty, blocks, genesis, fresh",
    ),
    ("get_mining_result", {}, "get_mining_result needs the argument 'workflow_id'"),
    ("get_mining_result", {"workflow_id": "x", "id": 1}, "get_mining_result has no argument 'id'"),
    ("stop_mining", {}, "stop_mining"),
]


@REVISIONS
async def test_a_bad_call_gets_its_sentence_and_leaves_no_workflow_behind(
    mode: str, revision: str, tmp_path: Path
) -> None:
    with ServerProcess(state_dir=tmp_path) as server:
        async with server.client(mode) as client:
            assert client.protocol_version == revision
            for tool, arguments, sentence in BAD_CALLS:
                result = await client.call_tool(tool, arguments)
                (content,) = result.content
                assert result.is_error, (tool, arguments)
                assert content.type == "text"
                assert sentence in content.text
        assert server.health()["searches"] == 0
        server.kill()
    assert workflows_in(tmp_path) == 0


def workflows_in(state_dir: Path) -> int:
    with closing(sqlite3.connect(state_dir / "journal.sqlite3")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM workflow").fetchone()
    return int(count)


@pytest.mark.parametrize("workflow_id", ["abc", "6f820914-1bc1-4487-97fd-3f33b803aebc", 7, None, {"a": 1}], ids=str)
async def test_an_id_that_is_no_workflow_is_not_found(server: ServerProcess, workflow_id: object) -> None:
    async with server.client() as client:
        result = await call(client, "get_mining_result", workflow_id=workflow_id)

    assert result["status"] == "not_found"
    assert result["error"]


@REVISIONS
async def test_progress_is_sent_to_a_caller_that_asks(mode: str, revision: str) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    with ServerProcess(WaitBudgetSeconds="4") as server:
        async with server.client(mode) as client:
            assert client.protocol_version == revision
            await client.call_tool("start_mining", {"difficulty": ENDLESS}, progress_callback=hear)

    assert heard
    assert heard[-1][0] > 0
    # A search has no memory: there is no total to make progress towards.
    assert all(total is None for _, total, _ in heard)
    assert "0 of 4 blocks mined" in (heard[-1][2] or "")


async def test_a_hundred_clients_at_once_all_get_their_chains(genesis_chain: dict[int, dict[str, Any]]) -> None:
    async def mine(server: ServerProcess) -> dict[str, Any]:
        async with server.client() as client:
            return await call(client, "start_mining", difficulty=12, fresh=True)

    with ServerProcess() as server:
        results = await asyncio.gather(*(mine(server) for _ in range(100)))

    assert [result["status"] for result in results] == ["completed"] * 100
    assert all(result["chain"] == genesis_chain[12] for result in results)
    assert len({result["workflow_id"] for result in results}) == 100


async def test_quick_work_comes_back_inline_beside_endless_work(genesis_chain: dict[int, dict[str, Any]]) -> None:
    with ServerProcess(WaitBudgetSeconds="15") as server:
        async with server.client() as client:
            endless = asyncio.create_task(call(client, "start_mining", difficulty=ENDLESS))
            await server.until_mining()
            quick = await call(client, "start_mining", difficulty=16)
            assert not endless.done()
            assert (await endless)["status"] == "running"

    assert quick["status"] == "completed"
    assert quick["chain"] == genesis_chain[16]


async def test_a_caller_that_hangs_up_does_not_end_the_work(tmp_path: Path) -> None:
    with ServerProcess(state_dir=tmp_path, WaitBudgetSeconds="60") as server:
        async with server.client() as client:
            waiting = asyncio.create_task(call(client, "start_mining", difficulty=ENDLESS))
            await server.until_mining()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await server.until_mining()
        server.kill()
    assert workflows_in(tmp_path) == 1


def test_the_health_page_tells_backend_threads_and_engine(server: ServerProcess) -> None:
    health = server.health()

    assert health["status"] == "ok"
    assert health["version"] == __version__
    assert health["threads"] >= 1
    assert health["hashes_per_second"] > 0
    assert "embedded engine" in health["engine"]
    assert f"backend {health['backend']}" in server.start_line


def test_the_start_line_has_all_that_one_wants_to_know(tmp_path: Path) -> None:
    with ServerProcess(state_dir=tmp_path, MiningThreads="3") as server:
        assert re.search(
            rf"pow-mcp {re.escape(__version__)} serves MCP at http://127\.0\.0\.1:\d+/mcp · "
            rf"backend \w+, 3 thread\(s\), [\d.]+ million hashes/s · "
            rf"embedded engine, journal {re.escape(str(tmp_path))}",
            server.start_line,
        )


def ping(server: ServerProcess, **headers: str) -> urllib.request.Request:
    return urllib.request.Request(
        f"{server.url}/mcp",
        data=json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers},
    )


@pytest.mark.parametrize(
    ("header", "value", "status"), [("Host", "evil.example", 421), ("Origin", "http://evil.example", 403)]
)
def test_a_page_from_elsewhere_is_turned_away(server: ServerProcess, header: str, value: str, status: int) -> None:
    request = ping(server, **{header: value})

    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=HANG_SECONDS)

    assert raised.value.code == status
    raised.value.close()


def test_a_host_name_can_be_allowed() -> None:
    with (
        ServerProcess("--allow-host", "miner.example") as server,
        urllib.request.urlopen(ping(server, Host="miner.example:80"), timeout=HANG_SECONDS) as response,
    ):
        assert response.status == 200


def start_and_fail(*arguments: str, **settings: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "pow", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**os.environ, **settings},
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_a_port_in_use_is_said_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = start_and_fail("--ephemeral", "--port", str(port))

    assert code == 1
    assert f"port {port} on 127.0.0.1 is in use" in errors
    assert "--port" in errors


def test_an_address_of_another_machine_is_said() -> None:
    code, errors = start_and_fail("--ephemeral", "--host", "203.0.113.1")

    assert code == 1
    assert "can't listen on 203.0.113.1" in errors


def test_a_second_server_on_the_same_state_directory_is_refused(tmp_path: Path) -> None:
    with ServerProcess(state_dir=tmp_path):
        code, errors = start_and_fail("--state-dir", str(tmp_path))

    assert code == 1
    assert "another pow-mcp server uses the state directory" in errors
    assert "--state-dir" in errors


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"MiningDifficulty": "99"}, "setting MiningDifficulty must be an integer from 1 to 40"),
        ({"WaitBudgetSeconds": "soon"}, "setting WaitBudgetSeconds must be a number of seconds"),
        ({"POW_BACKEND": "cuda"}, "POW_BACKEND 'cuda' is not known; valid here: auto,"),
        ({"DURABLE_TASK_SCHEDULER_CONNECTION_STRING": "localhost"}, "has the unknown part 'localhost'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_stops_the_start(settings: dict[str, str], sentence: str) -> None:
    code, errors = start_and_fail("--ephemeral", **settings)

    assert code == 2
    assert sentence in errors


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
async def test_a_server_told_to_end_hands_out_handles_and_goes_on_when_it_is_back(
    number: signal.Signals, tmp_path: Path, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with ServerProcess(state_dir=tmp_path, WaitBudgetSeconds="60") as server:
        async with server.client() as client:
            # The client checks a result against the tool's schema, which it would ask a dying server for.
            await client.list_tools()
            waiting = asyncio.create_task(call(client, "start_mining", difficulty=24))
            await server.until_mining()
            code = await asyncio.to_thread(server.signal, number)
            started = await waiting
    assert code == 0
    assert started["status"] == "running"

    with ServerProcess(state_dir=tmp_path) as server:
        async with server.client() as client, asyncio.timeout(HANG_SECONDS):
            result = started
            while result["status"] == "running":
                await asyncio.sleep(0.1)
                result = await call(client, "get_mining_result", workflow_id=started["workflow_id"])
    assert result["chain"] == genesis_chain[24]


@posix
def test_an_idle_server_ends_quietly() -> None:
    with ServerProcess() as server:
        server._process.send_signal(signal.SIGTERM)
        output, errors = server.finish()

    assert server._process.returncode == 0
    assert (output, errors) == ("", "")


@posix
def test_clients_that_never_hang_up_do_not_keep_a_server_from_ending() -> None:
    with ServerProcess() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as idle, socket.create_connection((host, int(port))) as half:
            half.sendall(f"POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{".encode())
            server.health()  # answered after it: the request above has arrived
            server._process.send_signal(signal.SIGTERM)
            output, errors = server.finish()
            assert idle.recv(1) == b""

    assert server._process.returncode == 0
    assert (output, errors) == ("", "")
