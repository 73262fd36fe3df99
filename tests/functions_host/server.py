"""The host's web server, from the moment when the worker loads the app."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from functions_host.host import Host
from functions_host.mcp_front import MCP_PATH

# For requests; activities have a grace of their own.
_GRACE_SECONDS = 1


async def serve(host: Host, port: int, output: int) -> None:
    """Serve on loopback until a signal ends it.

    Args:
        host: the host.
        port: 0 for a free one.
        output: file descriptor for the line that says that it serves.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(host.web_app(url), log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS)
        line = f"functions host serves MCP at {url}{MCP_PATH} · {len(host.functions)} functions\n"
        await _Server(config, line, output).serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves, and whose end by a signal is not an error."""

    def __init__(self, config: uvicorn.Config, line: str, output: int) -> None:
        super().__init__(config)
        self._line = line
        self._output = output

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        os.write(self._output, self._line.encode())

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
