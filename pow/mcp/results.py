"""A tool's result as the MCP SDK sends it."""

from collections.abc import Mapping
from typing import Any

import pydantic_core
from mcp_types import CallToolResult, TextContent


def tool_result(document: Mapping[str, Any]) -> CallToolResult:
    """A tool's result: the document as text and as structured content."""
    text = pydantic_core.to_json(document, indent=2).decode()
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=dict(document))
