"""The tools that start nothing: what a job would take, whether a chain is right, and which workflows there are."""

from datetime import UTC, datetime
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from pow.errors import InvalidChain
from pow.longwork.engine import WorkflowState
from pow.mining.calibration import DEFAULT_CHANCE, calibrate
from pow.mining.chain import Chain, verify_chain
from pow.mining.odds import chance_within_seconds, expected_seconds
from pow.mining.progress import ProgressDocument, odds, quantile
from pow.tools.mining import MiningTools, integer
from pow.units import duration

MAX_LISTED = 100
DEFAULT_LISTED = 10


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


class ListedMining(TypedDict):
    """A workflow as the list has it."""

    workflow_id: str
    status: Literal["completed", "running", "failed"]
    difficulty: NotRequired[int]
    blocks: NotRequired[int]
    genesis: NotRequired[str]
    started_at: NotRequired[str]
    progress: NotRequired[ProgressDocument]


class Minings(TypedDict):
    """The caller's recent workflows, the newest first."""

    minings: list[ListedMining]


class QueryTools:
    """What the tools do, on top of the mining tools."""

    def __init__(self, mining: MiningTools) -> None:
        self._mining = mining

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

    async def estimate_mining(self, difficulty: object = None, blocks: object = None) -> Estimate:
        """What a job would take, with which odds, and whether it would come back inline.

        Raises:
            InvalidArgument: an argument isn't allowed.
        """
        job = self._mining.job(difficulty, blocks)
        rate, budget = self._mining.expected_rate, self._mining.wait_budget_seconds
        median, nearly = (quantile(chance, job.difficulty, job.blocks) / rate for chance in (0.5, 0.95))
        chance = chance_within_seconds(budget, job.difficulty, job.blocks, rate)
        fits = chance >= DEFAULT_CHANCE
        estimate: Estimate = {
            "difficulty": job.difficulty,
            "blocks": job.blocks,
            "hashes_per_second": round(rate),
            "expected_seconds": _digits(expected_seconds(job.difficulty, job.blocks, rate)),
            "median_seconds": _digits(median),
            "percentile_95_seconds": _digits(nearly),
            "odds": odds(job.difficulty, job.blocks, rate),
            "budget_seconds": budget,
            "chance_within_budget": round(chance, 4),
            "fits_budget": fits,
            "result": (
                f"{job.blocks} block(s) at difficulty {job.difficulty} take {duration(median)} or less with even odds; "
                f"start_mining waits for {budget:g} s, which is {'' if fits else 'not '}enough."
            ),
        }
        largest = calibrate(rate, budget, job.blocks).recommended if budget else None
        if largest is not None:
            estimate["largest_difficulty_within_budget"] = min(largest, self._mining.max_difficulty)
        return estimate

    async def list_minings(self, limit: object = None) -> Minings:
        """The caller's recent workflows, the newest first, so that a lost workflow_id is found again.

        Raises:
            InvalidArgument: the limit isn't allowed.
            EngineError: the engine can't be reached.
        """
        most = DEFAULT_LISTED if limit is None else integer("limit", limit, MAX_LISTED)
        return {"minings": [self._listed(state) for state in (await self._mining.recent())[:most]]}

    def _listed(self, state: WorkflowState) -> ListedMining:
        listed: ListedMining = {
            "workflow_id": state.workflow_id,
            "status": "failed" if state.status == "terminated" else state.status,
        }
        if state.job is not None:
            listed |= {"difficulty": state.job.difficulty, "blocks": state.job.blocks, "genesis": state.job.genesis}
        if state.created_at is not None:
            listed["started_at"] = datetime.fromtimestamp(state.created_at, UTC).isoformat(timespec="seconds")
        if state.status == "running":
            listed["progress"] = self._mining.progress(state)
        return listed


def _digits(seconds: float) -> float:
    return float(f"{seconds:.3g}")
