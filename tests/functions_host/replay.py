"""What an orchestrator's answer means: which of the actions it lists are new, and how far it has really come.

The SDK answers each episode with all actions since the beginning. The extension goes through them one by one and
waits for each before it looks at the next, which has consequences that an app has to reckon with: an action after a
`task_any` is not even scheduled before one of the *new* tasks in that `task_any` has ended, although the orchestrator
has gone on from an older one; nor does an orchestration that has returned complete before that.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from functions_host.history import Event, EventType, task_scheduled, timer_created

Action = dict[str, Any]


class ActionType(IntEnum):
    """The SDK's numbers, of what this engine knows."""

    CALL_ACTIVITY = 0
    CONTINUE_AS_NEW = 4
    CREATE_TIMER = 5
    WHEN_ANY = 11
    WHEN_ALL = 12


class SchemaVersion(IntEnum):
    """Versions of the answer's form. The original one has a list of actions for each `yield`."""

    ORIGINAL = 0
    V2 = 1
    V3 = 2


class ReplayError(Exception):
    """The answer contradicts the history, or asks for what isn't there; the orchestration fails with this text."""


@dataclass
class Verdict:
    """What an answer leads to."""

    # To be added to the history, and acted upon.
    scheduled: list[Event] = field(default_factory=list)
    cancelled_timers: set[int] = field(default_factory=set)
    # Whether all actions are behind it; only then do its output, its error or the continue-as-new count.
    reached_end: bool = False
    continues_as_new: bool = False
    next_input: Any = None


def replay(answer: dict[str, Any], history: Sequence[Event], functions: Iterable[str]) -> Verdict:
    """Go through an orchestrator's answer.

    Args:
        answer: the state that the SDK returned.
        history: all events of the execution, the newest included.
        functions: the names of the activities that exist.

    Raises:
        ReplayError: the orchestration must fail.
    """
    walk = _Walk(history, functions)
    schema = answer.get("schemaVersion", SchemaVersion.ORIGINAL)
    actions: list[list[Action]] = answer["actions"]
    if schema == SchemaVersion.ORIGINAL:
        walk.verdict.reached_end = all(walk.any_of(group) for group in actions)
    elif schema in (SchemaVersion.V2, SchemaVersion.V3):
        if len(actions) != 1:
            raise ReplayError(
                f"With OOProc schema V{schema + 1}, expected actions array to be of length 1 in outer layer but got "
                f"size: {len(actions)}"
            )
        # `all` stops at the first that hasn't ended: what comes after it stays unscheduled.
        walk.verdict.reached_end = all(walk.has_ended(action) for action in actions[0])
    else:
        raise ReplayError(f"the engine knows no schema version {schema!r}")
    return walk.verdict


class _Walk:
    def __init__(self, history: Sequence[Event], functions: Iterable[str]) -> None:
        self.verdict = Verdict()
        self._functions = {name.lower() for name in functions}
        self._next_id = 0
        self._known = {
            event["EventId"]: event
            for event in history
            if event["EventType"] in (EventType.TASK_SCHEDULED, EventType.TIMER_CREATED)
        }
        self._ended = {
            event.get("TaskScheduledId", event.get("TimerId"))
            for event in history
            if event["EventType"] in (EventType.TASK_COMPLETED, EventType.TASK_FAILED, EventType.TIMER_FIRED)
        }

    def any_of(self, actions: list[Action]) -> bool:
        """Schedule them all; whether one of them has ended, or there is nothing to wait for."""
        waited = [self.has_ended(action) for action in actions if action["actionType"] != ActionType.CONTINUE_AS_NEW]
        for action in actions:
            if action["actionType"] == ActionType.CONTINUE_AS_NEW:
                self.has_ended(action)
        return not waited or any(waited)

    def has_ended(self, action: Action) -> bool:
        """Schedule an action unless the history has it; whether what it waits for has come."""
        match action["actionType"]:
            case ActionType.CALL_ACTIVITY:
                return self._activity(action)
            case ActionType.CREATE_TIMER:
                return self._timer(action)
            case ActionType.CONTINUE_AS_NEW:
                self.verdict.continues_as_new = True
                self.verdict.next_input = action.get("input")
                return True
            case ActionType.WHEN_ALL:
                # All are scheduled before any is waited for. Of failed ones it waits for the others, too.
                ended = [self.has_ended(part) for part in action["compoundActions"]]
                return all(ended)
            case ActionType.WHEN_ANY:
                if not action["compoundActions"]:
                    raise ReplayError("The tasks argument contains no tasks. (Parameter 'tasks')")
                ended = [self.has_ended(part) for part in action["compoundActions"]]
                return any(ended)
            case unknown:
                raise ReplayError(f"the test host's engine has no action of type {unknown}: {json.dumps(action)}")

    def _activity(self, action: Action) -> bool:
        name = action["functionName"]
        if name.lower() not in self._functions:
            raise ReplayError(f"The function '{name}' doesn't exist, is disabled, or is not an activity function.")
        task_id = self._take_id(EventType.TASK_SCHEDULED, name)
        if task_id not in self._known:
            # The argument stands in an array, and is itself JSON text that becomes a JSON string.
            self.verdict.scheduled.append(task_scheduled(task_id, name, json.dumps([action.get("input")])))
        return task_id in self._ended

    def _timer(self, action: Action) -> bool:
        timer_id = self._take_id(EventType.TIMER_CREATED, None)
        if timer_id not in self._known:
            self.verdict.scheduled.append(timer_created(timer_id, action["fireAt"]))
        if action.get("isCanceled"):
            self.verdict.cancelled_timers.add(timer_id)
            return True
        return timer_id in self._ended

    def _take_id(self, kind: EventType, name: str | None) -> int:
        task_id, self._next_id = self._next_id, self._next_id + 1
        known = self._known.get(task_id)
        if known and (known["EventType"] != kind or known.get("Name") != name):
            raise ReplayError(
                f"Non-Deterministic workflow detected: number {task_id} was {known.get('Name', 'a timer')} before and "
                f"is {name or 'a timer'} now"
            )
        return task_id
