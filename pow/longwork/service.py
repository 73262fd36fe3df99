"""What the tools of any long work do: start or join, wait within a budget, get, cancel, list.

The one mapping from an engine's state to what a caller sees is here. A result tells the agent what to do
next, not what the engine calls it.
"""

import asyncio
import difflib
import hashlib
import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, NotRequired, cast

from typing_extensions import TypedDict  # schemas are made of some of these: typing's own only from Python 3.12 on

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import Engine, Started, WorkflowState
from pow.longwork.work import AnyWork, Message, Progress
from pow.units import flag, integer

MAX_LISTED = 100
DEFAULT_LISTED = 10

# Between two progress reports to a caller that waits; each costs a look at the engine.
_REPORT_SECONDS = 2.0
# Before an engine that didn't answer is asked again.
_TROUBLE_SECONDS = 0.25
# Recent workflows among which an id is looked for that is close to an unknown one.
_RECENT = 100
# Of the 36 characters of an id some four may differ.
_CLOSE = 0.88

logger = logging.getLogger(__name__)


class ToolNames(NamedTuple):
    """What a work's four tools are called: they tell callers of each other."""

    start: str
    get: str
    cancel: str
    list: str


class WorkResult(TypedDict):
    """The state of a workflow. Fields that don't apply to the status are absent; the work adds its result's."""

    status: Literal["completed", "running", "failed", "not_found"]
    workflow_id: str
    result: NotRequired[str]
    reason: NotRequired[Literal["error", "terminated"]]
    error: NotRequired[str]
    closest: NotRequired[str]
    joined: NotRequired[bool]
    poll_after_seconds: NotRequired[int]
    next: NotRequired[str]
    progress: NotRequired[Any]


class ListedWorkflow(TypedDict):
    """A workflow as the list has it, beside the fields of its job."""

    workflow_id: str
    status: Literal["completed", "running", "failed"]
    started_at: NotRequired[str]
    progress: NotRequired[Any]


@dataclass(frozen=True, slots=True)
class LongWorkService:
    """A long work on an engine, as its tools use it."""

    work: AnyWork
    engine: Engine
    names: ToolNames
    wait_budget_seconds: float
    """How long a call waits for work to end, unless it says."""
    noun: str = "workflow"
    """What one of them is called in sentences."""

    async def start(self, call: CallContext, arguments: Mapping[str, object]) -> WorkResult:
        """Start a workflow and wait for it within the budget.

        The same call of the same caller, repeated while the workflow runs, joins it.

        Args:
            call: who calls, how long that waits, and how it hears of progress.
            arguments: the work's own, and `fresh`: whether to start a new workflow all the same.

        Raises:
            InvalidArgument: an argument isn't allowed; nothing was started.
            EngineError: the engine can't be reached, or can't keep what it would accept.
        """
        job = self.work.parse(arguments)
        workflow_id, joined = await self.start_or_join(call, job, fresh=flag("fresh", arguments.get("fresh")))
        # From here on the caller gets the id, whatever becomes of the engine: the workflow is kept.
        accepted = WorkflowState(workflow_id, "running", job=job, owner=call.caller)
        state = await self._wait(call, accepted)
        result = await self._result(call, workflow_id, state)
        if joined:
            result["joined"] = True
        return result

    async def start_or_join(self, call: CallContext, job: Message, *, fresh: bool = False) -> Started:
        """A workflow for the job, started now or found running.

        Raises:
            EngineError: as `start`.
        """
        return await self.engine.start(call, job, self._twin_key(job, call.caller), fresh=fresh)

    async def get(self, call: CallContext, workflow_id: object) -> WorkResult:
        """The state of a workflow; an id that is unknown or no id at all is `not_found`.

        Raises:
            EngineError: the engine can't be reached.
        """
        return await self._result(call, workflow_id, await self.state(call, workflow_id))

    async def cancel(self, call: CallContext, workflow_id: object) -> WorkResult:
        """End a workflow; its state thereafter. One that has ended already stays as it is.

        Raises:
            EngineError: the engine can't be reached.
        """
        state = await self.state(call, workflow_id)
        if state is not None:
            state = await self.engine.cancel(call, state.workflow_id)
        return await self._result(call, workflow_id, state)

    async def list(self, call: CallContext, limit: object = None) -> Sequence[ListedWorkflow]:
        """The caller's recent workflows, the newest first, so that a lost id is found again.

        Raises:
            InvalidArgument: the limit isn't allowed.
            EngineError: the engine can't be reached.
        """
        most = DEFAULT_LISTED if limit is None else integer("limit", limit, MAX_LISTED)
        return [self._listed(state) for state in await self.engine.newest(call, most)]

    async def state(self, call: CallContext, workflow_id: object) -> WorkflowState | None:
        """A workflow of the caller's, or None: unknown, somebody else's, or no id at all.

        Raises:
            EngineError: the engine can't be reached.
        """
        canonical = workflow_id_of(workflow_id)
        found = None if canonical is None else await self.engine.state(call, canonical)
        return found if found is not None and found.owner == call.caller else None

    def progress(self, state: WorkflowState) -> Progress:
        """How far a workflow is whose job can be read."""
        assert state.job is not None
        report = self.work.report(self.work.begin(state.job)) if state.report is None else state.report
        return self.work.progress(state.job, report, self.engine.run_overhead)

    async def _wait(self, call: CallContext, accepted: WorkflowState) -> WorkflowState | None:
        """The workflow at its end or at the budget's; as it was seen last where the engine can't be reached."""
        loop = asyncio.get_running_loop()
        budget = self.wait_budget_seconds
        deadline = loop.time() + (budget if call.wait_seconds is None else min(budget, call.wait_seconds))
        state: WorkflowState | None = accepted
        while True:
            left = max(deadline - loop.time(), 0.0)
            seconds = left if call.report is None else min(left, _REPORT_SECONDS)
            try:
                state = await self.engine.wait(call, accepted.workflow_id, seconds)
            except EngineError as error:
                logger.warning("waiting for workflow %s: %s", accepted.workflow_id, error)
                await asyncio.sleep(min(left, _TROUBLE_SECONDS))
            if state is None or state.ended or loop.time() >= deadline or self.engine.closing:
                return state
            if call.report is not None and state.report is not None and state.job is not None:
                progress = self.progress(state)
                await call.report(progress.done, progress.sentence)

    async def _result(self, call: CallContext, asked_for: object, state: WorkflowState | None) -> WorkResult:
        """The one mapping from an engine's state to what a caller sees."""
        if state is None:
            return await self._not_found(call, str(asked_for))
        workflow_id = state.workflow_id
        match state.status:
            case "completed":
                assert state.output is not None, "a completed workflow has an output"
                result = self.work.result(self.work.restore(state.output))
                completed = {"status": "completed", "workflow_id": workflow_id, "result": result.text}
                return cast(WorkResult, completed | {self.work.result_key: result.document})
            case "failed":
                return self._failed(state)
            case "terminated":
                return {
                    "status": "failed",
                    "workflow_id": workflow_id,
                    "reason": "terminated",
                    "error": f"The {self.noun} was cancelled before it was done. "
                    f"Call {self.names.start} to begin anew.",
                }
            case "running":
                return self._running(state)

    def _failed(self, state: WorkflowState) -> WorkResult:
        error = state.error or f"the {self.noun} failed without saying why"
        result: WorkResult = {"status": "failed", "workflow_id": state.workflow_id, "reason": "error", "error": error}
        if state.job is not None and state.report is not None:
            progress = self.progress(state)
            if progress.done:
                result["progress"] = progress.document
                result["error"] = f"{error}. It had come to: {progress.reached or progress.sentence}."
                if state.kept is not None:
                    result["error"] += f" That is kept: the same call of {self.names.start} goes on from there."
        return result

    def _running(self, state: WorkflowState) -> WorkResult:
        workflow_id = state.workflow_id
        result: WorkResult = {"status": "running", "workflow_id": workflow_id}
        poll_after = 1
        if state.job is not None:
            progress = self.progress(state)
            poll_after = progress.poll_after_seconds
            result["progress"] = progress.document
        result["poll_after_seconds"] = poll_after
        result["next"] = f'In {poll_after} s, call {self.names.get} with workflow_id "{workflow_id}".'
        return result

    async def _not_found(self, call: CallContext, asked_for: str) -> WorkResult:
        known: list[str] = []
        with suppress(EngineError):  # an id that is unknown is unknown all the same
            known = [state.workflow_id for state in await self.engine.newest(call, _RECENT)]
        closest = difflib.get_close_matches(asked_for.strip().lower(), known, 1, _CLOSE)
        error = (
            f"There is no {self.noun} with this id on this server."
            if workflow_id_of(asked_for)
            else f"Not a workflow id: that is a GUID such as {self.names.start} returned."
        )
        if closest:
            error += f' Did you mean "{closest[0]}"?'
        else:
            error += f" {self.names.list} has the recent ones; {self.names.start} begins anew."
        result: WorkResult = {"status": "not_found", "workflow_id": asked_for, "error": error}
        if closest:
            result["closest"] = closest[0]
        return result

    def _listed(self, state: WorkflowState) -> ListedWorkflow:
        status = "failed" if state.status == "terminated" else state.status
        listed: dict[str, object] = {"workflow_id": state.workflow_id, "status": status, **(state.job or {})}
        if state.created_at is not None:
            listed["started_at"] = datetime.fromtimestamp(state.created_at, UTC).isoformat(timespec="seconds")
        if state.status == "running" and state.job is not None:
            listed["progress"] = self.progress(state).document
        return cast(ListedWorkflow, listed)

    def _twin_key(self, job: Message, caller: str | None) -> str:
        """A hash, keyed by the work's name, of a job and who wants it: 32 hex digits."""
        text = json.dumps([caller, job], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16, key=self.work.name.encode()[:64]).hexdigest()


def workflow_id_of(text: object) -> str | None:
    """The id in the form that engines know, or None when it is no GUID."""
    try:
        return str(uuid.UUID(str(text).strip()))
    except ValueError:
        return None
