"""The host: the app's functions, what their bindings need, and the web server's routes."""

import json
import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from functions_host.admin import admin_routes
from functions_host.blobs import Blobs
from functions_host.configuration import HostConfiguration
from functions_host.durable import DurableEngine
from functions_host.durable_http import client_binding, durable_routes
from functions_host.errors import HostError
from functions_host.http_front import has_key, http_routes
from functions_host.mcp_front import MCP_PATH, McpFront
from functions_host.replay import SchemaVersion
from functions_host.worker import Failure, FunctionMetadata, HttpRequestData, Json, Reply, Value, Worker

_log = logging.getLogger("functions_host")

_TRIGGERS = (
    "httptrigger",
    "mcptooltrigger",
    "mcpprompttrigger",
    "mcpresourcetrigger",
    "orchestrationtrigger",
    "activitytrigger",
)
_INPUTS = ("durableclient", "blob")
_OUTPUTS = ("http", "blob")


class Host:
    """An app with everything around it."""

    def __init__(
        self, app: Path, worker: Worker, *, key: str | None = None, schema: SchemaVersion = SchemaVersion.V3
    ) -> None:
        """
        Args:
            app: the app's folder.
            worker: a worker for it that hasn't been started.
            key: what callers have to send, both of functions and of the MCP webhook; None lets everyone in.
            schema: the newest version of the orchestrators' answers to offer.

        Raises:
            HostError: the app can't be hosted.
        """
        self.configuration = HostConfiguration.read(app)
        self.worker = worker
        self.functions = worker.start()
        _check(self.functions, self.configuration)
        self._by_name = {function.name.lower(): function for function in self.functions}
        self._key = key
        self._schema = schema
        self._blobs = Blobs(self.configuration)
        self.mcp = McpFront(self.functions, self.invoke)
        self._base_url = ""
        self._task_hub = ""

    def web_app(self, base_url: str) -> Starlette:
        """The routes. Call it once, in the event loop that serves them.

        Args:
            base_url: where it will be served, without a slash at the end.

        Raises:
            HostError: a route or a setting isn't valid.
        """
        self._base_url = base_url
        self._task_hub = str(self.configuration.get("extensions", "durableTask", "hubName", default="TestHubName"))
        engine = self._durable_engine()
        mcp_app = self.mcp.server(self.configuration).streamable_http_app(
            streamable_http_path=MCP_PATH,
            stateless_http=True,
            # The extension has no such protection; on Azure the front end sees to host names.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )

        @asynccontextmanager
        async def lifespan(_: Starlette) -> Any:
            async with mcp_app.router.lifespan_context(mcp_app):
                yield
            engine.close()

        return Starlette(
            routes=[
                Route(MCP_PATH, _Guarded(mcp_app, self._system_key())),
                *admin_routes(engine),
                *durable_routes(engine, base_url),
                *http_routes(self.functions, self.configuration, self._key, self.invoke),
            ],
            lifespan=lifespan,
        )

    async def invoke(
        self, function: FunctionMetadata, trigger: str | HttpRequestData, data: Mapping[str, Any]
    ) -> Reply:
        """Bind a function's inputs, run it, and store its outputs.

        Raises:
            HostError: an input or an output can't be bound.
        """
        inputs: dict[str, Value] = {function.trigger["name"]: trigger}
        for binding in function.others("in"):
            if binding["type"].lower() == "blob":
                inputs[binding["name"]] = await self._blobs.read(binding, data)
            else:
                inputs[binding["name"]] = client_binding(self._base_url, self._task_hub)
        # The host sends no metadata with HTTP triggers, which have it all in the request.
        metadata: dict[str, Value] = {}
        if isinstance(trigger, str):
            metadata = {
                name: value if isinstance(value, str) else Json(json.dumps(value)) for name, value in data.items()
            }
        reply = await self.worker.invoke(function, inputs, metadata)
        if reply.failure is None:
            for binding in function.others("out"):
                if binding["type"].lower() == "blob":
                    value = reply.value if binding["name"] == "$return" else reply.outputs.get(binding["name"])
                    if value is not None:
                        await self._blobs.write(binding, data, value)
        else:
            _log.error("function %s: %s", function.name, reply.failure.text)
        return reply

    def _durable_engine(self) -> DurableEngine:
        def setting(name: str, default: int) -> int:
            return self.configuration.integer("extensions", "durableTask", name, default=default)

        provider = str(
            self.configuration.get("extensions", "durableTask", "storageProvider", "type", default="AzureStorage")
        )
        # Azure Storage can't hide a message for more than a week, so that its timers are cut in pieces.
        cuts_timers = provider.lower() in ("azurestorage", "azure_storage")

        async def invoke(name: str, text: str) -> Reply:
            try:
                return await self.invoke(self._by_name[name.lower()], text, {})
            except HostError as error:
                return Reply(failure=Failure(f"HostError: {error}", ""))

        return DurableEngine(
            invoke,
            self._names("orchestrationtrigger", "orchestration"),
            self._names("activitytrigger", "activity"),
            concurrent_activities=setting("maxConcurrentActivityFunctions", 10),
            concurrent_orchestrators=setting("maxConcurrentOrchestratorFunctions", 10),
            context={
                # SDKs before 1.1.4 stumble over versions they don't know, hence two fields.
                "upperSchemaVersion": int(min(self._schema, SchemaVersion.V2)),
                "upperSchemaVersionNew": int(self._schema),
                "longRunningTimerIntervalDuration": "3.00:00:00" if cuts_timers else None,
                "maximumShortTimerDuration": "6.00:00:00" if cuts_timers else None,
                "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
            },
        )

    def _names(self, trigger: str, name: str) -> set[str]:
        """The durable names of the functions with a trigger."""
        found = set()
        for function in self.functions:
            if function.trigger["type"].lower() == trigger:
                durable_name = function.trigger.get(name) or function.name
                self._by_name[durable_name.lower()] = function
                found.add(durable_name)
        return found

    def _system_key(self) -> str | None:
        level = self.configuration.get("extensions", "mcp", "system", "webhookAuthorizationLevel", default="System")
        if str(level).lower() not in ("system", "anonymous"):
            raise HostError(f"host.json: webhookAuthorizationLevel must be System or Anonymous, not {level!r}")
        return None if str(level).lower() == "anonymous" else self._key


class _Guarded:
    """A web app behind a key."""

    def __init__(self, app: Starlette, key: str | None) -> None:
        self._app = app
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if has_key(Request(scope), self._key):
            await self._app(scope, receive, send)
        else:
            await Response(status_code=401)(scope, receive, send)


def _check(functions: list[FunctionMetadata], configuration: HostConfiguration) -> None:
    """Refuse what this host has no stand-in for, and what the real one would refuse."""
    if not functions:
        raise HostError("the app has no functions")
    names = set()
    for function in functions:
        if function.name.lower() in names:
            raise HostError(f"function {function.name}: there is another one of this name")
        names.add(function.name.lower())
        kind = function.trigger["type"].lower()
        if kind not in _TRIGGERS:
            raise HostError(f"function {function.name}: the test host has no {function.trigger['type']}")
        for direction, known in (("in", _INPUTS), ("out", _OUTPUTS)):
            for binding in function.others(direction):
                if binding["type"].lower() not in known:
                    what = f"{direction}put binding of type {binding['type']}"
                    raise HostError(f"function {function.name}: the test host has no {what}")
        if kind != "httptrigger" and not configuration.has_bundle:
            raise HostError(f"function {function.name}: {function.trigger['type']} needs host.json's extensionBundle")
