"""A worker process: mines for workflows that servers start on a Durable Task Scheduler, and serves nothing itself.

Any number of them, on any number of machines, share the work of one task hub.
"""

import asyncio
import signal
from contextlib import suppress

from pow import __version__
from pow.errors import SettingsError
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.longwork.engines.scheduler import SETTING, SchedulerAddress
from pow.mining.pool import MinerPool
from pow.settings import Settings


async def work(settings: Settings) -> None:
    """Take work until SIGTERM or Ctrl-C; slices that are being mined then end with what they have tried.

    Raises:
        SettingsError, BackendError: a setting isn't allowed, or no scheduler is named.
    """
    if not settings.scheduler_connection_string:
        raise SettingsError(
            f"setting {SETTING} must name the scheduler to take work from; without one, pow-mcp serve mines by itself"
        )
    scheduler = SchedulerAddress.parse(settings.scheduler_connection_string, settings.taskhub_name)
    pool = MinerPool(settings.mining_threads)
    rate = pool.rate
    async with DurableTaskEngine(pool, scheduler=scheduler, fan_out=settings.mining_fan_out) as engine:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has no handlers on the loop; there Ctrl-C ends it by an exception.
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, ended.set)
        print(
            f"pow-mcp {__version__} takes work · backend {pool.backend}, {pool.threads} thread(s), "
            f"{rate / 1e6:.1f} million hashes/s · {engine.describe()}",
            flush=True,
        )
        await ended.wait()
