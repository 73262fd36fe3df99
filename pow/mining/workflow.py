"""The durable workflow that mines a chain, written once for every engine.

`mine_chain_steps` is the orchestration: a plain generator that yields what it wants done and is sent
what came of it. It is deterministic, so an engine may replay it from its recorded answers after a
crash. `mine_slice` is its one activity: it searches a range of one block's nonces for a bounded time on
all cores and is idempotent, so an engine may run it twice.

A block that outlasts its slice comes back with the next nonce to try, and the orchestration calls
again from there. So a crash loses one slice, a cancel takes effect within one, and progress shows.
With a fan-out of more than one, as many workers search slices of the same block, and one more lies ready.
"""

import time
from collections.abc import Generator, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from pow.errors import MiningStopped
from pow.limits import NONCE_STOP, check_difficulty
from pow.mining.chain import Block, Chain, check_genesis
from pow.mining.miner import mine_block
from pow.mining.odds import expected_hashes, expected_seconds
from pow.mining.pool import MinerPool
from pow.mining.window import BlockWindow, NonceRange, Pace

ORCHESTRATION = "mine_chain"
ACTIVITY = "mine_block"

# An engine replays a history from its beginning at every step, so a long one is cut off and continued
# as new after so many slices; those side by side have to end first, so that is worth more of them there.
SLICES_PER_HISTORY = 25
_SLICES_PER_SHARED_HISTORY = 100

# A slice that isn't back after so many times what slices have taken lately, queueing included, was lost
# with its worker; but a slice is never given up before the first number of seconds, nor, while nothing is
# known, before the second.
_PATIENCE_FACTOR = 3.0
_SHORTEST_PATIENCE_SECONDS = 10.0
_FIRST_PATIENCE_SECONDS = 60.0
# The slowest of the latest slices counts, and a little less with each that follows it.
_TURNAROUND_DECAY = 0.8

# Durable Functions takes 16 KB of UTF-16 as a report, and a nonce may have twenty digits.
_REPORTED_NONCES = 256

Document = dict[str, Any]
"""A JSON object: what engines store and send."""

# What an orchestration's input holds beside its job and the length of its slices. One that was accepted
# by a version without some of these goes on with them.
_NOTHING_DONE: Document = {
    "fan_out": 1,
    "restart_lost_slices": False,
    "owner": None,
    "nonces": [],
    **BlockWindow().to_state(),
    "rate": None,
    "turnaround": None,
    "hashes": 0,
    "seconds": 0.0,
}


@dataclass(frozen=True, slots=True)
class MiningJob:
    """What a caller asked for: a chain of `blocks` blocks at `difficulty` leading zero bits."""

    difficulty: int
    blocks: int
    genesis: str


class SliceReached(NamedTuple):
    """Where a slice is: all nonces of a block (1, 2, …) before `next_nonce` were tried, in so many seconds of it."""

    block: int
    next_nonce: int
    seconds: float


class Progress(NamedTuple):
    """How far a workflow is; `hashes` nonces were tried in `seconds` of mining.

    A report counts ended slices only. The first mined blocks follow from their `nonces`, of which it has 256 at most.
    """

    blocks_done: int
    blocks_total: int
    hashes: int
    seconds: float
    nonces: Sequence[int] = ()

    @property
    def rate(self) -> float | None:
        """Nonces a second; None before the first slice ended."""
        return self.hashes / self.seconds if self.hashes and self.seconds > 0 else None

    def expected_seconds_left(self, difficulty: int, fallback_rate: float) -> float:
        """Average time that the blocks left take, at this rate or, while there is none, the other."""
        return expected_seconds(difficulty, self.blocks_total - self.blocks_done, self.rate or fallback_rate)

    def with_slice(self, reached: SliceReached) -> "Progress":
        """The progress of a workflow without a fan-out, counting a slice that may not be in this report yet.

        Such a workflow searches one block after the other, each from nonce 0 on.
        """
        hashes = sum(nonce + 1 for nonce in self.nonces) + reached.next_nonce
        if not reached.block == self.blocks_done + 1 == len(self.nonces) + 1 or hashes <= self.hashes:
            return self
        return self._replace(hashes=hashes, seconds=self.seconds + reached.seconds)


@dataclass(frozen=True, slots=True)
class StartSlice:
    """A step: run `mine_slice` on this input, and go on without waiting. Numbers count from 0 in each history."""

    number: int
    input: Document


@dataclass(frozen=True, slots=True)
class AwaitSlice:
    """A step: send in a `SliceEnded` when any of the slices that were started and haven't ended does.

    With `patience`, send in `PatienceOver` when none has within so many seconds.
    """

    patience: float | None = None


@dataclass(frozen=True, slots=True)
class ReportProgress:
    """A step: let this be seen by whoever asks for the workflow's state."""

    progress: Document


@dataclass(frozen=True, slots=True)
class ContinueAsNew:
    """The last step of a long history: begin a new one from this state. Forget slices that haven't ended."""

    state: Document


Step = StartSlice | AwaitSlice | ReportProgress | ContinueAsNew


@dataclass(frozen=True, slots=True)
class SliceEnded:
    """What came of `AwaitSlice`: a slice's answer, and the orchestration's own clock, in seconds."""

    number: int
    answer: Document
    now: float


@dataclass(frozen=True, slots=True)
class PatienceOver:
    """What came of `AwaitSlice`: nothing within its patience."""

    now: float


def initial_state(
    job: MiningJob,
    slice_seconds: float,
    *,
    fan_out: int = 1,
    restart_lost_slices: bool = False,
    owner: str | None = None,
) -> Document:
    """The orchestration's input for a new workflow.

    Args:
        job: what is to be mined.
        slice_seconds: how long one activity mines at most.
        fan_out: how many workers search slices of the same block at once.
        restart_lost_slices: whether the workflow itself starts a slice again that doesn't come back.
        owner: who started it; None where callers aren't known.
    """
    return {
        **asdict(job),
        "slice_seconds": slice_seconds,
        **_NOTHING_DONE,
        "fan_out": fan_out,
        "restart_lost_slices": restart_lost_slices,
        "owner": owner,
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


def mine_chain_steps(state: Document, now: float) -> Generator[Step, Any, Document | None]:
    """The orchestration, from its input to the chain JSON (None when it continues as new).

    Args:
        state: what `initial_state` or a `ContinueAsNew` step made.
        now: the orchestration's own clock, in seconds: the same whenever it is replayed.
    """
    run = _Run({**_NOTHING_DONE, **state}, now)
    while True:
        yield ReportProgress(run.progress()._asdict())
        if run.complete:
            return run.chain().to_dict()
        if run.history_is_long and not run.window.awaited:
            break
        for slice_ in run.slices_to_start():
            yield slice_
        event = yield AwaitSlice(run.patience())
        run.take_in(event)
        for slice_ in run.slices_to_restart():
            yield slice_
    yield ContinueAsNew(run.to_state())
    return None


@dataclass(slots=True)
class _Flight:
    """A slice that was started and hasn't ended, for one of `width` workers; the how manieth start of its range."""

    index: int
    searched: NonceRange
    width: int
    since: float
    starts: int = 1


class _Run:
    """One history of the orchestration: what it knows at each step."""

    def __init__(self, state: Document, now: float) -> None:
        self._input = state
        self._job = job_of(state)
        self._fan_out: int = state["fan_out"]
        self._mined = _blocks_from_nonces(self._job.genesis, state["nonces"])
        self.window = BlockWindow(state["next_nonce"], state["gaps"], state["hit"])
        self._pace = Pace(state["rate"])
        self._hashes: int = state["hashes"]
        self._seconds: float = state["seconds"]
        self._flights: dict[int, _Flight] = {}
        self._started = 0
        self._now = now
        self._turnaround: float | None = state["turnaround"]

    @property
    def complete(self) -> bool:
        return len(self._mined) == self._job.blocks

    @property
    def history_is_long(self) -> bool:
        return self._started >= (SLICES_PER_HISTORY if self._fan_out == 1 else _SLICES_PER_SHARED_HISTORY)

    def chain(self) -> Chain:
        return Chain(self._job.genesis, self._job.difficulty, tuple(self._mined))

    def progress(self) -> Progress:
        nonces = [block.nonce for block in self._mined[:_REPORTED_NONCES]]
        return Progress(len(self._mined), self._job.blocks, self._hashes, self._seconds, nonces)

    def to_state(self) -> Document:
        return {
            **self._input,
            "nonces": [block.nonce for block in self._mined],
            **self.window.to_state(),
            "rate": self._pace.rate,
            "turnaround": self._turnaround,
            "hashes": self._hashes,
            "seconds": self._seconds,
        }

    def slices_to_start(self) -> list[StartSlice]:
        """Those that fill the window up, unless the history is to end."""
        width, nonces = self._window_size()
        # Who has ended its slice takes the spare one at once, while the orchestration's next turn makes another.
        most = width if width == 1 else width + 1
        slices: list[StartSlice] = []
        while len(self.window.awaited) < most and not self.history_is_long:
            searched = self.window.take(nonces)
            if searched is None:
                break
            slices.append(self._start(_Flight(len(self._mined) + 1, searched, width, self._now)))
        if not self.window.awaited and not self.history_is_long:
            raise MiningStopped(f"no nonce of block {len(self._mined) + 1} meets difficulty {self._job.difficulty}")
        return slices

    def take_in(self, event: SliceEnded | PatienceOver) -> None:
        """Learn what time it is, and maybe a slice's answer; the block's, too, when that decides it."""
        self._now = event.now
        if isinstance(event, PatienceOver):
            return
        flight, answer = self._flights.pop(event.number), event.answer
        self._turnaround = max(event.now - flight.since, (self._turnaround or 0.0) * _TURNAROUND_DECAY)
        index = len(self._mined) + 1
        if flight.index != index or not self.window.answer(
            flight.searched, found=answer["found"], next_nonce=answer["next_nonce"]
        ):
            return  # a second answer, or one that no longer matters
        nonces = answer["next_nonce"] - flight.searched.start
        self._pace.record(nonces, answer["seconds"])
        self._hashes += nonces
        self._seconds += answer["seconds"] / flight.width
        if self.window.nonce is not None:
            previous_hash = self._mined[-1].hash if self._mined else self._job.genesis
            self._mined.append(Block.from_nonce(index, previous_hash, self.window.nonce))
            self.window = BlockWindow()

    def patience(self) -> float | None:
        """Seconds after which a slice counts as lost; None when the engine itself sees to lost ones."""
        if not self._input["restart_lost_slices"]:
            return None
        if self._turnaround is None:
            return _FIRST_PATIENCE_SECONDS
        return max(_SHORTEST_PATIENCE_SECONDS, _PATIENCE_FACTOR * self._turnaround)

    def slices_to_restart(self) -> list[StartSlice]:
        """Those that haven't come back for too long; twice as long after each start, lest a busy day feed itself."""
        patience = self.patience()
        if patience is None:
            return []
        newest = {
            flight.searched: flight
            for flight in self._flights.values()
            if flight.index == len(self._mined) + 1 and flight.searched in self.window.awaited
        }
        return [
            self._start(replace(flight, since=self._now, starts=flight.starts + 1))
            for flight in newest.values()
            if self._now - flight.since >= patience * 2 ** (flight.starts - 1)
        ]

    def _window_size(self) -> tuple[int, int]:
        """How many workers search at once, and how many nonces each is handed."""
        if self._fan_out == 1:
            return 1, NONCE_STOP
        nonces = self._pace.range_nonces(self._job.difficulty, self._fan_out, self._input["slice_seconds"])
        worth_it = expected_hashes(self._job.difficulty) > nonces
        return self._fan_out if worth_it else 1, nonces

    def _start(self, flight: _Flight) -> StartSlice:
        request = {
            "index": flight.index,
            "previous_hash": self._mined[-1].hash if self._mined else self._job.genesis,
            "difficulty": self._job.difficulty,
            "start": flight.searched.start,
            "seconds": self._input["slice_seconds"],
        }
        if flight.searched.stop < NONCE_STOP:
            request["stop"] = flight.searched.stop
        number = self._started
        self._flights[number] = flight
        self._started += 1
        return StartSlice(number, request)


def mine_slice(pool: MinerPool, request: Document, owner: Hashable) -> Document:
    """The activity: mine one block for `request["seconds"]` from `request["start"]` on, below `request["stop"]`.

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
        stop=request.get("stop", NONCE_STOP),
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
