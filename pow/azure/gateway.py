"""The MCP SDK's own server behind an HTTP trigger, for clients and plans without the MCP extension.

It is the app that `pow-mcp serve` uses, on Durable Functions' client instead of an engine of its own.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from pow.errors import PowError
from pow.tools.composition import House

# The host's prefix for HTTP triggers, and the trigger's route.
GATEWAY_PATH = "/api/mcp"


class Gateway:
    """Serves MCP over the requests of one HTTP trigger."""

    def __init__(self, house: Callable[[], House], environment: Mapping[str, str] = os.environ) -> None:
        """
        Args:
            house: makes what it serves, at the first request.
            environment: where the platform says what the app's host name is.
        """
        self._make_house = house
        self._environment = environment
        self._starting = asyncio.Lock()
        self._house: House | None = None
        self._app: Any = None

    async def handle(self, request: Any, client: Any) -> Any:
        """Serve a request.

        Args:
            request: the trigger's HttpRequest.
            client: the invocation's DurableOrchestrationClient.

        Returns:
            The HttpResponse, whole: the host doesn't stream.
        """
        # Imported here: the MCP SDK takes a second, which calls by way of the extension needn't wait for.
        from azure.functions import AsgiMiddleware

        from pow.mcp.calls import enter_call

        async with self._starting:
            if self._house is None:
                self._house = await self._start()
        call = self._house.call(request.headers, client)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._app(enter_call(scope, call), receive, send)

        return await AsgiMiddleware(app).handle_async(request)  # type: ignore[no-untyped-call]

    async def _start(self) -> House:
        from azure.functions import AsgiMiddleware

        from pow.mcp.server import mcp_server
        from pow.web.app import mcp_app

        house = self._make_house()
        hosts = [name for name in (self._environment.get("WEBSITE_HOSTNAME"),) if name]
        self._app = mcp_app(mcp_server(house, streams=False), GATEWAY_PATH, hosts, json_response=True)
        middleware: Any = AsgiMiddleware(self._app)  # type: ignore[no-untyped-call]
        if not await middleware.notify_startup():
            raise PowError("the MCP server behind the gateway did not start")
        return house
