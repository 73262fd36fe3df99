"""The Durable Task SDK's in-process backend, made fit to keep: private, and with a memory.

As it comes it listens on every interface with its port shared, serves ten calls at a time, and
forgets everything. Here it listens where only this user can connect, serves enough calls, and keeps
what was accepted and how it ended in a `Journal`, from which it runs on after a crash.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import durabletask.internal.orchestrator_service_pb2 as pb
import durabletask.internal.orchestrator_service_pb2_grpc as stubs
import grpc
from durabletask.testing import InMemoryOrchestrationBackend
from durabletask.testing.in_memory_backend import OrchestrationInstance
from google.protobuf import timestamp_pb2, wrappers_pb2

from pow.longwork.engines.journal import Journal, JournalEntry

_TERMINAL = (
    pb.ORCHESTRATION_STATUS_COMPLETED,
    pb.ORCHESTRATION_STATUS_FAILED,
    pb.ORCHESTRATION_STATUS_TERMINATED,
)
# One is held for good by the worker's stream of work; state polls and completions share the others.
_CALL_THREADS = 32


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


class JournaledBackend(FreshHistoriesBackend):
    """An in-process backend whose workflows survive the process. Call `start`, then `resume`."""

    def __init__(
        self, journal: Journal, on_end: Callable[[str], object], last_status: Callable[[str, str], str]
    ) -> None:
        """
        Args:
            journal: where workflows are kept.
            on_end: called with the id of each workflow that has ended, in some thread.
            last_status: called before, with the id and the custom status; gives the one to keep.
        """
        super().__init__()
        self._journal = journal
        self._on_end = on_end
        self._last_status = last_status
        self._frozen = False
        self._socket_dir: Path | None = None

    def start(self) -> str:
        """Listen where only this user can connect; the address for clients and workers."""
        self._shutdown_event.clear()
        server = grpc.server(ThreadPoolExecutor(_CALL_THREADS), options=[("grpc.so_reuseport", 0)])
        stubs.add_TaskHubSidecarServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        if os.name == "posix":
            # mkdtemp's folder has mode 0700, which a socket inside it inherits in effect.
            self._socket_dir = Path(tempfile.mkdtemp(prefix="pow-mcp-"))
            address = f"unix:{self._socket_dir / 'engine.sock'}"
            server.add_insecure_port(address)
        else:
            address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        self._server = server
        return address

    def stop(self, grace: float | None = None) -> None:
        super().stop(grace)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)

    def resume(self) -> int:
        """Schedule what the journal says is unfinished, each under its own id; how many those are."""
        unfinished = self._journal.unfinished()
        for entry in unfinished:
            request = pb.CreateInstanceRequest(
                instanceId=entry.id,
                name=entry.orchestration,
                input=wrappers_pb2.StringValue(value=entry.input),
            )
            super().StartInstance(request, cast(grpc.ServicerContext, _NoCall()))
        return len(unfinished)

    def freeze(self) -> None:
        """From now on let nothing be completed: what ends during a shutdown is to be resumed, not failed."""
        self._frozen = True

    def StartInstance(self, request: pb.CreateInstanceRequest, context: Any) -> pb.CreateInstanceResponse:
        if self._journal.entry(request.instanceId) is not None:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"workflow {request.instanceId!r} already exists")
        # Durable before the caller hears of it.
        self._journal.accept(request.instanceId, request.name, request.input.value)
        return super().StartInstance(request, context)

    def CompleteActivityTask(self, request: pb.ActivityResponse, context: Any) -> pb.CompleteTaskResponse:
        # An activity that outlives its workflow, which was cancelled, has nobody to report to.
        with self._lock:
            ended = request.instanceId not in self._instances
        if self._frozen or ended:
            return pb.CompleteTaskResponse()
        return super().CompleteActivityTask(request, context)

    def CompleteOrchestratorTask(self, request: pb.OrchestratorResponse, context: Any) -> pb.CompleteTaskResponse:
        if self._frozen:
            return pb.CompleteTaskResponse()
        ended = False
        for action in request.actions:
            if action.HasField("completeOrchestration"):
                ended = self._record_end(request, action.completeOrchestration)
        response = super().CompleteOrchestratorTask(request, context)
        if ended:
            # The journal answers for it from here on; memory stays flat.
            self._histories_began.pop(request.instanceId, None)
            self.PurgeInstances(pb.PurgeInstancesRequest(instanceId=request.instanceId), context)
            self._on_end(request.instanceId)
        return response

    def GetInstance(self, request: pb.GetInstanceRequest, context: Any) -> pb.GetInstanceResponse:
        response = super().GetInstance(request, context)
        if response.exists:
            return response
        entry = self._journal.entry(request.instanceId)
        if entry is None or entry.finished_at is None:
            return pb.GetInstanceResponse(exists=False)
        return pb.GetInstanceResponse(exists=True, orchestrationState=_state_of(entry))

    def QueryInstances(self, request: pb.QueryInstancesRequest, context: Any) -> pb.QueryInstancesResponse:
        """All that is unfinished and the newest of the finished, in one page, of the wanted statuses."""
        response = super().QueryInstances(request, context)
        wanted = set(request.query.runtimeStatus)
        if not wanted or wanted.intersection(_TERMINAL):
            finished = self._journal.finished(request.query.maxInstanceCount or 100)
            response.orchestrationState.extend(
                _state_of(entry) for entry in finished if not wanted or entry.status in wanted
            )
        return response

    def _record_end(self, request: pb.OrchestratorResponse, end: pb.CompleteOrchestrationAction) -> bool:
        """Journal a history's end; whether it is the workflow's too."""
        if end.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW:
            self._journal.carry_on(request.instanceId, end.result.value)
            return False
        if end.orchestrationStatus not in _TERMINAL:
            return False
        self._journal.finish(
            request.instanceId,
            status=end.orchestrationStatus,
            output=end.result.value or None,
            error=end.failureDetails.errorMessage or None,
            custom_status=self._last_status(request.instanceId, request.customStatus.value) or None,
        )
        return True


class _NoCall:
    """Stands in for a gRPC call's context where the process itself schedules an instance."""

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise RuntimeError(f"{code.name}: {details}")


def _state_of(entry: JournalEntry) -> pb.OrchestrationState:
    failure = pb.TaskFailureDetails(errorType="Error", errorMessage=entry.error) if entry.error else None
    return pb.OrchestrationState(
        instanceId=entry.id,
        name=entry.orchestration,
        orchestrationStatus=cast(pb.OrchestrationStatus, entry.status),
        createdTimestamp=_timestamp(entry.accepted_at),
        lastUpdatedTimestamp=_timestamp(entry.finished_at),
        completedTimestamp=_timestamp(entry.finished_at),
        input=_text(entry.input),
        output=_text(entry.output),
        customStatus=_text(entry.custom_status),
        failureDetails=failure,
    )


def _timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    if seconds is None:
        return None
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp


def _text(value: str | None) -> wrappers_pb2.StringValue | None:
    return None if value is None else wrappers_pb2.StringValue(value=value)
