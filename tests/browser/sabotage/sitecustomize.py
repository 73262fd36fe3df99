"""Makes a server whose miner breaks on the genesis text FAIL: Python runs this at its start, from PYTHONPATH.

No argument that the tools let through makes a workflow fail, so the failure is put where a real one
would come from, and everything above it is real.
"""

from collections.abc import Hashable

from pow.longwork.engines import journaled_slice
from pow.mining.pool import MinerPool
from pow.mining.workflow import Document, mine_slice


def mine_slice_or_fail(pool: MinerPool, request: Document, owner: Hashable) -> Document:
    """The activity, which a kernel may fail under."""
    if request["previous_hash"] == "FAIL":
        raise RuntimeError("the kernel gave a wrong answer")
    return mine_slice(pool, request, owner)


journaled_slice.mine_slice = mine_slice_or_fail  # type: ignore[attr-defined]  # imported there, for its own use
