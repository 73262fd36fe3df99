"""Mine blocks and chains: each block's smallest nonce, searched on every core."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

from pow.errors import InvalidArgument, MiningStopped
from pow.limits import DEFAULT_BLOCKS, check_difficulty
from pow.mining.chain import DEFAULT_GENESIS, Block, Chain, block_prefix, check_genesis
from pow.mining.odds import expected_seconds
from pow.mining.pool import MinerPool


@functools.cache
def shared_pool() -> MinerPool:
    """The pool of this process, on all of its usable cores; made at the first call."""
    return MinerPool()


class MiningProgress(NamedTuple):
    """How far a chain is. `hashes` counts nonces tried since the call, over `seconds` of mining."""

    blocks_done: int
    blocks_total: int
    difficulty: int
    hashes: int
    seconds: float

    @property
    def rate(self) -> float:
        """Nonces a second, 0 before the first was counted."""
        return self.hashes / self.seconds if self.seconds > 0 else 0.0

    @property
    def expected_seconds_left(self) -> float | None:
        """Seconds that the blocks left take on average at this rate; None while there is none."""
        if not self.hashes:
            return None
        return expected_seconds(self.difficulty, self.blocks_total - self.blocks_done, self.rate)


def mine_block(
    pool: MinerPool,
    index: int,
    previous_hash: str,
    difficulty: int,
    *,
    progress: Callable[[int], None] | None = None,
) -> Block:
    """Mine one block: search for its smallest nonce until it is found.

    Args:
        pool: where.
        index: the block's, from 1.
        previous_hash: of the block before, in upper-case hex; the genesis text for block 1.
        difficulty: leading zero bits of its hash.
        progress: called some ten times a second, in the calling thread, with the nonces tried so far.

    Raises:
        MiningStopped: the pool was closed.
    """
    found = pool.search(
        block_prefix(index, previous_hash),
        0,
        difficulty,
        progress=None if progress is None else lambda reached: progress(reached.tried),
    )
    if found.nonce is None:
        raise MiningStopped(f"mining block {index} was stopped before its nonce was found")
    return Block.from_nonce(index, previous_hash, found.nonce)


def mine_chain(
    genesis: str = DEFAULT_GENESIS,
    *,
    difficulty: int,
    blocks: int = DEFAULT_BLOCKS,
    threads: int | None = None,
    backend: str | None = None,
    progress: Callable[[MiningProgress], None] | None = None,
) -> Chain:
    """Mine a chain: the same one for the same arguments, whatever the backend and the threads.

    Args:
        genesis: the text that block 1 links to, at most 64 bytes of UTF-8.
        difficulty: leading zero bits of each block's hash, 0 to 256. One more doubles the work.
        blocks: how many, at least 1.
        threads: how many to mine with; None for one per usable core.
        backend: a name out of `supported_backends()`; None or "auto" for POW_BACKEND, else the fastest.
        progress: called some ten times a second, in the calling thread.

    Raises:
        InvalidArgument: an argument is out of range or of the wrong kind.
        BackendError: the backend is unknown or can't be used here.
    """
    check_genesis(genesis)
    check_difficulty(difficulty)
    if isinstance(blocks, bool) or not isinstance(blocks, int) or blocks < 1:
        raise InvalidArgument(f"blocks must be an integer of at least 1, not {blocks!r}")
    if threads is None and backend is None:
        return _mine_blocks(shared_pool(), genesis, difficulty, blocks, progress)
    with MinerPool(threads, backend) as pool:
        return _mine_blocks(pool, genesis, difficulty, blocks, progress)


def _mine_blocks(
    pool: MinerPool,
    genesis: str,
    difficulty: int,
    blocks: int,
    progress: Callable[[MiningProgress], None] | None,
) -> Chain:
    mined: list[Block] = []
    hashes = shown = 0
    began = time.perf_counter()

    def report(tried: int) -> None:
        nonlocal shown
        # What was tried beyond a block's nonce counts while it is searched, and not towards the chain's
        # attempts in the end: don't let that show as a step back.
        shown = max(shown, hashes + tried)
        if progress is not None:
            progress(MiningProgress(len(mined), blocks, difficulty, shown, time.perf_counter() - began))

    for index in range(1, blocks + 1):
        previous_hash = mined[-1].hash if mined else genesis
        found = mine_block(pool, index, previous_hash, difficulty, progress=report if progress else None)
        mined.append(found)
        hashes += found.attempts
        report(0)
    return Chain(genesis, difficulty, tuple(mined))
