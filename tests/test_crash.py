"""What a crash costs: `kill -9` at random moments, and the journal's account of what was mined."""

import asyncio
import itertools
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from python_process import HANG_SECONDS
from server_process import ServerProcess

from pow.longwork.engines.journal import FILE_NAME
from pow.mining.chain import Chain, verify_chain
from pow.scanning.backends import native_missing

pytestmark = pytest.mark.anyio

DIFFICULTY = 26
# The smallest nonces at that difficulty from GENESIS, as an uninterrupted `pow-mcp mine` finds them.
NONCES = [35154319, 88754997, 54440298, 5915708]
KILLS = 10
# One thread of the slowest native kernel takes longer than all of the killed servers' lives together,
# so that every kill hits work.
ONE_SLOW_THREAD = {"POW_BACKEND": "portable", "MiningThreads": "1"}
LONGEST_LIFE_SECONDS = 2.5


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    content: dict[str, Any] = result.structured_content
    return content


def mined_slices(state_dir: Path) -> list[tuple[int, int, int]]:
    """The journal's slices in the order of the work: (block index, first nonce, next nonce)."""
    with closing(sqlite3.connect(state_dir / FILE_NAME)) as connection:
        rows = connection.execute("SELECT request, answer FROM slice").fetchall()
    slices = [(json.loads(request), json.loads(answer)) for request, answer in rows]
    return sorted((request["index"], request["start"], answer["next_nonce"]) for request, answer in slices)


def assert_each_nonce_was_tried_once(slices: list[tuple[int, int, int]]) -> None:
    """No finished slice was mined twice, and none is missing: each begins where the one before ended."""
    for index, of_block in itertools.groupby(slices, key=lambda mined: mined[0]):
        expected = 0
        for _, start, next_nonce in of_block:
            assert start == expected, f"block {index}: a slice starts at {start}, not at {expected}: {slices}"
            expected = next_nonce


@pytest.mark.skipif(native_missing(), reason="hashlib would take minutes")
@pytest.mark.timeout(600)
async def test_a_workflow_survives_ten_kills_and_repeats_at_most_the_slice_each_one_hit(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    # Moments without any relation to what the server does: one in each part of the longest life, in any order,
    # so that some servers surely live to see the end of a slice.
    chance, parts = random.Random(seed), KILLS - 1
    lives = [LONGEST_LIFE_SECONDS * (part + chance.random()) / parts for part in range(parts)]
    chance.shuffle(lives)
    settings = {"WaitBudgetSeconds": "0", **ONE_SLOW_THREAD}

    with ServerProcess(state_dir=tmp_path, **settings) as server:
        async with server.client() as client:
            started = await call(client, "start_mining", {"difficulty": DIFFICULTY})
            assert started["status"] == "running"
        server.kill()
    known: list[tuple[int, int, int]] = []
    for seconds in lives:
        with ServerProcess(state_dir=tmp_path, **settings) as server:
            await asyncio.sleep(seconds)
            server.kill()
        slices = mined_slices(tmp_path)
        assert_each_nonce_was_tried_once(slices)
        assert set(slices) >= set(known), "a slice that was in the journal is gone"
        known = slices
    assert known, "the servers lived too briefly to mine a single slice: this proves nothing"

    with ServerProcess(state_dir=tmp_path) as server:
        chain = await chain_of(server, started["workflow_id"])
        server.kill()
    assert [block["nonce"] for block in chain["blocks"]] == NONCES
    assert verify_chain(Chain.from_dict(chain))

    with ServerProcess(state_dir=tmp_path, **settings) as server:
        assert await chain_of(server, started["workflow_id"]) == chain


async def chain_of(server: ServerProcess, workflow_id: str) -> dict[str, Any]:
    """Poll as an agent does, only more eagerly, until the workflow is completed."""
    async with server.client() as client, asyncio.timeout(4 * HANG_SECONDS):
        while True:
            result = await call(client, "get_mining_result", {"workflow_id": workflow_id})
            if result["status"] != "running":
                assert result["status"] == "completed", result
                chain: dict[str, Any] = result["chain"]
                return chain
            await asyncio.sleep(0.2)


async def test_a_kill_before_the_first_slice_ends_loses_nothing_that_was_accepted(
    tmp_path: Path, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with ServerProcess(state_dir=tmp_path, WaitBudgetSeconds="0") as server:
        async with server.client() as client:
            started = [await call(client, "start_mining", {"difficulty": 18, "fresh": True}) for _ in range(5)]
        server.kill()

    with ServerProcess(state_dir=tmp_path) as server:
        for result in started:
            assert await chain_of(server, result["workflow_id"]) == genesis_chain[18]
