"""The stand-in's server: hands out turns and slices to several workers, and takes their answers.

Run as a program it listens on loopback, and prints where. `scheduler.process` says what it is like.
"""

import sys
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as stubs
import grpc
from durabletask.testing.in_memory_backend import ActivityWorkItem, OrchestrationInstance

from scheduler.control import Planted, control_handler
from scheduler.lists import ListsBackend
from scheduler.options import SchedulerOptions

# What the Functions host says of a slice whose worker was killed.
_KILLED = pb.TaskFailureDetails(errorType="WorkerProcessExitException", errorMessage="Python exited with code 137")

_Key = tuple[str, int, str]


@dataclass(eq=False)
class _Hands:
    """How many slices a worker takes at once, and those that it has."""

    most: int
    slices: dict[_Key, ActivityWorkItem] = field(default_factory=dict)


class _Served(threading.local):
    """The worker that this thread looks for work for, and what it last took out of the queue."""

    hands: _Hands
    taken: ActivityWorkItem


class _Queue(deque[ActivityWorkItem]):
    """Slices to hand out: empty, as it seems, for a worker that has its hands full."""

    def __init__(self, served: _Served) -> None:
        super().__init__()
        self._served = served

    def __bool__(self) -> bool:
        hands = self._served.hands
        return len(self) > 0 and len(hands.slices) < hands.most

    def popleft(self) -> ActivityWorkItem:
        self._served.taken = super().popleft()
        return self._served.taken


class SchedulerBackend(ListsBackend):
    """The in-process backend for several workers."""

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__(options)
        self._served = _Served()
        self._activity_queue = _Queue(self._served)
        self._hands: list[_Hands] = []
        self._slices_to_fail = 0
        # Terminated workflows that have had their one more slice.
        self._went_on: set[str] = set()

    def listen(self, port: int) -> str:
        """Listen on this port of loopback, 0 for any free one; `host:port`."""
        self._server = grpc.server(ThreadPoolExecutor(64), options=[("grpc.so_reuseport", 0)])
        stubs.add_TaskHubSidecarServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self._server.add_generic_rpc_handlers((control_handler(self._plant, self._fail_next),))
        port = self._server.add_insecure_port(f"127.0.0.1:{port}")
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
                elif item.HasField("activityRequest"):
                    if self._fails(item, context):
                        continue
                    hands.slices[_key(item.activityRequest, item.completionToken)] = self._served.taken
                yield item
        finally:
            self._hands.remove(hands)
            self._hand_back(turns)
            if self._options.leases:
                with self._lock:
                    self._activity_queue.extend(hands.slices.values())

    def CompleteActivityTask(
        self, request: pb.ActivityResponse, context: grpc.ServicerContext
    ) -> pb.CompleteTaskResponse:
        with self._lock:
            for hands in self._hands:
                answered = hands.slices.pop(_key(request, request.completionToken), None)
                if answered is not None and self._has_one_more(answered):
                    self._activity_queue.append(answered)
            self._work_available.set()
            return super().CompleteActivityTask(request, context)

    def _has_one_more(self, answered: ActivityWorkItem) -> bool:
        """Whether a slice is followed by one more, which nobody should want: the same one, for simplicity's sake."""
        instance = self._instances.get(answered.instance_id)
        if (
            self._options.after_terminate != "go"
            or instance is None
            or instance.status != pb.ORCHESTRATION_STATUS_TERMINATED
            or answered.instance_id in self._went_on
        ):
            return False
        self._went_on.add(answered.instance_id)
        return True

    def _hand_back(self, turns: dict[str, pb.WorkItem]) -> None:
        """Let another worker take the orchestrations' turns that a worker died over."""
        with self._lock:
            for instance_id, item in turns.items():
                instance = self._instances.get(instance_id)
                unfinished = instance is not None and item.completionToken == str(instance.completion_token)
                if instance is not None and unfinished and instance_id in self._orchestration_in_flight:
                    instance.pending_events = [*instance.dispatched_events, *instance.pending_events]
                    instance.dispatched_events = []
                    # Should that worker live, its answer comes too late.
                    instance.completion_token = self._next_completion_token
                    self._next_completion_token += 1
                    self._orchestration_in_flight.discard(instance_id)
                    self._enqueue_orchestration(instance_id)

    def _fails(self, item: pb.WorkItem, context: grpc.ServicerContext) -> bool:
        """Answer for a slice that is to fail."""
        with self._lock:
            if not self._slices_to_fail:
                return False
            self._slices_to_fail -= 1
        asked = item.activityRequest
        failed = pb.ActivityResponse(
            instanceId=asked.orchestrationInstance.instanceId,
            taskId=asked.taskId,
            failureDetails=_KILLED,
            completionToken=item.completionToken,
        )
        self.CompleteActivityTask(failed, context)
        return True

    def _fail_next(self, count: int) -> None:
        with self._lock:
            self._slices_to_fail = count

    def _plant(self, planted: Planted) -> None:
        # A number, as protobuf has them; its stubs promise the enum.
        status = cast(pb.OrchestrationStatus, pb.OrchestrationStatus.Value(f"ORCHESTRATION_STATUS_{planted.status}"))
        updated_at = datetime.fromtimestamp(planted.updated_at, UTC)
        instance = OrchestrationInstance(
            planted.workflow_id,
            planted.name,
            status,
            input=planted.input,
            output=planted.output,
            custom_status=planted.custom_status,
            created_at=datetime.fromtimestamp(planted.created_at, UTC),
            last_updated_at=updated_at,
            completed_at=updated_at if self._is_terminal_status(status) else None,
        )
        with self._lock:
            self._instances[planted.workflow_id] = instance
            self._notify_waiters(planted.workflow_id)


def _key(task: pb.ActivityRequest | pb.ActivityResponse, token: str) -> _Key:
    instance_id = task.orchestrationInstance.instanceId if isinstance(task, pb.ActivityRequest) else task.instanceId
    return instance_id, task.taskId, token


if __name__ == "__main__":
    port, options = sys.argv[1:]
    print(f"scheduler at {SchedulerBackend(SchedulerOptions.from_json(options)).listen(int(port))}", flush=True)
    threading.Event().wait()
