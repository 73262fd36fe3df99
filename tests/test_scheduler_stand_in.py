"""The stand-in for the scheduler behaves as servers of its protocol were seen to: `scheduler.process` says which."""

import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from typing import Literal

import grpc
import pytest
from durabletask.client import OrchestrationQuery, OrchestrationStatus, TaskHubGrpcClient
from scheduler.options import SchedulerOptions
from scheduler.planting import foreign, ours
from scheduler.process import SchedulerProcess


def client_of(scheduler: SchedulerProcess) -> "closing[TaskHubGrpcClient]":
    """The SDK's plain client."""
    return closing(TaskHubGrpcClient(host_address=f"127.0.0.1:{scheduler.port}"))


@pytest.mark.parametrize(
    ("paging", "twice"),
    [("token", False), ("offset", True), ("all", False)],
)
def test_ids_come_twice_only_where_pages_are_counted_from_the_newest(
    paging: Literal["token", "offset", "all"], twice: bool
) -> None:
    planted = [ours(owner=None, created_at=time.time() - i) for i in range(250)]
    options = SchedulerOptions(paging=paging, starts_between_pages=2)
    with SchedulerProcess(options) as scheduler, client_of(scheduler) as client:
        scheduler.control.plant(*planted)
        listed = client.get_all_orchestration_states(OrchestrationQuery())

    seen = Counter(state.instance_id for state in listed)
    assert {workflow.workflow_id for workflow in planted} <= seen.keys()
    assert (max(seen.values()) > 1) == twice


def test_without_payloads_a_list_has_no_custom_status_and_filters_are_honoured() -> None:
    now = time.time()
    running, old = ours(owner=None, created_at=now), foreign("x", created_at=now - 60, status="COMPLETED")
    with SchedulerProcess() as scheduler, client_of(scheduler) as client:
        scheduler.control.plant(running, old)

        def ids(**conditions: object) -> list[str]:
            query = OrchestrationQuery(**conditions)  # type: ignore[arg-type]
            return [state.instance_id for state in client.get_all_orchestration_states(query)]

        assert ids(runtime_status=[OrchestrationStatus.RUNNING]) == [running.workflow_id]
        assert ids(created_time_to=datetime.fromtimestamp(now - 30, UTC)) == [old.workflow_id]
        assert ids(created_time_from=datetime.fromtimestamp(now - 30, UTC)) == [running.workflow_id]
        assert ids(instance_id_prefix=old.workflow_id[:12]) == [old.workflow_id]
        bare = client.get_all_orchestration_states(OrchestrationQuery())
        state = client.get_orchestration_state(running.workflow_id, fetch_payloads=False)
        full = client.get_orchestration_state(running.workflow_id)

    assert [s.serialized_input or s.serialized_custom_status for s in (*bare, state) if s] == [None] * 3
    assert full is not None
    assert full.serialized_custom_status == running.custom_status


def test_an_id_that_is_in_use_is_refused() -> None:
    with SchedulerProcess() as scheduler, client_of(scheduler) as client:
        client.schedule_new_orchestration("first", instance_id="an id")
        with pytest.raises(grpc.RpcError, match="ALREADY_EXISTS"):
            client.schedule_new_orchestration("second", instance_id="an id")


def test_or_it_replaces_what_runs() -> None:
    with (
        SchedulerProcess(SchedulerOptions(used_id="replace")) as scheduler,
        client_of(scheduler) as client,
    ):
        client.schedule_new_orchestration("first", instance_id="an id")
        client.schedule_new_orchestration("second", instance_id="an id")
        (listed,) = client.get_all_orchestration_states()

    assert listed.name == "second"


def test_a_purge_by_a_filter_takes_what_runs_and_one_by_an_id_does_not() -> None:
    now = time.time()
    running, ended = ours(owner=None, created_at=now), ours(owner=None, created_at=now, status="COMPLETED")
    with SchedulerProcess() as scheduler, client_of(scheduler) as client:
        scheduler.control.plant(running, ended)
        by_id = [
            client.purge_orchestration(workflow.workflow_id).deleted_instance_count for workflow in (running, ended)
        ]
        by_filter = client.purge_orchestrations_by(created_time_to=datetime.fromtimestamp(now + 1, UTC))

    assert by_id == [0, 1]
    assert by_filter.deleted_instance_count == 1


def test_a_stand_in_that_was_killed_has_forgotten_all() -> None:
    with SchedulerProcess() as first:
        first.control.plant(ours(owner=None, created_at=time.time()))
        first.kill()
    with SchedulerProcess(port=first.port) as second, client_of(second) as client:
        assert client.get_all_orchestration_states() == []
