"""The stand-in's lists of workflows, paged as one server or another does it."""

import uuid
from typing import Any, NoReturn

import durabletask.internal.orchestrator_service_pb2 as pb
import grpc
from durabletask.testing.in_memory_backend import OrchestrationInstance
from google.protobuf.wrappers_pb2 import StringValue

from scheduler.histories import HistoriesBackend, created_within

_OTHER_APP = "another_app"


class ListsBackend(HistoriesBackend):
    """Lists workflows as the option `paging` says.

    - `token`: ordered by their ids; the token says which was the last one.
    - `offset`: the newest first; the token is how many came before. So ids come twice when others start in between.
      (.NET's order is that of a hash table, where a new one may come anywhere.)
    - `all`: all at once, ordered by their creation, unless the client wants less.
    - `none`: there is no such method.

    What is asked for honours status, prefix (in either case of letters) and times of creation. Unless inputs and
    outputs are asked for, there is neither an input, nor an output, nor a custom status. Why a workflow has failed is
    never told here.
    """

    def QueryInstances(self, request: pb.QueryInstancesRequest, context: Any) -> pb.QueryInstancesResponse:
        if self._options.paging == "none":
            _refuse(context)
        query = request.query
        with self._lock:
            found = [instance for instance in self._instances.values() if _is_wanted(instance, query)]
            page, token = self._page(found, query)
            states = [self._listed(instance, query.fetchInputsAndOutputs) for instance in page]
            for _ in range(self._options.starts_between_pages):
                other = OrchestrationInstance(str(uuid.uuid4()), _OTHER_APP, pb.ORCHESTRATION_STATUS_RUNNING)
                self._instances[other.instance_id] = other
        return pb.QueryInstancesResponse(orchestrationState=states, continuationToken=token)

    def _page(
        self, found: list[OrchestrationInstance], query: pb.InstanceQuery
    ) -> tuple[list[OrchestrationInstance], StringValue | None]:
        token = query.continuationToken.value
        most = len(found) if self._options.paging == "all" else self._options.page_size
        if query.maxInstanceCount > 0:
            most = min(most, query.maxInstanceCount)
        if self._options.paging == "token":
            found = sorted(
                (instance for instance in found if instance.instance_id > token),
                key=lambda instance: instance.instance_id,
            )
            page = found[:most]
            return page, StringValue(value=page[-1].instance_id) if len(found) > most else None
        newest_first = self._options.paging == "offset"
        found = sorted(found, key=lambda instance: instance.created_at, reverse=newest_first)
        start = int(token or 0)
        page = found[start : start + most]
        # A full last page has a token, too: the one after it is empty.
        return page, StringValue(value=str(start + most)) if page and len(page) == most and newest_first else None

    def _listed(self, instance: OrchestrationInstance, payloads: bool) -> pb.OrchestrationState:
        state = self._build_instance_response(instance, payloads).orchestrationState
        state.ClearField("failureDetails")
        if not payloads:
            state.ClearField("customStatus")
        return state


def _is_wanted(instance: OrchestrationInstance, query: pb.InstanceQuery) -> bool:
    if query.runtimeStatus and instance.status not in query.runtimeStatus:
        return False
    prefix = query.instanceIdPrefix.value.lower()
    return instance.instance_id.lower().startswith(prefix) and created_within(instance, query)


def _refuse(context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method QueryInstances")
