"""`Engine` on Durable Functions' client, and the orchestration as Durable Functions runs it.

The client's calls go to the Functions host on loopback. Only this module knows the SDK's types, which
function_app.py has imported.
"""

import asyncio
import json
from collections.abc import Awaitable, Generator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pow.errors import EngineError, PowError
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.driver import SCHEDULER_SLICE_SECONDS, drive
from pow.mining.pool import MinerPool
from pow.mining.workflow import (
    ACTIVITY,
    ORCHESTRATION,
    Document,
    MiningJob,
    Progress,
    initial_state,
    job_of,
    mine_slice,
)

# Between two looks at a workflow that somebody waits for: ever less often.
_POLL_SECONDS = (0.05, 1.0)
_POLL_GROWTH = 1.5
# After a terminate it ends as soon as the host has heard of it.
_CANCEL_SECONDS = 10.0
# The client library's errors may have the whole state of an orchestration behind this.
_TAIL = "$OutOfProcData$"

_ENDED: dict[str, EngineStatus] = {
    "Completed": "completed",
    "Failed": "failed",
    "Terminated": "terminated",
    "Canceled": "terminated",
}

T = TypeVar("T")


# Each invocation brings a client of its own, and is served in a context of its own; the engine, of which there is
# one, finds it there.
_client: ContextVar[Any] = ContextVar("durable_client")


def enter_invocation(client: Any) -> None:
    """Let the engine use an invocation's DurableOrchestrationClient from here on in this context."""
    _client.set(client)


class DurableFunctionsEngine:
    """Runs mining workflows on Durable Functions, by the client of the invocation being served."""

    closing = False  # the host ends its functions itself

    def __init__(self, pool: MinerPool, fan_out: int = 1) -> None:
        """
        Args:
            pool: where this instance of the app mines.
            fan_out: how many instances of the app search slices of the same block at once.
        """
        self._pool = pool
        self._fan_out = fan_out

    async def start(self, workflow_id: str, job: MiningJob, owner: str | None = None) -> None:
        state = initial_state(
            job,
            SCHEDULER_SLICE_SECONDS,
            fan_out=self._fan_out,
            restart_lost_slices=self._fan_out > 1,
            owner=owner,
        )
        await _called(_client.get().start_new(ORCHESTRATION, instance_id=workflow_id, client_input=state))

    async def state(self, workflow_id: str) -> WorkflowState | None:
        found = await _called(_client.get().get_status(workflow_id, show_input=True))
        return _workflow_state(found) if found else None

    async def wait(self, workflow_id: str, seconds: float) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause, longest = _POLL_SECONDS
        while True:
            state = await self.state(workflow_id)
            left = deadline - loop.time()
            if state is None or state.ended or left <= 0:
                return state
            await asyncio.sleep(min(pause, left))
            pause = min(pause * _POLL_GROWTH, longest)

    async def cancel(self, workflow_id: str) -> WorkflowState | None:
        state = await self.state(workflow_id)
        if state is None or state.ended:
            return state
        await _called(_client.get().terminate(workflow_id, "cancelled by the caller"))
        # A slice on another instance runs on to its end, for nobody.
        self._pool.cancel(workflow_id)
        return await self.wait(workflow_id, _CANCEL_SECONDS)

    async def list(self, limit: int, *, running_only: bool = False) -> list[WorkflowState]:
        if running_only:
            from azure.durable_functions import OrchestrationRuntimeStatus as Status

            running = [Status.Running, Status.Pending, Status.Suspended, Status.ContinuedAsNew]
            found = await _called(_client.get().get_status_by(runtime_status=running))
        else:
            found = await _called(_client.get().get_status_all())
        newest_first = sorted(found, key=lambda status: status.created_time, reverse=True)[:limit]
        states = await asyncio.gather(*(self._listed(status) for status in newest_first))
        return [state for state in states if state is not None]

    async def _listed(self, status: Any) -> WorkflowState | None:
        # The input tells what a workflow is about and whose it is; a host may leave it out of the list.
        return await self.state(status.instance_id) if status.input_ is None else _workflow_state(status)


def orchestrate(context: Any) -> Generator[Any, Any, Document | None]:
    """The orchestration, for a function with an orchestration trigger to return: `yield from` it."""
    return drive(_document(context.get_input()), _Context(context))


def mine(pool: MinerPool, request: Document) -> Document:
    """The activity, for a function with an activity trigger to return."""
    return mine_slice(pool, request, owner=request["workflow_id"])


class _Context:
    """`OrchestrationContext` on Durable Functions."""

    # The host goes through what the orchestration has asked for in that order, and waits at each `any_of`
    # for one of the tasks that are new in it, even if an older one has let the orchestration go on. A
    # timer that is taken back counts as ended, so that one in each wait lets the host go on, too.
    fresh_timers = True

    def __init__(self, context: Any) -> None:
        self._context = context

    def now(self) -> float:
        clock: datetime = self._context.current_utc_datetime
        return clock.replace(tzinfo=UTC).timestamp()

    def call_activity(self, request: Document) -> Any:
        return self._context.call_activity(ACTIVITY, {**request, "workflow_id": self._context.instance_id})

    def create_timer(self, seconds: float) -> Any:
        return self._context.create_timer(self._context.current_utc_datetime + timedelta(seconds=seconds))

    def any_of(self, tasks: list[Any]) -> Any:
        return self._context.task_any(tasks)

    def answer(self, ended: Any) -> Document:
        if isinstance(ended.result, Exception):
            raise ended.result
        return _document(ended.result)

    def report(self, progress: Document) -> None:
        self._context.set_custom_status(progress)

    def continue_as_new(self, state: Document) -> None:
        self._context.continue_as_new(state)


async def _called(call: Awaitable[T]) -> T:
    try:
        return await call
    except Exception as error:  # the client raises bare ones, and those of its HTTP library
        raise EngineError(f"Durable Functions did not answer: {_without_tail(str(error) or repr(error))}") from error


def _workflow_state(found: Any) -> WorkflowState:
    status = _ENDED.get(found.runtime_status.value, "running")
    progress = _document_or_none(found.custom_status)
    given = _document_or_none(found.input_) or {}
    return WorkflowState(
        workflow_id=found.instance_id,
        status=status,
        job=_job(given),
        progress=Progress(**progress) if progress else None,
        output=_document(found.output) if status == "completed" else None,
        error=_error(found.output) if status == "failed" else None,
        owner=given.get("owner"),
        created_at=found.created_time.timestamp(),
        updated_at=found.last_updated_time.timestamp(),
    )


def _document(value: Any) -> Document:
    """A JSON object, which arrives here as an object or as its text, once or twice encoded."""
    while isinstance(value, str):
        value = json.loads(value)
    return value  # type: ignore[no-any-return]


def _document_or_none(value: Any) -> Document | None:
    return _document(value) if value else None


def _job(given: Document) -> MiningJob | None:
    try:
        return job_of(given)
    except (ValueError, KeyError, TypeError, PowError):
        return None


def _error(output: Any) -> str:
    """What went wrong, without what the SDKs put around it: the functions' names, and stack traces."""
    text = _without_tail(output if isinstance(output, str) else json.dumps(output))
    text = text.partition("\n")[0].strip()
    while "' failed: " in text:
        text = text.partition("' failed: ")[2].strip()
    return text or "the workflow failed without saying why"


def _without_tail(text: str) -> str:
    return text.partition(_TAIL)[0].strip()
