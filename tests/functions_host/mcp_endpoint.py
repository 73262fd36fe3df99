"""The MCP extension's endpoint over HTTP: what it lets through, and how it refuses the rest."""

import json
from typing import Any

from mcp_types import METHOD_NOT_FOUND
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from functions_host.keys import Access, Keys

_NEWEST_REVISION = "2025-06-18"
_REVISIONS = ("2024-11-05", "2025-03-26", _NEWEST_REVISION)
_REVISION_HEADER = "mcp-protocol-version"


class McpEndpoint:
    """The Python SDK's server, kept to what the extension's server understands."""

    def __init__(self, server: Starlette, keys: Keys | None) -> None:
        """
        Args:
            server: speaks MCP, newer revisions included.
            keys: what opens it; None lets everyone in.
        """
        self._server = server
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        request = Request(scope, receive)
        access = Access.GRANTED if self._keys is None else self._keys.for_webhook(request)
        if access is not Access.GRANTED:
            await Response(status_code=access.value)(scope, receive, send)
        elif request.method == "POST":
            await self._post(request, send)
        else:
            await self._server(scope, receive, send)

    async def _post(self, request: Request, send: Send) -> None:
        try:
            message = json.loads(await request.body())
        except ValueError:
            await Response(status_code=500)(request.scope, request.receive, send)
            return
        if request.headers.get(_REVISION_HEADER, _NEWEST_REVISION) not in _REVISIONS:
            if _is_of_its_own(message):
                await _unknown(message)(request.scope, request.receive, send)
                return
            MutableHeaders(scope=request.scope)[_REVISION_HEADER] = _NEWEST_REVISION
        if isinstance(message, dict) and message.get("method") == "initialize":
            _offer_no_more(message)
        await self._server(request.scope, _replay(json.dumps(message).encode(), request.receive), send)


def _is_of_its_own(message: Any) -> bool:
    """Whether a request is one of the stateless style of 2026-07-28, which says who asks in each of them."""
    parameters = message.get("params") if isinstance(message, dict) else None
    meta = parameters.get("_meta") if isinstance(parameters, dict) else None
    return isinstance(meta, dict) and any(key.startswith("io.modelcontextprotocol/") for key in meta)


def _unknown(message: dict[str, Any]) -> Response:
    error = {"code": METHOD_NOT_FOUND, "message": f"Method '{message.get('method')}' is not available."}
    return JSONResponse({"jsonrpc": "2.0", "id": message.get("id"), "error": error})


def _offer_no_more(initialize: dict[str, Any]) -> None:
    """Let a client that asks for a newer revision be answered with the newest that the extension has."""
    parameters = initialize.get("params")
    if isinstance(parameters, dict) and parameters.get("protocolVersion") not in _REVISIONS:
        parameters["protocolVersion"] = _NEWEST_REVISION


def _replay(body: bytes, receive: Receive) -> Receive:
    """A request's body once more, and then what comes after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
