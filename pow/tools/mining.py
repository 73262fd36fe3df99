"""The MCP tools' contract, for every host: arguments, the budgeted wait, and the one result object.

A host's tool reads its arguments, calls `MiningTools`, and returns what comes: it knows MCP, and
nothing in here does. A result tells the agent what to do next, not what the engine calls it.
"""

import asyncio
import difflib
import re
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's own only from Python 3.12 on

from pow.errors import InvalidArgument
from pow.longwork.engine import Engine, WorkflowState
from pow.mining.chain import DEFAULT_GENESIS, Chain, check_genesis
from pow.mining.odds import poll_after_seconds
from pow.mining.progress import ProgressDocument, progress_document, progress_sentence
from pow.mining.workflow import MiningJob, Progress
from pow.settings import Settings
from pow.units import quote

# Between two progress reports to a caller that waits; each costs a look at the engine.
_REPORT_SECONDS = 2.0
# Running workflows among which a twin of a call is looked for, and recent ones for an id that is close.
_TWINS = 200
_RECENT = 100
# Of the 36 characters of an id some four may differ.
_CLOSE = 0.88
_DECIMAL = re.compile(r"\s*[0-9]{1,20}\s*")

INSTRUCTIONS = """\
Mines chains of proof-of-work blocks. Call start_mining; every argument is optional. Quick work comes \
back inline with status "completed" and the chain. Longer work comes back with status "running": wait \
poll_after_seconds, then call get_mining_result with the workflow_id, and again until the status is \
"completed" or "failed". The work goes on between calls, and when the server restarts; cancel_mining ends it, \
list_minings finds a lost workflow_id again. One more unit of difficulty (leading zero bits) doubles the expected \
time, which estimate_mining tells beforehand. The same arguments always give the same chain. verify_chain checks \
one; save_chain keeps a completed one under a name, get_chain gives it back.\
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


class MiningResult(TypedDict):
    """The state of a mining workflow. Fields that don't apply to the status are absent."""

    status: Literal["completed", "running", "failed", "not_found"]
    workflow_id: str
    result: NotRequired[str]
    chain: NotRequired[ChainDocument]
    reason: NotRequired[Literal["error", "terminated"]]
    error: NotRequired[str]
    closest: NotRequired[str]
    joined: NotRequired[bool]
    poll_after_seconds: NotRequired[int]
    next: NotRequired[str]
    progress: NotRequired[ProgressDocument]


WAIT_BUDGET: ContextVar[float | None] = ContextVar("wait_budget", default=None)
"""Seconds that the call being served waits at most; None for the setting's."""


def nobody() -> str | None:
    """The caller where callers aren't known."""
    return None


class MiningTools:
    """What the tools do, on any engine."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        pool_rate: Callable[[], float],
        caller: Callable[[], str | None] = nobody,
    ) -> None:
        """
        Args:
            engine: where workflows run.
            settings: defaults, limits, and the budget of a wait.
            pool_rate: nonces a second to expect of a workflow that has not been measured yet.
            caller: who makes the call being served; None where callers aren't known. A workflow that
                somebody started is nobody else's to see.
        """
        self._engine = engine
        self._settings = settings
        self._pool_rate = pool_rate
        self._caller = caller
        # From the look for a twin to its start: two equal calls to this object in the same moment are twins, too.
        self._starting = asyncio.Lock()

    async def start_mining(
        self,
        difficulty: object = None,
        blocks: object = None,
        genesis: object = None,
        fresh: object = None,
        *,
        report: ReportProgress | None = None,
    ) -> MiningResult:
        """Start a workflow and wait for it within the budget.

        The same call of the same caller, repeated while the workflow runs, joins it.

        Args:
            difficulty, blocks, genesis: what the caller gave; None for the default.
            fresh: whether to start a new workflow all the same.
            report: called every other second of the wait, if the caller wants to hear of progress.

        Raises:
            InvalidArgument: an argument isn't allowed; nothing was started.
            EngineError: the engine can't be reached.
        """
        job = self.job(difficulty, blocks, genesis)
        workflow_id, joined = await self.start_or_join(job, fresh=flag("fresh", fresh))
        state = await self._wait(workflow_id, report)
        result = await self._result(workflow_id, state)
        if joined:
            result["joined"] = True
        return result

    async def start_or_join(self, job: MiningJob, *, fresh: bool = False) -> tuple[str, bool]:
        """The id of a workflow for the job, started now or found running; and whether it was found.

        Raises:
            EngineError: the engine can't be reached.
        """
        owner = self._caller()
        async with self._starting:
            if not fresh:
                running = await self._engine.list(_TWINS, running_only=True)
                twin = next((state for state in running if (state.job, state.owner) == (job, owner)), None)
                if twin is not None:
                    return twin.workflow_id, True
            workflow_id = str(uuid.uuid4())
            await self._engine.start(workflow_id, job, owner)
        return workflow_id, False

    async def state(self, workflow_id: object) -> WorkflowState | None:
        """A workflow of the caller's, or None: unknown, somebody else's, or no id at all.

        Raises:
            EngineError: the engine can't be reached.
        """
        canonical = workflow_id_of(workflow_id)
        found = None if canonical is None else await self._engine.state(canonical)
        return found if found is not None and self.may_see(found) else None

    async def recent(self) -> list[WorkflowState]:
        """The caller's workflows among the newest, the newest first.

        Raises:
            EngineError: the engine can't be reached.
        """
        return [state for state in await self._engine.list(_RECENT) if self.may_see(state)]

    @property
    def engine(self) -> Engine:
        """Where its workflows run."""
        return self._engine

    @property
    def expected_rate(self) -> float:
        """Nonces a second to expect of a workflow that has the pool for itself."""
        return self._pool_rate()

    @property
    def wait_budget_seconds(self) -> float:
        """How long start_mining waits."""
        return self._settings.wait_budget_seconds

    @property
    def max_difficulty(self) -> int:
        """The largest difficulty that a caller may ask for."""
        return self._settings.max_difficulty

    def may_see(self, state: WorkflowState) -> bool:
        """Whether a workflow is the caller's; where nobody is signed in, whether it is nobody's."""
        return state.owner == self._caller()

    async def get_mining_result(self, workflow_id: object) -> MiningResult:
        """The state of a workflow; an id that is unknown or no id at all is `not_found`.

        Raises:
            EngineError: the engine can't be reached.
        """
        return await self._result(str(workflow_id), await self.state(workflow_id))

    async def cancel_mining(self, workflow_id: object) -> MiningResult:
        """End a workflow; its state thereafter. One that has ended already stays as it is.

        Raises:
            EngineError: the engine can't be reached.
        """
        state = await self.state(workflow_id)
        if state is not None:
            state = await self._engine.cancel(state.workflow_id)
        return await self._result(str(workflow_id), state)

    def job(self, difficulty: object = None, blocks: object = None, genesis: object = None) -> MiningJob:
        """The job that the arguments ask for; None stands for the default.

        Raises:
            InvalidArgument: an argument isn't allowed; says what was given and what is.
        """
        settings = self._settings
        return MiningJob(
            settings.mining_difficulty
            if difficulty is None
            else integer("difficulty", difficulty, settings.max_difficulty),
            settings.default_blocks if blocks is None else integer("blocks", blocks, settings.max_blocks),
            DEFAULT_GENESIS if genesis is None else check_genesis(genesis),
        )

    async def _wait(self, workflow_id: str, report: ReportProgress | None) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        budget = WAIT_BUDGET.get()
        deadline = loop.time() + (self._settings.wait_budget_seconds if budget is None else budget)
        while True:
            left = deadline - loop.time()
            state = await self._engine.wait(workflow_id, left if report is None else min(left, _REPORT_SECONDS))
            if state is None or state.ended or loop.time() >= deadline or self._engine.closing:
                return state
            if report is not None and state.progress is not None:
                await report(float(state.progress.hashes), self.sentence(state))

    async def _result(self, asked_for: str, state: WorkflowState | None) -> MiningResult:
        """The one mapping from an engine's state to what a caller sees."""
        if state is None:
            return await self._not_found(asked_for)
        workflow_id = state.workflow_id
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
        document = self.progress(state)
        poll_after = poll_after_seconds(document["expected_seconds_left"])
        return {
            "status": "running",
            "workflow_id": workflow_id,
            "poll_after_seconds": poll_after,
            "next": f'In {poll_after} s, call get_mining_result with workflow_id "{workflow_id}".',
            "progress": document,
        }

    async def _not_found(self, asked_for: str) -> MiningResult:
        known = [state.workflow_id for state in await self.recent()]
        closest = difflib.get_close_matches(asked_for.strip().lower(), known, 1, _CLOSE)
        error = (
            "There is no workflow with this id on this server."
            if workflow_id_of(asked_for)
            else "Not a workflow id: that is a GUID such as start_mining returned."
        )
        if closest:
            error += f' Did you mean "{closest[0]}"?'
        else:
            error += " list_minings has the recent ones; start_mining begins anew."
        result: MiningResult = {"status": "not_found", "workflow_id": asked_for, "error": error}
        if closest:
            result["closest"] = closest[0]
        return result

    def _progress(self, state: WorkflowState) -> Progress:
        return state.progress or Progress(0, state.job.blocks if state.job else 1, 0, 0.0)

    def _difficulty(self, state: WorkflowState) -> int:
        return state.job.difficulty if state.job else self._settings.mining_difficulty

    def progress(self, state: WorkflowState) -> ProgressDocument:
        """How far a running workflow is, for programs."""
        return progress_document(self._progress(state), self._difficulty(state), self._pool_rate())

    def sentence(self, state: WorkflowState) -> str:
        """How far a running workflow is, for people."""
        return progress_sentence(self._progress(state), self._difficulty(state), self._pool_rate())


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


def flag(name: str, value: object) -> bool:
    """A truth value, false for None; agents send them as strings too.

    Raises:
        InvalidArgument: it is neither true nor false.
    """
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidArgument(f"{name} must be true or false, not {quote(value)}")


def integer(name: str, value: object, high: int) -> int:
    """An integer from 1 to `high`; agents send them as strings and as 21.0 too."""
    number = value
    if isinstance(value, str):
        number = int(value) if _DECIMAL.fullmatch(value) else None
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= high:
        raise InvalidArgument(f"{name} must be an integer from 1 to {high}, not {quote(value)}")
    return number
