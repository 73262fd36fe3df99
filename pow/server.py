"""The self-hosted server: the MCP tools over stateless Streamable HTTP, and the process around them."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from pow import __version__
from pow.engines.durable_task import DurableTaskEngine
from pow.engines.scheduler import SchedulerAddress
from pow.errors import EngineError
from pow.mcp_tools import mcp_server
from pow.pool import MinerPool
from pow.settings import DEFAULT_HOST, DEFAULT_PORT, Settings
from pow.tools import MiningTools

MCP_PATH = "/mcp"
# Where the Functions host has it, so that one client configuration serves both.
FUNCTIONS_MCP_PATH = "/runtime/webhooks/mcp"

# Callers that wait get their handle at once when the server is told to end; this is for the bytes.
_GRACE_SECONDS = 1
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve: where to listen, and where the embedded engine keeps its journal (None: in memory)."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    state_dir: Path | None = None
    allowed_hosts: tuple[str, ...] = ()


def http_app(server: MCPServer[Any], engine: DurableTaskEngine, allowed_hosts: Sequence[str] = ()) -> Starlette:
    """The ASGI app: the MCP server at both of its paths, and /healthz.

    Args:
        server: what `mcp_server` made.
        engine: what /healthz tells of; start it before the app takes requests.
        allowed_hosts: names, beside this machine's own, that clients may know the server by.
    """

    async def healthz(_: Request) -> Response:
        pool = engine.pool
        return JSONResponse(
            {
                "status": "stopping" if engine.closing else "ok",
                "version": __version__,
                "backend": pool.backend,
                "threads": pool.threads,
                "hashes_per_second": round(pool.rate),
                "hashes": pool.hashes,
                "searches": pool.searches,
                "engine": engine.describe(),
            }
        )

    names = (*_LOOPBACK, *allowed_hosts)
    app = server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        # Server-sent events, not JSON: only they carry progress and notice a client that hangs up.
        json_response=False,
        stateless_http=True,
        # A page in a browser must not reach this server by a name that it made resolve to it.
        transport_security=TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[pattern for name in names for pattern in (name, f"{name}:*")],
            allowed_origins=[
                f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in names for port in ("", ":*")
            ],
        ),
    )
    endpoint = next(route.endpoint for route in app.routes if isinstance(route, Route) and route.path == MCP_PATH)
    app.router.routes += [Route(FUNCTIONS_MCP_PATH, endpoint=endpoint), Route("/healthz", endpoint=healthz)]
    return app


async def serve(settings: Settings, options: ServeOptions) -> None:
    """Serve until SIGTERM or Ctrl-C, then end cleanly: no accepted work is lost.

    Raises:
        EngineError: the port is taken, or the engine can't be started.
        SettingsError, BackendError: a setting isn't allowed.
    """
    scheduler = None
    if settings.scheduler_connection_string:
        scheduler = SchedulerAddress.parse(settings.scheduler_connection_string, settings.taskhub_name)
    pool = MinerPool(settings.mining_threads)
    listener = _listen(options.host, options.port)
    engine = DurableTaskEngine(pool, state_dir=options.state_dir, scheduler=scheduler, fan_out=settings.mining_fan_out)
    with listener:
        async with engine:
            tools = MiningTools(engine, settings, lambda: pool.rate)
            app = http_app(mcp_server(tools, settings), engine, options.allowed_hosts)
            config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS)
            await _Server(config, engine, _start_line(listener, pool, engine)).serve(sockets=[listener])


def _start_line(listener: socket.socket, pool: MinerPool, engine: DurableTaskEngine) -> str:
    host, port = listener.getsockname()[:2]
    url_host = f"[{host}]" if ":" in host else host
    return (
        f"pow-mcp {__version__} serves MCP at http://{url_host}:{port}{MCP_PATH} · "
        f"backend {pool.backend}, {pool.threads} thread(s), {pool.rate / 1e6:.1f} million hashes/s · "
        f"{engine.describe()}"
    )


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves, tells the engine of signals too, and ends quietly."""

    def __init__(self, config: uvicorn.Config, engine: DurableTaskEngine, start_line: str) -> None:
        super().__init__(config)
        self._engine = engine
        self._start_line = start_line
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Only now: who reads it may connect, or send a signal, at once.
        print(self._start_line, flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Clients keep streams open, which are cut now: that is no error worth a traceback each.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._engine.begin_shutdown)
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end, which would kill the process before the
        # engine has put its work away.
        signals = (signal.SIGINT, signal.SIGTERM)
        previous = {sig: signal.signal(sig, self.handle_exit) for sig in signals}
        try:
            yield
        finally:
            for sig, handler in previous.items():
                signal.signal(sig, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise EngineError(f"can't listen on {host!r}: {error}; choose another address with --host") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # A port in TIME_WAIT may be used again; one that another server listens on may not.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise EngineError(
                f"port {port} on {host} is in use by another program; stop that, or choose another port with "
                f"--port (make serve PORT={port + 1})"
            ) from error
        raise EngineError(f"can't listen on {host} port {port}: {error.strerror}") from error
    return listener
