"""Runs activities: a few at a time, at least once, and with the faults that a test has switched on."""

import asyncio
import json
from collections.abc import Awaitable, Callable

from functions_host import history
from functions_host.failures import failure_details, friendly_message
from functions_host.faults import Faults
from functions_host.history import Event
from functions_host.instances import Delivery, Instance
from functions_host.worker import Json, Reply, body_bytes

Invoke = Callable[[str, str], Awaitable[Reply]]
"""(name of a function, its trigger's text) -> how it ended."""

Record = Callable[[Event], bool]
"""Hands an answer to the instance; whether it was for the execution under way."""


class ActivityRunner:
    """The queue of activities and those who work on it."""

    def __init__(self, invoke: Invoke, faults: Faults, concurrent: int) -> None:
        """
        Args:
            invoke: runs a function of the app.
            faults: what is to go wrong.
            concurrent: how many run at once at most.
        """
        self.most_at_once = 0
        self._now = 0
        self._invoke = invoke
        self._faults = faults
        self._slots = asyncio.Semaphore(concurrent)

    async def perform(self, instance: Instance, event: Event, record: Record) -> None:
        """See to it that a scheduled activity is run and its answer recorded, as far as the faults allow."""
        if self._faults.deliver_twice:
            await self._twice(instance, event, record)
            return
        while True:
            delivery, answer, again = await self._deliver(instance, event)
            if answer is not None and not record(answer):
                delivery.outcome = "dropped"
            if not again:
                return
            await asyncio.sleep(self._faults.delay_seconds)

    async def _twice(self, instance: Instance, event: Event, record: Record) -> None:
        counts = int(self._faults.later_counts())
        both = self._faults.record_both
        runs = [self._deliver(instance, event) for _ in range(2)]
        for place, run in enumerate(asyncio.as_completed(runs)):
            delivery, answer, _ = await run
            if answer is None:
                continue
            if not (both or place == counts):
                delivery.outcome = "duplicate"
            elif not record(answer):
                delivery.outcome = "dropped"

    async def _deliver(self, instance: Instance, event: Event) -> tuple[Delivery, Event | None, bool]:
        """Run it once; the answer unless that gets lost, and whether to deliver it again."""
        async with self._slots:
            await self._faults.unpaused()
            delivery = Delivery(event["EventId"], instance.execution_id, event["Name"], event["Input"])
            instance.deliveries.append(delivery)
            if self._faults.take("fail_next"):
                delivery.outcome = "failed"
                reason = f"Activity function '{event['Name']}' failed:  {self._faults.fail_message}"
                return delivery, history.task_failed(event["EventId"], reason, "{}"), False
            again, lost = self._faults.take("lose_next"), False
            if not again:
                lost = self._faults.take("lose_for_good")
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            try:
                answer = await self._answer(event)
            finally:
                self._now -= 1
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
