"""Counting primes on the self-hosted server: `python examples/primes/server.py [PORT [STATE_DIR]]`.

With DURABLE_TASK_SCHEDULER_CONNECTION_STRING set, the work is kept on the Durable Task Scheduler, and
any number of these processes share it.
"""

import asyncio
import sys
from pathlib import Path

from pow.settings import Settings
from pow.web.process import ServeOptions, serve_house
from primes import PrimesWork, primes_house  # type: ignore[attr-defined]  # the file beside this one

if __name__ == "__main__":
    settings, work = Settings.from_environment(), PrimesWork()
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 7072
    options = ServeOptions(port=port, state_dir=Path(sys.argv[2]) if len(sys.argv) > 2 else None)
    asyncio.run(serve_house(work, lambda engine: primes_house(work, engine, settings), settings, options))
