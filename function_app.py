"""The Azure Functions app: the MCP tools and the durable workflow, bound to triggers, and nothing else.

What the tools do is in `pow`, which the self-hosted server shares. A tool starts the workflow and waits
for it within a budget; the workflow mines block by block in slices; an activity mines a slice on all
cores. To use this for long work of your own, replace the activity and what it calls.
"""

import logging
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from pow import __version__
from pow.azure.gateway import Gateway
from pow.azure.triggers import BoundChain, Call, answer, mining_app_trigger, tool_trigger
from pow.identity.callers import Identities, current_caller_id
from pow.identity.graph import OnBehalfOf
from pow.longwork.engines.durable_functions import DurableFunctionsEngine, enter_invocation, mine, orchestrate
from pow.mcp.mining_app import mining_app_html
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.chain_store import CHAINS
from pow.tools.chains import ChainTools
from pow.tools.mining import DEMO_PROMPT, MiningTools
from pow.tools.queries import QueryTools

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

settings = Settings.from_environment()
pool = MinerPool(settings.mining_threads)
identities = Identities(OnBehalfOf.from_settings(settings))
mining = MiningTools(
    DurableFunctionsEngine(pool, settings.mining_fan_out), settings, lambda: pool.rate, current_caller_id
)
queries = QueryTools(mining)
gateway = Gateway(settings, mining, queries, identities)

STORAGE = "AzureWebJobsStorage"
CHAIN_BLOB = f"{CHAINS}/{{mcptoolargs.name}}.json"

# A package without the native wheel would mine many times slower in silence: this is where it shows.
logging.getLogger("pow").log(
    logging.WARNING if pool.backend == "hashlib" else logging.INFO,
    "pow-mcp %s mines with backend %s on %d thread(s)",
    __version__,
    pool.backend,
    pool.threads,
)


async def serve(call: str, client: df.DurableOrchestrationClient, tool: Callable[..., Awaitable[Any]]) -> str:
    """A tool's answer to a call, by way of its invocation's client and for its caller."""
    enter_invocation(client)
    identities.enter(Call.from_json(call).headers)
    return await answer(call, tool)


# --- The MCP tools


@app.mcp_tool_trigger(**tool_trigger("start_mining", settings))
@app.durable_client_input(client_name="client")
async def start_mining(call: str, client: df.DurableOrchestrationClient) -> str:
    return await serve(call, client, mining.start_mining)


@app.mcp_tool_trigger(**tool_trigger("get_mining_result", settings))
@app.durable_client_input(client_name="client")
async def get_mining_result(call: str, client: df.DurableOrchestrationClient) -> str:
    return await serve(call, client, mining.get_mining_result)


@app.mcp_tool_trigger(**tool_trigger("cancel_mining", settings))
@app.durable_client_input(client_name="client")
async def cancel_mining(call: str, client: df.DurableOrchestrationClient) -> str:
    return await serve(call, client, mining.cancel_mining)


@app.mcp_tool_trigger(**tool_trigger("list_minings", settings))
@app.durable_client_input(client_name="client")
async def list_minings(call: str, client: df.DurableOrchestrationClient) -> str:
    return await serve(call, client, queries.list_minings)


@app.mcp_tool_trigger(**tool_trigger("estimate_mining", settings))
@app.durable_client_input(client_name="client")
async def estimate_mining(call: str, client: df.DurableOrchestrationClient) -> str:
    return await serve(call, client, queries.estimate_mining)


@app.mcp_tool_trigger(**tool_trigger("verify_chain", settings))
@app.durable_client_input(client_name="client")
async def verify_chain(call: str, client: df.DurableOrchestrationClient) -> str:
    return await serve(call, client, queries.verify_chain)


@app.mcp_tool_trigger(**tool_trigger("save_chain", settings))
@app.durable_client_input(client_name="client")
@app.blob_input(arg_name="existing", path=CHAIN_BLOB, connection=STORAGE)
@app.blob_output(arg_name="saved", path=CHAIN_BLOB, connection=STORAGE)
async def save_chain(
    call: str, client: df.DurableOrchestrationClient, existing: func.InputStream, saved: func.Out[str]
) -> str:
    return await serve(call, client, ChainTools(mining, BoundChain(existing, saved)).save_chain)


@app.mcp_tool_trigger(**tool_trigger("get_chain", settings))
@app.durable_client_input(client_name="client")
@app.blob_input(arg_name="existing", path=CHAIN_BLOB, connection=STORAGE)
async def get_chain(call: str, client: df.DurableOrchestrationClient, existing: func.InputStream) -> str:
    return await serve(call, client, ChainTools(mining, BoundChain(existing)).get_chain)


@app.mcp_tool_trigger(**tool_trigger("whoami", settings))
async def whoami(call: str) -> str:
    return await answer(call, lambda: identities.whoami(Call.from_json(call).headers))


@app.mcp_prompt_trigger(
    arg_name="call",
    prompt_name="mine_demo_chain",
    title="Mine a demo chain",
    description="Mine a short chain, follow its progress, and explain it.",
    prompt_arguments=[
        func.PromptArgument(
            "difficulty", "Leading zero bits of each block's hash; the server's default if left out.", required=False
        )
    ],
)
def mine_demo_chain(call: func.PromptInvocationContext) -> str:
    difficulty = call.arguments.get("difficulty") or settings.mining_difficulty
    return DEMO_PROMPT.format(blocks=settings.default_blocks, difficulty=difficulty)


@app.mcp_resource_trigger(**mining_app_trigger())
def mining_app(call: str) -> str:
    return mining_app_html()


# --- The durable workflow


@app.orchestration_trigger(context_name="context")
def mine_chain(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield from orchestrate(context))


@app.activity_trigger(input_name="request")
def mine_block(request: dict) -> dict:  # type: ignore[type-arg]  # the worker takes nothing more precise
    # Synchronous: it runs in the worker's thread pool, and mining releases the GIL.
    return mine(pool, request)


# --- MCP for clients and plans without the extension: the official SDK's server at /api/mcp


@app.route(route="mcp", methods=["GET", "POST", "DELETE"], trigger_arg_name="request")
@app.durable_client_input(client_name="client")
async def mcp_gateway(request: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    response: func.HttpResponse = await gateway.handle(request, client)
    return response
