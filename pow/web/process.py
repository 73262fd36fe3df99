"""The self-hosted server's process: it listens, serves the MCP tools, and ends without losing work."""

import asyncio
import atexit
import errno
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from pow import __version__
from pow.errors import EngineError
from pow.identity.callers import Identities, current_caller_id
from pow.identity.graph import OnBehalfOf
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.longwork.engines.scheduler import SchedulerAddress
from pow.mcp.server import Tools, mcp_server
from pow.mining.pool import MinerPool
from pow.settings import DEFAULT_HOST, DEFAULT_PORT, Settings
from pow.tools.blob_chains import BlobChains, names_a_storage
from pow.tools.chain_store import CHAINS, ChainStore, FolderChains
from pow.tools.chains import ChainTools
from pow.tools.mining import MiningTools
from pow.tools.queries import QueryTools
from pow.web.app import MCP_PATH, http_app
from pow.web.dashboard import dashboard_routes

# Callers that wait get their handle at once when the server is told to end; this is for the bytes.
_GRACE_SECONDS = 1


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How to serve: where to listen, and where the embedded engine keeps its journal (None: in memory)."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    state_dir: Path | None = None
    allowed_hosts: tuple[str, ...] = ()


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
    chains = _chain_store(options.state_dir)
    with listener:
        async with engine:
            mining = MiningTools(engine, settings, lambda: pool.rate, current_caller_id)
            identities = Identities(OnBehalfOf.from_settings(settings))
            tools = Tools(mining, QueryTools(mining), ChainTools(mining, chains), identities)
            # It shows everybody's workflows, and lets anybody cancel them.
            dashboard = (
                ()
                if identities.tell_callers_apart
                else dashboard_routes(engine, mining, settings, options.allowed_hosts)
            )
            app = http_app(mcp_server(tools, settings), engine, identities, options.allowed_hosts, dashboard)
            config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS)
            await _Server(config, engine, _start_line(listener, pool, engine)).serve(sockets=[listener])


def _chain_store(state_dir: Path | None) -> ChainStore:
    """Blob Storage where the environment names one, else a folder, which an ephemeral server forgets."""
    if names_a_storage(os.environ):
        return BlobChains(os.environ)
    if state_dir is None:
        forgotten = tempfile.TemporaryDirectory(prefix="pow-mcp-chains-")
        atexit.register(forgotten.cleanup)
        return FolderChains(Path(forgotten.name))
    return FolderChains(state_dir / CHAINS)


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
