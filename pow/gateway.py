"""The MCP SDK's own server behind an HTTP trigger, for clients and plans without the MCP extension.

It is the app that `pow-mcp serve` uses, on Durable Functions' client instead of an engine of its own.
"""

import asyncio
import os
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from pow.engines.durable_functions import DurableFunctionsEngine
from pow.errors import PowError
from pow.identity import Identities, current_caller_id
from pow.pool import MinerPool
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
        pool: MinerPool,
        identities: Identities,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            settings: defaults, limits, and the budget of a wait.
            pool: where this instance of the app mines.
            identities: who callers are.
            environment: where the platform says what the app's host name and its storage are.
        """
        self._environment = environment
        self._settings = settings
        self._pool = pool
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
        # Each invocation has a context of its own, so there is nothing to set back.
        _client.set(client)
        self._identities.enter(request.headers)
        return await self._middleware.handle_async(request)

    async def _start(self) -> Any:
        # Imported here: the MCP SDK takes a second, which calls by way of the extension needn't wait for.
        from azure.functions import AsgiMiddleware

        from pow.blob_chains import BlobChains
        from pow.chain_tools import ChainTools
        from pow.http_app import mcp_app
        from pow.mcp_tools import Tools, mcp_server
        from pow.query_tools import QueryTools
        from pow.tools import MiningTools

        engine = DurableFunctionsEngine(_client.get, self._pool, self._settings.mining_fan_out)
        mining = MiningTools(engine, self._settings, lambda: self._pool.rate, current_caller_id)
        chains = ChainTools(mining, BlobChains(self._environment))
        tools = Tools(mining, QueryTools(mining), chains, self._identities)
        server = mcp_server(tools, self._settings)
        hosts = [name for name in (self._environment.get("WEBSITE_HOSTNAME"),) if name]
        middleware: Any = AsgiMiddleware(  # type: ignore[no-untyped-call]
            mcp_app(server, GATEWAY_PATH, hosts, json_response=True)
        )
        if not await middleware.notify_startup():
            raise PowError("the MCP server behind the gateway did not start")
        return middleware
