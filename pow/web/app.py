"""The MCP server as an ASGI app: stateless Streamable HTTP, and who may reach it by which name."""

from collections.abc import Sequence
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pow import __version__
from pow.longwork.service import LongWorkService
from pow.mcp.calls import enter_call
from pow.tools.composition import House

MCP_PATH = "/mcp"
# Where the Functions host has it, so that one client configuration serves both.
FUNCTIONS_MCP_PATH = "/runtime/webhooks/mcp"

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def http_app(
    server: MCPServer[Any], house: House, allowed_hosts: Sequence[str] = (), routes: Sequence[Route] = ()
) -> Starlette:
    """The self-hosted server's app: the MCP server at both of its paths, and /healthz.

    Args:
        server: what `mcp_server` made.
        house: what it serves; start its engine before the app takes requests.
        allowed_hosts: names, beside this machine's own, that clients may know the server by.
        routes: what else it serves.
    """

    async def healthz(_: Request) -> Response:
        document = health(house.service)
        return JSONResponse(document, status_code=503 if document["status"] == "degraded" else 200)

    # Server-sent events, not JSON: only they carry progress and notice a client that hangs up.
    app = mcp_app(server, MCP_PATH, allowed_hosts, json_response=False)
    endpoint = next(route.endpoint for route in app.routes if isinstance(route, Route) and route.path == MCP_PATH)
    app.router.routes += [Route(FUNCTIONS_MCP_PATH, endpoint=endpoint), Route("/healthz", endpoint=healthz), *routes]
    app.add_middleware(_EnterCall, house)
    return app


class _EnterCall:
    """ASGI middleware that lets the tools know who calls."""

    def __init__(self, app: ASGIApp, house: House) -> None:
        self._app = app
        self._house = house

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = enter_call(scope, self._house.call(Headers(scope=scope)))
        await self._app(scope, receive, send)


def health(service: LongWorkService) -> dict[str, Any]:
    """What /healthz and the dashboard say of the server."""
    engine = service.engine
    fault = engine.fault()
    return {
        "status": "stopping" if engine.closing else "ok" if fault is None else "degraded",
        **({} if fault is None else {"reason": fault}),
        "version": __version__,
        **{vital.name: vital.value for vital in service.work.vitals()},
        "engine": engine.describe(),
    }


def mcp_app(server: MCPServer[Any], path: str, allowed_hosts: Sequence[str], *, json_response: bool) -> Starlette:
    """The MCP server at a path.

    Args:
        server: what `mcp_server` made.
        path: where it is.
        allowed_hosts: names, beside this machine's own, that clients may know the server by.
        json_response: whether each answer is one JSON document, for hosts that can't stream.
    """
    return server.streamable_http_app(
        streamable_http_path=path,
        json_response=json_response,
        stateless_http=True,
        transport_security=transport_security(allowed_hosts),
    )


def transport_security(allowed_hosts: Sequence[str]) -> TransportSecuritySettings:
    """By which names the server may be known: a page in a browser must not reach it by one that it made resolve to it.

    Args:
        allowed_hosts: names, beside this machine's own.
    """
    names = (*_LOOPBACK, *allowed_hosts)
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[pattern for name in names for pattern in (name, f"{name}:*")],
        allowed_origins=[
            f"{scheme}://{name}{port}" for scheme in ("http", "https") for name in names for port in ("", ":*")
        ],
    )
