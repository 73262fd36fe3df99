"""Runs activities: a few at a time, at least once, and with the faults that a test has switched on."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from functions_host import history
from functions_host.failures import failure_details, friendly_message
from functions_host.faults import Faults
from functions_host.history import Event
from functions_host.instances import ActivityMessage, Delivery, Instance
from functions_host.store import Store
from functions_host.values import Json, Reply, body_bytes

Invoke = Callable[[str, str], Awaitable[Reply]]
"""(name of a function, its trigger's text) -> how it ended."""

Record = Callable[[Event], bool]
"""Hands an answer to the instance; whether it was for the execution under way."""


class ActivityRunner:
    """The queue of activities and those who work on it."""

    def __init__(
        self,
        invoke: Invoke,
        faults: Faults,
        store: Store,
        keep: Callable[[Instance], None],
        *,
        concurrent: int,
        hidden_seconds: float,
    ) -> None:
        """
        Args:
            invoke: runs a function of the app.
            faults: what is to go wrong.
            store: keeps the queue.
            keep: keeps an instance, with the runs of its activities.
            concurrent: how many run at once at most.
            hidden_seconds: for how long nobody else gets an activity that was handed out.
        """
        self.most_at_once = 0
        self._handed_out: list[ActivityMessage] = []
        self._closing = False
        self._invoke = invoke
        self._faults = faults
        self._store = store
        self._keep = keep
        self._slots = asyncio.Semaphore(concurrent)
        self._hidden = timedelta(seconds=hidden_seconds)

    async def perform(self, message: ActivityMessage, instance: Instance, record: Record) -> None:
        """See to it that a scheduled activity is run and its answer recorded, as far as the faults allow."""
        if message.hidden_until is not None:
            await asyncio.sleep((message.hidden_until - datetime.now(UTC)).total_seconds())
        if self._faults.deliver_twice:
            await self._twice(message, instance, record)
        else:
            await self._once(message, instance, record)
        self._store.forget(message)

    async def close(self, grace: float) -> None:
        """Hand out no more, and wait for those that run; what runs longer is there for the next host at once."""
        self._closing = True
        deadline = time.monotonic() + grace
        while self._handed_out and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for message in self._handed_out:
            message.hidden_until = None
            self._store.save(message)

    async def _once(self, message: ActivityMessage, instance: Instance, record: Record) -> None:
        while True:
            delivery, answer, again = await self._deliver(message, instance)
            if answer is not None and not record(answer):
                delivery.outcome = "dropped"
            if not again:
                return
            await asyncio.sleep(self._faults.delay_seconds)

    async def _twice(self, message: ActivityMessage, instance: Instance, record: Record) -> None:
        counts = int(self._faults.later_counts())
        both = self._faults.record_both
        runs = [self._deliver(message, instance) for _ in range(2)]
        for place, run in enumerate(asyncio.as_completed(runs)):
            delivery, answer, _ = await run
            if answer is None:
                continue
            if not (both or place == counts):
                delivery.outcome = "duplicate"
            elif not record(answer):
                delivery.outcome = "dropped"

    async def _deliver(self, message: ActivityMessage, instance: Instance) -> tuple[Delivery, Event | None, bool]:
        """Run it once; the answer unless that gets lost, and whether to deliver it again."""
        event = message.event
        async with self._slots:
            await self._faults.unpaused()
            if self._closing:
                # It stays in its queue; this host ends.
                await asyncio.Event().wait()
            message.hidden_until = datetime.now(UTC) + self._hidden
            self._store.save(message)
            delivery = Delivery(event["EventId"], message.execution_id, event["Name"], event["Input"])
            instance.deliveries.append(delivery)
            self._keep(instance)
            if self._faults.take("fail_next"):
                delivery.outcome = "failed"
                reason = f"Activity function '{event['Name']}' failed:  {self._faults.fail_message}"
                return delivery, history.task_failed(event["EventId"], reason, "{}"), False
            again, lost = self._faults.take("lose_next"), False
            if not again:
                lost = self._faults.take("lose_for_good")
            self._handed_out.append(message)
            self.most_at_once = max(self.most_at_once, len(self._handed_out))
            try:
                answer = await self._answer(event)
            finally:
                self._handed_out.remove(message)
            if again or lost:
                delivery.outcome = "lost"
                return delivery, None, again
            delivery.outcome = "recorded"
            return delivery, answer, False

    async def _answer(self, event: Event) -> Event:
        (argument,) = json.loads(event["Input"])
        text = argument if isinstance(argument, str) else json.dumps(argument)
        reply = await self._invoke(event["Name"], text)
        task_id = event["EventId"]
        if reply.failure is not None:
            reason = f"Activity function '{event['Name']}' failed: {friendly_message(reply.failure)}"
            return history.task_failed(task_id, reason, failure_details(reply.failure))
        match reply.value:
            case None:
                result = None
            case Json(text):
                value = json.loads(text)
                result = None if value is None else json.dumps(value)
            case value:
                result = json.dumps(body_bytes(value).decode())
        return history.task_completed(task_id, result)
