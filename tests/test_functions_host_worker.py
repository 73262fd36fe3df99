"""The test host's worker is a process that logs, dies, hangs, and is started again as Azure's is."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from python_process import HANG_SECONDS
from sample_host import Host, faults, outcomes, run, sample, start, text

pytestmark = pytest.mark.anyio

TIMEOUT = "AzureFunctionsJobHost__functionTimeout"


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with sample() as running:
        yield running


def has_ended(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


async def test_what_is_logged_outside_an_invocation_is_dropped_and_what_is_printed_shows(host: Host) -> None:
    async with host.client() as client:
        assert await text(client, "tell") == "told"

    log = host.log()
    assert "printed at import" in log
    assert "logged at import" not in log
    assert "printed in a tool" in log
    assert "[Functions.tell] sample: logged in a tool\n" in log
    assert "[Functions.tell] sample: logged in a task of a tool\n" in log
    assert "logged in a thread" not in log


async def test_a_worker_that_is_killed_fails_what_ran_in_it_at_once_and_another_one_takes_its_place(host: Host) -> None:
    before, starts = host.worker_pid, host.admin("GET", "/test/state")["worker_starts"]
    instance_id = start(host, "race", [60, 60])
    await host.until(instance_id, lambda found: outcomes(found) == ["running"])
    async with host.client() as client:
        blocked = asyncio.create_task(client.call_tool("block", {"seconds": 60}))
        async with asyncio.timeout(HANG_SECONDS):
            while "Function name: block" not in host.log():
                await asyncio.sleep(0.02)
        os.kill(before, signal.SIGKILL)
        instance = await host.until_ended(instance_id)
        failed = await blocked
        assert await text(client, "greet", name="Ada")
        after = await run(host, "chain", {"start": 1, "steps": 1})

    assert faults(instance) == ["Activity function 'rest' failed:  Python exited with code 137"]
    assert failed.is_error
    assert after["output"] == {"value": 2}
    assert host.worker_pid != before
    assert host.admin("GET", "/test/state")["worker_starts"] == starts + 1


async def test_a_time_out_restarts_the_worker_and_leaves_what_else_ran_in_it_open_until_its_own() -> None:
    with sample(**{TIMEOUT: "00:00:03"}) as host:
        hanging = start(host, "race", [60, 60])
        await host.until(hanging, lambda found: outcomes(found) == ["running"])
        await asyncio.sleep(1.5)
        # It would have ended before its own time-out, but after the other one's.
        other = start(host, "race", [2.5, 60])
        await host.until(other, lambda found: outcomes(found) == ["running"])

        failed = await host.until_ended(hanging)
        async with asyncio.timeout(HANG_SECONDS):
            while host.admin("GET", "/test/state")["worker_starts"] == 1:
                await asyncio.sleep(0.02)
        later = await host.until_ended(other)
        after = await run(host, "chain", {"start": 1, "steps": 1})

    sentence = "Activity function 'rest' failed:  Timeout value of 00:00:03 exceeded by function 'Functions.rest'"
    assert faults(failed) == [sentence]
    # Neither its answer nor the end of its process.
    assert faults(later) == [sentence]
    assert after["output"] == {"value": 2}
    assert host.log().count("Functions.rest'. Initiating cancellation.") == 2


async def test_a_worker_ends_with_its_host_even_while_it_is_busy() -> None:
    with sample() as host:
        worker = host.worker_pid
        instance_id = start(host, "race", [60, 60])
        await host.until(instance_id, lambda found: outcomes(found) == ["running"])
        assert not has_ended(worker)
        host.kill()
        async with asyncio.timeout(HANG_SECONDS):
            while not has_ended(worker):
                await asyncio.sleep(0.02)


async def test_a_client_that_goes_away_does_not_end_the_function(host: Host) -> None:
    address = host.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(address[0], int(address[1]))
    writer.write(b"GET /api/slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(HANG_SECONDS):
        while "slow has begun" not in host.log():
            await asyncio.sleep(0.02)
        assert "slow has ended" not in host.log()
        writer.close()
        while "slow has ended" not in host.log():
            await asyncio.sleep(0.02)
