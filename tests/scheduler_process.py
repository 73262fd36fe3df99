"""A stand-in for the Durable Task Scheduler in a process of its own, and workers that take work from it.

The scheduler itself runs in Azure or in a container. This is the SDK's in-process backend on loopback,
which speaks the same protocol, with what several workers need of it: each gets no more slices at once
than it asks for, and none hears of tasks from before its history was continued as new. It has no leases
for slices: one that dies with its worker is not handed to another.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as stubs
import grpc
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.testing.in_memory_backend import ActivityWorkItem, OrchestrationInstance
from python_process import HANG_SECONDS, PythonProcess

from pow.longwork.engines.driver import SLICE_SECONDS
from pow.longwork.engines.scheduler import SchedulerAddress, scheduler_client
from pow.longwork.orchestration import first_input
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

# Its pool starts no thread until somebody mines.
WORK = MiningWork(MinerPool(1))


@dataclass
class _Hands:
    """How many slices a worker takes at once, and those that it has."""

    most: int
    slices: set[tuple[str, int, str]] = field(default_factory=set)


class _Served(threading.local):
    """The worker that this thread looks for work for."""

    hands: _Hands


class _Queue(deque[ActivityWorkItem]):
    """Slices to hand out: empty, as it seems, for a worker that has its hands full."""

    def __init__(self, served: _Served) -> None:
        super().__init__()
        self._served = served

    def __bool__(self) -> bool:
        hands = self._served.hands
        return len(self) > 0 and len(hands.slices) < hands.most

    def popleft(self) -> ActivityWorkItem:
        item = super().popleft()
        self._served.hands.slices.add((item.instance_id, item.task_id, str(item.completion_token)))
        return item


class FreshHistoriesBackend(InMemoryOrchestrationBackend):
    """An in-process backend that keeps answers to activities of an earlier history from the one that followed.

    Tasks are numbered from the beginning in each, so such an answer would be taken for another one's.
    """

    def __init__(self) -> None:
        super().__init__()
        # The first token of a workflow's history, where that isn't its first one.
        self._histories_began: dict[str, int] = {}

    def CompleteActivityTask(self, request: pb.ActivityResponse, context: Any) -> pb.CompleteTaskResponse:
        # Each turn has a token, counted up, and the activities that it schedules bear it.
        with self._lock:
            history_began = self._histories_began.get(request.instanceId, 0)
        if int(request.completionToken) < history_began:
            return pb.CompleteTaskResponse()
        return super().CompleteActivityTask(request, context)

    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        super()._process_complete_orchestration_action(instance, complete_action)
        if complete_action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            self._histories_began[instance.instance_id] = self._next_completion_token
            ends = ("taskCompleted", "taskFailed")
            instance.pending_events = [
                event for event in instance.pending_events if event.WhichOneof("eventType") not in ends
            ]


class SchedulerBackend(FreshHistoriesBackend):
    """The in-process backend for several workers."""

    def __init__(self) -> None:
        super().__init__()
        self._served = _Served()
        self._activity_queue = _Queue(self._served)
        self._hands: list[_Hands] = []

    def start(self) -> str:
        """Listen on a free port of loopback; `host:port`."""
        self._server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        stubs.add_TaskHubSidecarServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        return f"127.0.0.1:{port}"

    def GetWorkItems(self, request: pb.GetWorkItemsRequest, context: grpc.ServicerContext) -> Iterator[pb.WorkItem]:
        hands = _Hands(request.maxConcurrentActivityWorkItems)
        self._hands.append(hands)
        turns: dict[str, pb.WorkItem] = {}
        items = super().GetWorkItems(request, context)
        try:
            while True:
                # Before each look: gRPC may ask for the next item in another thread.
                self._served.hands = hands
                item = next(items, None)
                if item is None:
                    return
                if item.HasField("orchestratorRequest"):
                    turns[item.orchestratorRequest.instanceId] = item
                yield item
        finally:
            self._hands.remove(hands)
            self._hand_back(turns)

    def _hand_back(self, turns: dict[str, pb.WorkItem]) -> None:
        """Let another worker take the orchestrations' turns that a worker died over."""
        with self._lock:
            for instance_id, item in turns.items():
                instance = self._instances.get(instance_id)
                unfinished = instance is not None and item.completionToken == str(instance.completion_token)
                if instance is not None and unfinished and instance_id in self._orchestration_in_flight:
                    instance.pending_events = [*instance.dispatched_events, *instance.pending_events]
                    instance.dispatched_events = []
                    self._orchestration_in_flight.discard(instance_id)
                    self._enqueue_orchestration(instance_id)

    def CompleteActivityTask(self, request: pb.ActivityResponse, context: grpc.ServicerContext) -> Any:
        with self._lock:
            for hands in self._hands:
                hands.slices.discard((request.instanceId, request.taskId, request.completionToken))
            self._work_available.set()
        return super().CompleteActivityTask(request, context)


class SchedulerProcess(PythonProcess):
    """The stand-in, running."""

    def __init__(self) -> None:
        super().__init__(str(Path(__file__)), ready=r"^scheduler at (\S+)$")
        assert self.ready is not None
        self.connection_string = f"Endpoint=http://{self.ready[1]};Authentication=None"

    def client(self) -> AsyncTaskHubGrpcClient:
        """A client that starts workflows and mines nothing."""
        return scheduler_client(
            SchedulerAddress.parse(self.connection_string, "default"), logging.getLogger("scheduler")
        )

    async def start(self, client: AsyncTaskHubGrpcClient, job: MiningJob, fan_out: int) -> str:
        """Start a workflow as a server would; its id."""
        given = first_input(WORK, job, slice_seconds=SLICE_SECONDS, width=fan_out, restart_lost_slices=fan_out > 1)
        return await client.schedule_new_orchestration(WORK.name, input=given)

    async def mine(self, client: AsyncTaskHubGrpcClient, job: MiningJob, fan_out: int) -> dict[str, Any]:
        """The chain of a workflow from its start to its end."""
        return await self.chain(client, await self.start(client, job, fan_out))

    async def chain(self, client: AsyncTaskHubGrpcClient, workflow_id: str) -> dict[str, Any]:
        """The chain, when the workflow has ended."""
        ended = await client.wait_for_orchestration_completion(workflow_id, timeout=4 * int(HANG_SECONDS))
        assert ended is not None
        assert ended.runtime_status is OrchestrationStatus.COMPLETED, ended.failure_details
        return mined_chain(WORK.restore(ended.get_output())).to_dict()


class WorkerProcess(PythonProcess):
    """`pow-mcp worker`, running."""

    def __init__(self, scheduler: SchedulerProcess, **settings: str) -> None:
        super().__init__(
            *("-m", "pow", "worker"),
            ready="takes work",
            DURABLE_TASK_SCHEDULER_CONNECTION_STRING=scheduler.connection_string,
            **settings,
        )


if __name__ == "__main__":
    print(f"scheduler at {SchedulerBackend().start()}", flush=True)
    threading.Event().wait()
