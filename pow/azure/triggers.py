"""Binds the tools to the MCP extension of Azure Functions: what a trigger declares, and what a call returns.

The extension lists a tool by the JSON that its trigger carries, calls the function with a JSON text of
the call, and unwraps the JSON text that it returns.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from pow.errors import PowError
from pow.mcp.mining_app import (
    MINING_APP_DESCRIPTION,
    MINING_APP_MIME_TYPE,
    MINING_APP_NAME,
    MINING_APP_PAGE_META,
    MINING_APP_TITLE,
    mining_app_contents,
)
from pow.tools.composition import House
from pow.tools.declarations import Tool
from pow.tools.mining import MINING_APP_URI


class Call(NamedTuple):
    """A tool call as the extension passes it on. The names of the headers are in lower case."""

    name: str
    arguments: dict[str, Any]
    headers: dict[str, str]

    @classmethod
    def from_json(cls, text: str) -> "Call":
        """Read what the trigger is given."""
        call = json.loads(text)
        transport = call.get("transport") or {}
        headers = (transport.get("properties") or {}).get("headers") or {}
        return cls(call["name"], call.get("arguments") or {}, {name.lower(): value for name, value in headers.items()})


def tool_trigger(tool: Tool) -> dict[str, Any]:
    """The arguments of `mcp_tool_trigger` for a tool.

    Not `mcp_tool`: that one infers types and names from the function's signature, and has no way to say
    what the result looks like, nor what the limits are.
    """
    return {
        "arg_name": "call",
        "tool_name": tool.name,
        "description": tool.description,
        # The function says itself what the arguments and the result look like …
        "useWorkerInputSchema": True,
        "inputSchema": json.dumps(tool.input_schema),
        "outputSchema": json.dumps(tool.output_schema),
        # … and returns what `answer` makes, structured content included.
        "use_result_schema": True,
        # … and which page shows it.
        **({"metadata": json.dumps(tool.meta)} if tool.meta else {}),
    }


def mining_app_trigger() -> dict[str, Any]:
    """The arguments of `mcp_resource_trigger` for the page that shows a chain as it is mined."""
    return {
        "arg_name": "call",
        "uri": MINING_APP_URI,
        "resource_name": MINING_APP_NAME,
        "title": MINING_APP_TITLE,
        "description": MINING_APP_DESCRIPTION,
        "mime_type": MINING_APP_MIME_TYPE,
        "metadata": json.dumps(MINING_APP_PAGE_META),
    }


def mining_app_answer() -> str:
    """What the page's function returns. Of a plain text the extension would make a resource without its `_meta`."""
    return json.dumps({"content": json.dumps(mining_app_contents())})


def bind_tools(app: Any, house: House, seconds: float | None = None) -> None:
    """Add a function to the app for each of the house's tools; it is called as the tool is.

    Args:
        app: the DFApp.
        house: what `mining_house` or `house_of` made.
        seconds: how long a call may take: see `pow.azure.host`; None for as long as it takes.
    """

    def function_of(tool: Tool) -> Callable[[str, Any], Awaitable[str]]:
        async def function(call: str, client: Any) -> str:
            return await answer(call, house, tool, client, seconds)

        function.__name__ = tool.name
        return function

    for tool in house.tools:
        app.mcp_tool_trigger(**tool_trigger(tool))(app.durable_client_input(client_name="client")(function_of(tool)))


async def answer(text: str, house: House, tool: Tool, client: object = None, seconds: float | None = None) -> str:
    """Call a tool as a trigger was told to; its result, or what was wrong, as the extension wants it.

    What `pow` raises on purpose reaches the agent in its own words; the rest is the host's to log.

    Args:
        text: what the trigger was given.
        house: knows who calls.
        tool: the tool of the function that was triggered.
        client: the invocation's DurableOrchestrationClient.
        seconds: how long it may take.
    """
    parsed = Call.from_json(text)
    fault = tool.fault(parsed.arguments)
    if fault is not None:
        return _envelope(fault, is_error=True)
    try:
        async with asyncio.timeout(seconds):
            result = await tool.handler(house.call(parsed.headers, client), parsed.arguments)
    except TimeoutError:
        return _envelope(too_long(house, seconds), is_error=True)
    except PowError as error:
        return _envelope(str(error), is_error=True)
    return _envelope(json.dumps(result, indent=2, ensure_ascii=False), structured=result)


def too_long(house: House, seconds: float | None) -> str:
    """What a caller is told whose call was ended before the host would have ended it, and the worker with it."""
    return (
        f"The call took longer than the {seconds:g} s that this host has for one, and was ended. Workflows that were "
        f"started go on: {house.service.names.list} has them."
    )


def _envelope(text: str, structured: Mapping[str, Any] | None = None, *, is_error: bool = False) -> str:
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": is_error}
    if structured is not None:
        result["structuredContent"] = structured
    return json.dumps({"type": "call_tool_result", "content": json.dumps(result)})
