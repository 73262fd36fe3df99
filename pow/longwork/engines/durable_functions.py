"""`Engine` on Durable Functions' client, and the orchestration as Durable Functions runs it.

The client's calls go to the Functions host on loopback; each invocation brings one of its own, in its
`CallContext`. Only this module knows the SDK's types, which the app has imported.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.driver import (
    ActivityInput,
    drive,
    workflow_state,
)
from pow.longwork.engines.polled import PolledEngine
from pow.longwork.orchestration import WorkflowInput
from pow.longwork.work import AnyWork, Message

# The client library's errors may have the whole state of an orchestration behind this.
_TAIL = "$OutOfProcData$"

_ENDED: dict[str, EngineStatus] = {
    "Completed": "completed",
    "Failed": "failed",
    "Terminated": "terminated",
    "Canceled": "terminated",
}

T = TypeVar("T")


class DurableFunctionsEngine(PolledEngine):
    """Runs workflows on Durable Functions, by the client of the call; the host ends its functions itself."""

    def describe(self) -> str:
        return "Durable Functions"

    def orchestrate(self, context: Any) -> Generator[Any, Any, Message | None]:
        """The orchestration, for a function with an orchestration trigger to return: `yield from` it."""
        return drive(self._work, _document(context.get_input()), _Context(context, self._work))

    def run(self, given: Message) -> Message:
        """The activity, for a function with an activity trigger to return."""
        return self._activities.run(given)

    async def _begin(self, call: CallContext, workflow_id: str, given: WorkflowInput) -> None:
        await _called(call.client.start_new(self._work.name, instance_id=workflow_id, client_input=given))

    async def _running(self, call: CallContext, prefix: str) -> Sequence[WorkflowState]:
        from azure.durable_functions import OrchestrationRuntimeStatus as Status

        running = [Status.Running, Status.Pending, Status.Suspended, Status.ContinuedAsNew]
        found = await _called(call.client.get_status_by(runtime_status=running, instance_id_prefix=prefix))
        states = await asyncio.gather(*(self._listed(call, status) for status in found))
        return [state for state in states if state is not None]

    async def _terminate(self, call: CallContext, workflow_id: str) -> None:
        await _called(call.client.terminate(workflow_id, "cancelled by the caller"))

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        found = await _called(call.client.get_status(workflow_id, show_input=True))
        return self._workflow_state(found) if found else None

    async def newest(self, call: CallContext, limit: int) -> Sequence[WorkflowState]:
        found = await _called(call.client.get_status_all())
        newest_first = sorted(found, key=lambda status: status.created_time, reverse=True)
        listed: list[WorkflowState] = []
        # A few at a time: the callers of a team share the list.
        for start in range(0, len(newest_first), limit):
            states = await asyncio.gather(
                *(self._listed(call, status) for status in newest_first[start : start + limit])
            )
            listed += [state for state in states if state is not None and state.owner == call.caller]
            if len(listed) >= limit:
                break
        # The host tells of whole seconds; the workflows themselves know more precisely.
        return sorted(listed, key=lambda state: state.created_at or 0.0, reverse=True)[:limit]

    async def counts(self, call: CallContext) -> Mapping[EngineStatus, int]:
        found = await _called(call.client.get_status_all())
        return Counter(_ENDED.get(status.runtime_status.value, "running") for status in found)

    async def _listed(self, call: CallContext, status: Any) -> WorkflowState | None:
        # The input tells what a workflow is about and whose it is; a host may leave it out of the list.
        return await self.state(call, status.instance_id) if status.input_ is None else self._workflow_state(status)

    def _workflow_state(self, found: Any) -> WorkflowState:
        status = _ENDED.get(found.runtime_status.value, "running")
        return workflow_state(
            self._work,
            found.instance_id,
            status,
            given=_document_or_none(found.input_),
            report=_document_or_none(found.custom_status),
            output=_document(found.output) if status == "completed" else None,
            error=_error(found.output) if status == "failed" else None,
            created_at=found.created_time.timestamp(),
            updated_at=found.last_updated_time.timestamp(),
        )


class _Context:
    """`OrchestrationContext` on Durable Functions."""

    # The host goes through what the orchestration has asked for in that order, and waits at each `any_of`
    # for one of the tasks that are new in it, even if an older one has let the orchestration go on. A
    # timer that is taken back counts as ended, so that one in each wait lets the host go on, too.
    fresh_timers = True

    def __init__(self, context: Any, work: AnyWork) -> None:
        self._context = context
        self._work = work

    @property
    def workflow_id(self) -> str:
        return str(self._context.instance_id)

    def now(self) -> float:
        clock: datetime = self._context.current_utc_datetime
        return clock.replace(tzinfo=UTC).timestamp()

    def call_activity(self, given: ActivityInput) -> Any:
        return self._context.call_activity(self._work.activity_name, given)

    def create_timer(self, seconds: float) -> Any:
        return self._context.create_timer(self._context.current_utc_datetime + timedelta(seconds=seconds))

    def any_of(self, tasks: list[Any]) -> Any:
        return self._context.task_any(tasks)

    def answer(self, ended: Any) -> Message:
        if isinstance(ended.result, Exception):
            raise ended.result
        return _document(ended.result)

    def report(self, report: Message) -> None:
        self._context.set_custom_status(report)

    def continue_as_new(self, given: WorkflowInput) -> None:
        self._context.continue_as_new(given)


async def _called(call: Awaitable[T]) -> T:
    try:
        return await call
    except Exception as error:  # the client raises bare ones, and those of its HTTP library
        raise EngineError(f"Durable Functions did not answer: {_without_tail(str(error) or repr(error))}") from error


def _document(value: Any) -> Message:
    """A JSON object, which arrives here as an object or as its text, once or twice encoded."""
    while isinstance(value, str):
        value = json.loads(value)
    return value  # type: ignore[no-any-return]


def _document_or_none(value: Any) -> Message | None:
    return _document(value) if value else None


def _error(output: Any) -> str:
    """What went wrong, without what the SDKs put around it: the functions' names, and stack traces."""
    text = _without_tail(output if isinstance(output, str) else json.dumps(output))
    text = text.partition("\n")[0].strip()
    while "' failed: " in text:
        text = text.partition("' failed: ")[2].strip()
    return text or "the workflow failed without saying why"


def _without_tail(text: str) -> str:
    return text.partition(_TAIL)[0].strip()
