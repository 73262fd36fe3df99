"""`python -m functions_host`: serve an app, or print what it declares."""

import argparse
import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import TextIO

from functions_host.configuration import HostConfiguration, load_local_settings
from functions_host.errors import HostError
from functions_host.runtime_wheels import runtime_folder
from functions_host.worker import Worker
from functions_host.worker_process import WorkerCommand


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="functions_host", description=__doc__)
    parser.add_argument("--app", type=Path, required=True, help="folder of function_app.py and host.json")
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 for a free one")
    parser.add_argument("--key", help="key that callers have to send as x-functions-key, whatever they call")
    for kind, what in (("system", "the MCP webhook"), ("function", "functions"), ("master", "everything")):
        parser.add_argument(f"--{kind}-key", help=f"key of {what}; the three of them instead of --key")
    parser.add_argument("--state", type=Path, help="folder that keeps the task hub from one host to the next")
    parser.add_argument("--grace", type=float, default=1.0, help="seconds that SIGTERM waits for what runs")
    parser.add_argument("--site-packages", type=Path, action="append", default=[], help="more packages for the app")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the worker")
    parser.add_argument("--runtime", type=Path, help="folder of the unpacked worker library; fetched if not given")
    parser.add_argument("--max-activities", type=int, help="instead of maxConcurrentActivityFunctions")
    parser.add_argument("--schema-version", type=int, choices=(1, 2, 3), default=3, help="of orchestrators' answers")
    parser.add_argument("--index-only", action="store_true", help="print the functions' bindings and exit")
    parser.add_argument("--json", action="store_true", help="with --index-only: as JSON")
    options = parser.parse_args()

    # Whatever prints does so to the log; standard output is for the line that says that the host is ready.
    output, sys.stdout = sys.stdout, sys.stderr
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").setLevel(logging.WARNING)
    if options.max_activities:
        name = "AzureFunctionsJobHost__extensions__durableTask__maxConcurrentActivityFunctions"
        os.environ[name] = str(options.max_activities)
    code = 0
    try:
        asyncio.run(_run(options, output))
    except HostError as error:
        print(f"functions host: {error}", file=sys.stderr)
        code = 1
    output.flush()
    sys.stderr.flush()
    # Threads that read blobs may still run, which Python would wait for.
    os._exit(code)


async def _run(options: argparse.Namespace, output: TextIO) -> None:
    app = options.app.resolve()
    load_local_settings(app)
    configuration = HostConfiguration.read(app)
    packages = [folder.resolve() for folder in options.site_packages]
    runtime = (options.runtime or runtime_folder()).resolve()
    worker = Worker(WorkerCommand(app, runtime, packages, options.python))
    try:
        # Imported here, which takes about as long as the worker needs to load the app: one doesn't wait for the other.
        from functions_host.host import Host
        from functions_host.keys import Keys
        from functions_host.replay import SchemaVersion
        from functions_host.server import serve
        from functions_host.store import Store

        functions = await worker.start(configuration.function_timeout())
        given = {kind: getattr(options, f"{kind}_key") or options.key for kind in ("system", "function", "master")}
        host = Host(
            configuration,
            worker,
            functions,
            keys=Keys(**given) if all(given.values()) else None,
            store=Store(options.state),
            schema=SchemaVersion(options.schema_version - 1),
            grace=options.grace,
        )
        if options.index_only:
            listing = [{"name": function.name, "bindings": function.bindings} for function in functions]
            as_text = "\n".join(f"{entry['name']}: {entry['bindings']}" for entry in listing)
            print(json.dumps(listing) if options.json else as_text, file=output)
        else:
            await serve(host, options.port, output.fileno())
    finally:
        worker.close()


if __name__ == "__main__":
    main()
