"""The MCP SDK's own server behind an HTTP trigger, for clients and plans without the MCP extension.

It is the app that `pow-mcp serve` uses, on Durable Functions' client instead of an engine of its own.
"""

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from pow.azure.triggers import too_long
from pow.errors import PowError
from pow.tools.composition import House

# The host's prefix for HTTP triggers, and the trigger's route.
GATEWAY_PATH = "/api/mcp"
# The host answers a method that a trigger doesn't declare with 404, which says to clients that there is no MCP here.
GATEWAY_METHODS = ("POST", "GET", "HEAD", "PUT", "PATCH", "DELETE")

# JSON-RPC's for an error of the server's own.
_INTERNAL_ERROR = -32603


class Gateway:
    """Serves MCP over the requests of one HTTP trigger."""

    def __init__(
        self,
        house: House,
        *,
        seconds: float | None = None,
        allowed_hosts: Sequence[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            house: what it serves.
            seconds: how long a request may take: see `pow.azure.host`; None for as long as it takes.
            allowed_hosts: names of the app beside the platform's, such as a custom domain.
            environment: where the platform says what the app's host name is.
        """
        self._house = house
        self._seconds = seconds
        self._allowed_hosts = allowed_hosts
        self._environment = environment
        self._starting = asyncio.Lock()
        self._app: Any = None

    async def handle(self, request: Any, client: Any) -> Any:
        """Serve a request.

        Args:
            request: the trigger's HttpRequest.
            client: the invocation's DurableOrchestrationClient.

        Returns:
            The HttpResponse, whole: the host doesn't stream.
        """
        from azure.functions import HttpResponse

        # Clients ask for a stream by GET, which the host, that hands out answers whole, would never end.
        if request.method.upper() != "POST":
            return HttpResponse(status_code=405, headers={"Allow": "POST"})
        try:
            async with asyncio.timeout(self._seconds):
                return await self._answer(request, client)
        except TimeoutError:
            error = {"code": _INTERNAL_ERROR, "message": too_long(self._house, self._seconds)}
            body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error})
            return HttpResponse(body, status_code=504, mimetype="application/json")

    async def _answer(self, request: Any, client: Any) -> Any:
        # Imported here: the MCP SDK takes a second, which calls by way of the extension needn't wait for.
        from azure.functions import AsgiMiddleware

        from pow.mcp.calls import enter_call

        async with self._starting:
            if self._app is None:
                self._app = await self._start()
        call = self._house.call(request.headers, client)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self._app(enter_call(scope, call), receive, send)

        return await AsgiMiddleware(app).handle_async(request)  # type: ignore[no-untyped-call]

    async def _start(self) -> Any:
        from azure.functions import AsgiMiddleware

        from pow.mcp.server import mcp_server
        from pow.web.app import mcp_app

        own = self._environment.get("WEBSITE_HOSTNAME")
        hosts = [*([own] if own else []), *self._allowed_hosts]
        app = mcp_app(mcp_server(self._house, streams=False), GATEWAY_PATH, hosts, json_response=True)
        middleware: Any = AsgiMiddleware(app)  # type: ignore[no-untyped-call]
        if not await middleware.notify_startup():
            raise PowError("the MCP server behind the gateway did not start")
        return app
