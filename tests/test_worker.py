"""Worker processes on a scheduler: they share blocks, and one that dies costs its slice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from durabletask.client import AsyncTaskHubGrpcClient
from python_process import HANG_SECONDS
from scheduler.process import SchedulerProcess, WorkerProcess
from server_process import ServerProcess

from pow.mining.chain import Chain, verify_chain
from pow.mining.messages import MiningJob
from pow.scanning.backends import native_missing

pytestmark = pytest.mark.anyio

# One thread of the slowest native kernel takes some seconds for this block, and many slices.
DIFFICULTY = 26
NONCE = 35154319
SLOW = {"MiningThreads": "1", "POW_BACKEND": "portable", "MiningFanOut": "2"}
needs_native = pytest.mark.skipif(native_missing(), reason="hashlib would take minutes")
posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture
def scheduler() -> Iterator[SchedulerProcess]:
    with SchedulerProcess() as running:
        yield running


@pytest.fixture
async def client(scheduler: SchedulerProcess) -> AsyncIterator[AsyncTaskHubGrpcClient]:
    connected = scheduler.client()
    yield connected
    await connected.close()


async def slices(client: AsyncTaskHubGrpcClient, workflow_id: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The requests of the slices that a workflow has started, and the answers that came."""
    events: list[Any] = list(await client.get_orchestration_history(workflow_id))
    inputs = [json.loads(event.input) for event in events if type(event).__name__ == "TaskScheduledEvent"]
    answers = [json.loads(event.result) for event in events if type(event).__name__ == "TaskCompletedEvent"]
    return [json.dumps(given["request"]) for given in inputs], answers


@needs_native
async def test_two_workers_share_a_block(scheduler: SchedulerProcess, client: AsyncTaskHubGrpcClient) -> None:
    with WorkerProcess(scheduler, **SLOW) as one, WorkerProcess(scheduler, **SLOW) as other:
        before = {worker: worker.cpu_seconds() for worker in (one, other)}
        workflow_id = await scheduler.start(
            client, MiningJob(difficulty=DIFFICULTY, blocks=1, genesis="GENESIS"), fan_out=2
        )
        chain = await scheduler.chain(client, workflow_id)
        used = [worker.cpu_seconds() - before[worker] for worker in (one, other)]

    assert chain["blocks"][0]["nonce"] == NONCE
    inputs, _answers = await slices(client, workflow_id)
    # Each range once, side by side, and each worker its share of them.
    assert len(set(inputs)) == len(inputs) > 4
    assert min(used) > 0.25 * sum(used)


@needs_native
async def test_a_killed_worker_costs_the_slice_that_it_had(
    scheduler: SchedulerProcess, client: AsyncTaskHubGrpcClient
) -> None:
    with WorkerProcess(scheduler, **SLOW) as dies, WorkerProcess(scheduler, **SLOW):
        workflow_id = await scheduler.start(
            client, MiningJob(difficulty=DIFFICULTY, blocks=2, genesis="GENESIS"), fan_out=2
        )
        # From the second answer on, both workers have a slice in hand nearly always.
        while len((await slices(client, workflow_id))[1]) < 2:
            pass
        dies.kill()
        chain = await scheduler.chain(client, workflow_id)

    assert [block["nonce"] for block in chain["blocks"]] == [NONCE, 88754997]
    assert verify_chain(Chain.from_dict(chain))
    inputs, answers = await slices(client, workflow_id)
    starts = Counter(inputs)
    assert [count for count in starts.values() if count > 1] == [2], "not just one slice was started again"
    # Nobody waits for the slice above the last hit, nor for the one that lies ready.
    assert len(answers) >= len(starts) - 2


@posix
async def test_a_worker_told_to_end_gives_back_what_it_has_tried(
    scheduler: SchedulerProcess, client: AsyncTaskHubGrpcClient, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with WorkerProcess(scheduler) as first:
        workflow_id = await scheduler.start(client, MiningJob(difficulty=40, blocks=1, genesis="GENESIS"), fan_out=1)
        # Handing the slice out and getting ready for it takes some hundredths of a second.
        await first.mines(0.5)
        code = first.signal(signal.SIGTERM)
    assert code == 0

    with WorkerProcess(scheduler):
        # The slice of ten seconds ended unfinished. It is in the history when a worker has taken the turn that follows.
        async with asyncio.timeout(HANG_SECONDS):
            while not (answers := (await slices(client, workflow_id))[1]):
                await asyncio.sleep(0.01)
        assert answers[0]["nonce"] is None
        assert answers[0]["next_nonce"] > 0
        # Workflows go on, whoever works on them.
        assert (
            await scheduler.mine(client, MiningJob(difficulty=16, blocks=4, genesis="GENESIS"), fan_out=1)
            == genesis_chain[16]
        )


async def test_servers_and_workers_share_a_task_hub(
    scheduler: SchedulerProcess, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with (
        WorkerProcess(scheduler, MiningFanOut="3") as worker,
        ServerProcess(DURABLE_TASK_SCHEDULER_CONNECTION_STRING=scheduler.connection_string, MiningFanOut="3") as server,
    ):
        assert scheduler.connection_string.split("=")[1].partition(";")[0] in worker.start_line
        async with server.client() as client:
            result = await client.call_tool("start_mining", {"difficulty": 20})
    assert result.structured_content is not None
    assert result.structured_content["chain"] == genesis_chain[20]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "DURABLE_TASK_SCHEDULER_CONNECTION_STRING must name the scheduler to take work from"),
        ({"DURABLE_TASK_SCHEDULER_CONNECTION_STRING": "nowhere"}, "has the unknown part 'nowhere'"),
        ({"MiningFanOut": "65"}, "setting MiningFanOut must be an integer from 1 to 64, not '65'"),
    ],
    ids=str,
)
def test_a_worker_without_a_scheduler_says_what_it_lacks(settings: dict[str, str], sentence: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pow", "worker"],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        env={**os.environ, **settings},
    )
    assert ended.returncode == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.stderr
