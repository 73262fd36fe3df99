"""Counting primes on Azure Functions: `func start` in this folder."""

import asyncio
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from pow.azure.host import invocation_seconds, longest_wait
from pow.azure.triggers import bind_tools
from pow.longwork.engines.durable_functions import DurableFunctionsEngine
from pow.settings import Settings
from primes import PrimesWork, primes_house  # type: ignore[attr-defined]  # the file beside this one

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
work = PrimesWork()
engine = DurableFunctionsEngine(work)
seconds = invocation_seconds(Path(__file__).parent, os.environ)
settings = Settings.from_environment().waiting_at_most(longest_wait(seconds))

bind_tools(app, primes_house(work, engine, settings), seconds)


@app.orchestration_trigger(context_name="context")
def count_primes(context: df.DurableOrchestrationContext) -> Generator[Any, Any, Any]:
    return (yield from engine.orchestrate(context))


@app.activity_trigger(input_name="request")
@app.durable_client_input(client_name="client")
async def step(request: dict, client: df.DurableOrchestrationClient) -> dict:  # type: ignore[type-arg]
    # In a thread: the tools' calls go on meanwhile. (The worker takes no more precise types.)
    return dict(await asyncio.to_thread(engine.run, request, client))
