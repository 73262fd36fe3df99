"""`python -m functions_host`: serve an app, or print what it declares."""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from functions_host.configuration import load_local_settings
from functions_host.errors import HostError
from functions_host.host import Host
from functions_host.mcp_front import MCP_PATH
from functions_host.replay import SchemaVersion
from functions_host.runtime_wheels import runtime_folder
from functions_host.worker import Worker

_GRACE_SECONDS = 1


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="functions_host", description=__doc__)
    parser.add_argument("--app", type=Path, required=True, help="folder of function_app.py and host.json")
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 for a free one")
    parser.add_argument("--key", help="key that callers have to send as x-functions-key")
    parser.add_argument("--site-packages", type=Path, action="append", default=[], help="more packages for the app")
    parser.add_argument("--runtime", type=Path, help="folder of the unpacked worker library; fetched if not given")
    parser.add_argument("--max-activities", type=int, help="instead of maxConcurrentActivityFunctions")
    parser.add_argument("--schema-version", type=int, choices=(1, 2, 3), default=3, help="of orchestrators' answers")
    parser.add_argument("--index-only", action="store_true", help="print the functions' bindings and exit")
    parser.add_argument("--json", action="store_true", help="with --index-only: as JSON")
    options = parser.parse_args()

    # What the app prints is for its log; standard output is for the line that says that the host is ready.
    output, sys.stdout = sys.stdout, sys.stderr
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)
    if options.max_activities:
        name = "AzureFunctionsJobHost__extensions__durableTask__maxConcurrentActivityFunctions"
        os.environ[name] = str(options.max_activities)
    sys.path[:0] = [str(folder.resolve()) for folder in options.site_packages]
    code = 0
    try:
        app = options.app.resolve()
        load_local_settings(app)
        worker = Worker(app, (options.runtime or runtime_folder()).resolve())
        host = Host(app, worker, key=options.key, schema=SchemaVersion(options.schema_version - 1))
        if options.index_only:
            listing = [{"name": function.name, "bindings": function.bindings} for function in host.functions]
            as_text = "\n".join(f"{entry['name']}: {entry['bindings']}" for entry in listing)
            print(json.dumps(listing) if options.json else as_text, file=output)
        else:
            asyncio.run(_serve(host, options.port, output.fileno()))
    except HostError as error:
        print(f"functions host: {error}", file=sys.stderr)
        code = 1
    output.flush()
    sys.stderr.flush()
    # Activities may still run in the worker's threads, which Python would wait for; the real host ends its worker.
    os._exit(code)


async def _serve(host: Host, port: int, output: int) -> None:
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


if __name__ == "__main__":
    main()
