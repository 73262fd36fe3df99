"""One process of the worker, as the host has it: started, asked, listened to, and gone."""

import asyncio
import logging
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions_host.errors import HostError
from functions_host.values import Failure, FunctionMetadata, Reply, Value
from functions_host.wire import LENGTH_BYTES, frame, function_metadata, length_of, load_protocol, typed, untyped

_app_log = logging.getLogger("app")


class WorkerExited(Exception):
    """The worker's process has ended; the text is the real host's."""

    def __init__(self, code: int) -> None:
        super().__init__(f"Python exited with code {code}")


@dataclass(frozen=True, slots=True)
class WorkerCommand:
    """What a worker is started with."""

    # The folder of function_app.py.
    app: Path
    # What `runtime_folder` gave.
    runtime: Path
    # More packages for the app.
    packages: Sequence[Path] = ()
    # The interpreter.
    python: str = sys.executable


class WorkerProcess:
    """A worker's process. It loads the app while the host is busy with its own start."""

    def __init__(self, command: WorkerCommand) -> None:
        self._command = command
        self._protos = load_protocol(command.runtime)
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        # The functions of the invocations under way, whose logs show.
        self._functions: dict[str, str] = {}
        self._abandoned = False
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [command.python, "-P", "-u", "-m", "functions_host.worker_main", *self._arguments(theirs)],
                stdin=subprocess.DEVNULL,
                # What the app prints is for the host's log.
                stdout=sys.stderr,
                pass_fds=[theirs.fileno()],
            )
        init = self._protos.WorkerInitRequest(host_version="4.0.0", function_app_directory=str(command.app))
        self._init_id = self._post_now(worker_init_request=init)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def load(self) -> list[FunctionMetadata]:
        """Wait until the app is loaded; its functions.

        Raises:
            HostError: it can't be loaded; with the worker's own error.
            WorkerExited: the process ended over it.
        """
        protos, folder = self._protos, str(self._command.app)
        initialized = self._expect(self._init_id)
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        self._listening = asyncio.create_task(self._listen(reader))
        self._check((await initialized).worker_init_response.result, "the app can't be indexed")
        listing = protos.FunctionsMetadataRequest(function_app_directory=folder)
        answer = (await self._ask(functions_metadata_request=listing)).function_metadata_response
        self._check(answer.result, "the worker can't list the functions")
        for metadata in answer.function_metadata_results:
            load = protos.FunctionLoadRequest(function_id=metadata.function_id, metadata=metadata)
            loaded = (await self._ask(function_load_request=load)).function_load_response
            self._check(loaded.result, f"function {metadata.name} can't be loaded")
        return [function_metadata(metadata) for metadata in answer.function_metadata_results]

    async def invoke(
        self, function: FunctionMetadata, inputs: Mapping[str, Value], metadata: Mapping[str, Value]
    ) -> Reply:
        """Run a function once.

        Raises:
            WorkerExited: the process ended over it.
        """
        protos = self._protos
        invocation_id = str(uuid.uuid4())
        parameters = [protos.ParameterBinding(name=name, data=typed(protos, value)) for name, value in inputs.items()]
        request = protos.InvocationRequest(
            invocation_id=invocation_id,
            function_id=function.function_id,
            input_data=parameters,
            trigger_metadata={name: typed(protos, value) for name, value in metadata.items()},
        )
        self._functions[invocation_id] = function.name
        try:
            response = (await self._ask(invocation_request=request)).invocation_response
        finally:
            del self._functions[invocation_id]
        if response.result.status != protos.StatusResult.Success:
            error = response.result.exception
            return Reply(failure=Failure(error.message, error.stack_trace))
        value = untyped(response.return_value) if response.HasField("return_value") else None
        return Reply(value, {output.name: untyped(output.data) for output in response.output_data})

    async def exited(self) -> int:
        """Wait for the process's end; its exit code as a shell gives it, 128 and the signal's number for a signal."""
        await asyncio.wait([self._listening])
        return self._code()

    def abandon(self) -> None:
        """End the process, and leave open what runs in it: nobody hears of its end."""
        self._abandoned = True
        self._process.kill()

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _arguments(self, theirs: socket.socket) -> list[str]:
        command = self._command
        named = {"--socket": theirs.fileno(), "--app": command.app, "--runtime": command.runtime}
        arguments = [str(part) for pair in named.items() for part in pair]
        return arguments + [str(part) for folder in command.packages for part in ("--site-packages", folder)]

    def _post_now(self, **content: Any) -> str:
        """Send before there is a loop: a small message, which the socket takes at once."""
        request_id = str(uuid.uuid4())
        # A process that is gone already shows when its answer is waited for.
        with suppress(BrokenPipeError):
            self._socket.sendall(frame(self._protos.StreamingMessage(request_id=request_id, **content)))
        return request_id

    def _expect(self, request_id: str) -> asyncio.Future[Any]:
        answer = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        return answer

    async def _ask(self, **content: Any) -> Any:
        if self._listening.done() and not self._abandoned:
            raise WorkerExited(self._code())
        request_id = str(uuid.uuid4())
        answer = self._expect(request_id)
        try:
            self._writer.write(frame(self._protos.StreamingMessage(request_id=request_id, **content)))
            return await answer
        finally:
            self._waiting.pop(request_id, None)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                length = length_of(await reader.readexactly(LENGTH_BYTES))
                self._take(self._protos.StreamingMessage.FromString(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._writer.close()
        await asyncio.to_thread(self._process.wait)
        if not self._abandoned:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(WorkerExited(self._code()))

    def _take(self, message: Any) -> None:
        if message.WhichOneof("content") == "rpc_log":
            log = message.rpc_log
            # As the real host does with what belongs to no invocation that it knows of: nobody sees it.
            if function := self._functions.get(log.invocation_id):
                level = getattr(logging, self._protos.RpcLog.Level.Name(log.level).upper(), logging.INFO)
                _app_log.log(level, "[Functions.%s] %s: %s", function, log.category, log.message)
            return
        answer = self._waiting.get(message.request_id)
        # A worker that was abandoned may have answered before it ended; the real host has stopped listening.
        if answer is not None and not answer.done() and not self._abandoned:
            answer.set_result(message)

    def _code(self) -> int:
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def _check(self, result: Any, what: str) -> None:
        if result.status != self._protos.StatusResult.Success:
            raise HostError(f"{what}: {result.exception.message}\n{result.exception.stack_trace}")
