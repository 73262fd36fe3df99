"""The worker behind its host: always there again, and never longer busy with an invocation than functionTimeout."""

import asyncio
import logging
from collections.abc import Mapping

from functions_host.configuration import Duration
from functions_host.errors import HostError
from functions_host.values import Failure, FunctionMetadata, Reply, Value
from functions_host.worker_process import WorkerCommand, WorkerExited, WorkerProcess

_log = logging.getLogger("functions_host.worker")

_START_ATTEMPTS = 3
_RESTART_SECONDS = 0.5


class Worker:
    """Starts the worker's process, and another one in the place of one that dies or hangs."""

    def __init__(self, command: WorkerCommand) -> None:
        """Start the process; it loads the app by and by."""
        self.starts = 1
        self._command = command
        self._limit: Duration | None = None
        self._newest = WorkerProcess(command)
        # The one that takes invocations; None while there is none.
        self._serving: WorkerProcess | None = None
        self._loading: asyncio.Task[WorkerProcess]
        self._tasks: set[asyncio.Task[None] | asyncio.Task[Reply]] = set()

    @property
    def pid(self) -> int | None:
        """The number of the process that takes invocations; None while there is none."""
        return self._serving.pid if self._serving else None

    async def start(self, limit: Duration | None) -> list[FunctionMetadata]:
        """Wait until the app is loaded; its functions.

        Args:
            limit: functionTimeout; None for none.

        Raises:
            HostError: it can't be loaded; with the worker's own error.
        """
        self._limit = limit
        try:
            functions = await self._newest.load()
        except WorkerExited as exited:
            raise HostError(f"the worker did not start: {exited}") from exited
        self._loading = asyncio.create_task(self._serve(self._newest))
        return functions

    async def invoke(
        self, function: FunctionMetadata, inputs: Mapping[str, Value], metadata: Mapping[str, Value]
    ) -> Reply:
        """Run a function once, as soon as there is a worker.

        Args:
            function: which.
            inputs: the values of its trigger and input bindings by their names.
            metadata: the trigger's binding data.
        """
        run = asyncio.create_task(self._run(function, inputs, metadata))
        self._keep(run)
        # A caller that goes away doesn't stop the function: nor does it on Azure.
        return await asyncio.shield(run)

    def close(self) -> None:
        """End the process."""
        self._newest.kill()

    async def _run(
        self, function: FunctionMetadata, inputs: Mapping[str, Value], metadata: Mapping[str, Value]
    ) -> Reply:
        process = await asyncio.shield(self._loading)
        try:
            async with asyncio.timeout(self._limit.seconds if self._limit else None):
                return await process.invoke(function, inputs, metadata)
        except TimeoutError:
            fault = f"Timeout value of {self._limit} exceeded by function 'Functions.{function.name}'"
            _log.error("%s. Initiating cancellation.", fault)
            # It may have been ended already, for another invocation; this one was left open then.
            if process is self._serving:
                process.abandon()
                self._restart()
        except WorkerExited as exited:
            fault = str(exited)
        return Reply(failure=Failure(fault, ""), cut_off=True)

    async def _serve(self, process: WorkerProcess) -> WorkerProcess:
        self._serving = process
        self._keep(asyncio.create_task(self._watch(process)))
        return process

    async def _watch(self, process: WorkerProcess) -> None:
        code = await process.exited()
        if process is self._serving:
            _log.error("Python exited with code %d", code)
            self._restart()

    def _restart(self) -> None:
        self._serving = None
        self._loading = asyncio.create_task(self._start_again())

    async def _start_again(self) -> WorkerProcess:
        for _ in range(_START_ATTEMPTS):
            await asyncio.sleep(_RESTART_SECONDS)
            self._newest = WorkerProcess(self._command)
            self.starts += 1
            try:
                await self._newest.load()
            except WorkerExited as exited:
                _log.error("%s while it started", exited)
            else:
                return await self._serve(self._newest)
        raise HostError(f"the worker did not start in {_START_ATTEMPTS} attempts")

    def _keep(self, task: asyncio.Task[None] | asyncio.Task[Reply]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
