"""The tools that start nothing: what a job would take, and whether a chain is right."""

from collections.abc import Mapping
from typing import Any, NotRequired

from typing_extensions import TypedDict  # schemas are made of some of these: typing's own only from Python 3.12 on

from pow.errors import InvalidChain
from pow.longwork.call import CallContext
from pow.longwork.service import LongWorkService
from pow.mining.calibration import DEFAULT_CHANCE, calibrate
from pow.mining.chain import Chain, verify_chain
from pow.mining.odds import chance_within_seconds, expected_seconds
from pow.mining.progress import Pace, odds, quantile_seconds
from pow.mining.work import MiningWork
from pow.settings import Settings
from pow.tools.declarations import READS, Argument, Tool, count_to
from pow.units import duration


class ChainVerdict(TypedDict):
    """Whether a chain is right; if not, the first thing that is wrong, and in which block."""

    valid: bool
    result: str
    blocks: NotRequired[int]
    fault: NotRequired[str]
    block: NotRequired[int]


class Estimate(TypedDict):
    """What a job would take on this server at its measured rate, if it had all of it."""

    difficulty: int
    blocks: int
    hashes_per_second: int
    expected_seconds: float
    median_seconds: float
    percentile_95_seconds: float
    odds: str
    budget_seconds: float
    chance_within_budget: float
    fits_budget: bool
    largest_difficulty_within_budget: NotRequired[int]
    result: str


class MiningQueries:
    """What the tools do."""

    def __init__(self, service: LongWorkService, work: MiningWork, settings: Settings) -> None:
        """
        Args:
            service: whose budget estimates are held against.
            work: what is estimated.
            settings: its limits.
        """
        self._work = work
        self._engine = service.engine
        self._budget = service.wait_budget_seconds
        self.settings = settings

    async def verify_chain(self, chain: object) -> ChainVerdict:
        """Check a chain's links and proofs of work; what is no chain at all is not valid either.

        Args:
            chain: the chain JSON, as a result of start_mining has it.
        """
        try:
            verification = verify_chain(Chain.from_dict(chain))
        except InvalidChain as error:
            return {"valid": False, "fault": "not_a_chain", "result": f"This is no chain: {error}."}
        if not verification:
            verdict: ChainVerdict = {
                "valid": False,
                "blocks": verification.blocks,
                "result": f"The chain is not valid: {verification.message}.",
            }
            if verification.fault is not None and verification.block_index is not None:
                verdict |= {"fault": verification.fault, "block": verification.block_index}
            return verdict
        return {
            "valid": True,
            "blocks": verification.blocks,
            "result": f"The chain is valid: {verification.blocks} block(s), each linked and proven.",
        }

    async def estimate_mining(self, arguments: Mapping[str, object]) -> Estimate:
        """What a job would take, with which odds, and whether it would come back inline.

        Raises:
            InvalidArgument: an argument isn't allowed.
        """
        job = self._work.parse(arguments)
        difficulty, blocks = job["difficulty"], job["blocks"]
        rate, budget = self._work.pool.rate, self._budget
        pace = Pace(rate, self._engine.run_overhead)
        # What the budget leaves for hashing.
        hashing = max(budget - blocks * pace.block_seconds, 0.0)
        median, nearly = (quantile_seconds(chance, difficulty, blocks, pace) for chance in (0.5, 0.95))
        chance = chance_within_seconds(hashing, difficulty, blocks, rate)
        fits = chance >= DEFAULT_CHANCE
        estimate: Estimate = {
            "difficulty": difficulty,
            "blocks": blocks,
            "hashes_per_second": round(rate),
            "expected_seconds": _digits(expected_seconds(difficulty, blocks, rate) + blocks * pace.block_seconds),
            "median_seconds": _digits(median),
            "percentile_95_seconds": _digits(nearly),
            "odds": odds(difficulty, blocks, pace),
            "budget_seconds": budget,
            "chance_within_budget": round(chance, 4),
            "fits_budget": fits,
            "result": (
                f"{blocks} block(s) at difficulty {difficulty} take {duration(median)} or less with even odds; "
                f"start_mining waits for {budget:g} s, which is {'' if fits else 'not '}enough."
            ),
        }
        largest = calibrate(rate, hashing, blocks).recommended if hashing else None
        if largest is not None:
            estimate["largest_difficulty_within_budget"] = min(largest, self.settings.max_difficulty)
        return estimate


def query_tools(queries: MiningQueries) -> tuple[Tool, ...]:
    """The tools."""

    async def estimate(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await queries.estimate_mining(arguments)

    async def verify(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return await queries.verify_chain(arguments["chain"])

    settings = queries.settings
    return (
        Tool(
            "estimate_mining",
            "Estimate mining",
            "Tell how long a mining job takes on this server, with its odds, before starting it.",
            (
                Argument(
                    "difficulty",
                    count_to(settings.max_difficulty),
                    "Leading zero bits of each block's hash.",
                    default=settings.mining_difficulty,
                ),
                Argument("blocks", count_to(settings.max_blocks), "How many blocks.", default=settings.default_blocks),
            ),
            Estimate,
            READS,
            estimate,
        ),
        Tool(
            "verify_chain",
            "Verify chain",
            "Check that every block of a chain is linked to the one before it and carries its proof of work.",
            (Argument("chain", {"type": "object"}, "The chain, as start_mining returned it.", required=True),),
            ChainVerdict,
            READS,
            verify,
        ),
    )


def _digits(seconds: float) -> float:
    return float(f"{seconds:.3g}")
