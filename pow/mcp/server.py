"""Binds declared tools to the official MCP SDK: nothing in here knows what they do."""

from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.prompts.base import Prompt as SdkPrompt
from mcp.server.mcpserver.prompts.base import PromptArgument as SdkPromptArgument
from mcp.server.mcpserver.tools import Tool as SdkTool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent, ToolAnnotations

from pow import __version__
from pow.errors import PowError
from pow.longwork.call import ReportProgress
from pow.longwork.tasks import WorkTasks
from pow.mcp.calls import add_call, call_of
from pow.mcp.mining_app import mining_app
from pow.mcp.results import tool_result
from pow.mcp.tasks import INLINE_SECONDS, TasksExtension, refuse_listening
from pow.tools.composition import House
from pow.tools.declarations import Prompt, Tool


def mcp_server(house: House, *, streams: bool = True, inline_seconds: float = INLINE_SECONDS) -> MCPServer[Any]:
    """The MCP server with a house's tools and prompts.

    Args:
        house: what `mining_house` or `house_of` made.
        streams: whether the host lets an answer be a stream; nobody can listen for news otherwise.
        inline_seconds: how long a caller that knows tasks waits for a result before it gets one.
    """
    tasks = TasksExtension(
        WorkTasks(house.service),
        tools=[tool.name for tool in house.tools if tool.starts_work],
        inline_seconds=inline_seconds,
    )
    shows_app = any(tool.meta for tool in house.tools)
    server: MCPServer[Any] = MCPServer(
        house.name,
        title=house.title,
        version=__version__,
        instructions=house.instructions,
        log_level="WARNING",
        extensions=[mining_app(), tasks] if shows_app else [tasks],
        middleware=[add_call, tasks.serve_listening if streams else refuse_listening],
        tools=[_BoundTool.of(tool) for tool in house.tools],
    )
    for prompt in house.prompts:
        server.add_prompt(_bound_prompt(prompt))
    server.middleware.append(_ArgumentNames(house))
    return server


class _BoundTool(SdkTool):
    """A declared tool as the SDK wants one. The arguments go to its handler as they came, for one set of sentences."""

    @classmethod
    def of(cls, tool: Tool) -> "_BoundTool":
        return cls(
            fn=tool.handler,
            name=tool.name,
            title=tool.title,
            description=tool.description,
            parameters=tool.input_schema,
            fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema=tool.output_schema),
            is_async=True,
            context_kwarg=None,
            annotations=ToolAnnotations(
                read_only_hint=tool.hints.read_only,
                destructive_hint=tool.hints.destructive,
                idempotent_hint=tool.hints.idempotent,
                open_world_hint=False,
            ),
            meta=dict(tool.meta) or None,
        )

    async def run(self, arguments: dict[str, Any], context: Context[Any, Any], convert_result: bool = False) -> Any:
        call = call_of(context.request_context)
        if "progress_token" in (context.request_context.meta or {}):
            call = call.reporting(_reporter(context))
        try:
            result = await self.fn(call, arguments)
        except PowError as error:
            # What `pow` raises on purpose reaches the agent in its own words; the rest stays in the log.
            raise ToolError(str(error)) from error
        except MCPError:
            raise
        except Exception as error:
            raise UnexpectedToolError(f"Error executing tool {self.name}") from error
        return tool_result(result)


def _reporter(context: Context[Any, Any]) -> ReportProgress:
    async def report(done: float, sentence: str) -> None:
        await context.report_progress(done, message=sentence)

    return report


def _bound_prompt(prompt: Prompt) -> SdkPrompt:
    async def render(**arguments: str | None) -> str:
        return prompt.text(arguments)

    return SdkPrompt(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=[SdkPromptArgument(name=name, description=what) for name, what in prompt.arguments],
        fn=render,
        context_kwarg=None,
    )


class _ArgumentNames:
    """Middleware that answers a tool call with unknown or missing arguments with a sentence."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method == "tools/call" and ctx.params is not None:
            tool = self._house.tool(str(ctx.params.get("name")))
            arguments = ctx.params.get("arguments") or {}
            # The SDK has its own errors for what isn't right about these two.
            fault = tool.fault(arguments) if tool is not None and isinstance(arguments, dict) else None
            if fault is not None:
                return CallToolResult(content=[TextContent(type="text", text=fault)], is_error=True)
        return await call_next(ctx)
