"""HTTP triggers, with the routes and the keys that the Functions host gives them."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from functions_host.configuration import HostConfiguration
from functions_host.errors import HostError
from functions_host.keys import Access, Keys
from functions_host.values import FunctionMetadata, HttpRequestData, HttpResponseData, Json, Reply, body_bytes

Invoke = Callable[[FunctionMetadata, HttpRequestData, Mapping[str, Any]], Awaitable[Reply]]
"""(function, the request, the binding data) -> how it ended."""

_LEVELS = ("anonymous", "function", "admin")
_PARAMETER = re.compile(r"\{(\*{0,2})(\w+)(:\w+(?:\([^)]*\))?)?(\?)?\}")


def http_routes(
    functions: Iterable[FunctionMetadata], configuration: HostConfiguration, keys: Keys | None, invoke: Invoke
) -> list[Route]:
    """A route for each function with an httpTrigger.

    Raises:
        HostError: a binding isn't valid, or a route is taken twice.
    """
    prefix = str(configuration.get("extensions", "http", "routePrefix", default="api")).strip("/")
    routes: list[Route] = []
    taken: dict[tuple[str, str], str] = {}
    for function in functions:
        trigger = function.trigger
        if trigger["type"].lower() != "httptrigger":
            continue
        template = "/" + "/".join(part for part in (prefix, (trigger.get("route") or function.name).strip("/")) if part)
        methods = [str(method).upper() for method in trigger.get("methods") or ("GET", "POST")]
        level = str(trigger.get("authLevel", "function")).lower()
        if level not in _LEVELS:
            raise HostError(f"function {function.name}: authLevel must be one of {_LEVELS}, not {level!r}")
        for method in methods:
            other = taken.setdefault((method, template.lower()), function.name)
            if other != function.name:
                raise HostError(f"function {function.name}: {method} {template} is {other}'s already")
        endpoint = _endpoint(function, level, keys, invoke)
        routes += [_TriggerRoute(path, endpoint, methods) for path in _paths(template)]
    return routes


class _TriggerRoute(Route):
    """A route that isn't there for other methods: the answer to them is 404, not 405."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        # Starlette adds HEAD to GET by itself.
        self.methods = set(methods)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (match, child) if match is Match.FULL else (Match.NONE, {})


def _endpoint(
    function: FunctionMetadata, level: str, keys: Keys | None, invoke: Invoke
) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        if keys is not None and keys.for_function(request, level) is not Access.GRANTED:
            return Response(status_code=401)
        body = await request.body()
        data = HttpRequestData(
            request.method,
            str(request.url),
            {name.lower(): value for name, value in request.headers.items()},
            dict(request.query_params),
            {name: str(value) for name, value in request.path_params.items()},
            body or None,
        )
        try:
            reply = await invoke(function, data, {**data.query, **data.route, "headers": data.headers})
        except HostError:
            return Response(status_code=500)
        return Response(status_code=500) if reply.failure is not None else _response(reply)

    return handle


def _response(reply: Reply) -> Response:
    # The worker has it as the return value; an explicitly named output comes among the outputs.
    value = reply.value
    if value is None:
        value = next((output for output in reply.outputs.values() if isinstance(output, HttpResponseData)), None)
    match value:
        case None:
            return Response(status_code=204)
        case HttpResponseData():
            response = Response(value.body, value.status, value.headers)
            for name, text in value.cookies:
                response.set_cookie(name, text)
            return response
        case Json(text):
            return Response(text, media_type="application/json")
        case _:
            return Response(body_bytes(value), media_type="text/plain")


def _paths(template: str) -> list[str]:
    """ASP.NET's route template as paths for Starlette: two when its last segment may be missing."""

    def parameter(match: re.Match[str]) -> str:
        rest, name, constraint, _ = match.groups()
        if rest:
            return f"{{{name}:path}}"
        return f"{{{name}:int}}" if constraint == ":int" else f"{{{name}}}"

    paths = [_PARAMETER.sub(parameter, template)]
    head, _, last = template.rpartition("/")
    if "?}" in last:
        paths.append(_PARAMETER.sub(parameter, head) or "/")
    return paths
