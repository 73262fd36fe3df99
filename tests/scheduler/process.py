"""A stand-in for the Durable Task Scheduler in a process of its own, and workers that take work from it.

README.md says how it behaves, and where that was seen.
"""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from durabletask.client import AsyncTaskHubGrpcClient, OrchestrationStatus
from python_process import HANG_SECONDS, PythonProcess

from pow.longwork.engines.driver import SLICE_SECONDS
from pow.longwork.engines.scheduler import SchedulerAddress, scheduler_client
from pow.longwork.orchestration import first_input
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain
from scheduler.control import Control
from scheduler.options import SchedulerOptions

# Its pool starts no thread until somebody mines.
WORK = MiningWork(MinerPool(1))


_TESTS = Path(__file__).parent.parent


class SchedulerProcess(PythonProcess):
    """The stand-in, running."""

    def __init__(self, options: SchedulerOptions | None = None, *, port: int = 0) -> None:
        """
        Args:
            options: how it behaves.
            port: where it listens: the one of a stand-in that was killed, or 0 for a free one.
        """
        options = options or SchedulerOptions()
        super().__init__(
            *("-m", "scheduler.backend", str(port), options.to_json()),
            ready=r"^scheduler at (\S+):(\d+)$",
            PYTHONPATH=os.pathsep.join([str(_TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]),
        )
        self.port = int(self.ready[2])
        self.connection_string = connection_string(self.port)
        self.control = Control(f"{self.ready[1]}:{self.port}")

    def freeze(self) -> None:
        """Let it answer nothing, while its connections stay."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def address(self) -> SchedulerAddress:
        """Where it is, for an engine."""
        return SchedulerAddress.parse(self.connection_string, "default")

    def client(self) -> AsyncTaskHubGrpcClient:
        """A client that starts workflows and mines nothing."""
        return scheduler_client(self.address(), logging.getLogger("scheduler"))

    async def start(self, client: AsyncTaskHubGrpcClient, job: MiningJob, fan_out: int) -> str:
        """Start a workflow as a server would; its id."""
        given = first_input(WORK, job, slice_seconds=SLICE_SECONDS, width=fan_out)
        return await client.schedule_new_orchestration(WORK.name, input=given)

    async def mine(self, client: AsyncTaskHubGrpcClient, job: MiningJob, fan_out: int) -> dict[str, Any]:
        """The chain of a workflow from its start to its end."""
        return await self.chain(client, await self.start(client, job, fan_out))

    async def chain(self, client: AsyncTaskHubGrpcClient, workflow_id: str) -> dict[str, Any]:
        """The chain, when the workflow has ended."""
        ended = await client.wait_for_orchestration_completion(workflow_id, timeout=4 * int(HANG_SECONDS))
        assert ended is not None
        assert ended.runtime_status is OrchestrationStatus.COMPLETED, ended.failure_details
        return mined_chain(WORK.restore(ended.get_output())).to_dict()


class WorkerProcess(PythonProcess):
    """`pow-mcp worker`, running."""

    def __init__(self, scheduler: SchedulerProcess, **settings: str) -> None:
        super().__init__(
            *("-m", "pow", "worker"),
            ready="takes work",
            DURABLE_TASK_SCHEDULER_CONNECTION_STRING=scheduler.connection_string,
            **settings,
        )

    def cpu_seconds(self) -> float:
        """The CPU time that it has used, in user and kernel mode."""
        if not Path("/proc").exists():
            pytest.skip("the system tells no other process's CPU time")
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def mines(self, seconds: float) -> None:
        """Wait until it has used so much more CPU time: something is being mined."""
        before = self.cpu_seconds()
        async with asyncio.timeout(HANG_SECONDS):
            while self.cpu_seconds() < before + seconds:
                await asyncio.sleep(0.01)


def connection_string(port: int) -> str:
    """How the settings name a scheduler at this port of loopback."""
    return f"Endpoint=http://127.0.0.1:{port};Authentication=None"
