"""What goes wrong between an engine and its scheduler: nothing hangs, and no work is lost."""

import asyncio
import os
import signal
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from python_process import HANG_SECONDS
from scheduler.planting import ours
from scheduler.process import SchedulerProcess, WorkerProcess, connection_string
from scheduler.proxy import Proxy
from server_process import ServerProcess

from pow.errors import EngineError
from pow.longwork.call import NOBODY
from pow.longwork.engine import WorkflowState
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.longwork.engines.scheduler import SchedulerAddress
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name != "posix", reason="a process can be frozen only by POSIX's signals"),
]

ENDLESS = MiningJob(difficulty=60, blocks=1, genesis="GENESIS")
KEY = "0123456789abcdef" * 2
# A call that isn't answered ends within so many seconds, a process within so many of its SIGTERM.
CALL_SECONDS = 6.0
END_SECONDS = 3.0


@pytest.fixture
def work() -> Iterator[MiningWork]:
    """Mining in this process."""
    with MinerPool(1) as pool:
        yield MiningWork(pool)


def chain_of(work: MiningWork, state: WorkflowState | None) -> dict[str, Any]:
    """The chain of a workflow that has completed."""
    assert state is not None
    assert state.status == "completed", state.error
    assert state.output is not None
    return mined_chain(work.restore(state.output)).to_dict()


async def outcome(call: Coroutine[Any, Any, object], seconds: float) -> str:
    """What comes of a call within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await call
    except EngineError:
        return "error"
    except TimeoutError:
        return f"nothing within {seconds} s"
    return "answer"


@pytest.mark.parametrize("silence", ["frozen", "stalled"])
async def test_no_call_waits_for_a_scheduler_that_does_not_answer(silence: str, work: MiningWork) -> None:
    planted = ours(owner=None, created_at=time.time())
    with SchedulerProcess() as scheduler, Proxy(scheduler.port) as proxy:
        scheduler.control.plant(planted)
        address = SchedulerAddress.parse(connection_string(proxy.port), "default")
        async with DurableTaskEngine(work, address) as engine:
            assert await engine.state(NOBODY, planted.workflow_id) is not None
            if silence == "frozen":
                scheduler.freeze()
            else:
                proxy.stall()
            calls = {
                "state": (engine.state(NOBODY, planted.workflow_id), CALL_SECONDS),
                "start": (engine.start(NOBODY, ENDLESS, KEY), CALL_SECONDS),
                "newest": (engine.newest(NOBODY, 10), CALL_SECONDS),
                "counts": (engine.counts(NOBODY), CALL_SECONDS),
                "cancel": (engine.cancel(NOBODY, planted.workflow_id), CALL_SECONDS),
                "wait": (engine.wait(NOBODY, planted.workflow_id, 2.0), 3.0),
            }
            came = await asyncio.gather(*(outcome(call, seconds) for call, seconds in calls.values()))
            scheduler.thaw()
            proxy.open()
            async with asyncio.timeout(HANG_SECONDS):
                state = await engine.state(NOBODY, planted.workflow_id)

    outcomes = dict(zip(calls, came, strict=True))
    # A wait may end with its time.
    assert outcomes.pop("wait") in ("error", "answer")
    assert outcomes == dict.fromkeys(outcomes, "error")
    assert state is not None
    assert state.status == "running"


def running(kind: str, scheduler: SchedulerProcess) -> WorkerProcess | ServerProcess:
    """One of the processes that mine."""
    if kind == "worker":
        return WorkerProcess(scheduler, MiningThreads="1")
    return ServerProcess(DURABLE_TASK_SCHEDULER_CONNECTION_STRING=scheduler.connection_string, MiningThreads="1")


@pytest.mark.parametrize("kind", ["worker", "server"])
async def test_a_process_ends_in_time_when_the_scheduler_does_not_answer(kind: str) -> None:
    with SchedulerProcess() as scheduler, running(kind, scheduler) as process:
        client = scheduler.client()
        await scheduler.start(client, ENDLESS, fan_out=1)
        await client.close()
        if isinstance(process, WorkerProcess):
            await process.mines(0.3)
        else:
            await process.until_mining()
        scheduler.freeze()
        began = time.monotonic()
        code = await asyncio.to_thread(process.signal, signal.SIGTERM)
        seconds = time.monotonic() - began

    assert code == 0
    assert seconds < END_SECONDS


async def test_a_wait_outlasts_a_connection_that_is_cut(work: MiningWork) -> None:
    now = time.time()
    running = ours(owner=None, created_at=now)
    completed = ours(owner=None, created_at=now, workflow_id=running.workflow_id, status="COMPLETED", nonces=(7,))
    with SchedulerProcess() as scheduler, Proxy(scheduler.port) as proxy:
        scheduler.control.plant(running)
        address = SchedulerAddress.parse(connection_string(proxy.port), "default")
        async with DurableTaskEngine(work, address) as engine, asyncio.TaskGroup() as tasks:
            wait = tasks.create_task(engine.wait(NOBODY, running.workflow_id, 20.0))
            await asyncio.sleep(0.5)
            proxy.cut()
            await asyncio.sleep(2.0)
            scheduler.control.plant(completed)
            assert not wait.done()
            proxy.open()

    state = wait.result()
    assert state is not None
    assert state.status == "completed"


async def test_a_call_of_a_tool_outlasts_a_connection_that_is_cut() -> None:
    with (
        SchedulerProcess() as scheduler,
        Proxy(scheduler.port) as proxy,
        ServerProcess(
            DURABLE_TASK_SCHEDULER_CONNECTION_STRING=connection_string(proxy.port), WaitBudgetSeconds="4"
        ) as server,
    ):
        async with server.client() as client, asyncio.TaskGroup() as tasks:
            call = tasks.create_task(client.call_tool("start_mining", {"difficulty": 40}))
            await server.until_mining()
            proxy.cut()
            await asyncio.sleep(2.0)
            proxy.open()
            started = await call
            assert not started.is_error, started.content
            assert started.structured_content is not None
            found = await client.call_tool(
                "get_mining_result", {"workflow_id": started.structured_content["workflow_id"]}
            )

    assert started.structured_content["status"] == "running"
    assert found.structured_content is not None
    assert found.structured_content["status"] == "running"


async def test_a_connection_that_is_cut_costs_a_slice_at_most(
    work: MiningWork, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with SchedulerProcess() as scheduler, Proxy(scheduler.port) as proxy:
        address = SchedulerAddress.parse(connection_string(proxy.port), "default")
        async with DurableTaskEngine(work, address, slice_seconds=0.3) as engine:
            started = await engine.start(NOBODY, MiningJob(difficulty=24, blocks=4, genesis="GENESIS"), KEY)
            await asyncio.sleep(0.5)
            proxy.cut()
            await asyncio.sleep(1.0)
            proxy.open()
            state = await engine.wait(NOBODY, started.workflow_id, 60.0)

    assert chain_of(work, state) == genesis_chain[24]


async def test_after_a_restart_of_a_scheduler_that_forgets_work_begins_anew(
    work: MiningWork, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    job = MiningJob(difficulty=12, blocks=4, genesis="GENESIS")
    with SchedulerProcess() as first:
        async with DurableTaskEngine(work, first.address()) as engine:
            forgotten = await engine.start(NOBODY, ENDLESS, KEY)
            first.kill()
            with SchedulerProcess(port=first.port):
                started = await starts(engine, job)
                state = await engine.wait(NOBODY, started, HANG_SECONDS)
                assert await engine.state(NOBODY, forgotten.workflow_id) is None

    assert chain_of(work, state) == genesis_chain[12]


async def starts(engine: DurableTaskEngine, job: MiningJob) -> str:
    """Start a workflow as soon as the scheduler is there."""
    async with asyncio.timeout(HANG_SECONDS):
        while True:
            try:
                return (await engine.start(NOBODY, job, KEY)).workflow_id
            except EngineError:
                await asyncio.sleep(0.1)
