"""What mining keeps and sends: the job, its state, a slice's request and answer, and the progress."""

from typing import NotRequired

from typing_extensions import TypedDict  # schemas of tools are made of some of them: typing's own only from 3.12 on


class MiningJob(TypedDict):
    """What a caller asked for: a chain of `blocks` blocks at `difficulty` leading zero bits."""

    difficulty: int
    blocks: int
    genesis: str


class MiningState(MiningJob):
    """How far a chain is. The blocks mined so far follow from the genesis text and their nonces."""

    nonces: list[int]
    previous_hash: str
    """Of the last mined block, in upper-case hex; the genesis text before the first."""
    tried: list[list[int]]
    """Of the current block, [start, stop) of nonces that were tried: see `pow.mining.window`."""
    hit: int | None
    """The smallest nonce of the current block so far that meets the difficulty."""
    rate: float | None
    """Nonces a second of one worker, a running average; None before the first slice that tells."""
    hashes: int
    """Nonces tried for this chain so far."""
    seconds: float
    """How long that took, all workers side by side."""


class SliceRequest(TypedDict):
    """A range of one block's nonces to search: [start, stop), to the last nonce without a stop."""

    index: int
    previous_hash: str
    difficulty: int
    start: int
    stop: NotRequired[int]
    width: NotRequired[int]
    """How many workers search side by side; 1 if absent."""
    part: NotRequired[bool]
    """Whether more of the same gap lies right above it. What the slice leaves is not searched as one with that: so it
    was in the first version, whose histories are replayed."""


class SliceAnswer(TypedDict):
    """What a slice came to: all nonces of its range below `next_nonce` were tried."""

    nonce: int | None
    """The block's nonce if the slice has found it: the one before `next_nonce`."""
    next_nonce: int
    seconds: float


class MiningReport(TypedDict):
    """How far a chain is, in as few words as engines carry about."""

    blocks_done: int
    blocks_total: int
    hashes: int
    seconds: float
    nonces: list[int]
    """Of the first mined blocks, 256 at most."""
    next_nonce: int
    """Of the block that is being mined: all nonces below it were tried."""


class BlockDocument(TypedDict):
    """A block of the chain."""

    index: int
    previous_hash: str
    nonce: int
    hash: str
    attempts: int


class ChainDocument(TypedDict):
    """The mined chain."""

    genesis: str
    difficulty: int
    blocks: list[BlockDocument]


class ProgressDocument(TypedDict):
    """How far a running workflow is. `odds` are those of the blocks that are left, from now on.

    The first mined blocks follow from their `nonces`, 256 at most.
    """

    blocks_done: int
    blocks_total: int
    hashes_tried: int
    hashes_per_second: NotRequired[int]
    expected_seconds_left: float
    odds: str
    nonces: NotRequired[list[int]]
