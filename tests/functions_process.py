"""A Functions app under the test host, in a process of its own, for tests that talk to it as a client would."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
from azurite import Azurite, AzuriteMissing
from functions_host.errors import HostError
from functions_host.runtime_wheels import runtime_folder
from mcp import Client
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from python_process import HANG_SECONDS, PythonProcess

REPOSITORY = Path(__file__).parent.parent
MCP_PATH = "/runtime/webhooks/mcp"


def missing(reason: str) -> NoReturn:
    """Skip a test for want of something; where nothing may be skipped, fail."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(reason)
    pytest.skip(reason)


def start_azurite() -> Azurite:
    """Azurite, or no test."""
    try:
        return Azurite()
    except AzuriteMissing as error:
        missing(str(error))


class Keys(NamedTuple):
    """The host's keys: of the MCP webhook, of functions, and of everything."""

    system: str = "the-system-key"
    function: str = "the-function-key"
    master: str = "the-master-key"

    def arguments(self) -> tuple[str, ...]:
        """As the host takes them."""
        return ("--system-key", self.system, "--function-key", self.function, "--master-key", self.master)


class FunctionsProcess(PythonProcess):
    """An app on a free port. Leaving the context kills it, if it still runs."""

    def __init__(
        self,
        app: Path | None = None,
        *arguments: str,
        key: str | Keys | None = None,
        azurite: str | None = None,
        state: Path | None = None,
        python: str | Path = sys.executable,
        **settings: str,
    ) -> None:
        """
        Args:
            app: the folder of function_app.py; None for this repository's.
            arguments: further arguments of the host, see `python -m functions_host --help`.
            key: what callers have to send as x-functions-key; `client` does. One text is every key at once.
            azurite: the connection string of the app's storage, AzureWebJobsStorage.
            state: keeps the task hub, for a host that goes on where this one was killed; None forgets it.
            python: which interpreter runs it; it needs the packages of the test group.
            settings: app settings, beside this process's environment.
        """
        self._keys = Keys(key, key, key) if isinstance(key, str) else key
        kept = () if state is None else ("--state", str(state))
        storage = {} if azurite is None else {"AzureWebJobsStorage": azurite}
        super().__init__(
            *(*_host(app, python), *(self._keys.arguments() if self._keys else ()), *kept, *arguments),
            ready=r"functions host serves MCP at (http://\S+)/runtime/webhooks/mcp ",
            python=python,
            folder=app or REPOSITORY,
            **{**_search_path(), **storage, **settings},
        )
        self.url = self.ready[1]

    def client(self, mode: str = "auto", path: str = MCP_PATH, *, headers: dict[str, str] | None = None) -> Client:
        """A real MCP client of it: `legacy` begins with a handshake, `auto` with the newest revision.

        Args:
            mode: how it begins.
            path: the MCP endpoint.
            headers: what it sends beside the key.
        """
        key = None
        if self._keys:
            key = self._keys.system if path == MCP_PATH else self._keys.function
        sent = {**({} if key is None else {"x-functions-key": key}), **(headers or {})}
        return Client(transport(self.url + path, sent), mode=mode, read_timeout_seconds=HANG_SECONDS)

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """A plain HTTP request: the status, the headers, and the body of what came back."""
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
                return response.status, dict(response.headers), response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the host's routes for tests, such as ("POST", "/test/faults", {"fail_next": 1}).

        Raises:
            AssertionError: it was refused.
        """
        content = None if body is None else json.dumps(body).encode()
        status, _, answer = self.request(method, path, content, {"Content-Type": "application/json"})
        assert status < 400, (method, path, status, answer.decode())
        return json.loads(answer)

    @property
    def worker_pid(self) -> int:
        """The number of the process that runs the app's code; waits for a new one where the last has ended."""
        deadline = time.monotonic() + HANG_SECONDS
        while (pid := self.admin("GET", "/test/state")["worker_pid"]) is None:
            assert time.monotonic() < deadline, "there is no worker"
            time.sleep(0.02)
        return int(pid)

    def instance(self, instance_id: str) -> dict[str, Any]:
        """What the engine knows of an orchestration instance: state, histories, runs of activities."""
        document: dict[str, Any] = self.admin("GET", f"/test/instances/{instance_id}")
        return document

    async def until(self, instance_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until something holds of an instance; what is known of it then."""
        async with asyncio.timeout(HANG_SECONDS):
            while not holds(document := await asyncio.to_thread(self.instance, instance_id)):
                await asyncio.sleep(0.02)
        return document

    async def until_ended(self, instance_id: str) -> dict[str, Any]:
        """Wait for the end of an instance; what is known of it then."""
        return await self.until(
            instance_id, lambda document: document["runtimeStatus"] in ("Completed", "Failed", "Terminated")
        )


def declared_functions(app: Path | None = None, python: str | Path = sys.executable) -> dict[str, list[dict[str, Any]]]:
    """The bindings that an app declares, by function; the objects of function.json.

    Raises:
        AssertionError: the host refuses the app.
    """
    done = subprocess.run(
        [str(python), *_host(app, python), "--index-only", "--json"],
        capture_output=True,
        text=True,
        cwd=app or REPOSITORY,
        env={**os.environ, **_search_path()},
        timeout=HANG_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {entry["name"]: entry["bindings"] for entry in json.loads(done.stdout)}


@asynccontextmanager
async def transport(url: str, headers: dict[str, str]) -> AsyncGenerator[TransportStreams, None]:
    """What a client connects by, with headers of its own."""
    async with (
        create_mcp_http_client(headers) as http_client,
        streamable_http_client(url, http_client=http_client) as streams,
    ):
        yield streams


@cache
def _runtime() -> Path:
    try:
        return runtime_folder()
    except HostError as error:
        missing(str(error))


def _host(app: Path | None, python: str | Path) -> list[str]:
    arguments = {"--runtime": _runtime(), "--python": python, "--app": app or REPOSITORY}
    return ["-m", "functions_host", *(str(part) for pair in arguments.items() for part in pair)]


def _search_path() -> dict[str, str]:
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
