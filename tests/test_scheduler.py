"""The engine on a Durable Task Scheduler: the same workflow, through the scheduler's client and worker.

`scheduler/README.md` says what stands in the scheduler's place.
"""

import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from python_process import HANG_SECONDS
from scheduler.process import SchedulerProcess
from server_process import ServerProcess

from pow.errors import EngineError, SettingsError
from pow.longwork.call import NOBODY, CallContext
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.longwork.engines.scheduler import SchedulerAddress
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

pytestmark = pytest.mark.anyio

ENDLESS = MiningJob(difficulty=200, blocks=1, genesis="GENESIS")
KEY = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def scheduler() -> Iterator[SchedulerProcess]:
    """A running scheduler."""
    with SchedulerProcess() as running:
        yield running


@pytest.fixture
def work() -> Iterator[MiningWork]:
    """Mining in this process."""
    with MinerPool() as pool:
        yield MiningWork(pool)


@pytest.fixture
def connection_string(scheduler: SchedulerProcess) -> str:
    """The address of a running scheduler."""
    return scheduler.connection_string


async def test_a_workflow_runs_on_a_scheduler(
    connection_string: str, work: MiningWork, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    address = SchedulerAddress.parse(connection_string, "default")
    async with DurableTaskEngine(work, address, slice_seconds=0.05) as engine:
        started = await engine.start(NOBODY, MiningJob(difficulty=20, blocks=4, genesis="GENESIS"), KEY)
        state = await engine.wait(NOBODY, started.workflow_id, HANG_SECONDS)

        assert state is not None
        assert state.status == "completed"
        assert state.output is not None
        assert mined_chain(work.restore(state.output)).to_dict() == genesis_chain[20]
        assert started.workflow_id in [listed.workflow_id for listed in await engine.newest(NOBODY, 10)]
        assert (await engine.counts(NOBODY))["completed"] >= 1


async def test_cancelling_works_on_a_scheduler(connection_string: str, work: MiningWork) -> None:
    address = SchedulerAddress.parse(connection_string, "default")
    async with DurableTaskEngine(work, address) as engine:
        started = await engine.start(NOBODY, ENDLESS, KEY)

        state = await engine.cancel(NOBODY, started.workflow_id)

        assert state is not None
        assert state.status == "terminated"


async def test_a_running_twin_is_found_by_the_prefix_of_its_id(connection_string: str, work: MiningWork) -> None:
    address = SchedulerAddress.parse(connection_string, "default")
    zoe = CallContext(caller="zoe")
    async with DurableTaskEngine(work, address) as engine:
        first = await engine.start(zoe, ENDLESS, KEY)
        # Equal by chance are only the prefixes.
        others = [
            await engine.start(NOBODY, ENDLESS, KEY),
            await engine.start(zoe, MiningJob(difficulty=199, blocks=1, genesis="GENESIS"), KEY),
        ]
        twin = await engine.start(zoe, ENDLESS, KEY)
        fresh = await engine.start(zoe, ENDLESS, KEY, fresh=True)
        for started in (first, *others, fresh):
            await engine.cancel(NOBODY, started.workflow_id)

    assert twin == (first.workflow_id, True)
    assert [started.joined for started in (first, *others, fresh)] == [False] * 4
    assert len({started.workflow_id for started in (first, *others, fresh)}) == 4
    assert {started.workflow_id[:13] for started in (first, *others, fresh)} == {"01234567-89ab"}


async def test_the_server_uses_the_scheduler_when_its_connection_string_is_set(
    connection_string: str, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    with ServerProcess(DURABLE_TASK_SCHEDULER_CONNECTION_STRING=connection_string, TASKHUB_NAME="mine") as server:
        assert "Durable Task Scheduler at http://127.0.0.1" in server.start_line
        assert "task hub mine" in server.start_line
        async with server.client() as client:
            result = await client.call_tool("start_mining", {"difficulty": 12})

    assert result.structured_content is not None
    assert result.structured_content["chain"] == genesis_chain[12]


async def test_a_scheduler_that_is_not_there_is_an_error_that_names_it(work: MiningWork) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = SchedulerAddress.parse(f"Endpoint=http://127.0.0.1:{port};Authentication=None", "default")
    async with DurableTaskEngine(work, address) as engine:
        with pytest.raises(EngineError, match=f"Durable Task Scheduler at http://127.0.0.1:{port}.*did not answer"):
            await engine.state(NOBODY, str(uuid.uuid4()))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (
            "Endpoint=http://localhost:8080;Authentication=None",
            SchedulerAddress("http://localhost:8080", "None", None, "hub"),
        ),
        (
            " authentication = managedidentity ; ENDPOINT=https://x.y.durabletask.io; ClientID=abc ;TaskHub=other;",
            SchedulerAddress("https://x.y.durabletask.io", "ManagedIdentity", "abc", "other"),
        ),
    ],
)
async def test_a_connection_string_is_read(text: str, address: SchedulerAddress) -> None:
    assert SchedulerAddress.parse(text, "hub") == address
    assert address.secure == address.endpoint.startswith("https")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("localhost:8080", "has the unknown part 'localhost:8080'"),
        ("Endpoint=http://x;Password=1", "has the unknown part 'Password=1'"),
        ("Authentication=None", "needs an Endpoint that starts with http:// or https://, not ''"),
        ("Endpoint=x:1;Authentication=None", "needs an Endpoint that starts with http:// or https://, not 'x:1'"),
        ("Endpoint=http://x", "needs an Authentication of None, ManagedIdentity, DefaultAzure, not ''"),
        ("Endpoint=http://x;Authentication=Key", "not 'Key'"),
    ],
)
async def test_a_bad_connection_string_says_what_is_wrong(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        SchedulerAddress.parse(text, "hub")

    assert sentence in str(raised.value)


async def test_an_identity_signs_in_to_azure_and_none_to_an_emulator() -> None:
    emulator = SchedulerAddress.parse("Endpoint=http://x;Authentication=None", "hub")
    azure = SchedulerAddress.parse("Endpoint=https://x;Authentication=ManagedIdentity;ClientID=abc", "hub")

    assert emulator.credential() is None
    credential = azure.credential()
    assert type(credential).__name__ == "ManagedIdentityCredential"
