"""The events of an orchestration's history, in the JSON that the Durable extension sends to the worker."""

from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

Event = dict[str, Any]

# What DTFx puts where an event has no number of its own.
_NO_ID = -1


class EventType(IntEnum):
    """DTFx's numbers."""

    EXECUTION_STARTED = 0
    EXECUTION_COMPLETED = 1
    EXECUTION_TERMINATED = 3
    TASK_SCHEDULED = 4
    TASK_COMPLETED = 5
    TASK_FAILED = 6
    TIMER_CREATED = 10
    TIMER_FIRED = 11
    ORCHESTRATOR_STARTED = 12
    ORCHESTRATOR_COMPLETED = 13


def timestamp(moment: datetime | None = None) -> str:
    """A moment (default: now) as DTFx writes it."""
    return (moment or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")


def execution_started(name: str, instance_id: str, execution_id: str, raw_input: str | None) -> Event:
    """An instance begins, or begins anew."""
    return _event(
        EventType.EXECUTION_STARTED,
        Name=name,
        Version="",
        Input=raw_input,
        OrchestrationInstance={"InstanceId": instance_id, "ExecutionId": execution_id},
        ParentInstance=None,
        Tags=None,
    )


def task_scheduled(task_id: int, name: str, raw_input: str) -> Event:
    """An activity has been called."""
    return _event(EventType.TASK_SCHEDULED, task_id, Name=name, Version="", Input=raw_input)


def task_completed(task_id: int, result: str | None) -> Event:
    """An activity has returned JSON, or nothing."""
    return _event(EventType.TASK_COMPLETED, TaskScheduledId=task_id, Result=result)


def task_failed(task_id: int, reason: str, details: str) -> Event:
    """An activity has raised."""
    return _event(EventType.TASK_FAILED, TaskScheduledId=task_id, Reason=reason, Details=details, FailureDetails=None)


def timer_created(timer_id: int, fire_at: str) -> Event:
    """A timer has been set."""
    return _event(EventType.TIMER_CREATED, timer_id, FireAt=fire_at)


def timer_fired(timer_id: int, fire_at: str) -> Event:
    """A timer's time has come."""
    return _event(EventType.TIMER_FIRED, TimerId=timer_id, FireAt=fire_at)


def orchestrator_started() -> Event:
    """An episode begins; its time is the orchestrator's current time."""
    return _event(EventType.ORCHESTRATOR_STARTED)


def orchestrator_completed() -> Event:
    """An episode has ended."""
    return _event(EventType.ORCHESTRATOR_COMPLETED)


def execution_terminated(reason: str) -> Event:
    """Somebody asks for the end."""
    return _event(EventType.EXECUTION_TERMINATED, Input=reason)


def execution_completed(status: str, raw_result: str | None) -> Event:
    """The execution has ended, whichever way."""
    return _event(EventType.EXECUTION_COMPLETED, OrchestrationStatus=status, Result=raw_result)


def _event(kind: EventType, event_id: int = _NO_ID, **rest: Any) -> Event:
    return {"EventType": int(kind), "EventId": event_id, "IsPlayed": False, "Timestamp": timestamp(), **rest}
