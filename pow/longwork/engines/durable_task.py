"""`Engine` on the Durable Task Scheduler, by the Durable Task SDK: for servers and for workers.

The activity runs in this process; the scheduler keeps the workflows, and hands slices to all workers of a task hub.
"""

import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import durabletask.internal.orchestrator_service_pb2 as pb
import grpc
from durabletask import task
from durabletask.client import OrchestrationQuery, OrchestrationState, OrchestrationStatus
from durabletask.worker import ConcurrencyOptions

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import KEEP_SECONDS, EngineStatus, WorkflowState
from pow.longwork.engines.activities import ActivityInput
from pow.longwork.engines.driver import SLICE_SECONDS, ActivityFailed, drive, shown_owner, workflow_state
from pow.longwork.engines.listing import Entry, Filter
from pow.longwork.engines.polled import CALL_SECONDS, PolledEngine
from pow.longwork.engines.scheduler import (
    SchedulerAddress,
    SchedulerClient,
    SchedulerWorker,
    scheduler_client,
    scheduler_worker,
)
from pow.longwork.orchestration import WorkflowInput
from pow.longwork.overhead import Overhead
from pow.longwork.work import AnyWork, Message

# An activity only waits for its work; but few at once leave other machines their share, and one at a time where
# machines share a block, or one machine might take all of its slices. Orchestrations have threads that
# activities can't take.
_ACTIVITIES = 16
_SHARED_ACTIVITIES = 1
_ORCHESTRATIONS = 8

# For slices that a shutdown has ended to be answered for, which only have to be sent; and for the connection's end.
_ANSWER_SECONDS = 1.5
_CLOSE_SECONDS = 0.5

# From one slice to the next, until it was measured here.
_OVERHEAD_SECONDS = 0.005

_PURGE_SECONDS = 3600.0

_LOGGED_CHARACTERS = 240

_ENDED: dict[OrchestrationStatus, EngineStatus] = {
    OrchestrationStatus.COMPLETED: "completed",
    OrchestrationStatus.FAILED: "failed",
    OrchestrationStatus.TERMINATED: "terminated",
}


def _one_line(record: logging.LogRecord) -> bool:
    """A filter: a scheduler that is away is worth a line each time, not the stack of a library."""
    record.msg, record.args = " ".join(record.getMessage().split())[:_LOGGED_CHARACTERS], None
    record.exc_info = None
    return True


logger = logging.getLogger(__name__)
_sdk_logger = logger.getChild("sdk")
_sdk_logger.addFilter(_one_line)


@dataclass(slots=True)
class _Connection:
    client: SchedulerClient
    worker: SchedulerWorker


class DurableTaskEngine(PolledEngine):
    """Runs workflows on a Durable Task Scheduler; an asynchronous context manager."""

    def __init__(
        self, work: AnyWork, scheduler: SchedulerAddress, *, slice_seconds: float = SLICE_SECONDS, width: int = 1
    ) -> None:
        """
        Args:
            work: what its workflows do.
            scheduler: where they are kept.
            slice_seconds: how long one activity runs.
            width: how many worker processes run slices of the same workflow at once.
        """
        super().__init__(work, Overhead(_OVERHEAD_SECONDS), slice_seconds=slice_seconds, width=width)
        self._scheduler = scheduler
        self._connected: _Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._purging: asyncio.Task[None] | None = None

    def describe(self) -> str:
        return f"Durable Task Scheduler at {self._scheduler.endpoint}, task hub {self._scheduler.taskhub}"

    async def __aenter__(self) -> Self:
        _sdk_logger.setLevel(logging.WARNING)
        activities = _SHARED_ACTIVITIES if self._width > 1 else _ACTIVITIES
        worker = scheduler_worker(self._scheduler, _sdk_logger, _concurrency(activities))
        worker.add_orchestrator(self._orchestrator())
        worker.add_activity(self._activity())
        # A hub may be other apps', too: what this worker doesn't know, it would fail.
        worker.use_work_item_filters()
        worker.start()  # type: ignore[no-untyped-call]
        self._loop = asyncio.get_running_loop()
        self._connected = _Connection(scheduler_client(self._scheduler, _sdk_logger), worker)
        self._purging = asyncio.create_task(self._purge_now_and_then())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop without losing work: slices end with what they have, workflows stay unfinished."""
        self.begin_shutdown()
        connection, self._connected = self._connected, None
        if connection is None:
            return
        if self._purging is not None:
            self._purging.cancel()
        # The SDK tells as an error that the stream of work, which stop() cancels, was cancelled.
        _sdk_logger.setLevel(logging.CRITICAL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await connection.client.close()
        # In a daemon's thread: a scheduler that doesn't answer would keep the SDK, and so this process, for a minute.
        ending = threading.Thread(target=_end_worker, args=[connection.worker], daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _ANSWER_SECONDS + _CLOSE_SECONDS)

    def begin_shutdown(self) -> None:
        """End the slices of this process, and let every `wait` return now."""
        self._activities.close()
        self._ending.set()

    async def _begin(self, call: CallContext, workflow_id: str, given: WorkflowInput) -> None:
        async with self._calls() as client:
            await client.schedule_new_orchestration(self._work.name, input=given, instance_id=workflow_id)

    async def _twin(self, call: CallContext, job: Message, prefix: str) -> WorkflowState | None:
        try:
            return await super()._twin(call, job, prefix)
        except NotSupported as error:
            logger.warning("equal calls start workflows of their own: %s", error)
            return None

    async def _terminate(self, call: CallContext, workflow_id: str) -> None:
        async with self._calls() as client:
            await client.terminate_orchestration(workflow_id, recursive=False)

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        async with self._calls() as client:
            found = await client.get_orchestration_state(workflow_id)
        return None if found is None or found.name != self._work.name else self._workflow_state(found)

    async def _pages(self, call: CallContext, wanted: Filter) -> AsyncIterator[Sequence[Entry]]:
        query = OrchestrationQuery(
            runtime_status=[known for known in OrchestrationStatus if _status(known) in wanted.statuses] or None,
            instance_id_prefix=wanted.prefix or None,
            created_time_from=None if wanted.since is None else datetime.fromtimestamp(wanted.since, UTC),
            fetch_inputs_and_outputs=False,
        )
        async for page in self._listed(query):
            yield [_entry(found) for found in page]

    async def _listed(self, query: OrchestrationQuery) -> AsyncIterator[list[pb.OrchestrationState]]:
        """The work's workflows that a query finds, page by page; other apps may share the hub."""
        async with self._calls() as client:
            pages = client.pages(query)
        while True:
            async with self._calls():
                page = await anext(pages, None)
            if page is None:
                return
            yield [found for found in page if found.name == self._work.name]

    async def _purge_now_and_then(self) -> None:
        """Forget workflows that ended long ago, where the scheduler has no retention policy of its own."""
        while True:
            try:
                await self._purge()
            except EngineError as error:
                logger.debug("nothing was purged: %s", error)
            await asyncio.sleep(_PURGE_SECONDS)

    async def _purge(self) -> None:
        oldest = time.time() - KEEP_SECONDS
        query = OrchestrationQuery(
            runtime_status=list(_ENDED),
            created_time_to=datetime.fromtimestamp(oldest, UTC),
            fetch_inputs_and_outputs=False,
        )
        async for page in self._listed(query):
            for found in page:
                if found.lastUpdatedTimestamp.ToSeconds() < oldest:
                    async with self._calls() as client:
                        await client.purge_orchestration(found.instanceId, recursive=False)

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[SchedulerClient]:
        """For one call of the client: it ends in time, whatever the scheduler does.

        Raises:
            EngineError: the scheduler didn't do what it was asked for.
        """
        if self._connected is None:
            raise EngineError("the workflow engine is not running")
        try:
            async with asyncio.timeout(CALL_SECONDS):
                yield self._connected.client
        except TimeoutError as error:
            raise EngineError(
                f"the workflow engine ({self.describe()}) did not answer within {CALL_SECONDS:g} s"
            ) from error
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise NotSupported(
                    f"the workflow engine ({self.describe()}) has no such call, as some can't list workflows: {details}"
                ) from error
            raise EngineError(f"the workflow engine ({self.describe()}) did not answer: {details}") from error

    def _has_ended(self, workflow_id: str) -> bool:
        """Called in a thread of the worker's. One that the scheduler doesn't know hasn't: it may be back soon."""

        async def has_ended() -> bool:
            async with self._calls() as client:
                found = await client.get_orchestration_state(workflow_id, fetch_payloads=False)
            return found is not None and found.runtime_status in _ENDED

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(has_ended(), self._loop).result(CALL_SECONDS)

    def _orchestrator(self) -> "task.Orchestrator[Any, Any]":
        def orchestrator(
            context: task.OrchestrationContext, given: Message
        ) -> Generator[task.Task[Any], Any, Message | None]:
            return drive(self._work, given, _Context(context, self._work))

        orchestrator.__name__ = self._work.name  # by which the SDK registers it
        return orchestrator

    def _activity(self) -> "task.Activity[Any, Any]":
        def activity(context: task.ActivityContext, given: Message) -> Message:
            return self._activities.run(given, context.orchestration_id, self._has_ended)

        activity.__name__ = self._work.activity_name
        return activity

    def _workflow_state(self, found: OrchestrationState) -> WorkflowState:
        return workflow_state(
            self._work,
            found.instance_id,
            _status(found.runtime_status),
            given=_loaded(found.serialized_input),
            shown=_loaded(found.serialized_custom_status),
            output=_loaded(found.serialized_output),
            error=_words(found.failure_details.message) if found.failure_details else None,
            created_at=found.created_at.replace(tzinfo=UTC).timestamp(),
            updated_at=found.last_updated_at.replace(tzinfo=UTC).timestamp(),
        )


class NotSupported(EngineError):
    """The service has no such call: some that speak the protocol can't list."""


class _Context:
    """`OrchestrationContext` on the Durable Task SDK."""

    # Its backends don't take a timer back: one that is forgotten still makes a turn when it fires.
    fresh_timers = False

    def __init__(self, context: task.OrchestrationContext, work: AnyWork) -> None:
        self._context = context
        self._work = work

    @property
    def workflow_id(self) -> str:
        return self._context.instance_id

    def now(self) -> float:
        return self._context.current_utc_datetime.replace(tzinfo=UTC).timestamp()

    def call_activity(self, given: ActivityInput) -> "task.Task[Message]":
        return self._context.call_activity(self._work.activity_name, input=given)

    def create_timer(self, seconds: float) -> task.TimerTask:
        return self._context.create_timer(timedelta(seconds=seconds))

    def any_of(self, tasks: "list[task.Task[Any]]") -> "task.Task[task.Task[Any]]":
        return task.when_any(tasks)

    def answer(self, ended: "task.Task[Message]") -> Message:
        try:
            return ended.get_result()
        except task.TaskFailedError as error:
            raise ActivityFailed(_words(error.details.message or str(error))) from error

    def report(self, report: Message) -> None:
        self._context.set_custom_status(report)

    def continue_as_new(self, given: WorkflowInput) -> None:
        self._context.continue_as_new(given)


def _concurrency(activities: int) -> ConcurrencyOptions:
    return ConcurrencyOptions(
        maximum_concurrent_activity_work_items=activities,
        maximum_concurrent_orchestration_work_items=_ORCHESTRATIONS,
        maximum_thread_pool_workers=activities + _ORCHESTRATIONS,
    )


def _end_worker(worker: SchedulerWorker) -> None:
    worker.wait_for_answers(_ANSWER_SECONDS)
    worker.stop()  # type: ignore[no-untyped-call]


def _status(status: OrchestrationStatus) -> EngineStatus:
    return _ENDED.get(status, "running")


def _entry(found: pb.OrchestrationState) -> Entry:
    status = _status(OrchestrationStatus(found.orchestrationStatus))
    known, owner = shown_owner(_loaded(found.customStatus.value))
    return Entry(found.instanceId, status, found.createdTimestamp.ToNanoseconds() / 1e9, owner=owner, owner_known=known)


def _words(message: str) -> str:
    """What went wrong, without what the SDK puts in front of it."""
    return re.sub(r"^\S+: Activity task #\d+ failed: ", "", message).strip() or "it didn't say why"


def _loaded(text: str | None) -> Any:
    """A JSON value; None for none, and for what somebody else has put there."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return None
