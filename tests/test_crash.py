"""What a crash costs: `kill -9` at random moments, with workflows that are just starting, ending or being cancelled.

POW_TEST_KILLS=300 makes many more kills of it.
"""

import asyncio
import json
import os
import random
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from python_process import HANG_SECONDS
from server_process import ServerProcess

from pow.longwork.engines.journal import FILE_NAME
from pow.mining.chain import Chain, verify_chain
from pow.scanning.backends import native_missing, scan

pytestmark = pytest.mark.anyio

KILLS = int(os.environ.get("POW_TEST_KILLS", "8"))
# The smallest nonces at difficulty 26 from GENESIS, as an uninterrupted `pow-mcp mine` finds them.
NONCES = [35154319, 88754997, 54440298, 5915708]
LONG = {"difficulty": 26}
ENDLESS = {"difficulty": 40, "blocks": 1}
# One thread of the slowest native kernel works at the longest of these until the last of the kills.
ONE_SLOW_THREAD = {"POW_BACKEND": "portable", "MiningThreads": "1", "WaitBudgetSeconds": "0"}
LONGEST_LIFE_SECONDS = 2.0


@dataclass
class Accepted:
    """What callers have been told so far: workflows by their ids, with what they asked for."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    hashes: dict[str, float] = field(default_factory=dict)

    async def start(self, client: Client, **arguments: Any) -> None:
        started = await call(client, "start_mining", {**arguments, "fresh": True})
        self.jobs[started["workflow_id"]] = arguments

    async def cancel_one(self, client: Client) -> None:
        """Cancel a workflow that would go on for ever."""
        for workflow_id, arguments in self.jobs.items():
            if arguments["difficulty"] == ENDLESS["difficulty"] and workflow_id not in self.cancelled:
                ended = await call(client, "cancel_mining", {"workflow_id": workflow_id})
                assert ended["reason"] == "terminated"
                self.cancelled.add(workflow_id)
                return

    async def look(self, client: Client) -> None:
        """Remember the progress that callers see, less what a second and a bit of it came to."""
        for workflow_id in self.jobs:
            result = await call(client, "get_mining_result", {"workflow_id": workflow_id})
            if result["status"] == "running":
                progress = result["progress"]
                self.hashes[workflow_id] = progress["hashes_tried"] - 1.2 * progress.get("hashes_per_second", 0)


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


def journal(state_dir: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """What the journal of a killed server has: status and state of each workflow."""
    with closing(sqlite3.connect(state_dir / FILE_NAME)) as connection:
        rows = connection.execute("SELECT id, status, state FROM workflow").fetchall()
    return {workflow_id: (status, json.loads(state)) for workflow_id, status, state in rows}


async def live(accepted: Accepted, server: ServerProcess, chance: random.Random, seconds: float) -> None:
    """Start, watch and cancel until the server is killed, maybe in the middle of a call."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), server.client() as client:
            while True:
                size = {"difficulty": 4, "blocks": 60} if chance.random() < 0.7 else {"difficulty": 16, "blocks": 4}
                await accepted.start(client, **size, genesis=f"crash {chance.randrange(10**6)}")
                await accepted.look(client)
                if chance.random() < 0.5:
                    await accepted.start(client, **ENDLESS, genesis=f"endless {chance.randrange(10**6)}")
                else:
                    await accepted.cancel_one(client)
                await asyncio.sleep(0.1)


@pytest.mark.skipif(native_missing(), reason="hashlib would take minutes")
@pytest.mark.timeout(3600)
async def test_kills_at_any_moment_lose_nothing_that_anybody_was_told(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    state_dir, temporary = tmp_path / "state", tmp_path / "temporary"
    temporary.mkdir()
    settings = {**ONE_SLOW_THREAD, "TMPDIR": str(temporary)}
    accepted = Accepted()

    for number in range(KILLS):
        with ServerProcess(state_dir=state_dir, **settings) as server:
            if number == 0:
                async with server.client() as client:
                    await accepted.start(client, **LONG)
            with suppress(Exception):  # calls that the kill cuts off
                await live(accepted, server, chance, chance.random() * LONGEST_LIFE_SECONDS)
            server.kill()
        kept = journal(state_dir)
        assert set(accepted.jobs) <= set(kept), "a workflow that was accepted is gone"
        assert {kept[workflow_id][0] for workflow_id in accepted.cancelled} <= {"terminated"}
        for workflow_id, hashes in accepted.hashes.items():
            assert kept[workflow_id][1]["hashes"] >= hashes, "more than a second of the progress that was seen is gone"

    with ServerProcess(state_dir=state_dir, WaitBudgetSeconds="0", TMPDIR=str(temporary)) as server:
        async with server.client() as client:
            for workflow_id, arguments in accepted.jobs.items():
                if workflow_id in accepted.cancelled:
                    result = await call(client, "get_mining_result", {"workflow_id": workflow_id})
                    assert (result["status"], result["reason"]) == ("failed", "terminated")
                elif arguments["difficulty"] != ENDLESS["difficulty"]:
                    chain = await chain_of(client, workflow_id)
                    assert_is_what_was_asked_for(chain, arguments)
        server.kill()
    assert list(temporary.iterdir()) == []


def assert_is_what_was_asked_for(chain: dict[str, Any], arguments: dict[str, Any]) -> None:
    if arguments == LONG:
        assert [block["nonce"] for block in chain["blocks"]] == NONCES
        assert verify_chain(Chain.from_dict(chain))
        return
    assert (chain["genesis"], len(chain["blocks"])) == (arguments["genesis"], arguments["blocks"])
    assert verify_chain(Chain.from_dict(chain), search=scan)


async def chain_of(client: Client, workflow_id: str) -> dict[str, Any]:
    """Poll as an agent does, only more eagerly, until the workflow is completed."""
    async with asyncio.timeout(4 * HANG_SECONDS):
        while True:
            result = await call(client, "get_mining_result", {"workflow_id": workflow_id})
            if result["status"] != "running":
                assert result["status"] == "completed", result
                chain: dict[str, Any] = result["chain"]
                return chain
            await asyncio.sleep(0.1)


async def test_a_kill_before_anything_was_done_loses_nothing_that_was_accepted(
    tmp_path: Path, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with ServerProcess(state_dir=tmp_path, WaitBudgetSeconds="0") as server:
        async with server.client() as client:
            started = [await call(client, "start_mining", {"difficulty": 18, "fresh": True}) for _ in range(5)]
        server.kill()

    with ServerProcess(state_dir=tmp_path) as server:
        async with server.client() as client:
            for result in started:
                assert await chain_of(client, result["workflow_id"]) == genesis_chain[18]
