"""What a scheduler's task hub has: many workflows, large ones, old ones, and another app's."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC
from typing import Any, NamedTuple

import pytest
from durabletask import task
from durabletask.azuremanaged.worker import DurableTaskSchedulerWorker
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus
from python_process import HANG_SECONDS
from scheduler.control import Planted
from scheduler.options import SchedulerOptions
from scheduler.planting import foreign, ours
from scheduler.process import SchedulerProcess

from pow.errors import EngineError
from pow.longwork.call import NOBODY, CallContext
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

pytestmark = pytest.mark.anyio

ENDLESS = MiningJob(difficulty=60, blocks=1, genesis="GENESIS")
KEY = "0123456789abcdef" * 2
ZOE = CallContext(caller="zoe")
OWNERS = [f"owner {number}" for number in range(30)]
DAY = 86_400.0


@pytest.fixture
def work() -> Iterator[MiningWork]:
    """Mining in this process."""
    with MinerPool(1) as pool:
        yield MiningWork(pool)


@asynccontextmanager
async def client_of(scheduler: SchedulerProcess) -> AsyncIterator[AsyncTaskHubGrpcClient]:
    """The SDK's client, which sees everything."""
    client = scheduler.client()
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def another_app(scheduler: SchedulerProcess) -> Iterator[None]:
    """A worker of another app in the task hub, which takes only what is that app's."""

    def another_step(context: task.ActivityContext, given: str) -> str:
        return f"{given}, done"

    def another_app(context: task.OrchestrationContext, given: str) -> Generator[task.Task[Any], Any, Any]:
        return (yield context.call_activity(another_step, input=given))

    worker = DurableTaskSchedulerWorker(
        host_address=scheduler.address().endpoint, taskhub="default", token_credential=None, secure_channel=False
    )
    worker.add_orchestrator(another_app)
    worker.add_activity(another_step)
    worker.use_work_item_filters()
    worker.start()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        worker.stop()  # type: ignore[no-untyped-call]


class Listed(NamedTuple):
    """A planted workflow of ours, and what is known of it."""

    created_at: float
    owner: str
    workflow: Planted


def many_of_ours(now: float) -> list[Listed]:
    """450 workflows of 30 owners, in order of their starts, the newest first. Some were continued as new since."""
    chance = random.Random(1)
    listed = []
    for number in range(450):
        created_at, owner = now - 60.0 * (number + 1), OWNERS[number % len(OWNERS)]
        status = ("RUNNING", "COMPLETED", "TERMINATED")[number % 7 % 3]
        workflow = ours(
            owner=owner, created_at=created_at, status=status, history_began_at=chance.uniform(created_at, now)
        )
        listed.append(Listed(created_at, owner, workflow))
    return listed


async def test_another_apps_workflows_are_not_seen(work: MiningWork) -> None:
    now = time.time()
    others = [
        foreign(["a", "list"], created_at=now),
        foreign("a text", created_at=now, status="COMPLETED"),
        foreign({"owner": "zoe", "job": {**ENDLESS}}, created_at=now),
        # By chance, with the prefix that a twin would have.
        foreign(["a", "list"], created_at=now, workflow_id=f"01234567-89ab-{str(uuid.uuid4())[14:]}"),
    ]
    finished = ours(owner="zoe", created_at=now - 60, status="COMPLETED", nonces=(7,))
    with SchedulerProcess() as scheduler:
        scheduler.control.plant(*others, finished)
        async with DurableTaskEngine(work, scheduler.address()) as engine, client_of(scheduler) as client:
            for other in others:
                assert await engine.state(NOBODY, other.workflow_id) is None
                assert await engine.wait(NOBODY, other.workflow_id, 0.1) is None
                assert await engine.cancel(NOBODY, other.workflow_id) is None
            first = await engine.start(ZOE, ENDLESS, KEY)
            twin = await engine.start(ZOE, ENDLESS, KEY)
            listed = await engine.newest(ZOE, 100)
            counts = await engine.counts(NOBODY)
            running = await client.get_orchestration_state(others[0].workflow_id)

    assert (first.joined, twin) == (False, (first.workflow_id, True))
    assert [state.workflow_id for state in listed] == [first.workflow_id, finished.workflow_id]
    assert {status: count for status, count in counts.items() if count} == {"running": 1, "completed": 1}
    assert running is not None
    assert running.runtime_status is OrchestrationStatus.RUNNING


async def test_another_apps_work_is_left_to_its_own_workers(work: MiningWork) -> None:
    with SchedulerProcess() as scheduler:
        async with DurableTaskEngine(work, scheduler.address()), client_of(scheduler) as client:
            waiting = await client.schedule_new_orchestration("nobodys_app", input=["a", "list"])
            await asyncio.sleep(1.0)
            found = await client.get_orchestration_state(waiting)
            assert found is not None
            assert found.runtime_status is OrchestrationStatus.PENDING, found.failure_details

            with another_app(scheduler):
                started = [await client.schedule_new_orchestration("another_app", input="x") for _ in range(8)]
                for workflow_id in started:
                    done = await client.wait_for_orchestration_completion(workflow_id, timeout=int(HANG_SECONDS))
                    assert done is not None
                    assert done.get_output() == "x, done", done.failure_details


@pytest.mark.parametrize(
    "options",
    [
        SchedulerOptions(paging="token"),
        SchedulerOptions(paging="token", page_size=7),
        SchedulerOptions(paging="offset", starts_between_pages=3),
        SchedulerOptions(paging="all"),
    ],
    ids=["pages", "small_pages", "offsets", "all_at_once"],
)
async def test_lists_have_the_callers_newest_however_the_scheduler_pages(
    options: SchedulerOptions, work: MiningWork
) -> None:
    now = time.time()
    planted = many_of_ours(now)
    # They would be the newest, if they were ours.
    others = [foreign({"owner": OWNERS[3], "job": {**ENDLESS}}, created_at=now - 2.0 * i) for i in range(20)]
    with SchedulerProcess(options) as scheduler:
        scheduler.control.plant(*(listed.workflow for listed in planted), *others)
        async with DurableTaskEngine(work, scheduler.address()) as engine:
            for owner in (OWNERS[3], OWNERS[29]):
                expected = [(of.workflow.workflow_id, of.created_at) for of in planted if of.owner == owner]
                for limit in (4, 100):
                    newest = await engine.newest(CallContext(caller=owner), limit)
                    assert [(state.workflow_id, state.created_at) for state in newest] == expected[:limit]

            first = await engine.start(ZOE, ENDLESS, KEY)
            assert await engine.start(ZOE, ENDLESS, KEY) == (first.workflow_id, True)
            assert [state.workflow_id for state in await engine.newest(ZOE, 10)] == [first.workflow_id]


async def test_without_lists_workflows_start_and_lists_say_why_not(work: MiningWork) -> None:
    with SchedulerProcess(SchedulerOptions(paging="none")) as scheduler:
        async with DurableTaskEngine(work, scheduler.address()) as engine:
            started = await engine.start(ZOE, ENDLESS, KEY)
            state = await engine.state(ZOE, started.workflow_id)
            with pytest.raises(EngineError, match="list"):
                await engine.newest(ZOE, 10)

    assert not started.joined
    assert state is not None
    assert state.status == "running"


async def test_a_workflows_time_of_creation_stays_when_its_history_begins_anew(work: MiningWork) -> None:
    with SchedulerProcess() as scheduler:
        async with DurableTaskEngine(work, scheduler.address(), slice_seconds=0.02) as engine:
            async with client_of(scheduler) as client:
                before = time.time()
                started = await engine.start(ZOE, ENDLESS, KEY)
                after = time.time()
                async with asyncio.timeout(HANG_SECONDS):
                    while not await began_anew(client, started.workflow_id, after):
                        await asyncio.sleep(0.05)
            state = await engine.state(ZOE, started.workflow_id)
            (listed,) = await engine.newest(ZOE, 10)

    assert state is not None
    assert state.created_at is not None
    assert before <= state.created_at <= after
    assert listed.created_at == state.created_at


async def began_anew(client: AsyncTaskHubGrpcClient, workflow_id: str, after: float) -> bool:
    """Whether the scheduler has another time of creation now than that of the start, some time ago."""
    found = await client.get_orchestration_state(workflow_id)
    assert found is not None
    return found.created_at.replace(tzinfo=UTC).timestamp() > after + 0.2


async def test_large_chains_break_no_list(work: MiningWork) -> None:
    job, nonces, now = MiningJob(difficulty=0, blocks=1000, genesis="GENESIS"), (0,) * 1000, time.time()
    # The first version's output: all of the chain, 250 bytes a block.
    chain = mined_chain({**work.begin(job), "nonces": list(nonces)}).to_dict()
    planted = [
        ours(owner="zoe", created_at=now - i, status="COMPLETED", job=job, nonces=nonces, output=chain)
        for i in range(25)
    ]
    with SchedulerProcess() as scheduler:
        scheduler.control.plant(*planted)
        async with DurableTaskEngine(work, scheduler.address()) as engine:
            newest = await engine.newest(ZOE, 25)
            counts = await engine.counts(ZOE)
            state = await engine.state(ZOE, planted[0].workflow_id)

    assert [listed.workflow_id for listed in newest] == [workflow.workflow_id for workflow in planted]
    assert all(listed.job == job for listed in newest)
    assert counts["completed"] == 25
    assert state is not None
    assert state.output is not None
    assert work.restore(state.output)["nonces"] == list(nonces)


async def test_what_ended_more_than_a_week_ago_is_purged(work: MiningWork) -> None:
    now = time.time()
    old = [
        ours(owner="zoe", created_at=now - 9 * DAY, updated_at=now - 8 * DAY, status=status)
        for status in ("COMPLETED", "FAILED", "TERMINATED")
    ]
    kept = [
        ours(owner="zoe", created_at=now - 6.5 * DAY, updated_at=now - 6 * DAY, status="COMPLETED"),
        # It took long, and ended yesterday.
        ours(owner="zoe", created_at=now - 9 * DAY, updated_at=now - DAY, status="COMPLETED"),
        ours(owner="zoe", created_at=now - 30 * DAY, updated_at=now - 30 * DAY),
        foreign("a text", created_at=now - 30 * DAY, updated_at=now - 29 * DAY, status="COMPLETED"),
    ]
    with SchedulerProcess() as scheduler:
        scheduler.control.plant(*old, *kept)
        async with DurableTaskEngine(work, scheduler.address()), client_of(scheduler) as client:

            async def there(workflows: list[Planted]) -> list[bool]:
                return [await client.get_orchestration_state(planted.workflow_id) is not None for planted in workflows]

            async with asyncio.timeout(15.0):
                while any(await there(old)):
                    await asyncio.sleep(0.05)
            assert await there(kept) == [True] * len(kept)
