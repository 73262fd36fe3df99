"""A real server in a process of its own, for tests that talk to it as a client would, or kill it."""

import asyncio
import json
import urllib.request
from pathlib import Path
from typing import Any

from mcp import Client
from python_process import HANG_SECONDS, PythonProcess


class ServerProcess(PythonProcess):
    """`pow-mcp serve` on a free port. Leaving the context kills it, if it still runs."""

    def __init__(self, *arguments: str, state_dir: Path | None = None, **settings: str) -> None:
        """
        Args:
            arguments: further arguments of `pow-mcp serve`.
            state_dir: where its journal is; None for --ephemeral.
            settings: its environment, beside this process's.
        """
        where = ("--ephemeral",) if state_dir is None else ("--state-dir", str(state_dir))
        super().__init__(
            *("-m", "pow", "serve", "--port", "0", *where, *arguments),
            ready=r"serves MCP at (http://\S+)/mcp ",
            **settings,
        )
        self.url = self.ready[1]

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
