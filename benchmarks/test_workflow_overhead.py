"""What the layers above `scan` cost on the chain that a call without arguments mines.

`mine_chain` against the bare scan of the same nonces (threads that wait for each other at the end of a
block, and what they try beyond its nonce), and the durable workflow against `mine_chain` (a history,
gRPC, and the pause until somebody looks whether it is done). A ratio of 1 would be a layer for free.
"""

import asyncio
import uuid
from collections.abc import Callable
from functools import partial

import pytest

from pow.chain import DEFAULT_BLOCKS, DEFAULT_GENESIS, Chain, block_prefix
from pow.engines.durable_task import DurableTaskEngine
from pow.miner import mine_chain, shared_pool
from pow.pool import MinerPool
from pow.scanning import scan
from pow.settings import Settings
from pow.workflow import MiningJob

JOB = MiningJob(Settings().mining_difficulty, DEFAULT_BLOCKS, DEFAULT_GENESIS)
# A guard only: the chain takes seconds even with hashlib.
WAIT_SECONDS = 120.0

Compare = Callable[[str, Callable[[], int], str, Callable[[], int], float | None], None]


@pytest.fixture(scope="module")
def chain() -> Chain:
    """The chain that everything here has to come to."""
    return mine_chain(JOB.genesis, difficulty=JOB.difficulty, blocks=JOB.blocks)


@pytest.mark.benchmark(group="layers")
def test_mine_chain(chain: Chain, compare: Compare) -> None:
    threads = shared_pool().threads
    compare(
        f"mine_chain, threads: {threads}",
        partial(mine, chain),
        f"scan, 1 thread, times {threads}",
        # Each nonce counts once per thread: what so many threads would do if nothing came between them.
        lambda: scan_blocks(chain) * threads,
        None,
    )


@pytest.mark.benchmark(group="layers")
def test_workflow(chain: Chain, compare: Compare) -> None:
    # `compare` is synchronous: the engine's loop runs for as long as a piece of work does.
    with asyncio.Runner() as runner:
        pool = MinerPool()
        engine = runner.run(DurableTaskEngine(pool).__aenter__())
        try:
            compare(
                f"workflow, threads: {pool.threads}",
                lambda: runner.run(run_workflow(engine, chain)),
                f"mine_chain, threads: {pool.threads}",
                partial(mine, chain),
                None,
            )
        finally:
            runner.run(engine.__aexit__())


def mine(chain: Chain) -> int:
    """Mine the chain in this process's pool."""
    assert mine_chain(JOB.genesis, difficulty=JOB.difficulty, blocks=JOB.blocks) == chain
    return attempts(chain)


def scan_blocks(chain: Chain) -> int:
    """Scan for the nonces of the chain, one block after the other, in this thread."""
    for block in chain.blocks:
        prefix = block_prefix(block.index, block.previous_hash)
        assert scan(prefix, 0, block.nonce + 1, chain.difficulty) == block.nonce
    return attempts(chain)


async def run_workflow(engine: DurableTaskEngine, chain: Chain) -> int:
    """Mine the chain as a workflow."""
    workflow_id = str(uuid.uuid4())
    await engine.start(workflow_id, JOB)
    state = await engine.wait(workflow_id, WAIT_SECONDS)
    assert state is not None
    assert state.output == chain.to_dict(), f"the workflow is {state.status}: {state.error}"
    return attempts(chain)


def attempts(chain: Chain) -> int:
    """Nonces up to the hits: what the layers try beyond them is their cost."""
    return sum(block.attempts for block in chain.blocks)
