"""`Engine` on the Durable Task Scheduler, by the Durable Task SDK: for servers and for workers.

The activity runs in this process; the scheduler keeps the workflows, and hands slices to all workers of a task hub.
"""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, Self

import grpc
from durabletask import task
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationQuery, OrchestrationState, OrchestrationStatus
from durabletask.worker import ConcurrencyOptions

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, Started, WorkflowState
from pow.longwork.engines.driver import (
    SLICE_SECONDS,
    Activities,
    ActivityInput,
    drive,
    id_prefix,
    new_id,
    workflow_state,
)
from pow.longwork.engines.scheduler import SchedulerAddress, SchedulerWorker, scheduler_client, scheduler_worker
from pow.longwork.orchestration import WorkflowInput, first_input
from pow.longwork.work import AnyWork, Message

# An activity only waits for its work; but few at once leave other machines their share, and one at a time where
# machines share a block, or one machine might take all of its slices. Orchestrations have threads that
# activities can't take.
_ACTIVITIES = 16
_SHARED_ACTIVITIES = 1
_ORCHESTRATIONS = 8

# Between two looks at a workflow that somebody waits for: ever less often.
_POLL_SECONDS = (0.05, 1.0)
_POLL_GROWTH = 1.5
# After a terminate it ends as soon as the worker has heard of it.
_CANCEL_SECONDS = 10.0
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


class DurableTaskEngine:
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
        self._work = work
        self._scheduler = scheduler
        self._slice_seconds = slice_seconds
        self._width = width
        self._activities = Activities(work)
        self._connected: _Connection | None = None
        self._closing = False
        self._woken = asyncio.Event()
        # From the look for a twin to its start: two equal calls in the same moment are twins, too.
        self._starting = asyncio.Lock()

    def describe(self) -> str:
        return f"Durable Task Scheduler at {self._scheduler.endpoint}, task hub {self._scheduler.taskhub}"

    def fault(self) -> str | None:
        return None

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

    @property
    def closing(self) -> bool:
        return self._closing

    def begin_shutdown(self) -> None:
        """End the slices of this process, and let every `wait` return now."""
        self._closing = True
        self._activities.close()
        self._woken.set()

    async def start(self, call: CallContext, job: Message, twin_key: str, *, fresh: bool = False) -> Started:
        async with self._starting:
            twin = None if fresh else await self._twin(call, job, twin_key)
            if twin is not None:
                return Started(twin, joined=True)
            given = first_input(
                self._work,
                job,
                slice_seconds=self._slice_seconds,
                width=self._width,
                restart_lost_slices=self._width > 1,
                owner=call.caller,
                created_at=time.time(),
            )
            workflow_id = new_id(twin_key)
            async with self._calls() as client:
                await client.schedule_new_orchestration(self._work.name, input=given, instance_id=workflow_id)
        return Started(workflow_id)

    async def _twin(self, call: CallContext, job: Message, twin_key: str) -> str | None:
        running = await self._query(runtime_status=list(_RUNNING), instance_id_prefix=id_prefix(twin_key))
        # Prefixes may be equal by chance.
        return next((state.workflow_id for state in running if (state.job, state.owner) == (job, call.caller)), None)

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        async with self._calls() as client:
            found = await client.get_orchestration_state(workflow_id)
        return None if found is None else self._workflow_state(found)

    async def wait(self, call: CallContext, workflow_id: str, seconds: float) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause, longest = _POLL_SECONDS
        while True:
            state = await self.state(call, workflow_id)
            left = deadline - loop.time()
            if state is None or state.ended or left <= 0 or self._closing:
                return state
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(pause, left))
            pause = min(pause * _POLL_GROWTH, longest)

    async def cancel(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        state = await self.state(call, workflow_id)
        if state is None or state.ended:
            return state
        async with self._calls() as client:
            await client.terminate_orchestration(workflow_id, recursive=False)
        # A slice on another machine runs on to its end, for nobody.
        self._activities.cancel(workflow_id)
        return await self.wait(call, workflow_id, _CANCEL_SECONDS)

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
