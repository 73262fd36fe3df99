"""The host: the app's functions, what their bindings need, and the web server's routes."""

import json
import logging
from collections.abc import Mapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Route

from functions_host.admin import admin_routes
from functions_host.blobs import Blobs
from functions_host.configuration import HostConfiguration
from functions_host.durable import DurableEngine
from functions_host.durable_http import client_binding, durable_routes
from functions_host.errors import HostError
from functions_host.http_front import http_routes
from functions_host.keys import Keys
from functions_host.mcp_endpoint import McpEndpoint
from functions_host.mcp_front import MCP_PATH, McpFront
from functions_host.replay import SchemaVersion
from functions_host.store import Store
from functions_host.values import Failure, FunctionMetadata, HttpRequestData, Json, Reply, Value
from functions_host.worker import Worker

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
        self,
        configuration: HostConfiguration,
        worker: Worker,
        functions: list[FunctionMetadata],
        *,
        keys: Keys | None = None,
        store: Store,
        schema: SchemaVersion = SchemaVersion.V3,
        grace: float,
    ) -> None:
        """
        Args:
            configuration: the app's host.json.
            worker: a worker that runs the app.
            functions: the app's.
            keys: what callers have to send; None lets everyone in.
            store: keeps the task hub.
            schema: the newest version of the orchestrators' answers to offer.
            grace: for how many seconds its end waits for activities.

        Raises:
            HostError: the app can't be hosted.
        """
        _check(functions, configuration)
        self.configuration = configuration
        self.worker = worker
        self.functions = functions
        self._by_name = {function.name.lower(): function for function in functions}
        self._keys = keys
        self._store = store
        self._schema = schema
        self._grace = grace
        self._blobs = Blobs(configuration)
        self.mcp = McpFront(functions, self.invoke)
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
            engine.resume()
            async with mcp_app.router.lifespan_context(mcp_app):
                yield
            await engine.close(self._grace)

        return Starlette(
            routes=[
                Route(MCP_PATH, McpEndpoint(mcp_app, self._webhook_keys())),
                *admin_routes(engine, self.worker),
                *durable_routes(engine, base_url),
                *http_routes(self.functions, self.configuration, self._keys, self.invoke),
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
        hidden = ("extensions", "durableTask", "storageProvider", "workItemQueueVisibilityTimeout")
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
            hidden_seconds=self.configuration.duration(*hidden, default="00:05:00").seconds,
            store=self._store,
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

    def _webhook_keys(self) -> Keys | None:
        level = self.configuration.get("extensions", "mcp", "system", "webhookAuthorizationLevel", default="System")
        if str(level).lower() not in ("system", "anonymous"):
            raise HostError(f"host.json: webhookAuthorizationLevel must be System or Anonymous, not {level!r}")
        return None if str(level).lower() == "anonymous" else self._keys


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
