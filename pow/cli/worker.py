"""A worker process: mines for workflows that servers start on a Durable Task Scheduler, and serves nothing itself.

Any number of them, on any number of machines, share the work of one task hub.
"""

import asyncio
import signal
from contextlib import suppress

from pow import __version__
from pow.longwork.work import AnyWork
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.composition import scheduler_engine
from pow.tools.mining import mining_work


async def work(settings: Settings) -> None:
    """Take work until SIGTERM or Ctrl-C; slices that are being mined then end with what they have tried.

    Raises:
        SettingsError, BackendError: a setting isn't allowed, or no scheduler is named.
    """
    with MinerPool(settings.mining_threads) as pool:
        await work_for(mining_work(pool, settings), settings)


async def work_for(work: AnyWork, settings: Settings) -> None:
    """The same for any long work."""
    async with scheduler_engine(work, settings) as engine:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has no handlers on the loop; there Ctrl-C ends it by an exception.
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, ended.set)
        print(
            f"pow-mcp {__version__} takes work · {work.capacity()} · {engine.describe()}",
            flush=True,
        )
        await ended.wait()
