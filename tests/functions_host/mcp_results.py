"""What a function returned, as an MCP result: the unwrapping that the MCP extension does."""

import json
from typing import Any

from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    GetPromptResult,
    PromptMessage,
    TextContent,
    TextResourceContents,
)
from pydantic import TypeAdapter

from functions_host.values import Json, Value, body_bytes

_CONTENT: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)
_CONTENTS: TypeAdapter[TextResourceContents | BlobResourceContents] = TypeAdapter(
    TextResourceContents | BlobResourceContents
)
_MESSAGES = TypeAdapter(list[PromptMessage])


class ResultError(Exception):
    """The extension can't make a result of it, so that the call fails."""


def tool_result(value: Value, *, use_result_schema: bool) -> CallToolResult:
    """The result of a tool.

    Raises:
        ResultError: with `use_result_schema`, and it isn't of that schema.
    """
    if value is None:
        return CallToolResult(content=[])
    if not use_result_schema:
        return CallToolResult(content=[TextContent(type="text", text=body_bytes(value).decode())])
    envelope = _envelope(value, "McpToolResult")
    kind, content = envelope["type"].lower(), envelope.get("content")
    if not isinstance(content, str):
        raise ResultError(f"McpToolResult.content must be JSON text, not {content!r}")
    try:
        if kind == "call_tool_result":
            return CallToolResult.model_validate_json(content)
        parts: list[Any] = json.loads(content) if kind == "multi_content_result" else [json.loads(content)]
        blocks = [_CONTENT.validate_python(part) for part in parts]
        structured = envelope.get("structuredcontent")
        structured_content = json.loads(structured) if structured else None
    except (ValueError, TypeError) as error:
        raise ResultError(f"Failed to deserialize content for type '{envelope['type']}': {error}") from error
    if not blocks:
        raise ResultError("No content items were produced from the McpToolResult.")
    if not isinstance(structured_content, dict | None):
        raise ResultError(f"structuredContent must be an object, not {structured_content!r}")
    return CallToolResult(content=blocks, structured_content=structured_content)


def prompt_result(value: Value, *, use_result_schema: bool) -> GetPromptResult:
    """The result of a prompt.

    Raises:
        ResultError: with `use_result_schema`, and it isn't of that schema.
    """
    if value is None:
        return GetPromptResult(messages=[])
    if not use_result_schema:
        text = TextContent(type="text", text=body_bytes(value).decode())
        return GetPromptResult(messages=[PromptMessage(role="user", content=text)])
    envelope = _envelope(value, "McpPromptResult")
    content = envelope.get("content")
    if not isinstance(content, str):
        raise ResultError("McpPromptResult.Content was null; cannot process prompt result.")
    try:
        match envelope["type"].lower():
            case "get_prompt_result":
                return GetPromptResult.model_validate_json(content)
            case "prompt_messages":
                return GetPromptResult(messages=_MESSAGES.validate_json(content))
            case _:
                raise ResultError(f"Unknown McpPromptResult type: '{envelope['type']}'.")
    except ValueError as error:
        raise ResultError(f"Failed to deserialize content for type '{envelope['type']}': {error}") from error


def resource_contents(value: Value, uri: str, mime_type: str | None) -> TextResourceContents | BlobResourceContents:
    """What is read of a resource. Its binding's metadata isn't in it, but what the function itself says may be.

    Raises:
        ResultError: it is an envelope whose content can't be read.
    """
    text = body_bytes(value).decode()
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        document = None
    content = document.get("content") if isinstance(document, dict) else None
    if not isinstance(content, str):
        return TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    try:
        return _CONTENTS.validate_json(content)
    except ValueError as error:
        raise ResultError(f"Failed to deserialize the content of a resource: {error}") from error


def _envelope(value: Value, name: str) -> dict[str, Any]:
    """The envelope's fields, their names in lower case: .NET reads them in any case."""
    if isinstance(value, Json) or not isinstance(value, str):
        raise ResultError(f"Expected JSON string, as a string, for {name}")
    try:
        document = json.loads(value)
    except json.JSONDecodeError as error:
        raise ResultError(f"The function return value could not be deserialized to a valid {name}: {error}") from error
    if not isinstance(document, dict):
        raise ResultError(f"The function return value could not be deserialized to a valid {name}: {document!r}")
    fields = {key.lower(): field for key, field in document.items()}
    if not isinstance(fields.get("type"), str):
        raise ResultError(f"{name} has no type: {document!r}")
    return fields
