"""The MCP SDK's own server behind an HTTP trigger, for clients and plans without the MCP extension.

It is the app that `pow-mcp serve` uses, on Durable Functions' client instead of an engine of its own.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from pow.engines.durable_functions import DurableFunctionsEngine
from pow.errors import PowError
from pow.identity import Identities
from pow.settings import Settings

# The host's prefix for HTTP triggers, and the trigger's route.
GATEWAY_PATH = "/api/mcp"

# Each request brings a client of its own; the server, of which there is one, finds it here.
_client: ContextVar[Any] = ContextVar("durable_client")


class Gateway:
    """Serves MCP over the requests of one HTTP trigger."""

    def __init__(
        self,
        settings: Settings,
        pool_rate: Callable[[], float],
        identities: Identities,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            settings: defaults, limits, and the budget of a wait.
            pool_rate: nonces a second to expect of a workflow that has not been measured yet.
            identities: who callers are.
            environment: where the platform says what the app's host name and its storage are.
        """
        self._environment = environment
        self._settings = settings
        self._pool_rate = pool_rate
        self._identities = identities
        self._starting = asyncio.Lock()
        self._middleware: Any = None

    async def handle(self, request: Any, client: Any) -> Any:
        """Serve a request.

        Args:
            request: the trigger's HttpRequest.
            client: the invocation's DurableOrchestrationClient.

        Returns:
            The HttpResponse, whole: the host doesn't stream.
        """
        async with self._starting:
            if self._middleware is None:
                self._middleware = await self._start()
        token = _client.set(client)
        try:
            return await self._middleware.handle_async(request)
        finally:
            _client.reset(token)

    async def _start(self) -> Any:
        # Imported here: the MCP SDK takes a second, which calls by way of the extension needn't wait for.
        from azure.functions import AsgiMiddleware

        from pow.blob_chains import BlobChains
        from pow.chain_tools import ChainTools
        from pow.http_app import mcp_app
        from pow.mcp_tools import Tools, mcp_server
        from pow.tools import MiningTools

        engine = DurableFunctionsEngine(_client.get, self._settings.mining_fan_out)
        tools = Tools(
            MiningTools(engine, self._settings, self._pool_rate),
            ChainTools(engine, BlobChains(self._environment)),
            self._identities,
        )
        server = mcp_server(tools, self._settings)
        hosts = [name for name in (self._environment.get("WEBSITE_HOSTNAME"),) if name]
        middleware: Any = AsgiMiddleware(  # type: ignore[no-untyped-call]
            mcp_app(server, GATEWAY_PATH, hosts, json_response=True)
        )
        if not await middleware.notify_startup():
            raise PowError("the MCP server behind the gateway did not start")
        return middleware
