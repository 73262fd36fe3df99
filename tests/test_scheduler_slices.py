"""Slices on a scheduler that nobody wants any more, and slices that die with their workers."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from python_process import HANG_SECONDS
from scheduler.options import SchedulerOptions
from scheduler.process import SchedulerProcess, WorkerProcess

from pow.longwork import orchestration
from pow.longwork.call import NOBODY
from pow.longwork.engine import WorkflowState
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.longwork.service import LongWorkService
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain
from pow.scanning.backends import native_missing
from pow.tools.mining import NAMES

pytestmark = pytest.mark.anyio

ENDLESS = MiningJob(difficulty=60, blocks=1, genesis="GENESIS")
KEY = "0123456789abcdef" * 2
# One thread of the slowest native kernel takes some seconds for this block.
LONG = MiningJob(difficulty=26, blocks=1, genesis="GENESIS")
LONG_NONCE = 35154319
SLOW = {"MiningThreads": "1", "POW_BACKEND": "portable"}


@pytest.fixture
def pool() -> Iterator[MinerPool]:
    """Where this process mines."""
    with MinerPool(1) as running:
        yield running


@pytest.fixture
def work(pool: MinerPool) -> MiningWork:
    """Mining in this process."""
    return MiningWork(pool)


@pytest.mark.parametrize(("after_terminate", "cancels"), [("drop", 2), ("go", 6)])
async def test_after_a_cancel_nothing_more_is_mined(
    after_terminate: Any, cancels: int, work: MiningWork, pool: MinerPool
) -> None:
    with SchedulerProcess(SchedulerOptions(after_terminate=after_terminate)) as scheduler:
        async with DurableTaskEngine(work, scheduler.address()) as engine:
            for _ in range(cancels):
                before = pool.hashes
                started = await engine.start(NOBODY, ENDLESS, KEY, fresh=True)
                async with asyncio.timeout(HANG_SECONDS):
                    while pool.hashes == before:
                        await asyncio.sleep(0.01)

                state = await engine.cancel(NOBODY, started.workflow_id)

                assert state is not None
                assert state.status == "terminated"
                await asyncio.sleep(0.5)
                tried = pool.hashes
                await asyncio.sleep(0.1)
                assert pool.hashes == tried


@pytest.mark.parametrize("after_terminate", ["drop", "go"])
async def test_after_a_cancel_nothing_more_is_mined_by_another_process(
    after_terminate: Any, work: MiningWork, pool: MinerPool
) -> None:
    with (
        SchedulerProcess(SchedulerOptions(after_terminate=after_terminate)) as scheduler,
        WorkerProcess(scheduler, MiningThreads="1") as worker,
    ):
        client = scheduler.client()
        workflow_id = await scheduler.start(client, ENDLESS, fan_out=1)
        await client.close()
        await worker.mines(0.3)
        async with DurableTaskEngine(work, scheduler.address()) as engine:
            state = await engine.cancel(NOBODY, workflow_id)
            await asyncio.sleep(0.5)
            tried, used = pool.hashes, worker.cpu_seconds()
            await asyncio.sleep(0.5)
            assert worker.cpu_seconds() - used < 0.1
            assert pool.hashes == tried

    assert state is not None
    assert state.status == "terminated"


@pytest.mark.skipif(native_missing(), reason="hashlib would take minutes")
@pytest.mark.parametrize("leases", [False, True], ids=["lost", "handed_out_again"])
async def test_a_killed_workers_slice_is_started_again(leases: bool, work: MiningWork) -> None:
    with SchedulerProcess(SchedulerOptions(leases=leases)) as scheduler:
        async with DurableTaskEngine(work, scheduler.address(), slice_seconds=1.0) as engine:
            started = await engine.start(NOBODY, LONG, KEY)
        with WorkerProcess(scheduler, **SLOW) as dies:
            await dies.mines(0.5)
            dies.kill()
        client = scheduler.client()
        with WorkerProcess(scheduler):
            async with asyncio.timeout(60.0):
                chain = await scheduler.chain(client, started.workflow_id)
        await client.close()

    assert [block["nonce"] for block in chain["blocks"]] == [LONG_NONCE]


async def test_slices_that_fail_with_their_workers_are_tried_again(
    work: MiningWork, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with SchedulerProcess() as scheduler:
        scheduler.control.fail_next(2)
        async with DurableTaskEngine(work, scheduler.address(), slice_seconds=0.1) as engine:
            started = await engine.start(NOBODY, MiningJob(difficulty=20, blocks=4, genesis="GENESIS"), KEY)
            state = await engine.wait(NOBODY, started.workflow_id, HANG_SECONDS)

    assert state is not None
    assert state.status == "completed", state.error
    assert state.output is not None
    assert mined_chain(work.restore(state.output)).to_dict() == genesis_chain[20]


async def test_a_workflow_whose_slices_always_fail_says_so_and_an_equal_one_goes_on_from_there(
    work: MiningWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else they are half a minute.
    monkeypatch.setattr(orchestration, "pause_seconds", lambda failures: 0.05)
    with SchedulerProcess() as scheduler:
        async with DurableTaskEngine(work, scheduler.address(), slice_seconds=0.1) as engine:
            started = await engine.start(NOBODY, ENDLESS, KEY)
            async with asyncio.timeout(HANG_SECONDS):
                while not hashes(await engine.state(NOBODY, started.workflow_id)):
                    await asyncio.sleep(0.01)
            scheduler.control.fail_next(1_000_000)
            state = await engine.wait(NOBODY, started.workflow_id, HANG_SECONDS)
            result = await LongWorkService(work, engine, NAMES, 1.0).get(NOBODY, started.workflow_id)
            scheduler.control.fail_next(0)
            again = await engine.start(NOBODY, ENDLESS, KEY)
            async with asyncio.timeout(HANG_SECONDS):
                while not hashes(further := await engine.state(NOBODY, again.workflow_id)):
                    await asyncio.sleep(0.01)
            await engine.cancel(NOBODY, again.workflow_id)

    reached = hashes(state)
    assert (result["status"], result["reason"]) == ("failed", "error")
    assert "was tried 10 times and failed each time; the last time Python exited with code 137" in result["error"]
    # Of the first block, as many as were tried.
    assert f"all nonces of block 1 below {reached:,} tried" in result["error"]
    assert result["error"].endswith("That is kept: the same call of start_mining goes on from there.")
    assert not again.joined
    assert again.workflow_id != started.workflow_id
    assert hashes(further) >= reached


def hashes(state: WorkflowState | None) -> int:
    """How many nonces a workflow has tried, as it reports."""
    report: Any = state and state.report
    return int(report["hashes"]) if report else 0
