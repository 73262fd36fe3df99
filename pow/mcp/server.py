"""The tools on the official MCP SDK: names, descriptions, schemas, and nothing else.

What they do is in `pow.tools` and `pow.identity`, which know nothing of MCP.
`python -m pow.mcp.server` prints what clients are told of them: see `pow.tools.specs`.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field, WithJsonSchema

from pow import __version__
from pow.errors import PowError
from pow.identity.callers import Identities, IdentityResult
from pow.mcp.mining_app import MINING_APP_META, mining_app
from pow.mcp.mining_tasks import mining_tasks
from pow.mcp.tasks import refuse_listening
from pow.mining.chain import DEFAULT_GENESIS, MAX_GENESIS_BYTES
from pow.settings import Settings
from pow.tools.chains import ChainTools, NamedChain, SavedChain
from pow.tools.mining import DEMO_PROMPT, INSTRUCTIONS, MiningResult, MiningTools
from pow.tools.queries import DEFAULT_LISTED, MAX_LISTED, ChainVerdict, Estimate, Minings, QueryTools
from pow.tools.specs import argument_fault

_WORKFLOW_ID = Annotated[
    Any,
    WithJsonSchema({"type": "string"}),
    Field(description="The workflow_id that start_mining returned."),
]
_CHAIN_NAME = Annotated[
    Any,
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}),
    Field(description="The chain's name: 1 to 64 letters, digits, dots, dashes and underscores."),
]


def _count_to(most: int) -> WithJsonSchema:
    return WithJsonSchema({"type": "integer", "minimum": 1, "maximum": most})


_READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


class Tools(NamedTuple):
    """All that the tools of a server do."""

    mining: MiningTools
    queries: QueryTools
    chains: ChainTools
    identities: Identities


def mcp_server(tools: Tools, settings: Settings, *, streams: bool = True) -> MCPServer[Any]:
    """The MCP server with the tools and the prompt.

    Args:
        tools: what they do.
        settings: defaults and limits, for the schemas.
        streams: whether the host lets an answer be a stream; nobody can listen for news otherwise.
    """
    tasks = mining_tasks(tools.mining)
    server: MCPServer[Any] = MCPServer(
        "pow-mcp",
        title="Proof-of-work miner",
        version=__version__,
        instructions=INSTRUCTIONS,
        log_level="WARNING",
        extensions=[mining_app(), tasks],
        middleware=[tasks.serve_listening if streams else refuse_listening],
    )

    @server.tool(
        title="Start mining",
        meta=MINING_APP_META,
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    async def start_mining(
        context: Context[Any, Any],
        difficulty: Annotated[
            Any,
            _count_to(settings.max_difficulty),
            Field(description="Leading zero bits of each block's hash. One more doubles the expected time."),
        ] = settings.mining_difficulty,
        blocks: Annotated[
            Any,
            _count_to(settings.max_blocks),
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
        fresh: Annotated[
            Any,
            WithJsonSchema({"type": "boolean"}),
            Field(
                description="Whether to start anew even if the same call is running already, which it joins otherwise."
            ),
        ] = False,
    ) -> MiningResult:
        """Mine a chain of proof-of-work blocks. Returns the chain when it is done within the server's wait \
budget; else status "running" with a workflow_id to pass to get_mining_result."""

        async def report(hashes: float, message: str) -> None:
            await context.report_progress(hashes, message=message)

        asked = "progress_token" in (context.request_context.meta or {})
        with _errors_for_agents():
            return await tools.mining.start_mining(difficulty, blocks, genesis, fresh, report=report if asked else None)

    @server.tool(title="Get mining result", meta=MINING_APP_META, annotations=_READ_ONLY)
    async def get_mining_result(workflow_id: _WORKFLOW_ID) -> MiningResult:
        """Ask how a mining workflow stands. Returns at once: the chain when it is completed, else its progress \
and when to ask again."""
        with _errors_for_agents():
            return await tools.mining.get_mining_result(workflow_id)

    @server.tool(
        title="Cancel mining",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def cancel_mining(workflow_id: _WORKFLOW_ID) -> MiningResult:
        """End a mining workflow that is no longer wanted. One that has ended already keeps its result."""
        with _errors_for_agents():
            return await tools.mining.cancel_mining(workflow_id)

    @server.tool(title="List minings", annotations=_READ_ONLY)
    async def list_minings(
        limit: Annotated[
            Any,
            _count_to(MAX_LISTED),
            Field(description="How many at most."),
        ] = DEFAULT_LISTED,
    ) -> Minings:
        """List your recent mining workflows, the newest first: finds a lost workflow_id again."""
        with _errors_for_agents():
            return await tools.queries.list_minings(limit)

    @server.tool(title="Estimate mining", annotations=_READ_ONLY)
    async def estimate_mining(
        difficulty: Annotated[
            Any,
            _count_to(settings.max_difficulty),
            Field(description="Leading zero bits of each block's hash."),
        ] = settings.mining_difficulty,
        blocks: Annotated[
            Any,
            _count_to(settings.max_blocks),
            Field(description="How many blocks."),
        ] = settings.default_blocks,
    ) -> Estimate:
        """Tell how long a mining job takes on this server, with its odds, before starting it."""
        with _errors_for_agents():
            return await tools.queries.estimate_mining(difficulty, blocks)

    @server.tool(title="Verify chain", annotations=_READ_ONLY)
    async def verify_chain(
        chain: Annotated[
            Any,
            WithJsonSchema({"type": "object"}),
            Field(description="The chain, as start_mining returned it."),
        ],
    ) -> ChainVerdict:
        """Check that every block of a chain is linked to the one before it and carries its proof of work."""
        with _errors_for_agents():
            return await tools.queries.verify_chain(chain)

    @server.tool(
        title="Save chain",
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    async def save_chain(
        name: _CHAIN_NAME,
        workflow_id: _WORKFLOW_ID,
        overwrite: Annotated[
            Any,
            WithJsonSchema({"type": "boolean"}),
            Field(description="Whether to replace a chain that has the name already."),
        ] = False,
    ) -> SavedChain:
        """Keep the chain of a completed workflow under a name, for get_chain."""
        with _errors_for_agents():
            return await tools.chains.save_chain(name, workflow_id, overwrite)

    @server.tool(title="Get chain", annotations=_READ_ONLY)
    async def get_chain(name: _CHAIN_NAME) -> NamedChain:
        """Get a chain that save_chain has kept under a name."""
        with _errors_for_agents():
            return await tools.chains.get_chain(name)

    @server.tool(title="Who am I?", annotations=_READ_ONLY)
    async def whoami(context: Context[Any, Any]) -> IdentityResult:
        """Tell who is signed in, as the platform that hosts this server has authenticated the caller."""
        with _errors_for_agents():
            return await tools.identities.whoami(context.headers or {})

    @server.prompt(title="Mine a demo chain")
    def mine_demo_chain(
        difficulty: Annotated[
            str | None, Field(description="Leading zero bits of each block's hash; the server's default if left out.")
        ] = None,
    ) -> str:
        """Mine a short chain, follow its progress, and explain it."""
        return DEMO_PROMPT.format(blocks=settings.default_blocks, difficulty=difficulty or settings.mining_difficulty)

    server.middleware.append(_ArgumentNames(server))
    return server


class _ArgumentNames:
    """Middleware that answers a tool call with unknown or missing arguments with a sentence."""

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
        return argument_fault(tool.name, tool.input_schema, arguments)


@contextmanager
def _errors_for_agents() -> Iterator[None]:
    """Let what `pow` raises on purpose reach the agent in its own words; the rest stays in the log."""
    try:
        yield
    except PowError as error:
        raise ToolError(str(error)) from error


def listed_tools(settings: Settings) -> list[dict[str, Any]]:
    """What a client of this server is told of its tools."""
    # Listing calls none of them, so there is no need for what they do.
    server = mcp_server(Tools(None, None, None, None), settings)  # type: ignore[arg-type]
    tools = asyncio.run(server.list_tools())
    return [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in tools]


if __name__ == "__main__":
    print(json.dumps(listed_tools(Settings()), indent=1))
