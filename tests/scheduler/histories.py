"""The SDK's in-process backend, mended where servers keep a workflow's histories and its end apart, and it doesn't.

Tasks are numbered from the beginning in each history. So neither an answer nor a timer of an earlier one may reach the
history that followed; nor may anything reach a workflow that has ended.
"""

import threading
from datetime import UTC, datetime
from typing import Any

import durabletask.internal.helpers as helpers
import durabletask.internal.orchestrator_service_pb2 as pb
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.testing.in_memory_backend import OrchestrationInstance

from scheduler.options import SchedulerOptions


class HistoriesBackend(InMemoryOrchestrationBackend):
    """The in-process backend whose workflows hear of nothing but their own history, and of nothing after their end."""

    def __init__(self, options: SchedulerOptions) -> None:
        super().__init__()
        self._options = options
        # The first token of a workflow's history, where that isn't its first one. Each turn has a token, counted up,
        # and the activities that it schedules bear it.
        self._histories_began: dict[str, int] = {}

    def StartInstance(self, request: pb.CreateInstanceRequest, context: Any) -> pb.CreateInstanceResponse:
        with self._lock:
            if self._options.used_id == "replace" and self._instances.pop(request.instanceId, None) is not None:
                self._orchestration_in_flight.discard(request.instanceId)
                self._begin_history(request.instanceId)
            return super().StartInstance(request, context)

    def GetInstance(self, request: pb.GetInstanceRequest, context: Any) -> pb.GetInstanceResponse:
        found = super().GetInstance(request, context)
        if not request.getInputsAndOutputs:
            found.orchestrationState.ClearField("customStatus")
            found.orchestrationState.ClearField("failureDetails")
        return found

    def PurgeInstances(self, request: pb.PurgeInstancesRequest, context: Any) -> pb.PurgeInstancesResponse:
        if not request.HasField("purgeInstanceFilter"):
            return super().PurgeInstances(request, context)
        wanted = request.purgeInstanceFilter
        with self._lock:
            purged = [
                instance.instance_id
                for instance in self._instances.values()
                if created_within(instance, wanted)
                and (not wanted.runtimeStatus or instance.status in wanted.runtimeStatus)
            ]
            for instance_id in purged:
                del self._instances[instance_id]
        return pb.PurgeInstancesResponse(deletedInstanceCount=len(purged))

    def CompleteOrchestratorTask(self, request: pb.OrchestratorResponse, context: Any) -> pb.CompleteTaskResponse:
        with self._lock:
            instance = self._instances.get(request.instanceId)
            if instance is not None and request.completionToken != str(instance.completion_token):
                # The turn was handed to another worker since, or its workflow replaced: that one counts.
                return pb.CompleteTaskResponse()
            return super().CompleteOrchestratorTask(request, context)

    def CompleteActivityTask(self, request: pb.ActivityResponse, context: Any) -> pb.CompleteTaskResponse:
        with self._lock:
            instance = self._instances.get(request.instanceId)
            ended = instance is None or self._is_terminal_status(instance.status)
            if ended or int(request.completionToken) < self._histories_began.get(request.instanceId, 0):
                return pb.CompleteTaskResponse()
            return super().CompleteActivityTask(request, context)

    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        super()._process_complete_orchestration_action(instance, complete_action)
        if complete_action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            self._begin_history(instance.instance_id)
            instance.created_at = datetime.now(UTC)
            ends = ("taskCompleted", "taskFailed", "timerFired")
            instance.pending_events = [
                event for event in instance.pending_events if event.WhichOneof("eventType") not in ends
            ]

    def _process_create_timer_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        fire_at = action.createTimer.fireAt.ToDatetime(tzinfo=UTC)
        history = self._histories_began.get(instance.instance_id)
        instance.history.append(helpers.new_timer_created_event(action.id, fire_at))

        def fire() -> None:
            with self._lock:
                is_there = self._instances.get(instance.instance_id) is instance
                same_history = self._histories_began.get(instance.instance_id) == history
                if is_there and same_history and not self._is_terminal_status(instance.status):
                    instance.pending_events.append(helpers.new_timer_fired_event(action.id, fire_at))
                    self._enqueue_orchestration(instance.instance_id)

        timer = threading.Timer(max(0.0, (fire_at - datetime.now(UTC)).total_seconds()), fire)
        timer.daemon = True
        timer.start()

    def _begin_history(self, instance_id: str) -> None:
        self._histories_began[instance_id] = self._next_completion_token


def created_within(instance: OrchestrationInstance, wanted: pb.InstanceQuery | pb.PurgeInstanceFilter) -> bool:
    """Whether a workflow was created within the times that a query or a purge names; both are part of it."""
    if wanted.HasField("createdTimeFrom") and instance.created_at < wanted.createdTimeFrom.ToDatetime(tzinfo=UTC):
        return False
    return not wanted.HasField("createdTimeTo") or instance.created_at <= wanted.createdTimeTo.ToDatetime(tzinfo=UTC)
