"""The tools on the official MCP SDK: names, descriptions, schemas, and nothing else.

What they do is in `pow.tools`, which knows nothing of MCP.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, WithJsonSchema

from pow import __version__
from pow.chain import DEFAULT_GENESIS, MAX_GENESIS_BYTES
from pow.errors import PowError
from pow.settings import Settings
from pow.tools import INSTRUCTIONS, MiningResult, MiningTools


def mcp_server(tools: MiningTools, settings: Settings) -> MCPServer[Any]:
    """The MCP server with the mining tools."""
    server: MCPServer[Any] = MCPServer(
        "pow-mcp",
        title="Proof-of-work miner",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
    )

    @server.tool(
        title="Start mining",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def start_mining(
        context: Context[Any, Any],
        difficulty: Annotated[
            Any,
            WithJsonSchema({"type": "integer", "minimum": 1, "maximum": settings.max_difficulty}),
            Field(description="Leading zero bits of each block's hash. One more doubles the expected time."),
        ] = settings.mining_difficulty,
        blocks: Annotated[
            Any,
            WithJsonSchema({"type": "integer", "minimum": 1, "maximum": settings.max_blocks}),
            Field(description="How many blocks to mine."),
        ] = settings.default_blocks,
        genesis: Annotated[
            Any,
            WithJsonSchema({"type": "string"}),
            Field(
                description=f"Text that the first block links to, at most {MAX_GENESIS_BYTES} bytes of UTF-8; "
                "another text gives another chain."
            ),
        ] = DEFAULT_GENESIS,
    ) -> MiningResult:
        """Mine a chain of proof-of-work blocks. Returns the chain when it is done within the server's wait \
budget; else status "running" with a workflow_id to pass to get_mining_result."""

        async def report(hashes: float, message: str) -> None:
            await context.report_progress(hashes, message=message)

        asked = "progress_token" in (context.request_context.meta or {})
        with _errors_for_agents():
            return await tools.start_mining(difficulty, blocks, genesis, report=report if asked else None)

    @server.tool(
        title="Get mining result",
        annotations=ToolAnnotations(
            read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def get_mining_result(
        workflow_id: Annotated[
            Any,
            WithJsonSchema({"type": "string"}),
            Field(description="The workflow_id that start_mining returned."),
        ],
    ) -> MiningResult:
        """Ask how a mining workflow stands. Returns at once: the chain when it is completed, else its progress \
and when to ask again."""
        with _errors_for_agents():
            return await tools.get_mining_result(workflow_id)

    server.middleware.append(_ArgumentNames(server))
    return server


class _ArgumentNames:
    """Middleware that answers a tool call with unknown or missing arguments with a sentence.

    The SDK drops unknown ones, so that a misspelt `dificulty` would mine at the default.
    """

    def __init__(self, server: MCPServer[Any]) -> None:
        self._server = server

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method == "tools/call" and ctx.params is not None:
            fault = await self._fault(ctx.params.get("name"), ctx.params.get("arguments") or {})
            if fault is not None:
                return CallToolResult(content=[TextContent(type="text", text=fault)], is_error=True)
        return await call_next(ctx)

    async def _fault(self, name: object, arguments: object) -> str | None:
        tool = next((tool for tool in await self._server.list_tools() if tool.name == name), None)
        if tool is None or not isinstance(arguments, dict):
            return None  # the SDK has its own errors for these
        known = tool.input_schema.get("properties", {})
        unknown = [key for key in arguments if key not in known]
        if unknown:
            return f"{name} has no argument {unknown[0]!r}; it takes {', '.join(known)}"
        missing = [key for key in tool.input_schema.get("required", ()) if key not in arguments]
        if missing:
            return f"{name} needs the argument {missing[0]!r}: {known[missing[0]].get('description', '')}"
        return None


@contextmanager
def _errors_for_agents() -> Iterator[None]:
    """Let what `pow` raises on purpose reach the agent in its own words; the rest stays in the log."""
    try:
        yield
    except PowError as error:
        raise ToolError(str(error)) from error
