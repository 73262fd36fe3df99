"""`Engine` on Durable Functions' client, and the orchestration as Durable Functions runs it.

The client's calls go to the Functions host on loopback; each invocation brings one of its own, in its
`CallContext`. Only this module knows the SDK's types, which the app has imported.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Generator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.activities import ActivityInput
from pow.longwork.engines.driver import SLICE_SECONDS, ActivityFailed, drive, shown_owner, workflow_state
from pow.longwork.engines.durable_http import instance_pages, instance_status
from pow.longwork.engines.listing import Entry, Filter
from pow.longwork.engines.polled import CALL_SECONDS, PolledEngine
from pow.longwork.orchestration import WorkflowInput
from pow.longwork.overhead import Overhead
from pow.longwork.work import AnyWork, Message

# The client library's errors may have the whole state of an orchestration behind this.
_TAIL = "$OutOfProcData$"

_STATUSES: dict[str, EngineStatus] = {
    "Pending": "running",
    "Running": "running",
    "Suspended": "running",
    "ContinuedAsNew": "running",
    "Completed": "completed",
    "Failed": "failed",
    "Terminated": "terminated",
    "Canceled": "terminated",
}

# For a page of a list, which may hold a thousand outputs.
_PAGE_SECONDS = 10.0

# From one slice to the next, until it was measured here: the real host took 20 to 28 ms.
_OVERHEAD_SECONDS = 0.025

# What the host puts in front of an exception of the worker's.
_REASON = re.compile(r"\A(?:Result: Failure\s+Exception:|Exception:)\s*")
_KILLED = re.compile(r"exited with code (-?\d+)")
_TIMED_OUT = re.compile(r"Timeout value of (\S+) (?:was )?exceeded")

T = TypeVar("T")


class DurableFunctionsEngine(PolledEngine):
    """Runs workflows on Durable Functions, by the client of the call; the host ends its functions itself."""

    def __init__(self, work: AnyWork, *, slice_seconds: float = SLICE_SECONDS, width: int = 1) -> None:
        """
        Args:
            work: what its workflows do.
            slice_seconds: how long one activity runs; well below the host's `functionTimeout`.
            width: how many instances run slices of the same workflow at once.
        """
        super().__init__(work, Overhead(_OVERHEAD_SECONDS), slice_seconds=slice_seconds, width=width)

    def describe(self) -> str:
        return "Durable Functions"

    def orchestrate(self, context: Any) -> Generator[Any, Any, Message | None]:
        """The orchestration, for a function with an orchestration trigger to return: `yield from` it."""
        return drive(self._work, _value(context.get_input()), _Context(context, self._work))

    def run(self, given: Message, client: Any = None) -> Message:
        """The activity, for a function with an activity trigger to return.

        Args:
            given: what the trigger was given.
            client: the invocation's DurableOrchestrationClient, by which a slice sees that its workflow was ended on
                another instance; None for a slice that runs to its end then.
        """
        return self._activities.run(given, has_ended=None if client is None else partial(_has_ended, client))

    async def _begin(self, call: CallContext, workflow_id: str, given: WorkflowInput) -> None:
        await _called(call.client.start_new(self._work.name, instance_id=workflow_id, client_input=given))

    async def _terminate(self, call: CallContext, workflow_id: str) -> None:
        await _called(call.client.terminate(workflow_id, "cancelled by the caller"))

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        found = await _called(call.client.get_status(workflow_id, show_input=True))
        return self._workflow_state(found) if found and found.name == self._work.name else None

    async def _pages(self, call: CallContext, wanted: Filter) -> AsyncIterator[Sequence[Entry]]:
        names = [name for name, status in _STATUSES.items() if status in wanted.statuses]
        pages = instance_pages(call.client, prefix=wanted.prefix, statuses=names, since=wanted.since)
        while (page := await _called(anext(pages, None), _PAGE_SECONDS)) is not None:
            yield [_entry(found) for found in page if found["name"] == self._work.name]

    def _workflow_state(self, found: Any) -> WorkflowState:
        status = _STATUSES[found.runtime_status.value]
        return workflow_state(
            self._work,
            found.instance_id,
            status,
            given=_value(found.input_),
            shown=_value(found.custom_status),
            output=_value(found.output) if status == "completed" else None,
            error=_words(found.output) if status == "failed" else None,
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
            raise ActivityFailed(_words(str(ended.result)))
        answer: Message = _value(ended.result)
        return answer

    def report(self, report: Message) -> None:
        self._context.set_custom_status(report)

    def continue_as_new(self, given: WorkflowInput) -> None:
        self._context.continue_as_new(given)


async def _called(call: Awaitable[T], seconds: float = CALL_SECONDS) -> T:
    """What a call of the client gives, in time.

    Raises:
        EngineError: nothing.
    """
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError as error:
        raise EngineError(f"Durable Functions did not answer within {seconds:g} s") from error
    except Exception as error:  # the client raises bare ones, and those of its HTTP library
        raise EngineError(f"Durable Functions did not answer: {_without_tail(str(error) or repr(error))}") from error


def _has_ended(client: Any, workflow_id: str) -> bool:
    return _STATUSES[instance_status(client, workflow_id)] != "running"


def _entry(found: Any) -> Entry:
    known, owner = shown_owner(_value(found["customStatus"]))
    created_at = datetime.fromisoformat(found["createdTime"]).timestamp()
    return Entry(found["instanceId"], _STATUSES[found["runtimeStatus"]], created_at, owner=owner, owner_known=known)


def _value(value: Any) -> Any:
    """A JSON value, which arrives here as such or as its text, once or twice encoded; a text that is none as it is."""
    try:
        while isinstance(value, str):
            value = json.loads(value)
    except json.JSONDecodeError:
        pass
    return value


def _words(output: Any) -> str:
    """What went wrong, without what hosts and SDKs put around it: the functions' names, and stack traces."""
    text = _without_tail(output if isinstance(output, str) else json.dumps(output))
    while "' failed: " in text:
        text = text.partition("' failed: ")[2].strip()
    text = _REASON.sub("", text).partition("\n")[0].strip()
    killed, timed_out = _KILLED.search(text), _TIMED_OUT.search(text)
    if killed:
        return f"its worker process was killed, or had no memory left (exit code {killed[1]})"
    if timed_out:
        return f"it took longer than the host lets a function run ({timed_out[1]})"
    return text or "it didn't say why"


def _without_tail(text: str) -> str:
    return text.partition(_TAIL)[0].strip()
