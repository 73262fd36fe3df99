"""How a search speeds up with threads: a pool of several against a pool of one, on the active backend.

Set POW_BACKEND to measure another backend.
"""

from functools import partial

import pytest

from benchmarks.comparison import Measure, Pair, Report, Section, rate_cells
from benchmarks.scans import FIRST_NONCE, PREFIX
from pow.limits import MAX_DIFFICULTY
from pow.mining.cores import usable_cores
from pow.mining.pool import MinerPool, SearchResult
from pow.scanning.backends import active_backend

# Of each search: some fifty chunks a thread, so that the last ones, when a thread may idle, don't count.
SECONDS = 1.0
# By threads, each of which has a core.
TARGETS = {2: 1.95, 16: 15.0}

THREADS = Section("threads: a pool's search against one thread's")


def thread_counts(cores: int) -> list[int]:
    """2, 4, 8, … and the number of cores itself; 2 where there is one core, for the test to be skipped."""
    doubling = [1 << power for power in range(1, cores.bit_length())]
    return sorted({2, *doubling, max(cores, 2)})


@pytest.mark.benchmark(group="threads")
@pytest.mark.skipif(usable_cores() < 2, reason="two threads need two usable cores to be faster, and here is one")
@pytest.mark.skipif(
    not active_backend().releases_gil, reason=f"threads of the {active_backend().name} backend share the GIL"
)
@pytest.mark.parametrize("threads", thread_counts(usable_cores()))
def test_threads(threads: int, measure: Measure, report: Report) -> None:
    with MinerPool(threads=1) as one, MinerPool(threads=threads) as several:
        # Each thread gets the same share in both, so that both searches take as long.
        share = int(one.rate * SECONDS)
        pair = Pair(
            f"pool, {several.backend}, {threads} threads",
            partial(search_in_vain, several, share * threads),
            f"pool, {one.backend}, 1 thread",
            partial(search_in_vain, one, share),
            TARGETS.get(threads),
        )
        report.add(THREADS, pair.subject, rate_cells(measure(pair)))


def search_in_vain(pool: MinerPool, nonces: int) -> int:
    """Search so many nonces for what none of them is; the pool must have counted every one."""
    stop = FIRST_NONCE + nonces
    counted = pool.hashes
    assert pool.search(PREFIX, FIRST_NONCE, MAX_DIFFICULTY, stop=stop) == SearchResult(nonce=None, next_nonce=stop)
    assert pool.hashes - counted == nonces
    return nonces
