"""The in-process backend, spoken to as a client and a worker do: what reaches an orchestration, and what doesn't."""

from collections.abc import Iterator
from typing import cast

import durabletask.internal.orchestrator_service_pb2 as pb
import grpc
import pytest
from google.protobuf import wrappers_pb2

from pow.longwork.engines.backend import JournaledBackend
from pow.longwork.engines.journal import Journal

WORKFLOW = "a-workflow"


class Call:
    """A gRPC call that goes on."""

    def is_active(self) -> bool:
        return True

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AssertionError(f"{code}: {details}")


class Conversation:
    """A client and a worker of a backend that isn't listening: its methods are called in turn."""

    def __init__(self) -> None:
        self.backend = JournaledBackend(Journal(None), lambda _: None, lambda _, status: status)
        self.call = cast(grpc.ServicerContext, Call())
        self._items: Iterator[pb.WorkItem] = self.backend.GetWorkItems(pb.GetWorkItemsRequest(), self.call)

    def next_turn(self) -> pb.WorkItem:
        item = next(self._items)
        assert item.HasField("orchestratorRequest")
        return item

    def next_activity(self) -> pb.WorkItem:
        item = next(self._items)
        assert item.HasField("activityRequest")
        return item

    def end_turn(self, turn: pb.WorkItem, *actions: pb.OrchestratorAction) -> None:
        response = pb.OrchestratorResponse(instanceId=WORKFLOW, actions=actions, completionToken=turn.completionToken)
        self.backend.CompleteOrchestratorTask(response, self.call)

    def end_activity(self, activity: pb.WorkItem, result: str) -> None:
        response = pb.ActivityResponse(
            instanceId=WORKFLOW,
            taskId=activity.activityRequest.taskId,
            result=wrappers_pb2.StringValue(value=result),
            completionToken=activity.completionToken,
        )
        self.backend.CompleteActivityTask(response, self.call)

    def raise_event(self) -> None:
        self.backend.RaiseEvent(pb.RaiseEventRequest(instanceId=WORKFLOW, name="wake"), self.call)


def schedule(number: int) -> pb.OrchestratorAction:
    return pb.OrchestratorAction(id=number, scheduleTask=pb.ScheduleTaskAction(name="mine_block"))


def continue_as_new() -> pb.OrchestratorAction:
    end = pb.CompleteOrchestrationAction(
        orchestrationStatus=pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW,
        result=wrappers_pb2.StringValue(value="{}"),
    )
    return pb.OrchestratorAction(id=9, completeOrchestration=end)


def results(turn: pb.WorkItem) -> list[str]:
    events = turn.orchestratorRequest.newEvents
    return [event.taskCompleted.result.value for event in events if event.HasField("taskCompleted")]


@pytest.fixture
def conversation() -> Conversation:
    """A workflow whose first history had an activity, which is still running, and has been continued as new."""
    made = Conversation()
    made.backend.StartInstance(pb.CreateInstanceRequest(instanceId=WORKFLOW, name="mine_chain"), made.call)
    made.end_turn(made.next_turn(), schedule(1))
    return made


def test_an_activity_that_outlives_its_history_is_not_taken_for_one_of_the_next(conversation: Conversation) -> None:
    old = conversation.next_activity()
    conversation.raise_event()
    conversation.end_turn(conversation.next_turn(), continue_as_new())
    conversation.end_turn(conversation.next_turn(), schedule(1))
    new = conversation.next_activity()
    assert new.activityRequest.taskId == old.activityRequest.taskId

    conversation.end_activity(old, "old")
    conversation.end_activity(new, "new")

    assert results(conversation.next_turn()) == ["new"]


def test_an_answer_that_came_while_the_history_ended_is_not_taken_into_the_next(conversation: Conversation) -> None:
    old = conversation.next_activity()
    conversation.raise_event()
    turn = conversation.next_turn()
    conversation.end_activity(old, "old")
    conversation.end_turn(turn, continue_as_new())

    assert results(conversation.next_turn()) == []


def test_an_activity_of_an_earlier_turn_of_the_same_history_counts(conversation: Conversation) -> None:
    activity = conversation.next_activity()
    conversation.raise_event()
    conversation.end_turn(conversation.next_turn(), schedule(2))
    conversation.next_activity()

    conversation.end_activity(activity, "first")

    assert results(conversation.next_turn()) == ["first"]
