"""`Engine` on the Durable Task Scheduler, by the Durable Task SDK: for servers and for workers.

The activity runs in this process; the scheduler keeps the workflows, and hands slices to all workers of a task hub.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, Self

import grpc
from durabletask import task
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationQuery, OrchestrationState, OrchestrationStatus
from durabletask.worker import ConcurrencyOptions

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.driver import (
    SLICE_SECONDS,
    ActivityInput,
    drive,
    workflow_state,
)
from pow.longwork.engines.polled import PolledEngine
from pow.longwork.engines.scheduler import SchedulerAddress, SchedulerWorker, scheduler_client, scheduler_worker
from pow.longwork.orchestration import WorkflowInput
from pow.longwork.work import AnyWork, Message

# An activity only waits for its work; but few at once leave other machines their share, and one at a time where
# machines share a block, or one machine might take all of its slices. Orchestrations have threads that
# activities can't take.
_ACTIVITIES = 16
_SHARED_ACTIVITIES = 1
_ORCHESTRATIONS = 8

# For slices that a shutdown has ended to be answered for; they only have to be sent.
_ANSWER_SECONDS = 5.0
# Workflows that a list looks at, everybody's, and that are counted: the newest.
_LOOKED_AT = 1000

_ENDED: dict[OrchestrationStatus, EngineStatus] = {
    OrchestrationStatus.COMPLETED: "completed",
    OrchestrationStatus.FAILED: "failed",
    OrchestrationStatus.TERMINATED: "terminated",
}

_RUNNING = (OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED)

_sdk_logger = logging.getLogger(__name__).getChild("sdk")


@dataclass(slots=True)
class _Connection:
    client: AsyncTaskHubGrpcClient
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
        super().__init__(work, slice_seconds=slice_seconds, width=width)
        self._scheduler = scheduler
        self._connected: _Connection | None = None

    def describe(self) -> str:
        return f"Durable Task Scheduler at {self._scheduler.endpoint}, task hub {self._scheduler.taskhub}"

    async def __aenter__(self) -> Self:
        _sdk_logger.setLevel(logging.WARNING)
        activities = _SHARED_ACTIVITIES if self._width > 1 else _ACTIVITIES
        worker = scheduler_worker(self._scheduler, _sdk_logger, _concurrency(activities))
        worker.add_orchestrator(self._orchestrator())
        worker.add_activity(self._activity())
        worker.start()  # type: ignore[no-untyped-call]
        self._connected = _Connection(scheduler_client(self._scheduler, _sdk_logger), worker)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop without losing work: slices end with what they have, workflows stay unfinished."""
        self.begin_shutdown()
        connection, self._connected = self._connected, None
        if connection is not None:
            await connection.client.close()
            await asyncio.to_thread(connection.worker.wait_for_answers, _ANSWER_SECONDS)
            # The SDK tells as an error that the stream of work, which stop() cancels, was cancelled.
            _sdk_logger.setLevel(logging.CRITICAL)
            await asyncio.to_thread(connection.worker.stop)

    def begin_shutdown(self) -> None:
        """End the slices of this process, and let every `wait` return now."""
        self._activities.close()
        self._ending.set()

    async def _begin(self, call: CallContext, workflow_id: str, given: WorkflowInput) -> None:
        async with self._calls() as client:
            await client.schedule_new_orchestration(self._work.name, input=given, instance_id=workflow_id)

    async def _running(self, call: CallContext, prefix: str) -> Sequence[WorkflowState]:
        return await self._query(runtime_status=list(_RUNNING), instance_id_prefix=prefix)

    async def _terminate(self, call: CallContext, workflow_id: str) -> None:
        async with self._calls() as client:
            await client.terminate_orchestration(workflow_id, recursive=False)

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        async with self._calls() as client:
            found = await client.get_orchestration_state(workflow_id)
        return None if found is None else self._workflow_state(found)

    async def newest(self, call: CallContext, limit: int) -> Sequence[WorkflowState]:
        states = await self._query(max_instance_count=_LOOKED_AT)
        newest = sorted(states, key=lambda state: state.created_at or 0.0, reverse=True)
        return [state for state in newest if state.owner == call.caller][:limit]

    async def counts(self, call: CallContext) -> Mapping[EngineStatus, int]:
        query = OrchestrationQuery(max_instance_count=_LOOKED_AT, fetch_inputs_and_outputs=False)
        async with self._calls() as client:
            found = await client.get_all_orchestration_states(query)
        return Counter(_ENDED.get(state.runtime_status, "running") for state in found)

    async def _query(self, **conditions: Any) -> list[WorkflowState]:
        query = OrchestrationQuery(fetch_inputs_and_outputs=True, **conditions)
        async with self._calls() as client:
            found = await client.get_all_orchestration_states(query)
        return [self._workflow_state(state) for state in found]

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[AsyncTaskHubGrpcClient]:
        if self._connected is None:
            raise EngineError("the workflow engine is not running")
        try:
            yield self._connected.client
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            raise EngineError(f"the workflow engine ({self.describe()}) did not answer: {details}") from error

    def _orchestrator(self) -> "task.Orchestrator[Any, Any]":
        def orchestrator(
            context: task.OrchestrationContext, given: Message
        ) -> Generator[task.Task[Any], Any, Message | None]:
            return drive(self._work, given, _Context(context, self._work))

        orchestrator.__name__ = self._work.name  # by which the SDK registers it
        return orchestrator

    def _activity(self) -> "task.Activity[Any, Any]":
        def activity(context: task.ActivityContext, given: Message) -> Message:
            return self._activities.run(given, context.orchestration_id)

        activity.__name__ = self._work.activity_name
        return activity

    def _workflow_state(self, found: OrchestrationState) -> WorkflowState:
        return workflow_state(
            self._work,
            found.instance_id,
            _ENDED.get(found.runtime_status, "running"),
            given=_loaded(found.serialized_input),
            report=_loaded(found.serialized_custom_status),
            output=_loaded(found.serialized_output),
            error=found.failure_details.message if found.failure_details else None,
            created_at=found.created_at.replace(tzinfo=UTC).timestamp(),
            updated_at=found.last_updated_at.replace(tzinfo=UTC).timestamp(),
        )


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
        return ended.get_result()

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


def _loaded(text: str | None) -> Any:
    return json.loads(text) if text else None
