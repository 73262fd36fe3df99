"""`Engine` on the Durable Task SDK: embedded in this process, or on the Durable Task Scheduler.

Both run the same orchestration and activity on the same worker; only what the client and the worker
connect to differs. The activity mines in this process's pool.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
from durabletask import task
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationQuery, OrchestrationState, OrchestrationStatus
from durabletask.worker import ConcurrencyOptions, TaskHubGrpcWorker

from pow.errors import EngineError, PowError
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.backend import JournaledBackend
from pow.longwork.engines.driver import SCHEDULER_SLICE_SECONDS, drive
from pow.longwork.engines.journal import FILE_NAME, Journal
from pow.longwork.engines.journaled_slice import mine_journaled_slice
from pow.longwork.engines.scheduler import SchedulerAddress, SchedulerWorker, scheduler_client, scheduler_worker
from pow.mining.pool import MinerPool
from pow.mining.workflow import (
    ACTIVITY,
    ORCHESTRATION,
    Document,
    MiningJob,
    Progress,
    SliceReached,
    initial_state,
    job_of,
    mine_slice,
)

# How often progress shows while few workflows are running.
EMBEDDED_SLICE_SECONDS = 1.0

# An activity only waits for the pool, so an embedded worker takes many; one on the scheduler takes
# few, so that other machines get their share; and one at a time when machines share a block, or one
# machine might take all of its slices. Orchestrations have threads that activities can't take.
_EMBEDDED_ACTIVITIES = 256
_SCHEDULER_ACTIVITIES = 16
_SHARED_BLOCK_ACTIVITIES = 1
_ORCHESTRATIONS = 8

# Between two looks at a workflow on the scheduler that somebody waits for: ever less often. The
# embedded engine tells of an end itself.
_POLL_SECONDS = (0.05, 1.0)
_POLL_GROWTH = 1.5
# After a terminate it ends as soon as the worker has heard of it.
_CANCEL_SECONDS = 10.0
# For slices that a shutdown has ended to be answered for; they only have to be sent.
_ANSWER_SECONDS = 5.0

_ENDED: dict[OrchestrationStatus, EngineStatus] = {
    OrchestrationStatus.COMPLETED: "completed",
    OrchestrationStatus.FAILED: "failed",
    OrchestrationStatus.TERMINATED: "terminated",
}

_RUNNING = (OrchestrationStatus.PENDING, OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED)

logger = logging.getLogger(__name__)
_sdk_logger = logger.getChild("sdk")


@dataclass(slots=True)
class _Connection:
    client: AsyncTaskHubGrpcClient
    worker: TaskHubGrpcWorker


class DurableTaskEngine:
    """Runs mining workflows on the Durable Task SDK; an asynchronous context manager.

    It owns its pool: leaving the context ends what mines there, each slice with what it has tried.
    """

    def __init__(
        self,
        pool: MinerPool,
        *,
        state_dir: Path | None = None,
        scheduler: SchedulerAddress | None = None,
        slice_seconds: float | None = None,
        fan_out: int = 1,
    ) -> None:
        """
        Args:
            pool: where blocks are mined.
            state_dir: the folder of the embedded engine's journal; None keeps it in memory.
            scheduler: where the Durable Task Scheduler is; None embeds the engine in this process.
            slice_seconds: how long one activity mines.
            fan_out: how many worker processes search slices of the same block at once.
        """
        self.pool = pool
        self._state_dir = state_dir
        self._scheduler = scheduler
        default_slice = SCHEDULER_SLICE_SECONDS if scheduler else EMBEDDED_SLICE_SECONDS
        self._slice_seconds = default_slice if slice_seconds is None else slice_seconds
        self._fan_out = fan_out
        self._journal: Journal | None = None
        self._backend: JournaledBackend | None = None
        self._connected: _Connection | None = None
        self._waiting: dict[str, set[asyncio.Event]] = {}
        # Where the embedded engine's slices are: with many workflows, one may take a minute.
        self._reached: dict[str, SliceReached] = {}
        self._closing = False
        self._putting_away: asyncio.Task[None] | None = None

    def describe(self) -> str:
        """What and where it is, for the server's start line."""
        if self._scheduler is not None:
            return f"Durable Task Scheduler at {self._scheduler.endpoint}, task hub {self._scheduler.taskhub}"
        if self._state_dir is None:
            return "embedded engine, kept in memory"
        return f"embedded engine, journal {self._state_dir / FILE_NAME}"

    async def __aenter__(self) -> Self:
        _sdk_logger.setLevel(logging.WARNING)
        connection = self._embed() if self._scheduler is None else self._connect(self._scheduler)
        connection.worker.add_orchestrator(_orchestrator())
        connection.worker.add_activity(self._activity())
        connection.worker.start()  # type: ignore[no-untyped-call]
        self._connected = connection
        return self

    def _embed(self) -> _Connection:
        self._journal = Journal(self._state_dir)
        loop = asyncio.get_running_loop()

        def on_end(workflow_id: str) -> None:
            self._reached.pop(workflow_id, None)
            loop.call_soon_threadsafe(self._wake, workflow_id)

        self._backend = JournaledBackend(self._journal, on_end, self._last_progress)
        address = self._backend.start()
        resumed = self._backend.resume()
        if resumed:
            logger.warning("resumed %d unfinished workflow(s) from the journal", resumed)
        return _Connection(
            AsyncTaskHubGrpcClient(host_address=address, logger=_sdk_logger),
            TaskHubGrpcWorker(
                host_address=address,
                logger=_sdk_logger,
                concurrency_options=_concurrency(_EMBEDDED_ACTIVITIES),
            ),
        )

    def _connect(self, scheduler: SchedulerAddress) -> _Connection:
        return _Connection(
            scheduler_client(scheduler, _sdk_logger),
            scheduler_worker(
                scheduler,
                _sdk_logger,
                _concurrency(_SHARED_BLOCK_ACTIVITIES if self._fan_out > 1 else _SCHEDULER_ACTIVITIES),
            ),
        )

    async def __aexit__(self, *_: object) -> None:
        """Stop without losing work: slices end with what they have tried, workflows stay unfinished."""
        self.begin_shutdown()
        if self._putting_away is not None:
            await self._putting_away
        connection, self._connected = self._connected, None
        if connection is not None:
            await connection.client.close()
            if isinstance(connection.worker, SchedulerWorker):
                await asyncio.to_thread(connection.worker.wait_for_answers, _ANSWER_SECONDS)
            # The SDK tells as an error that the stream of work, which stop() cancels, was cancelled.
            _sdk_logger.setLevel(logging.CRITICAL)
            await asyncio.to_thread(connection.worker.stop)
        if self._backend is not None:
            await asyncio.to_thread(self._backend.stop, 0)
        if self._journal is not None:
            self._journal.close()

    @property
    def closing(self) -> bool:
        return self._closing

    def begin_shutdown(self) -> None:
        """Stop mining, and let every `wait` return now, so that callers get their handle in good time."""
        self._closing = True
        for workflow_id in self._waiting:
            self._wake(workflow_id)
        if self._putting_away is None:
            self._putting_away = asyncio.create_task(asyncio.to_thread(self._put_away))

    def _put_away(self) -> None:
        self.pool.close()
        # Slices that just ended are in the journal; nothing after them may count as a failure.
        if self._backend is not None:
            self._backend.freeze()

    async def start(self, workflow_id: str, job: MiningJob, owner: str | None = None) -> None:
        async with self._calls() as client:
            state = initial_state(
                job,
                self._slice_seconds,
                fan_out=self._fan_out,
                # A slice in this process can't get lost without the engine.
                restart_lost_slices=self._scheduler is not None and self._fan_out > 1,
                owner=owner,
            )
            await client.schedule_new_orchestration(ORCHESTRATION, input=state, instance_id=workflow_id)

    async def state(self, workflow_id: str) -> WorkflowState | None:
        async with self._calls() as client:
            found = await client.get_orchestration_state(workflow_id)
        return None if found is None else _workflow_state(found, self._reached.get(workflow_id))

    async def wait(self, workflow_id: str, seconds: float) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause, longest = (seconds, seconds) if self._scheduler is None else _POLL_SECONDS
        # Before the first look, so that an end right after it is not missed.
        woken = asyncio.Event()
        self._waiting.setdefault(workflow_id, set()).add(woken)
        try:
            while True:
                state = await self.state(workflow_id)
                left = deadline - loop.time()
                if state is None or state.ended or left <= 0 or self._closing:
                    return state
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), min(pause, left))
                pause = min(pause * _POLL_GROWTH, longest)
        finally:
            self._waiting[workflow_id].discard(woken)
            if not self._waiting[workflow_id]:
                del self._waiting[workflow_id]

    def _wake(self, workflow_id: str) -> None:
        for woken in self._waiting.get(workflow_id, ()):
            woken.set()

    async def cancel(self, workflow_id: str) -> WorkflowState | None:
        state = await self.state(workflow_id)
        if state is None or state.ended:
            return state
        async with self._calls() as client:
            await client.terminate_orchestration(workflow_id, recursive=False)
        self.pool.cancel(workflow_id)
        state = await self.wait(workflow_id, _CANCEL_SECONDS)
        # A slice that was about to begin meanwhile; those that come later find their workflow finished.
        self.pool.cancel(workflow_id)
        return state

    async def list(self, limit: int, *, running_only: bool = False) -> list[WorkflowState]:
        query = OrchestrationQuery(
            max_instance_count=limit,
            fetch_inputs_and_outputs=True,
            runtime_status=list(_RUNNING) if running_only else None,
        )
        async with self._calls() as client:
            found = await client.get_all_orchestration_states(query)
        newest_first = sorted(found, key=lambda state: state.created_at, reverse=True)
        return [_workflow_state(state, self._reached.get(state.instance_id)) for state in newest_first[:limit]]

    @asynccontextmanager
    async def _calls(self) -> AsyncIterator[AsyncTaskHubGrpcClient]:
        if self._connected is None:
            raise EngineError("the workflow engine is not running")
        try:
            yield self._connected.client
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
            raise EngineError(f"the workflow engine ({self.describe()}) did not answer: {details}") from error

    def _activity(self) -> "task.Activity[Document, Document]":
        def mine_block(context: task.ActivityContext, request: Document) -> Document:
            workflow_id = context.orchestration_id
            if self._journal is None:
                return mine_slice(self.pool, request, owner=workflow_id)

            def note(reached: SliceReached) -> None:
                # Slices side by side, which have an end, don't tell how many nonces were tried.
                if "stop" not in request:
                    self._reached[workflow_id] = reached

            answer = mine_journaled_slice(self.pool, self._journal, workflow_id, request, note)
            if self._journal.is_finished(workflow_id):  # it was cancelled, maybe before the last note
                self._reached.pop(workflow_id, None)
            return answer

        assert mine_block.__name__ == ACTIVITY
        return mine_block

    def _last_progress(self, workflow_id: str, report: str) -> str:
        """What the journal keeps as a workflow's progress when it ends: the slice of a cancelled one counts, too."""
        reached = self._reached.get(workflow_id)
        if reached is None or not report:
            return report
        return json.dumps(Progress(**json.loads(report)).with_slice(reached)._asdict())


def _orchestrator() -> "task.Orchestrator[Document, Document | None]":
    def mine_chain(
        context: task.OrchestrationContext, state: Document
    ) -> Generator[task.Task[Any], Any, Document | None]:
        return drive(state, _Context(context))

    assert mine_chain.__name__ == ORCHESTRATION
    return mine_chain


class _Context:
    """`OrchestrationContext` on the Durable Task SDK."""

    # Its backends don't take a timer back: one that is forgotten still makes a turn when it fires.
    fresh_timers = False

    def __init__(self, context: task.OrchestrationContext) -> None:
        self._context = context

    def now(self) -> float:
        return self._context.current_utc_datetime.replace(tzinfo=UTC).timestamp()

    def call_activity(self, request: Document) -> "task.Task[Document]":
        return self._context.call_activity(ACTIVITY, input=request)

    def create_timer(self, seconds: float) -> task.TimerTask:
        return self._context.create_timer(timedelta(seconds=seconds))

    def any_of(self, tasks: "list[task.Task[Any]]") -> "task.Task[task.Task[Any]]":
        return task.when_any(tasks)

    def answer(self, ended: "task.Task[Document]") -> Document:
        return ended.get_result()

    def report(self, progress: Document) -> None:
        self._context.set_custom_status(progress)

    def continue_as_new(self, state: Document) -> None:
        self._context.continue_as_new(state)


def _concurrency(activities: int) -> ConcurrencyOptions:
    return ConcurrencyOptions(
        maximum_concurrent_activity_work_items=activities,
        maximum_concurrent_orchestration_work_items=_ORCHESTRATIONS,
        maximum_thread_pool_workers=activities + _ORCHESTRATIONS,
    )


def _workflow_state(found: OrchestrationState, reached: SliceReached | None) -> WorkflowState:
    status = _ENDED.get(found.runtime_status, "running")
    progress = Progress(**json.loads(found.serialized_custom_status)) if found.serialized_custom_status else None
    given = json.loads(found.serialized_input) if found.serialized_input else {}
    return WorkflowState(
        workflow_id=found.instance_id,
        status=status,
        job=_job(given),
        progress=progress.with_slice(reached) if progress and reached else progress,
        output=json.loads(found.serialized_output) if status == "completed" and found.serialized_output else None,
        error=found.failure_details.message if found.failure_details else None,
        owner=given.get("owner"),
        created_at=found.created_at.replace(tzinfo=UTC).timestamp(),
        updated_at=found.last_updated_at.replace(tzinfo=UTC).timestamp(),
    )


def _job(given: Document) -> MiningJob | None:
    try:
        return job_of(given)
    except (ValueError, KeyError, TypeError, PowError):
        return None
