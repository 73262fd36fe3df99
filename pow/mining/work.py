"""Mining a chain as a long work: `MiningWork` is all that engines, tools and hosts know of it.

A request is a slice: a range of one block's nonces, searched on all cores of a machine. What was tried is
kept, so a slice may end early, run twice, or side by side with others: the block's nonce is always the
smallest one.
"""

import time
from collections.abc import Mapping, Sequence
from itertools import islice

from pow.errors import MiningStopped
from pow.limits import DEFAULT_BLOCKS, MAX_DIFFICULTY, NONCE_STOP, check_difficulty
from pow.longwork.work import Control, Message, Progress, Result, Vital
from pow.mining import earlier
from pow.mining.chain import DEFAULT_GENESIS, Block, Chain, block_digest, block_prefix, check_genesis
from pow.mining.messages import MiningJob, MiningReport, MiningState, SliceAnswer, SliceRequest
from pow.mining.odds import expected_hashes, poll_after_seconds
from pow.mining.pool import MinerPool, Reached
from pow.mining.progress import Pace, progress_document, progress_sentence, reached_sentence
from pow.mining.window import BlockWindow, NonceRange, range_nonces, updated_rate
from pow.units import integer

# What a caller sees as progress, and what a crash repeats.
_PARTIAL_SECONDS = 1.0
# Durable Functions takes 16 KB of UTF-16 as a report, and a nonce may have twenty digits.
_REPORTED_NONCES = 256
# A search uses all cores; a second one fills the moments in which the first has none to hand out.
_SEARCHES_AT_ONCE = 2


class MiningWork:
    """The long work that mines a chain of blocks."""

    name = "mine_chain"
    activity_name = "mine_block"
    result_key = "chain"
    concurrency = _SEARCHES_AT_ONCE

    def __init__(
        self,
        pool: MinerPool,
        *,
        default_difficulty: int = 21,
        max_difficulty: int = MAX_DIFFICULTY,
        default_blocks: int = DEFAULT_BLOCKS,
        max_blocks: int = 64,
    ) -> None:
        """
        Args:
            pool: where this process mines.
            default_difficulty, default_blocks: of a job that doesn't say.
            max_difficulty, max_blocks: what a job may ask for at most.
        """
        self.pool = pool
        self._default_difficulty = default_difficulty
        self._max_difficulty = max_difficulty
        self._default_blocks = default_blocks
        self._max_blocks = max_blocks

    def parse(self, arguments: Mapping[str, object]) -> MiningJob:
        difficulty, blocks, genesis = (arguments.get(name) for name in ("difficulty", "blocks", "genesis"))
        return {
            "difficulty": self._default_difficulty
            if difficulty is None
            else integer("difficulty", difficulty, self._max_difficulty),
            "blocks": self._default_blocks if blocks is None else integer("blocks", blocks, self._max_blocks),
            "genesis": DEFAULT_GENESIS if genesis is None else check_genesis(genesis),
        }

    def begin(self, job: MiningJob) -> MiningState:
        return {
            "difficulty": job["difficulty"],
            "blocks": job["blocks"],
            "genesis": job["genesis"],
            "nonces": [],
            "previous_hash": job["genesis"],
            "tried": [],
            "hit": None,
            "rate": None,
            "hashes": 0,
            "seconds": 0.0,
        }

    def plan(self, state: MiningState, width: int, in_flight: Sequence[SliceRequest]) -> Sequence[SliceRequest]:
        if len(state["nonces"]) == state["blocks"]:
            return []
        # One that no search could be begun for, or that no digest meets, is never to be begun.
        difficulty = check_difficulty(state["difficulty"])
        index = len(state["nonces"]) + 1
        window = BlockWindow(state["tried"], state["hit"])
        kept = [request for request in in_flight if request["index"] == index and window.matters(_range(request))]
        side_by_side, nonces = _width_and_nonces(state["rate"], difficulty, width)
        # Who has ended its slice takes the spare one at once, while the workflow's next turn makes another.
        most = side_by_side if side_by_side == 1 else side_by_side + 1
        searched = [_range(request) for request in kept]
        new = [
            _request(state, index, next_range, side_by_side, is_part)
            for next_range, is_part in islice(window.next_ranges(searched, nonces), max(most - len(kept), 0))
        ]
        if not kept and not new:
            raise MiningStopped(f"no nonce of block {index} meets difficulty {difficulty}")
        return [*kept, *new]

    def run(self, request: SliceRequest, control: Control[SliceAnswer]) -> SliceAnswer:
        if control.cancelled:
            return {"nonce": None, "next_nonce": request["start"], "seconds": 0.0}
        began = time.monotonic()

        def tell(reached: Reached) -> None:
            if reached.next_nonce > request["start"]:
                seconds = time.monotonic() - began
                control.partial({"nonce": None, "next_nonce": reached.next_nonce, "seconds": seconds})

        # The control itself names the search: another run of the same workflow is another search.
        control.on_cancel(lambda: self.pool.cancel(control))
        found = self.pool.search(
            block_prefix(request["index"], request["previous_hash"]),
            request["start"],
            request["difficulty"],
            stop=request.get("stop", NONCE_STOP),
            until=lambda: control.over,
            owner=control,
            progress=tell,
            progress_seconds=_PARTIAL_SECONDS,
        )
        return {"nonce": found.nonce, "next_nonce": found.next_nonce, "seconds": time.monotonic() - began}

    def merge(self, state: MiningState, request: SliceRequest, answer: SliceAnswer) -> MiningState:
        if request["index"] != len(state["nonces"]) + 1:
            return state
        start, next_nonce = request["start"], answer["next_nonce"]
        window = BlockWindow(state["tried"], state["hit"])
        new = window.add(start, next_nonce, found=earlier.found(answer))
        if request.get("part") and next_nonce < request["stop"]:
            window.mark(request["stop"])
        if not new and (window.tried, window.hit) == ([NonceRange(*old) for old in state["tried"]], state["hit"]):
            return state
        # A partial answer counts all since the slice began; what is new has its share of the time.
        answered = next_nonce - start
        seconds = answer["seconds"] if new == answered else answer["seconds"] * new / answered
        merged: MiningState = {
            **state,
            "tried": [list(tried) for tried in window.tried],
            "hit": window.hit,
            "rate": updated_rate(state["rate"], new, seconds),
            "hashes": state["hashes"] + new,
            "seconds": state["seconds"] + seconds / request.get("width", 1),
        }
        nonce = window.nonce
        if nonce is not None:
            merged["nonces"] = [*state["nonces"], nonce]
            merged["previous_hash"] = block_digest(request["index"], state["previous_hash"], nonce).hex().upper()
            merged["tried"], merged["hit"] = [], None
        return merged

    def report(self, state: MiningState) -> MiningReport:
        return {
            "blocks_done": len(state["nonces"]),
            "blocks_total": state["blocks"],
            "hashes": state["hashes"],
            "seconds": state["seconds"],
            "nonces": state["nonces"][:_REPORTED_NONCES],
            "next_nonce": BlockWindow(state["tried"]).next_nonce,
        }

    def progress(self, job: MiningJob, report: Message, run_overhead: float = 0.0) -> Progress:
        reported = earlier.report(report)
        pace = Pace(self.pool.rate, run_overhead)
        document = progress_document(reported, job["difficulty"], pace)
        return Progress(
            done=float(reported["hashes"]),
            sentence=progress_sentence(reported, job["difficulty"], pace),
            poll_after_seconds=poll_after_seconds(document["expected_seconds_left"]),
            document=document,
            reached=reached_sentence(reported),
        )

    def result(self, state: MiningState) -> Result:
        chain = mined_chain(state)
        return Result(markdown_report(chain), chain.to_dict())

    def restore(self, document: Message) -> MiningState:
        return earlier.state(document)

    def job_of(self, document: Message) -> MiningJob:
        return earlier.job(document)

    def capacity(self) -> str:
        pool = self.pool
        return f"backend {pool.backend}, {pool.threads} thread(s), {pool.rate / 1e6:.1f} million hashes/s"

    def vitals(self) -> Sequence[Vital]:
        pool = self.pool
        return (
            Vital("backend", pool.backend, "The scan backend."),
            Vital("threads", pool.threads, "Threads that mine."),
            Vital("hashes_per_second", round(pool.rate), "What the pool can do."),
            Vital("hashes", pool.hashes, "Nonces tried since the start.", "counter"),
            Vital("searches", pool.searches, "Searches under way in this process."),
        )


def mined_chain(state: MiningState) -> Chain:
    """The blocks that a state's nonces make."""
    blocks: list[Block] = []
    previous_hash = state["genesis"]
    for index, nonce in enumerate(state["nonces"], start=1):
        blocks.append(Block.from_nonce(index, previous_hash, nonce))
        previous_hash = blocks[-1].hash
    return Chain(state["genesis"], state["difficulty"], tuple(blocks))


def markdown_report(chain: Chain) -> str:
    """A chain for people: a title line and a line per block."""
    blocks = "1 block" if len(chain.blocks) == 1 else f"{len(chain.blocks)} blocks"
    lines = [f"**Mined {blocks} at difficulty {chain.difficulty}**", ""]
    lines += [
        f"- Block {block.index}: nonce {block.nonce:,}, {block.attempts:,} attempts, hash `{block.hash[:16]}…`"
        for block in chain.blocks
    ]
    return "\n".join(lines)


def _range(request: SliceRequest) -> NonceRange:
    return NonceRange(request["start"], request.get("stop", NONCE_STOP))


def _request(state: MiningState, index: int, searched: NonceRange, width: int, is_part: bool) -> SliceRequest:
    request: SliceRequest = {
        "index": index,
        "previous_hash": state["previous_hash"],
        "difficulty": state["difficulty"],
        "start": searched.start,
    }
    if searched.stop < NONCE_STOP:
        request["stop"] = searched.stop
    if width > 1:
        request["width"] = width
    if is_part:
        request["part"] = True
    return request


def _width_and_nonces(rate: float | None, difficulty: int, width: int) -> tuple[int, int]:
    """How many workers search a block side by side, and how many nonces each is handed."""
    if width == 1:
        return 1, NONCE_STOP
    nonces = range_nonces(rate, difficulty, width)
    return (width if expected_hashes(difficulty) > nonces else 1), nonces
