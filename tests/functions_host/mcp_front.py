"""The MCP extension's part: an MCP server made of the app's bindings."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    TextContent,
    Tool,
)
from starlette.requests import Request

from functions_host.configuration import HostConfiguration
from functions_host.errors import HostError
from functions_host.mcp_bindings import McpPrompt, McpResource, McpTool, read_prompt, read_resource, read_tool
from functions_host.mcp_results import ResultError, prompt_result, resource_contents, tool_result
from functions_host.values import FunctionMetadata, Reply

_log = logging.getLogger("functions_host.mcp")

MCP_PATH = "/runtime/webhooks/mcp"

Invoke = Callable[[FunctionMetadata, str, Mapping[str, Any]], Awaitable[Reply]]
"""(function, its trigger's text, the binding data) -> how it ended."""

_Context = ServerRequestContext[Any, Any]
_Named = TypeVar("_Named", McpTool, McpPrompt)


class McpFront:
    """The tools, prompts and resources of an app, behind an MCP server."""

    def __init__(self, functions: Iterable[FunctionMetadata], invoke: Invoke) -> None:
        """
        Args:
            functions: all functions of the app.
            invoke: runs one of them.

        Raises:
            HostError: a binding isn't valid, or a name is taken twice.
        """
        by_trigger: dict[str, list[FunctionMetadata]] = {}
        for function in functions:
            by_trigger.setdefault(function.trigger["type"].lower(), []).append(function)
        self.tools = _by_name([read_tool(function) for function in by_trigger.get("mcptooltrigger", ())])
        self.prompts = _by_name([read_prompt(function) for function in by_trigger.get("mcpprompttrigger", ())])
        resources = [read_resource(function) for function in by_trigger.get("mcpresourcetrigger", ())]
        self.resources = {resource.uri: resource for resource in resources}
        self._invoke = invoke

    def server(self, configuration: HostConfiguration) -> Server[Any]:
        """The MCP server, named as host.json says."""

        def option(name: str, default: str | None) -> Any:
            return configuration.get("extensions", "mcp", name, default=default)

        return Server(
            option("serverName", "Azure Functions MCP server"),
            version=option("serverVersion", "1.0.0"),
            instructions=option("instructions", None),
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_list_resources=self._list_resources,
            on_read_resource=self._read_resource,
        )

    async def _list_tools(self, _: _Context, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(
            tools=[
                Tool.model_validate(
                    _present(
                        name=tool.name,
                        description=tool.description,
                        inputSchema=tool.input_schema,
                        outputSchema=tool.output_schema,
                        _meta=tool.metadata,
                    )
                )
                for tool in sorted(self.tools.values(), key=lambda tool: tool.name)
            ]
        )

    async def _call_tool(self, context: _Context, params: CallToolRequestParams) -> CallToolResult:
        tool = self.tools.get(params.name.lower())
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: '{params.name}'")
        arguments = params.arguments
        missing = [name for name in tool.required if (arguments or {}).get(name) is None]
        if missing:
            raise MCPError(
                INVALID_PARAMS,
                f"One or more required tool properties are missing values. Please provide: {', '.join(missing)}",
            )
        try:
            reply = await self._run(tool.function, "mcptool", params.name, arguments, context)
            return tool_result(reply.value, use_result_schema=tool.use_result_schema)
        except (HostError, ResultError) as error:
            # The extension lets exceptions go to its MCP SDK, which tells clients no more than this.
            _log.error("tool %s: %s", tool.name, error)
            text = f"An error occurred invoking '{params.name}'."
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)

    async def _list_prompts(self, _: _Context, __: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(
            prompts=[
                Prompt.model_validate(
                    _present(
                        name=prompt.name,
                        title=prompt.title,
                        description=prompt.description,
                        arguments=prompt.arguments,
                        _meta=prompt.metadata,
                    )
                )
                for prompt in self.prompts.values()
            ]
        )

    async def _get_prompt(self, context: _Context, params: GetPromptRequestParams) -> GetPromptResult:
        prompt = self.prompts.get(params.name.lower())
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"Unknown prompt: '{params.name}'")
        arguments = params.arguments
        missing = [
            argument["name"]
            for argument in prompt.arguments or ()
            if argument.get("required") and (arguments or {}).get(argument["name"]) is None
        ]
        if missing:
            raise MCPError(
                INVALID_PARAMS,
                f"One or more required prompt arguments are missing values. Please provide: {', '.join(missing)}",
            )
        reply = await self._run(prompt.function, "mcpprompt", params.name, arguments, context)
        return prompt_result(reply.value, use_result_schema=prompt.use_result_schema)

    async def _list_resources(self, _: _Context, __: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(
            resources=[
                Resource.model_validate(
                    _present(
                        uri=resource.uri,
                        name=resource.name,
                        title=resource.title,
                        description=resource.description,
                        mimeType=resource.mime_type,
                        _meta=resource.metadata,
                    )
                )
                for resource in self.resources.values()
            ]
        )

    async def _read_resource(self, context: _Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        resource: McpResource | None = self.resources.get(str(params.uri))
        if resource is None:
            raise MCPError(INVALID_PARAMS, f"Unknown resource: '{params.uri}'")
        data = {"uri": resource.uri, "transport": _transport(context)}
        reply = await self._invoke(resource.function, json.dumps(data), {"mcpresourcecontext": data})
        if reply.failure is not None:
            raise HostError(f"resource {resource.uri}: {reply.failure.text}")
        return ReadResourceResult(contents=[resource_contents(reply.value, resource.uri, resource.mime_type)])

    async def _run(
        self,
        function: FunctionMetadata,
        prefix: str,
        name: str,
        arguments: Mapping[str, Any] | None,
        context: _Context,
    ) -> Reply:
        transport = _transport(context)
        invocation = _present(name=name, arguments=arguments, sessionid=transport.get("sessionId"), transport=transport)
        data: dict[str, Any] = {f"{prefix}context": invocation}
        if "sessionId" in transport:
            data["mcpsessionid"] = transport["sessionId"]
        if arguments is not None:
            data[f"{prefix}args"] = {key: _dotnet_text(value) for key, value in arguments.items()}
        reply = await self._invoke(function, json.dumps(invocation, ensure_ascii=False), data)
        if reply.failure is not None:
            raise HostError(f"Exception while executing function: Functions.{function.name}\n{reply.failure.text}")
        return reply


def _transport(context: _Context) -> dict[str, Any]:
    """Where a call came from, as the function gets to know it."""
    request = context.request
    assert isinstance(request, Request)
    headers = {_header_name(name): value for name, value in request.headers.items()}
    transport = {"name": "http-streamable", "properties": {"headers": headers}}
    session = request.headers.get("mcp-session-id")
    return transport if session is None else {**transport, "sessionId": session}


def _header_name(name: str) -> str:
    """A header's name in the case in which it reaches functions on Azure; uvicorn has them all in lower case."""
    if name.startswith("x-ms-"):
        return name.upper()
    return "-".join(part.capitalize() for part in name.split("-"))


def _dotnet_text(value: Any) -> str:
    """An argument as .NET's JsonElement.ToString() writes it."""
    if value is None:
        return ""
    if isinstance(value, str | bool):
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _present(**fields: Any) -> dict[str, Any]:
    """The fields that aren't None: the extension leaves the others out."""
    return {name: value for name, value in fields.items() if value is not None}


def _by_name(found: list[_Named]) -> dict[str, _Named]:
    """By lower-case name: the extension doesn't tell cases apart."""
    named: dict[str, _Named] = {}
    for entry in found:
        if entry.name.lower() in named:
            raise HostError(f"function {entry.function.name}: the name '{entry.name}' is already registered")
        named[entry.name.lower()] = entry
    return named
