"""The self-hosted server's process: it listens, serves the MCP tools, and ends without losing work."""

import asyncio
import errno
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.routing import Route

from pow import __version__
from pow.errors import EngineError
from pow.longwork.engine import Engine, HostedEngine
from pow.longwork.work import AnyWork
from pow.mcp.server import mcp_server
from pow.mining.pool import MinerPool
from pow.settings import DEFAULT_HOST, DEFAULT_PORT, Settings
from pow.tools.blob_chains import BlobChains, names_a_storage
from pow.tools.chain_store import CHAINS, ChainStore, FolderChains
from pow.tools.composition import House, hosted_engine, mining_house
from pow.tools.mining import mining_work
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
    """Serve the miner until SIGTERM or Ctrl-C, then end cleanly: no accepted work is lost.

    Raises:
        EngineError: the port is taken, or the engine can't be started.
        SettingsError, BackendError: a setting isn't allowed.
    """
    with MinerPool(settings.mining_threads) as pool, _chain_store(options.state_dir) as chains:
        work = mining_work(pool, settings)

        def routes(house: House) -> Sequence[Route]:
            # It shows everybody's workflows, and lets anybody cancel them.
            if house.identities.tell_callers_apart:
                return ()
            return dashboard_routes(house.service, work, settings, options.allowed_hosts)

        await serve_house(work, lambda engine: mining_house(work, engine, settings, chains), settings, options, routes)


async def serve_house(
    work: AnyWork,
    house_on: Callable[[Engine], House],
    settings: Settings,
    options: ServeOptions,
    routes: Callable[[House], Sequence[Route]] = lambda house: (),
) -> None:
    """Serve any long work until SIGTERM or Ctrl-C, then end cleanly: no accepted work is lost.

    Args:
        work: the work, for its engine: the scheduler's where the settings name one, else an embedded one.
        house_on: makes the house on that engine.
        settings: where the engine is, and the budget of a wait.
        options: where to listen, and where an embedded engine keeps its journal.
        routes: what else the server serves.

    Raises:
        EngineError, SettingsError: as `serve`.
    """
    listener = _listen(options.host, options.port)
    with listener:
        async with hosted_engine(work, settings, options.state_dir) as engine:
            house = house_on(engine)
            app = http_app(mcp_server(house), house, options.allowed_hosts, routes(house))
            config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=_GRACE_SECONDS)
            await _Server(config, engine, _start_line(listener, house)).serve(sockets=[listener])


@contextmanager
def _chain_store(state_dir: Path | None) -> Iterator[ChainStore]:
    """Blob Storage where the environment names one, else a folder, which an ephemeral server forgets."""
    if names_a_storage(os.environ):
        yield BlobChains(os.environ)
    elif state_dir is None:
        with tempfile.TemporaryDirectory(prefix="pow-mcp-chains-") as forgotten:
            yield FolderChains(Path(forgotten))
    else:
        yield FolderChains(state_dir / CHAINS)


def _start_line(listener: socket.socket, house: House) -> str:
    host, port = listener.getsockname()[:2]
    url_host = f"[{host}]" if ":" in host else host
    return (
        f"{house.name} {__version__} serves MCP at http://{url_host}:{port}{MCP_PATH} · "
        f"{house.service.work.capacity()} · {house.service.engine.describe()}"
    )


class _Server(uvicorn.Server):
    """uvicorn, which says when it serves, tells the engine of signals too, and ends quietly."""

    def __init__(self, config: uvicorn.Config, engine: HostedEngine, start_line: str) -> None:
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
