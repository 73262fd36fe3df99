"""A real server in a process of its own, for tests that talk to it as a client would, or kill it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mcp import Client

# How long anything may take before a test is called hung: never a measure of speed.
HANG_SECONDS = 120.0

_START_LINE = re.compile(r"serves MCP at (http://\S+)/mcp ")


class ServerProcess:
    """`pow-mcp serve` on a free port. Leaving the context kills it, if it still runs."""

    def __init__(self, *arguments: str, state_dir: Path | None = None, **settings: str) -> None:
        """
        Args:
            arguments: further arguments of `pow-mcp serve`.
            state_dir: where its journal is; None for --ephemeral.
            settings: its environment, beside this process's.
        """
        where = ("--ephemeral",) if state_dir is None else ("--state-dir", str(state_dir))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pow", "serve", "--port", "0", *where, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings},
        )
        assert self._process.stdout is not None
        self.start_line = self._process.stdout.readline()
        found = _START_LINE.search(self.start_line)
        if found is None:
            self._process.wait(HANG_SECONDS)
            raise AssertionError(f"the server did not start: {self.start_line}{self.finish()[1]}")
        self.url = found[1]

    def client(self, mode: str = "auto", path: str = "/mcp") -> Client:
        """A real MCP client of it: `legacy` speaks revision 2025-11-25, `auto` the newest."""
        return Client(self.url + path, mode=mode, read_timeout_seconds=HANG_SECONDS)

    def health(self) -> dict[str, Any]:
        """What /healthz says."""
        with urllib.request.urlopen(f"{self.url}/healthz", timeout=HANG_SECONDS) as response:
            document: dict[str, Any] = json.load(response)
        return document

    async def until_mining(self) -> None:
        """Wait until a search is under way."""
        async with asyncio.timeout(HANG_SECONDS):
            while not (await asyncio.to_thread(self.health))["searches"]:
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does: no handler runs."""
        self._process.kill()
        self.finish()

    def signal(self, number: signal.Signals) -> int:
        """Send a signal; the exit code that it leads to."""
        self._process.send_signal(number)
        self.finish()
        return self._process.returncode

    def finish(self) -> tuple[str, str]:
        """Wait for the end; what it printed since the start line, and its standard error."""
        return self._process.communicate(timeout=HANG_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
            errors = self.finish()[1]
            if error is not None:
                error.add_note(f"the server's standard error:\n{errors}")
