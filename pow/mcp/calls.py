"""The call behind a request of the MCP SDK: who makes it, and what else its host has brought."""

from dataclasses import dataclass
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from starlette.requests import HTTPConnection

from pow.longwork.call import NOBODY, CallContext

_STATE = "pow_call"


@dataclass(kw_only=True)
class CallRequestContext(ServerRequestContext[Any, Any]):
    """The SDK's context of a request, with its call."""

    call: CallContext


async def add_call(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Middleware, the outermost: from here on `call_of` knows the call that the HTTP layer has put into the request."""
    scope = ctx.request.scope if isinstance(ctx.request, HTTPConnection) else {}
    call = scope.get("state", {}).get(_STATE, NOBODY)
    return await call_next(with_call(ctx, call))


def call_of(ctx: ServerRequestContext[Any, Any]) -> CallContext:
    """The call behind a request; nobody's where no middleware has added one."""
    return ctx.call if isinstance(ctx, CallRequestContext) else NOBODY


def with_call(ctx: ServerRequestContext[Any, Any], call: CallContext) -> ServerRequestContext[Any, Any]:
    """The same request with another call behind it."""
    return CallRequestContext(**{**vars(ctx), "call": call})


def enter_call(scope: Any, call: CallContext) -> Any:
    """An ASGI scope with a call in it, for `add_call`."""
    return {**scope, "state": {**scope.get("state", {}), _STATE: call}}
