"""The MCP tools' contract, for every host: arguments, the budgeted wait, and the one result object.

A host's tool reads its arguments, calls `MiningTools`, and returns what comes: it knows MCP, and
nothing in here does. A result tells the agent what to do next, not what the engine calls it.
"""

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from pow.chain import DEFAULT_GENESIS, Chain, check_genesis
from pow.engine import Engine, WorkflowState
from pow.errors import InvalidArgument
from pow.odds import poll_after_seconds
from pow.settings import Settings
from pow.workflow import MiningJob, Progress

# Between two progress reports to a caller that waits; each costs a look at the engine.
_REPORT_SECONDS = 2.0
_DECIMAL = re.compile(r"\s*[0-9]{1,20}\s*")

INSTRUCTIONS = """\
Mines chains of proof-of-work blocks. Call start_mining; every argument is optional. Quick work comes \
back inline with status "completed" and the chain. Longer work comes back with status "running": wait \
poll_after_seconds, then call get_mining_result with the workflow_id, and again until the status is \
"completed" or "failed". The work goes on between calls, and when the server restarts; cancel_mining ends it. \
One more unit of difficulty (leading zero bits) doubles the expected time. The same arguments always give the same \
chain. save_chain keeps a completed chain under a name, get_chain gives it back.\
"""

DEMO_PROMPT = """\
Mine a demo chain of {blocks} blocks at difficulty {difficulty} with start_mining. If the status is "running", say how \
far it is, wait poll_after_seconds, and call get_mining_result until it is completed. Then show the blocks as a table, \
point out the leading zeros of a hash, and explain in two sentences why each block depends on the one before it.\
"""

ReportProgress = Callable[[float, str], Awaitable[None]]
"""(hashes tried so far, a sentence) -> sent to the caller, if it asked for progress."""


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
    """How far a running workflow is."""

    blocks_done: int
    blocks_total: int
    hashes_tried: int
    hashes_per_second: NotRequired[int]
    expected_seconds_left: float


class MiningResult(TypedDict):
    """The state of a mining workflow. Fields that don't apply to the status are absent."""

    status: Literal["completed", "running", "failed", "not_found"]
    workflow_id: str
    result: NotRequired[str]
    chain: NotRequired[ChainDocument]
    reason: NotRequired[Literal["error", "terminated"]]
    error: NotRequired[str]
    poll_after_seconds: NotRequired[int]
    next: NotRequired[str]
    progress: NotRequired[ProgressDocument]


class MiningTools:
    """What the tools do, on any engine."""

    def __init__(self, engine: Engine, settings: Settings, pool_rate: Callable[[], float]) -> None:
        """
        Args:
            engine: where workflows run.
            settings: defaults, limits, and the budget of a wait.
            pool_rate: nonces a second to expect of a workflow that has not been measured yet.
        """
        self._engine = engine
        self._settings = settings
        self._pool_rate = pool_rate

    async def start_mining(
        self,
        difficulty: object = None,
        blocks: object = None,
        genesis: object = None,
        *,
        report: ReportProgress | None = None,
    ) -> MiningResult:
        """Start a workflow and wait for it within the budget.

        Args:
            difficulty, blocks, genesis: what the caller gave; None for the default.
            report: called every other second of the wait, if the caller wants to hear of progress.

        Raises:
            InvalidArgument: an argument isn't allowed; nothing was started.
            EngineError: the engine can't be reached.
        """
        job = self.job(difficulty, blocks, genesis)
        workflow_id = str(uuid.uuid4())
        await self._engine.start(workflow_id, job)
        state = await self._wait(workflow_id, report)
        return self._result(workflow_id, state)

    async def get_mining_result(self, workflow_id: object) -> MiningResult:
        """The state of a workflow; an id that is unknown or no id at all is `not_found`.

        Raises:
            EngineError: the engine can't be reached.
        """
        canonical = workflow_id_of(workflow_id)
        if canonical is None:
            return self._not_an_id(workflow_id)
        return self._result(canonical, await self._engine.state(canonical))

    async def cancel_mining(self, workflow_id: object) -> MiningResult:
        """End a workflow; its state thereafter. One that has ended already stays as it is.

        Raises:
            EngineError: the engine can't be reached.
        """
        canonical = workflow_id_of(workflow_id)
        if canonical is None:
            return self._not_an_id(workflow_id)
        return self._result(canonical, await self._engine.cancel(canonical))

    def job(self, difficulty: object = None, blocks: object = None, genesis: object = None) -> MiningJob:
        """The job that the arguments ask for; None stands for the default.

        Raises:
            InvalidArgument: an argument isn't allowed; says what was given and what is.
        """
        settings = self._settings
        return MiningJob(
            settings.mining_difficulty
            if difficulty is None
            else _integer("difficulty", difficulty, settings.max_difficulty),
            settings.default_blocks if blocks is None else _integer("blocks", blocks, settings.max_blocks),
            DEFAULT_GENESIS if genesis is None else check_genesis(genesis),
        )

    async def _wait(self, workflow_id: str, report: ReportProgress | None) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.wait_budget_seconds
        while True:
            left = deadline - loop.time()
            state = await self._engine.wait(workflow_id, left if report is None else min(left, _REPORT_SECONDS))
            if state is None or state.ended or loop.time() >= deadline or self._engine.closing:
                return state
            if report is not None and state.progress is not None:
                await report(float(state.progress.hashes), self._sentence(state, state.progress))

    def _result(self, workflow_id: str, state: WorkflowState | None) -> MiningResult:
        """The one mapping from an engine's state to what a caller sees."""
        if state is None:
            return self._not_found(workflow_id, "there is no workflow with this id on this server")
        match state.status:
            case "completed":
                chain = Chain.from_dict(state.output)
                return {
                    "status": "completed",
                    "workflow_id": workflow_id,
                    "result": markdown_report(chain),
                    "chain": chain.to_dict(),  # type: ignore[typeddict-item]
                }
            case "failed":
                error = state.error or "the workflow failed without saying why"
                return {"status": "failed", "workflow_id": workflow_id, "reason": "error", "error": error}
            case "terminated":
                return {
                    "status": "failed",
                    "workflow_id": workflow_id,
                    "reason": "terminated",
                    "error": "The workflow was cancelled before it was done. Call start_mining to begin anew.",
                }
            case "running":
                return self._running(workflow_id, state)

    def _running(self, workflow_id: str, state: WorkflowState) -> MiningResult:
        progress = state.progress or Progress(0, state.job.blocks if state.job else 1, 0, 0.0)
        seconds_left = self._expected_seconds_left(state, progress)
        poll_after = poll_after_seconds(seconds_left)
        document: ProgressDocument = {
            "blocks_done": progress.blocks_done,
            "blocks_total": progress.blocks_total,
            "hashes_tried": progress.hashes,
            "expected_seconds_left": round(seconds_left, 1),
        }
        if progress.rate is not None:
            document["hashes_per_second"] = round(progress.rate)
        return {
            "status": "running",
            "workflow_id": workflow_id,
            "poll_after_seconds": poll_after,
            "next": f'In {poll_after} s, call get_mining_result with workflow_id "{workflow_id}".',
            "progress": document,
        }

    def _not_an_id(self, given: object) -> MiningResult:
        return self._not_found(str(given), "not a workflow id: that is a GUID such as start_mining returned")

    def _not_found(self, workflow_id: str, why: str) -> MiningResult:
        return {
            "status": "not_found",
            "workflow_id": workflow_id,
            "error": f"{why[0].upper()}{why[1:]}. Check it for typing errors, or call start_mining to begin anew.",
        }

    def _expected_seconds_left(self, state: WorkflowState, progress: Progress) -> float:
        difficulty = state.job.difficulty if state.job else self._settings.mining_difficulty
        return progress.expected_seconds_left(difficulty, self._pool_rate())

    def _sentence(self, state: WorkflowState, progress: Progress) -> str:
        seconds_left = self._expected_seconds_left(state, progress)
        rate = progress.rate or self._pool_rate()
        return (
            f"{progress.blocks_done} of {progress.blocks_total} blocks mined, {progress.hashes:,} hashes tried, "
            f"{rate / 1e6:.1f} million a second; about {seconds_left:,.0f} s more on average"
        )


def workflow_id_of(text: object) -> str | None:
    """The id in the form that engines know, or None when it is no GUID."""
    try:
        return str(uuid.UUID(str(text).strip()))
    except ValueError:
        return None


def markdown_report(chain: Chain) -> str:
    """A chain for people: a title line and a line per block."""
    blocks = "1 block" if len(chain.blocks) == 1 else f"{len(chain.blocks)} blocks"
    lines = [f"**Mined {blocks} at difficulty {chain.difficulty}**", ""]
    lines += [
        f"- Block {block.index}: nonce {block.nonce:,}, {block.attempts:,} attempts, hash `{block.hash[:16]}…`"
        for block in chain.blocks
    ]
    return "\n".join(lines)


def _integer(name: str, value: object, high: int) -> int:
    """An integer from 1 to `high`; agents send them as strings and as 21.0 too."""
    number = value
    if isinstance(value, str):
        number = int(value) if _DECIMAL.fullmatch(value) else None
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= high:
        raise InvalidArgument(f"{name} must be an integer from 1 to {high}, not {_brief(value)}")
    return number


def _brief(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
