"""One block by two worker processes of one thread each, against the same block by one of them.

The workers take their slices from one process that stands in the scheduler's place. A rate of twice the
reference's would be perfect sharing on cores that don't slow each other down; the target, 0.55 of the
time, is 1.82 times the rate. What the cores allow is in the second row: two workers with a block each.
"""

import asyncio
import math
from collections.abc import Iterator

import pytest
from anyio.from_thread import start_blocking_portal
from scheduler.process import SchedulerProcess, WorkerProcess

from benchmarks.comparison import MeasureAll, Pair, Report, Section, rate_cells
from pow.mining.chain import DEFAULT_GENESIS, Block
from pow.mining.cores import usable_cores
from pow.mining.messages import MiningJob
from pow.mining.miner import mine_chain, shared_pool

# What the target is meant for, where one thread takes no longer than so many seconds on average …
DIFFICULTY = 30
SECONDS = 45.0
# … else the highest difficulty that takes it no longer than these.
OTHER_SECONDS = 15.0
ROUNDS = 3
TARGET = 1 / 0.55

FAN_OUT = Section(
    "fan-out: one block by two workers of one thread each, against one of them",
    notes=(f"The target is meant for difficulty {DIFFICULTY} and more.",),
)


def fitting_difficulty(rate: float) -> int:
    """The difficulty whose block takes one thread some seconds at so many nonces a second."""
    return DIFFICULTY if 2**DIFFICULTY / rate <= SECONDS else int(math.log2(OTHER_SECONDS * rate))


@pytest.fixture(scope="module")
def difficulty() -> int:
    """The block's difficulty; once, since the pool's rate changes as it works."""
    return fitting_difficulty(shared_pool().rate / shared_pool().threads)


@pytest.fixture(scope="module")
def block(difficulty: int) -> Block:
    """The block that everybody has to come to."""
    return mine_chain(DEFAULT_GENESIS, difficulty=difficulty, blocks=1).blocks[0]


@pytest.fixture(scope="module")
def scheduler() -> Iterator[SchedulerProcess]:
    """A scheduler's stand-in with two workers."""
    settings = {"MiningThreads": "1", "MiningFanOut": "2"}
    with SchedulerProcess() as running, WorkerProcess(running, **settings), WorkerProcess(running, **settings):
        yield running


@pytest.mark.skipif(usable_cores() < 2, reason="two workers need two cores")
@pytest.mark.benchmark(group="fan-out")
@pytest.mark.timeout(1200)
def test_fan_out(
    difficulty: int, block: Block, scheduler: SchedulerProcess, measure_all: MeasureAll, report: Report
) -> None:
    async def mine(blocks: int, fan_out: int) -> int:
        client = scheduler.client()
        job = MiningJob(difficulty=difficulty, blocks=1, genesis=DEFAULT_GENESIS)
        try:
            chains = await asyncio.gather(*(scheduler.mine(client, job, fan_out) for _ in range(blocks)))
        finally:
            await client.close()
        assert [chain["blocks"] for chain in chains] == [[block.to_dict()]] * blocks
        return blocks * block.attempts

    with start_blocking_portal() as portal:

        def shared() -> int:
            return portal.call(mine, 1, 2)

        one_worker = Pair("one block, two workers", shared, "one worker", lambda: portal.call(mine, 1, 1), TARGET)
        a_block_each = Pair(
            "one block, two workers", shared, "two workers, a block each", lambda: portal.call(mine, 2, 1)
        )
        for found in measure_all([one_worker, a_block_each], ROUNDS):
            # The cores that this process used say nothing: the workers mine.
            cells = {column: cell for column, cell in rate_cells(found).items() if "cores" not in column}
            report.add(FAN_OUT, found.pair.reference, {**cells, "difficulty": str(difficulty)})
