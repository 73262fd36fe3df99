"""The MCP SDK's own server behind an HTTP trigger, for clients and plans without the MCP extension.

It is the app that `pow-mcp serve` uses, on Durable Functions' client instead of an engine of its own.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from pow.errors import PowError
from pow.identity.callers import Identities
from pow.longwork.engines.durable_functions import enter_invocation
from pow.settings import Settings
from pow.tools.mining import MiningTools
from pow.tools.queries import QueryTools

# The host's prefix for HTTP triggers, and the trigger's route.
GATEWAY_PATH = "/api/mcp"


class Gateway:
    """Serves MCP over the requests of one HTTP trigger."""

    def __init__(
        self,
        settings: Settings,
        mining: MiningTools,
        queries: QueryTools,
        identities: Identities,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            settings: defaults, limits, and the budget of a wait.
            mining, queries: what the tools do, by `enter_invocation`'s client and for `Identities.enter`'s caller.
            identities: who callers are.
            environment: where the platform says what the app's host name and its storage are.
        """
        self._environment = environment
        self._settings = settings
        self._mining = mining
        self._queries = queries
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
        enter_invocation(client)
        self._identities.enter(request.headers)
        return await self._middleware.handle_async(request)

    async def _start(self) -> Any:
        # Imported here: the MCP SDK takes a second, which calls by way of the extension needn't wait for.
        from azure.functions import AsgiMiddleware

        from pow.mcp.server import Tools, mcp_server
        from pow.tools.blob_chains import BlobChains
        from pow.tools.chains import ChainTools
        from pow.web.app import mcp_app

        chains = ChainTools(self._mining, BlobChains(self._environment))
        tools = Tools(self._mining, self._queries, chains, self._identities)
        server = mcp_server(tools, self._settings, streams=False)
        hosts = [name for name in (self._environment.get("WEBSITE_HOSTNAME"),) if name]
        middleware: Any = AsgiMiddleware(  # type: ignore[no-untyped-call]
            mcp_app(server, GATEWAY_PATH, hosts, json_response=True)
        )
        if not await middleware.notify_startup():
            raise PowError("the MCP server behind the gateway did not start")
        return middleware
