"""`python -m functions_host.worker_main`: the worker's process, which the host starts and nobody else.

It is the real worker library under a loop of its own. Around it, this module does what Azure's worker process does:
it takes requests from the host, answers them, and passes on what the app logs.
"""

import argparse
import asyncio
import importlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions_host.wire import LENGTH_BYTES, frame, length_of, load_protocol

_Handler = Callable[["_Request"], Awaitable[Any]]


def main() -> None:
    """Serve a host until it is gone."""
    parser = argparse.ArgumentParser(prog="functions_host.worker_main", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of the connection to the host")
    parser.add_argument("--app", type=Path, required=True, help="folder of function_app.py")
    parser.add_argument("--runtime", type=Path, required=True, help="folder of the unpacked worker library")
    parser.add_argument("--site-packages", type=Path, action="append", default=[], help="more packages for the app")
    options = parser.parse_args()

    os.set_inheritable(options.socket, False)
    packages = options.app / ".python_packages" / "lib" / "site-packages"
    # The order of the real worker: the app's own packages, the app, everything else.
    folders = [*([packages] if packages.is_dir() else []), options.app, *options.site_packages]
    sys.path[:0] = [str(folder) for folder in folders]
    protos = load_protocol(options.runtime)
    _Worker(socket.socket(fileno=options.socket), protos).run()


@dataclass(frozen=True, slots=True)
class _Request:
    """The envelope in which the worker's process hands a message to the library."""

    name: str
    request: Any
    properties: dict[str, Any]


class _Worker:
    """The worker library, driven by the messages on a socket."""

    def __init__(self, connection: socket.socket, protos: Any) -> None:
        self._connection = connection
        self._protos = protos
        self._library = importlib.import_module("azure_functions_runtime")
        self._handlers: dict[str, tuple[_Handler, str]] = {
            "worker_init_request": (self._library.worker_init_request, "worker_init_response"),
            "functions_metadata_request": (self._library.functions_metadata_request, "function_metadata_response"),
            "function_load_request": (self._library.function_load_request, "function_load_response"),
            "invocation_request": (self._invoke, "invocation_response"),
        }
        self._sending = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self) -> None:
        """Answer requests; the end of the host ends the process."""
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        root.addHandler(_ToHost(self._send, self._protos, self._library.invocation_id_cv))
        self._library.start_threadpool_executor()
        # A thread, so that the end of the host is noticed even while the app blocks the loop.
        threading.Thread(target=self._receive, name="host", daemon=True).start()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _receive(self) -> None:
        while True:
            header = self._read(LENGTH_BYTES)
            message = self._protos.StreamingMessage.FromString(self._read(length_of(header)))
            self._loop.call_soon_threadsafe(self._begin, message)

    def _read(self, size: int) -> bytes:
        content = bytearray()
        while len(content) < size:
            try:
                part = self._connection.recv(size - len(content))
            except ConnectionError:
                part = b""
            if not part:
                # As Azure's does: without its host a worker is worth nothing, whatever it is doing.
                os._exit(1)
            content += part
        return bytes(content)

    def _begin(self, message: Any) -> None:
        task = self._loop.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: Any) -> None:
        kind = message.WhichOneof("content")
        handler, answers = self._handlers[kind]
        response = await handler(_Request(kind, message, {"host": "127.0.0.1", "protos": self._protos}))
        self._send(self._protos.StreamingMessage(request_id=message.request_id, **{answers: response}))

    async def _invoke(self, request: _Request) -> Any:
        # What this task and those that it starts log belongs to the invocation.
        self._library.invocation_id_cv.set(request.request.invocation_request.invocation_id)
        return await self._library.invocation_request(request)

    def _send(self, message: Any) -> None:
        with self._sending:
            self._connection.sendall(frame(message))


class _ToHost(logging.Handler):
    """Passes records on to the host, each with the invocation that it was made in, if any."""

    def __init__(self, send: Callable[[Any], None], protos: Any, invocation: ContextVar[str | None]) -> None:
        super().__init__()
        self._send = send
        self._protos = protos
        self._invocation = invocation

    def emit(self, record: logging.LogRecord) -> None:
        log = self._protos.RpcLog(
            invocation_id=self._invocation.get() or "",
            category=record.name,
            level=self._level(record.levelno),
            message=self.format(record),
        )
        self._send(self._protos.StreamingMessage(rpc_log=log))

    def _level(self, number: int) -> Any:
        levels = self._protos.RpcLog
        if number >= logging.CRITICAL:
            return levels.Critical
        if number >= logging.ERROR:
            return levels.Error
        if number >= logging.WARNING:
            return levels.Warning
        return levels.Information if number >= logging.INFO else levels.Debug


if __name__ == "__main__":
    main()
