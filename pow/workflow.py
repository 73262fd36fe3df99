"""The durable workflow that mines a chain, written once for every engine.

`mine_chain_steps` is the orchestration: a plain generator that yields what it wants done and is sent
what came of it. It is deterministic, so an engine may replay it from its recorded answers after a
crash. `mine_slice` is its one activity: it mines one block for a bounded time on all cores and is
idempotent, so an engine may run it twice.

A block that outlasts its slice comes back with the next nonce to try, and the orchestration calls
again from there. So a crash loses one slice, a cancel takes effect within one, and progress shows.
"""

import time
from collections.abc import Generator, Hashable
from dataclasses import asdict, dataclass
from typing import Any

from pow.chain import Block, Chain, check_difficulty, check_genesis
from pow.miner import mine_block
from pow.odds import expected_seconds
from pow.pool import MinerPool

ORCHESTRATION = "mine_chain"
ACTIVITY = "mine_block"

# An engine replays a history from its beginning at every step, so a long one is cut off and continued
# as new after so many slices.
SLICES_PER_HISTORY = 100

Document = dict[str, Any]
"""A JSON object: what engines store and send."""


@dataclass(frozen=True, slots=True)
class MiningJob:
    """What a caller asked for: a chain of `blocks` blocks at `difficulty` leading zero bits."""

    difficulty: int
    blocks: int
    genesis: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a workflow is; `hashes` nonces were tried in `seconds` of mining, ended slices only."""

    blocks_done: int
    blocks_total: int
    hashes: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Nonces a second; None before the first slice ended."""
        return self.hashes / self.seconds if self.hashes and self.seconds > 0 else None

    def expected_seconds_left(self, difficulty: int, fallback_rate: float) -> float:
        """Average time that the blocks left take, at this rate or, while there is none, the other."""
        return expected_seconds(difficulty, self.blocks_total - self.blocks_done, self.rate or fallback_rate)


@dataclass(frozen=True, slots=True)
class CallActivity:
    """A step: run `mine_slice` on this input, and send its answer in."""

    input: Document


@dataclass(frozen=True, slots=True)
class ReportProgress:
    """A step: let this be seen by whoever asks for the workflow's state."""

    progress: Document


@dataclass(frozen=True, slots=True)
class ContinueAsNew:
    """The last step of a long history: begin a new one from this state."""

    state: Document


Step = CallActivity | ReportProgress | ContinueAsNew


def initial_state(job: MiningJob, slice_seconds: float) -> Document:
    """The orchestration's input for a new workflow."""
    return {
        **asdict(job),
        "slice_seconds": slice_seconds,
        "nonces": [],
        "next_nonce": 0,
        "hashes": 0,
        "seconds": 0.0,
    }


def job_of(state: Document) -> MiningJob:
    """The job that an orchestration's input is about.

    Raises:
        InvalidArgument: it isn't a job that could have been accepted.
    """
    return MiningJob(
        difficulty=check_difficulty(state["difficulty"]),
        blocks=state["blocks"],
        genesis=check_genesis(state["genesis"]),
    )


def mine_chain_steps(state: Document) -> Generator[Step, Any, Document | None]:
    """The orchestration, from its input to the chain JSON (None when it continues as new)."""
    job = job_of(state)
    mined = _blocks_from_nonces(job.genesis, state["nonces"])
    next_nonce, hashes, seconds = state["next_nonce"], state["hashes"], state["seconds"]

    for _ in range(SLICES_PER_HISTORY):
        yield ReportProgress(asdict(Progress(len(mined), job.blocks, hashes, seconds)))
        if len(mined) == job.blocks:
            return Chain(job.genesis, job.difficulty, tuple(mined)).to_dict()
        index, previous_hash = len(mined) + 1, mined[-1].hash if mined else job.genesis
        outcome = yield CallActivity(
            {
                "index": index,
                "previous_hash": previous_hash,
                "difficulty": job.difficulty,
                "start": next_nonce,
                "seconds": state["slice_seconds"],
            }
        )
        hashes += outcome["next_nonce"] - next_nonce
        seconds += outcome["seconds"]
        next_nonce = outcome["next_nonce"]
        if outcome["found"]:
            mined.append(Block.from_nonce(index, previous_hash, next_nonce - 1))
            next_nonce = 0

    yield ContinueAsNew(
        {
            **state,
            "nonces": [block.nonce for block in mined],
            "next_nonce": next_nonce,
            "hashes": hashes,
            "seconds": seconds,
        }
    )
    return None


def mine_slice(pool: MinerPool, request: Document, owner: Hashable) -> Document:
    """The activity: mine one block for `request["seconds"]` from `request["start"]` on.

    Returns:
        `found`: whether the nonce before `next_nonce` is the block's; `next_nonce`: all before it have
        been tried; `seconds`: how long it took.
    """
    began = time.monotonic()
    mined = mine_block(
        pool,
        request["index"],
        request["previous_hash"],
        request["difficulty"],
        start=request["start"],
        seconds=request["seconds"],
        owner=owner,
    )
    return {
        "found": mined.block is not None,
        "next_nonce": mined.next_nonce,
        "seconds": time.monotonic() - began,
    }


def _blocks_from_nonces(genesis: str, nonces: list[int]) -> list[Block]:
    blocks: list[Block] = []
    for index, nonce in enumerate(nonces, start=1):
        blocks.append(Block.from_nonce(index, blocks[-1].hash if blocks else genesis, nonce))
    return blocks
