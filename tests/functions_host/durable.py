"""The Durable Task engine, in memory: instances, their episodes, their activities and timers.

What the SDK sees is DTFx's: histories, numbers, who is told what in which order, and at-least-once delivery when a
test asks for it.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from functions_host import history
from functions_host.activities import ActivityRunner, Invoke
from functions_host.errors import HostError
from functions_host.failures import orchestrator_answer
from functions_host.faults import Faults
from functions_host.history import Event, EventType
from functions_host.instances import Instance
from functions_host.replay import ReplayError, Verdict, replay
from functions_host.worker import Json, body_bytes

_log = logging.getLogger("functions_host.durable")

# Limits of the extension and of the durable backends.
_CUSTOM_STATUS_BYTES = 16 * 1024


class DurableEngine:
    """Runs the app's orchestrations."""

    def __init__(
        self,
        invoke: Invoke,
        orchestrators: set[str],
        activities: set[str],
        *,
        concurrent_activities: int,
        concurrent_orchestrators: int,
        context: dict[str, Any],
    ) -> None:
        """
        Args:
            invoke: runs a function of the app.
            orchestrators, activities: the names of the app's functions.
            concurrent_activities, concurrent_orchestrators: how many run at once at most.
            context: what else the orchestration trigger's text has, such as the schema versions.
        """
        self.instances: dict[str, Instance] = {}
        self.faults = Faults()
        self.orchestrators = orchestrators
        self.activities = ActivityRunner(invoke, self.faults, concurrent_activities)
        self._invoke = invoke
        self._activity_names = activities
        self._orchestrator_slots = asyncio.Semaphore(concurrent_orchestrators)
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, name: str, instance_id: str | None, raw_input: str | None) -> Instance:
        """Start an instance; an ended one of the same id makes place.

        Raises:
            HostError: there is no such orchestrator, or such an instance runs already.
        """
        if name.lower() not in {known.lower() for known in self.orchestrators}:
            raise HostError(
                f"The function '{name}' doesn't exist, is disabled, or is not an orchestrator function. "
                f"The following are the known orchestrator functions: {', '.join(sorted(self.orchestrators))}."
            )
        instance_id = instance_id or uuid.uuid4().hex
        existing = self.instances.get(instance_id)
        if existing is not None and not existing.ended:
            raise HostError(f"An Orchestration instance with the status {existing.status} already exists.")
        instance = self.instances[instance_id] = Instance(instance_id, name, raw_input)
        instance.begin()
        self._wake(instance)
        return instance

    def terminate(self, instance: Instance, reason: str) -> None:
        """Ask for the end of an instance; its activities go on, and nobody hears of them."""
        self._deliver(instance, instance.execution_id, history.execution_terminated(reason))

    def purge(self, instance: Instance) -> None:
        """Forget an instance."""
        for timer in instance.timers.values():
            timer.cancel()
        del self.instances[instance.id]

    def close(self) -> None:
        """Stop everything where it stands."""
        for instance in self.instances.values():
            for timer in instance.timers.values():
                timer.cancel()
        for task in self._tasks:
            task.cancel()

    def _deliver(self, instance: Instance, execution_id: str, event: Event) -> bool:
        """Hand a message to an instance; whether it is for the execution that is under way."""
        if instance.ended or instance.execution_id != execution_id:
            return False
        instance.inbox.append(event)
        self._wake(instance)
        return True

    def _wake(self, instance: Instance) -> None:
        if not instance.runs:
            instance.runs = True
            self._spawn(self._run(instance))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("the engine itself failed", exc_info=task.exception())

    async def _run(self, instance: Instance) -> None:
        try:
            while instance.inbox and not instance.ended:
                async with self._orchestrator_slots:
                    await self._episode(instance)
        finally:
            instance.runs = False

    async def _episode(self, instance: Instance) -> None:
        """Let the orchestrator go on from all messages that have come."""
        messages, instance.inbox = instance.inbox, []
        instance.episodes += 1
        instance.status = "Running"
        news = [history.orchestrator_started(), *messages]
        try:
            step = await self._step(instance, messages, [*instance.events, *news])
        except ReplayError as fault:
            step = _Step(end="Failed", raw_output=f"Orchestrator function '{instance.name}' failed: {fault}")
        self._commit(instance, [*news, *step.verdict.scheduled], step)
        self._act(instance, step.verdict)
        if step.end:
            self._finish(instance, step)

    async def _step(self, instance: Instance, messages: list[Event], events: list[Event]) -> "_Step":
        for event in messages:
            if event["EventType"] == EventType.EXECUTION_TERMINATED:
                return _Step(end="Terminated", raw_output=event["Input"])
        answer, error = await self._ask(instance, events)
        self._set_custom_status(instance, answer.get("customStatus"))
        step = _Step(replay(answer, events, self._activity_names))
        if not step.verdict.reached_end:
            return step
        if error is not None:
            step.end, step.raw_output = "Failed", f"Orchestrator function '{instance.name}' failed: {error}"
        elif step.verdict.continues_as_new:
            step.end, step.raw_output = "ContinuedAsNew", json.dumps(step.verdict.next_input)
        elif answer["isDone"]:
            step.end, step.raw_output = "Completed", json.dumps(answer.get("output"))
        return step

    async def _ask(self, instance: Instance, events: list[Event]) -> tuple[dict[str, Any], str | None]:
        """Run the orchestrator; its answer, and its error if it raised."""
        document = {
            "history": events,
            "input": None if instance.raw_input is None else json.loads(instance.raw_input),
            "instanceId": instance.id,
            "isReplaying": any(event["IsPlayed"] for event in events),
            "parentInstanceId": None,
            **self._context,
        }
        reply = await self._invoke(instance.name, json.dumps(document))
        if reply.failure is None:
            if not isinstance(reply.value, Json | str):
                raise ReplayError("The data returned by the out-of-process function execution was not valid json.")
            answer: dict[str, Any] = json.loads(body_bytes(reply.value))
            return answer, None
        _log.error("orchestrator %s: %s", instance.name, reply.failure.text)
        failed = orchestrator_answer(reply.failure)
        if failed is None:
            raise ReplayError(f"Exception while executing function: Functions.{instance.name}")
        return failed, reply.failure.message if self.faults.keep_error_tail else failed.get("error")

    def _set_custom_status(self, instance: Instance, value: Any) -> None:
        if value is None:
            return
        size = len(json.dumps(value, ensure_ascii=False).encode("utf-16-le"))
        if size > _CUSTOM_STATUS_BYTES:
            raise ReplayError(
                "The UTF-16 size of the JSON-serialized payload must not exceed 16 KB. The current payload size is "
                f"{size / 1024:.2f} KB."
            )
        instance.custom_status = value

    def _commit(self, instance: Instance, news: list[Event], step: "_Step") -> None:
        if step.end:
            news.append(history.execution_completed(step.end, step.raw_output))
        instance.events += [*news, history.orchestrator_completed()]
        for event in instance.events:
            event["IsPlayed"] = True
        instance.updated = datetime.now(UTC)

    def _act(self, instance: Instance, verdict: Verdict) -> None:
        """Send activities and timers on their way, and take cancelled timers back."""
        cancelled = set() if self.faults.fire_cancelled_timers else verdict.cancelled_timers
        for timer_id in cancelled & instance.timers.keys():
            instance.timers.pop(timer_id).cancel()
        for event in verdict.scheduled:
            if event["EventType"] == EventType.TASK_SCHEDULED:
                record = partial(self._deliver, instance, instance.execution_id)
                self._spawn(self.activities.perform(instance, event, record))
            elif event["EventId"] not in cancelled:
                self._set_timer(instance, event["EventId"], event["FireAt"])

    def _set_timer(self, instance: Instance, timer_id: int, fire_at: str) -> None:
        execution_id = instance.execution_id

        def fire() -> None:
            # A timer of an execution that has ended was cancelled with it.
            instance.timers.pop(timer_id, None)
            self._deliver(instance, execution_id, history.timer_fired(timer_id, fire_at))

        delay = (datetime.fromisoformat(fire_at) - datetime.now(UTC)).total_seconds()
        instance.timers[timer_id] = asyncio.get_running_loop().call_later(max(0.0, delay), fire)

    def _finish(self, instance: Instance, step: "_Step") -> None:
        for timer in instance.timers.values():
            timer.cancel()
        instance.timers.clear()
        # What else has come belongs to the execution that has just ended, but for a wish to end them all.
        instance.inbox = [event for event in instance.inbox if event["EventType"] == EventType.EXECUTION_TERMINATED]
        if step.end == "ContinuedAsNew":
            instance.earlier.append(instance.events)
            instance.events = []
            instance.execution_id = uuid.uuid4().hex
            instance.raw_input = step.raw_output
            instance.begin()
        else:
            instance.status, instance.raw_output = step.end, step.raw_output


@dataclass
class _Step:
    """What an episode has come to: an `end` ("" for none) is one of the extension's statuses."""

    verdict: Verdict = field(default_factory=Verdict)
    end: str = ""
    raw_output: str | None = None
