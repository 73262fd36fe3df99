"""The same chain by each layer: scanned for, mined in this process, and mined by a workflow."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal

from pow.longwork.call import NOBODY
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.service import LongWorkService
from pow.mining.chain import Chain, block_prefix
from pow.mining.miner import mine_chain
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork
from pow.scanning.backends import scan
from pow.tools.mining import NAMES

# A guard against hangs only.
WAIT_SECONDS = 240.0
MAX_BLOCKS = 1000


def attempts(chain: Chain) -> int:
    """Nonces up to the hits: what the layers try beyond them is their cost."""
    return sum(block.attempts for block in chain.blocks)


def scan_blocks(chain: Chain, share: int = 1) -> int:
    """Find the nonces of the chain in this thread by the last 1/share of each block's attempts; how many that was."""
    scanned = 0
    for block in chain.blocks:
        start = block.attempts - -(-block.attempts // share)
        prefix = block_prefix(block.index, block.previous_hash)
        assert scan(prefix, start, block.attempts, chain.difficulty) == block.nonce
        scanned += block.attempts - start
    return scanned


def mine(chain: Chain) -> int:
    """Mine the chain in this process's pool; its attempts."""
    assert mine_chain(chain.genesis, difficulty=chain.difficulty, blocks=len(chain.blocks)) == chain
    return attempts(chain)


@contextmanager
def workflows(pool: MinerPool) -> Iterator[Callable[[Chain], int]]:
    """An embedded engine that keeps nothing, as a function that mines a chain; it gives the attempts."""

    work = MiningWork(pool, max_blocks=MAX_BLOCKS)

    async def run(service: LongWorkService, chain: Chain) -> int:
        job = {"difficulty": chain.difficulty, "blocks": len(chain.blocks), "genesis": chain.genesis}
        result = await service.start(NOBODY, {**job, "fresh": True})
        assert dict(result)["chain"] == chain.to_dict(), f"the workflow is {result}"
        return attempts(chain)

    # Benchmarks are synchronous: the engine has a thread with an event loop of its own.
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(EmbeddedEngine(work)) as engine:
        service = LongWorkService(work, engine, NAMES, WAIT_SECONDS)
        yield lambda chain: portal.call(run, service, chain)
