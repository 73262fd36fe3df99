"""Binds the tools to the MCP extension of Azure Functions: what a trigger declares, and what a call returns.

The extension lists a tool by the JSON that its trigger carries, calls the function with a JSON text of
the call, and unwraps the JSON text that it returns.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

from pow.errors import PowError
from pow.mcp.mining_app import (
    MINING_APP_DESCRIPTION,
    MINING_APP_MIME_TYPE,
    MINING_APP_NAME,
    MINING_APP_PAGE_META,
    MINING_APP_TITLE,
    MINING_APP_URI,
)
from pow.settings import Settings
from pow.tools.specs import argument_fault, tool_specs


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


def tool_trigger(name: str, settings: Settings) -> dict[str, Any]:
    """The arguments of `mcp_tool_trigger` for a tool.

    Not `mcp_tool`: that one infers types and names from the function's signature, and has no way to say
    what the result looks like, nor what the limits are.
    """
    spec = tool_specs(settings)[name]
    return {
        "arg_name": "call",
        "tool_name": name,
        "description": spec.description,
        # The function says itself what the arguments and the result look like …
        "useWorkerInputSchema": True,
        "inputSchema": json.dumps(spec.input_schema),
        "outputSchema": json.dumps(spec.output_schema),
        # … and returns what `answer` makes, structured content included.
        "use_result_schema": True,
        # … and which page shows it.
        **({"metadata": json.dumps(spec.meta)} if spec.meta else {}),
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


async def answer(call: str, tool: Callable[..., Awaitable[Mapping[str, Any]]]) -> str:
    """Call a tool with the arguments of a call; its result, or what was wrong, as the extension wants it.

    What `pow` raises on purpose reaches the agent in its own words; the rest is the host's to log.
    """
    parsed = Call.from_json(call)
    # The extension finds a tool in any case of its name, and passes the name on as the caller wrote it.
    spec = tool_specs(Settings())[parsed.name.lower()]
    fault = argument_fault(spec.name, spec.input_schema, parsed.arguments)
    if fault is not None:
        return _envelope(fault, is_error=True)
    try:
        result = await tool(**parsed.arguments)
    except PowError as error:
        return _envelope(str(error), is_error=True)
    return _envelope(json.dumps(result, indent=2, ensure_ascii=False), structured=result)


def _envelope(text: str, structured: Mapping[str, Any] | None = None, *, is_error: bool = False) -> str:
    result: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": is_error}
    if structured is not None:
        result["structuredContent"] = structured
    return json.dumps({"type": "call_tool_result", "content": json.dumps(result)})


class _Readable(Protocol):
    def read(self) -> bytes: ...


class _Settable(Protocol):
    def set(self, val: str) -> None: ...


class BoundChain:
    """A `ChainStore` of the one name that a call's blob bindings are about."""

    def __init__(self, existing: _Readable | None, saved: _Settable | None = None) -> None:
        """
        Args:
            existing: the blob input; None when there is no such blob.
            saved: the blob output.
        """
        self._existing = existing
        self._saved = saved

    async def load(self, name: str) -> bytes | None:
        return None if self._existing is None else self._existing.read()

    async def save(self, name: str, document: bytes, *, overwrite: bool) -> bool:
        if self._existing is not None and not overwrite:
            return False
        assert self._saved is not None, "the function has no blob output"
        self._saved.set(document.decode())
        return True
