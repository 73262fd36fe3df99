"""The Azure Functions app: the MCP tools and the durable workflow, bound to triggers, and nothing else.

What the tools do is in `pow`, which the self-hosted server shares. A tool starts the workflow and waits
for it within a budget; the workflow mines block by block in slices; an activity mines a slice on all
cores. For long work of your own, put it in the place of `mining_work`: see docs/your-own-work.md.
"""

import logging
import os
from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from pow import __version__
from pow.azure.gateway import Gateway
from pow.azure.triggers import BoundChain, answer, bind_tools, mining_app_trigger, tool_trigger
from pow.longwork.engines.durable_functions import DurableFunctionsEngine
from pow.mcp.mining_app import mining_app_html
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.blob_chains import BlobChains
from pow.tools.chain_store import CHAINS
from pow.tools.chains import chain_tools
from pow.tools.composition import mining_house
from pow.tools.mining import mining_work

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

settings = Settings.from_environment()
pool = MinerPool(settings.mining_threads)
work = mining_work(pool, settings)
engine = DurableFunctionsEngine(work, width=settings.mining_fan_out)
house = mining_house(work, engine, settings)

# A package without the native wheel would mine many times slower in silence: this is where it shows.
logging.getLogger("pow").log(
    logging.WARNING if pool.backend == "hashlib" else logging.INFO,
    "pow-mcp %s mines with backend %s on %d thread(s)",
    __version__,
    pool.backend,
    pool.threads,
)


# --- The MCP tools: start_mining, get_mining_result and the others, a function each

bind_tools(app, house)


# These two have a chain's blob bound to each call, in the place of a store.

STORAGE = "AzureWebJobsStorage"
CHAIN_BLOB = f"{CHAINS}/{{mcptoolargs.name}}.json"
SAVE_CHAIN, GET_CHAIN = chain_tools(house.service, BoundChain(None))


@app.mcp_tool_trigger(**tool_trigger(SAVE_CHAIN))
@app.durable_client_input(client_name="client")
@app.blob_input(arg_name="existing", path=CHAIN_BLOB, connection=STORAGE)
@app.blob_output(arg_name="saved", path=CHAIN_BLOB, connection=STORAGE)
async def save_chain(
    call: str, client: df.DurableOrchestrationClient, existing: func.InputStream, saved: func.Out[str]
) -> str:
    save, _ = chain_tools(house.service, BoundChain(existing, saved))
    return await answer(call, house, save, client)


@app.mcp_tool_trigger(**tool_trigger(GET_CHAIN))
@app.durable_client_input(client_name="client")
@app.blob_input(arg_name="existing", path=CHAIN_BLOB, connection=STORAGE)
async def get_chain(call: str, client: df.DurableOrchestrationClient, existing: func.InputStream) -> str:
    _, get = chain_tools(house.service, BoundChain(existing))
    return await answer(call, house, get, client)


@app.mcp_prompt_trigger(
    arg_name="call",
    prompt_name=house.prompts[0].name,
    title=house.prompts[0].title,
    description=house.prompts[0].description,
    prompt_arguments=[func.PromptArgument(name, what, required=False) for name, what in house.prompts[0].arguments],
)
def mine_demo_chain(call: func.PromptInvocationContext) -> str:
    return house.prompts[0].text(call.arguments)


@app.mcp_resource_trigger(**mining_app_trigger())
def mining_app(call: str) -> str:
    return mining_app_html()


# --- The durable workflow


@app.orchestration_trigger(context_name="context")
def mine_chain(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield from engine.orchestrate(context))


@app.activity_trigger(input_name="request")
def mine_block(request: dict) -> dict:  # type: ignore[type-arg]  # the worker takes nothing more precise
    # Synchronous: it runs in the worker's thread pool, and mining releases the GIL.
    return dict(engine.run(request))


# --- MCP for clients and plans without the extension: the official SDK's server at /api/mcp

gateway = Gateway(lambda: mining_house(work, engine, settings, BlobChains(os.environ)))


@app.route(route="mcp", methods=["GET", "POST", "DELETE"], trigger_arg_name="request")
@app.durable_client_input(client_name="client")
async def mcp_gateway(request: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    response: func.HttpResponse = await gateway.handle(request, client)
    return response
