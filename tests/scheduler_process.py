"""A stand-in for the Durable Task Scheduler in a process of its own, and workers that take work from it.

The scheduler itself runs in Azure or in a container, and can't be had here. The stand-in is the SDK's in-process
backend (durabletask 1.12), which speaks the same protocol, made to behave as independent servers of it do. Seen
were .NET's (Microsoft.DurableTask.InProcessTestHost 0.2.3-preview.1), durabletask-go with SQLite, and that backend:

- Several workers: each gets no more slices at once than it asks for, and none of another app's when it says which
  names it knows (`use_work_item_filters`). One that doesn't say gets everything, and the SDK's fails what it doesn't
  know.
- Continue-as-new: the time of creation moves (.NET, Go). No answer or timer of an earlier history reaches the one that
  follows (.NET).
- A terminated workflow: an answer that comes later is dropped (.NET), or leads to one more slice (Go,
  `after_terminate="go"`). The SDK's backend would go on with the workflow. A turn that hears of the end and of an
  answer at once may start one more slice on any of them: the SDK's worker asks for it.
- Lists: with `paging="token"`, pages of a size that the server chooses; with "offset", ids come twice while others
  start (.NET); "all" at once (the SDK's, as its client asks); "none", there is no such method (Go). Why one has failed
  isn't told (.NET).
- A state or list without inputs and outputs has no custom status either (.NET's for a state), and a state no reason of
  a failure.
- An id used again: refused (Go, the SDK's), or the workflow is replaced, be it running (.NET, `used_id="replace"`).
- A lost worker: its turns are handed out again, its slices only with `leases=True` (.NET with a patch for several
  workers, Go).
- Purging by a filter takes whatever matches, be it running (.NET); by an id only what has ended.
- A stand-in that is killed forgets all (.NET). One that is frozen answers nothing; its port still takes connections.
- gRPC's own limit of 4 MiB a message holds, as everywhere.

Not covered: that the scheduler itself ends a terminated workflow, and hides a lost slice for a while (here a worker's
turn ends it, and without leases the slice is gone for good); the scheduler's limit of 1 MB for inputs, outputs and
custom statuses; its identities, task hubs (here all share one) and throttling; keeping anything over a restart (Go's
does).
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
from scheduler_control import Control
from scheduler_options import SchedulerOptions

from pow.longwork.engines.driver import SLICE_SECONDS
from pow.longwork.engines.scheduler import SchedulerAddress, scheduler_client
from pow.longwork.orchestration import first_input
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

# Its pool starts no thread until somebody mines.
WORK = MiningWork(MinerPool(1))


class SchedulerProcess(PythonProcess):
    """The stand-in, running."""

    def __init__(self, options: SchedulerOptions | None = None, *, port: int = 0) -> None:
        """
        Args:
            options: how it behaves.
            port: where it listens: the one of a stand-in that was killed, or 0 for a free one.
        """
        options = options or SchedulerOptions()
        server = Path(__file__).with_name("scheduler_backend.py")
        super().__init__(str(server), str(port), options.to_json(), ready=r"^scheduler at (\S+):(\d+)$")
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
