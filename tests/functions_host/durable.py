"""The Durable Task engine: instances, their episodes, their activities and timers.

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
from functions_host.instances import ActivityMessage, Instance
from functions_host.replay import ReplayError, Verdict, replay
from functions_host.store import Store
from functions_host.values import Json, body_bytes

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
        hidden_seconds: float,
        store: Store,
        context: dict[str, Any],
    ) -> None:
        """
        Args:
            invoke: runs a function of the app.
            orchestrators, activities: the names of the app's functions.
            concurrent_activities, concurrent_orchestrators: how many run at once at most.
            hidden_seconds: for how long nobody else gets an activity that was handed out.
            store: keeps all of it.
            context: what else the orchestration trigger's text has, such as the schema versions.
        """
        self.instances: dict[str, Instance] = {}
        self.faults = Faults()
        self.orchestrators = orchestrators
        self.activities = ActivityRunner(
            invoke,
            self.faults,
            store,
            self._keep,
            concurrent=concurrent_activities,
            hidden_seconds=hidden_seconds,
        )
        self._invoke = invoke
        self._activity_names = activities
        self._orchestrator_slots = asyncio.Semaphore(concurrent_orchestrators)
        self._context = context
        self._store = store
        self._running: set[Instance] = set()
        self._alarms: dict[tuple[Instance, int], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Go on with what the store has kept, in the loop that runs."""
        self.instances = {instance.id: instance for instance in self._store.instances()}
        for instance in self.instances.values():
            for delivery in instance.deliveries:
                delivery.outcome = "lost" if delivery.outcome == "running" else delivery.outcome
            for timer_id in instance.timers:
                self._set_alarm(instance, timer_id)
            if instance.inbox:
                self._wake(instance)
        for message in self._store.activities():
            # Of a purged instance nobody waits for the answer, and the activity runs all the same.
            instance = self.instances.get(message.instance_id) or Instance(message.instance_id, "", None, "Terminated")
            self._send(message, instance)

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
        self._store.save(instance)
        self._wake(instance)
        return instance

    def plant(self, instance: Instance) -> None:
        """Put an instance of another app of this task hub in, as it is."""
        self.instances[instance.id] = instance
        self._store.save(instance)

    def terminate(self, instance: Instance, reason: str) -> None:
        """Ask for the end of an instance; its activities go on, and nobody hears of them."""
        self._deliver(instance, instance.execution_id, history.execution_terminated(reason))

    def purge(self, instance: Instance) -> None:
        """Forget an instance."""
        self._clear_timers(instance)
        del self.instances[instance.id]
        self._store.forget(instance)

    async def close(self, grace: float) -> None:
        """Stop: wait for the activities that run, for some seconds, and leave the rest to the next host."""
        await self.activities.close(grace)
        for alarm in self._alarms.values():
            alarm.cancel()
        for task in self._tasks:
            task.cancel()

    def _deliver(self, instance: Instance, execution_id: str, event: Event) -> bool:
        """Hand a message to an instance; whether it is for the execution that is under way."""
        if instance.ended or instance.execution_id != execution_id:
            return False
        instance.inbox.append(event)
        self._keep(instance)
        self._wake(instance)
        return True

    def _keep(self, instance: Instance) -> None:
        # One that was purged while it ran is not to come back.
        if self.instances.get(instance.id) is instance:
            self._store.save(instance)

    def _wake(self, instance: Instance) -> None:
        if instance not in self._running:
            self._running.add(instance)
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
            self._running.discard(instance)

    async def _episode(self, instance: Instance) -> None:
        """Let the orchestrator go on from all messages that have come."""
        # They stay in the inbox until what they led to is kept.
        messages = list(instance.inbox)
        instance.episodes += 1
        instance.status = "Running"
        news = [history.orchestrator_started(), *messages]
        try:
            step = await self._step(instance, messages, [*instance.events, *news])
        except ReplayError as fault:
            step = _Step(end="Failed", raw_output=f"Orchestrator function '{instance.name}' failed: {fault}")
        del instance.inbox[: len(messages)]
        self._commit(instance, [*news, *step.verdict.scheduled], step)
        self._act(instance, step.verdict)
        if step.end:
            self._finish(instance, step)
        self._keep(instance)

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
        while reply.cut_off:
            # The turn has left no trace; another host or worker takes it.
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
            del instance.timers[timer_id]
            self._alarms.pop((instance, timer_id)).cancel()
        for event in verdict.scheduled:
            if event["EventType"] == EventType.TASK_SCHEDULED:
                message = ActivityMessage(instance.id, instance.execution_id, event)
                self._store.save(message)
                self._send(message, instance)
            elif event["EventId"] not in cancelled:
                instance.timers[event["EventId"]] = event["FireAt"]
                self._set_alarm(instance, event["EventId"])

    def _send(self, message: ActivityMessage, instance: Instance) -> None:
        record = partial(self._deliver, instance, message.execution_id)
        self._spawn(self.activities.perform(message, instance, record))

    def _set_alarm(self, instance: Instance, timer_id: int) -> None:
        execution_id, fire_at = instance.execution_id, instance.timers[timer_id]

        def fire() -> None:
            # A timer of an execution that has ended was cancelled with it.
            del self._alarms[instance, timer_id], instance.timers[timer_id]
            self._deliver(instance, execution_id, history.timer_fired(timer_id, fire_at))

        delay = (datetime.fromisoformat(fire_at) - datetime.now(UTC)).total_seconds()
        alarm = asyncio.get_running_loop().call_later(max(0.0, delay), fire)
        self._alarms[instance, timer_id] = alarm

    def _clear_timers(self, instance: Instance) -> None:
        for timer_id in instance.timers:
            self._alarms.pop((instance, timer_id)).cancel()
        instance.timers.clear()

    def _finish(self, instance: Instance, step: "_Step") -> None:
        self._clear_timers(instance)
        # What else has come belongs to the execution that has just ended, but for a wish to end them all.
        instance.inbox = [event for event in instance.inbox if event["EventType"] == EventType.EXECUTION_TERMINATED]
        if step.end == "ContinuedAsNew":
            instance.earlier.append(instance.events)
            instance.events = []
            instance.execution_id = uuid.uuid4().hex
            instance.raw_input = step.raw_output
            # As in the real one, where an instance's state is that of its newest execution.
            instance.created = datetime.now(UTC)
            instance.begin()
        else:
            instance.status, instance.raw_output = step.end, step.raw_output


@dataclass
class _Step:
    """What an episode has come to: an `end` ("" for none) is one of the extension's statuses."""

    verdict: Verdict = field(default_factory=Verdict)
    end: str = ""
    raw_output: str | None = None
