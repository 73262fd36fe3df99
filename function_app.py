"""The Azure Functions app: the MCP tools and the durable workflow, bound to triggers, and nothing else.

What the tools do is in `pow`, which the self-hosted server shares. A tool starts the workflow and waits
for it within a budget; the workflow mines block by block in slices; an activity mines a slice on all
cores. For long work of your own, put it in the place of `mining_work`: see docs/your-own-work.md.
"""

import asyncio
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from pow import __version__
from pow.azure.gateway import GATEWAY_METHODS, Gateway
from pow.azure.host import invocation_seconds, longest_wait
from pow.azure.triggers import bind_tools, mining_app_answer, mining_app_trigger
from pow.longwork.engines.driver import SLICE_SECONDS
from pow.longwork.engines.durable_functions import DurableFunctionsEngine
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.blob_chains import BlobChains
from pow.tools.chain_store import LateChains
from pow.tools.composition import mining_house
from pow.tools.mining import mining_work

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

seconds = invocation_seconds(Path(__file__).parent, os.environ)
settings = Settings.from_environment().waiting_at_most(longest_wait(seconds))
pool = MinerPool(settings.mining_threads)
work = mining_work(pool, settings)
engine = DurableFunctionsEngine(work, width=settings.mining_fan_out, slice_seconds=min(SLICE_SECONDS, seconds / 2))
# Made at the first chain that is saved or read: the SDK of Blob Storage takes a third of a second to import.
chains = LateChains(lambda: BlobChains(os.environ))
house = mining_house(work, engine, settings, chains)

# A package without the native wheel would mine many times slower in silence: this is where it shows. Printed, since
# the host drops what is logged outside of an invocation.
slow = ": SLOW, there are no native kernels in this package" if pool.backend == "hashlib" else ""
print(f"pow-mcp {__version__} mines with backend {pool.backend} on {pool.threads} thread(s){slow}", flush=True)


# --- The MCP tools: start_mining, get_mining_result and the others, a function each

bind_tools(app, house, seconds)


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
    return mining_app_answer()


# --- The durable workflow


@app.orchestration_trigger(context_name="context")
def mine_chain(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield from engine.orchestrate(context))


@app.activity_trigger(input_name="request")
@app.durable_client_input(client_name="client")
async def mine_block(request: dict, client: df.DurableOrchestrationClient) -> dict:  # type: ignore[type-arg]
    # In a thread, since mining releases the GIL: the tools' calls go on. (The worker takes no more precise types.)
    return dict(await asyncio.to_thread(engine.run, request, client))


# --- MCP for clients and plans without the extension: the official SDK's server at /api/mcp

gateway = Gateway(house, seconds=seconds, allowed_hosts=settings.allowed_hosts)


@app.route(route="mcp", methods=GATEWAY_METHODS, trigger_arg_name="request")
@app.durable_client_input(client_name="client")
async def mcp_gateway(request: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    response: func.HttpResponse = await gateway.handle(request, client)
    return response
