"""What the layers above `scan` cost on a chain that takes seconds.

`mine_chain` against the bare scan (threads that wait for each other at the end of a block, and what
they try beyond its nonce), and the durable workflow on the embedded engine against the same (slices,
their journal, a history, gRPC). A ratio of 1 would be a layer for free. See test_calls.py for what a
layer costs where there is next to nothing to mine.
"""

import math
from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.chains import mine, scan_blocks, workflows
from benchmarks.comparison import Comparison, Measure, Pair, Report, Section, rate_cells
from pow.limits import DEFAULT_BLOCKS
from pow.mining.chain import DEFAULT_GENESIS, Chain
from pow.mining.miner import mine_chain, shared_pool
from pow.mining.odds import expected_seconds
from pow.mining.pool import MinerPool

# What the targets are meant for, where it takes no longer than so many seconds on average …
DIFFICULTY = 28
SECONDS = 10.0
# … else the highest difficulty that takes no longer than these.
OTHER_SECONDS = 5.0
# Few, since each of them takes seconds; without warm-ups, since the chain has been mined before.
ROUNDS = 3
TARGETS = {"mine_chain": 0.97, "workflow": 0.97}

LAYERS = Section(
    "layers: chains of some seconds, against a scan of each thread's share of the nonces",
    notes=(f"Targets are meant for difficulty {DIFFICULTY} and more.",),
)


def fitting_difficulty(rate: float) -> int:
    """The difficulty whose chain takes some seconds at so many nonces a second."""
    highest = int(math.log2(OTHER_SECONDS * rate / DEFAULT_BLOCKS))
    at_target = expected_seconds(DIFFICULTY, DEFAULT_BLOCKS, rate)
    return DIFFICULTY if highest < DIFFICULTY and at_target <= SECONDS else highest


@pytest.fixture(scope="module")
def chain() -> Chain:
    """The chain that everything here has to come to: attempts vary, and only who has mined it knows them."""
    return mine_chain(DEFAULT_GENESIS, difficulty=fitting_difficulty(shared_pool().rate), blocks=DEFAULT_BLOCKS)


@pytest.mark.benchmark(group="layers")
def test_mine_chain(chain: Chain, measure: Measure, report: Report) -> None:
    pair = against_scan("mine_chain", mine, chain, shared_pool().threads)
    show(measure(pair, ROUNDS, warm_ups=0), chain, report)


@pytest.mark.benchmark(group="layers")
def test_workflow(chain: Chain, measure: Measure, report: Report) -> None:
    pool = MinerPool()
    with workflows(pool) as mine_by_workflow:
        pair = against_scan("workflow", mine_by_workflow, chain, pool.threads)
        show(measure(pair, ROUNDS, warm_ups=0), chain, report)


def against_scan(layer: str, mine_by: Callable[[Chain], int], chain: Chain, threads: int) -> Pair:
    """The chain by a layer, against what so many threads would do if nothing came between them.

    One thread scans its share, which takes as long, and counts for all of them.
    """
    return Pair(
        f"{layer}, threads: {threads}",
        partial(mine_by, chain),
        f"scan, 1 thread, times {threads}",
        lambda: scan_blocks(chain, share=threads) * threads,
        TARGETS[layer],
    )


def show(found: Comparison, chain: Chain, report: Report) -> None:
    """Put it into the table. The difficulty is no part of its name: it may be another one in the next run."""
    report.add(LAYERS, found.pair.subject, {**rate_cells(found), "difficulty": str(chain.difficulty)})
