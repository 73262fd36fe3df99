"""The tools as MCP clients see them, for hosts without the MCP SDK, whose import takes a second.

`specs.json` is what the self-hosted server lists at default settings; `python -m pow.mcp.server`
writes it anew, and a test holds it to that.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from pow.settings import Settings


class ToolSpec(NamedTuple):
    """A tool's name, what it says of itself, the JSON schemas of its arguments and its result, and its `_meta`."""

    name: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    meta: dict[str, Any] | None


@cache
def tool_specs(settings: Settings) -> dict[str, ToolSpec]:
    """The tools by name, with the limits and defaults of the settings."""
    listed = json.loads(files("pow.tools").joinpath("specs.json").read_text("utf-8"))
    specs = {
        tool["name"]: ToolSpec(
            tool["name"], tool["description"], tool["inputSchema"], tool["outputSchema"], tool.get("_meta")
        )
        for tool in listed
    }
    for name in ("start_mining", "estimate_mining"):
        arguments = specs[name].input_schema["properties"]
        arguments["difficulty"] |= {"maximum": settings.max_difficulty, "default": settings.mining_difficulty}
        arguments["blocks"] |= {"maximum": settings.max_blocks, "default": settings.default_blocks}
    return specs


def argument_fault(name: str, input_schema: dict[str, Any], arguments: dict[str, Any]) -> str | None:
    """What is wrong with the names of a call's arguments, as a sentence; None when nothing is.

    Both SDKs drop unknown ones, so that a misspelt `dificulty` would mine at the default.
    """
    known: dict[str, Any] = input_schema.get("properties", {})
    unknown = [key for key in arguments if key not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        return f"{name} has no argument {unknown[0]!r}; {takes}"
    missing = [key for key in input_schema.get("required", ()) if key not in arguments]
    if missing:
        return f"{name} needs the argument {missing[0]!r}: {known[missing[0]].get('description', '')}"
    return None
