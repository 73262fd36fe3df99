"""A Functions app that uses a little of everything that the test host stands in for."""

# The SDK reads annotations itself, and takes `int | None` and `list` for text; and it is untyped.
# ruff: noqa: UP006, UP035, UP045
# mypy: ignore-errors

import asyncio
import json
import logging
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import List, Optional

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

log = logging.getLogger("sample")
print("printed at import")
log.error("logged at import")


@func.mcp_content
@dataclass
class Answer:
    """A result with structured content."""

    text: str


@app.mcp_tool()
@app.mcp_tool_property(arg_name="name", description="Whom to greet.", is_required=True)
@app.mcp_tool_property(arg_name="times", description="How often.", is_required=False)
async def greet(name: str, times: Optional[int] = None) -> Answer:
    """Greet somebody."""
    return Answer(text=" ".join([f"Hello {name}!"] * (times or 1)))


@app.mcp_tool()
async def fail() -> str:
    """Raise."""
    raise ValueError("a secret of the function")


@app.mcp_tool()
async def headers(context: func.MCPToolContext, tags: Optional[List[str]] = None) -> str:
    """Return the whole context."""
    return json.dumps(context)


@app.mcp_tool()
def block(seconds: float) -> str:
    """Block the worker's loop, as a tool that isn't async does."""
    time.sleep(seconds)
    return "unblocked"


@app.mcp_tool()
async def tell() -> str:
    """Print and log, by itself, in a thread of its own, and in the worker's."""
    print("printed in a tool")
    log.info("logged in a tool")
    await asyncio.create_task(_log_in_a_task())
    thread = threading.Thread(target=log.error, args=["logged in a thread"])
    thread.start()
    thread.join()
    return "told"


async def _log_in_a_task() -> None:
    log.info("logged in a task of a tool")


@app.mcp_tool_trigger(
    arg_name="context",
    tool_name="add",
    description="Add numbers.",
    useWorkerInputSchema=True,
    inputSchema='{"type": "object", "properties": {"terms": {"type": "array"}}, "required": ["terms"]}',
    outputSchema='{"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}',
    useResultSchema=True,
    metadata='{"example/shown": {"in": "bold"}}',
)
async def add(context: str) -> str:
    """A tool with schemas of its own."""
    total = sum(json.loads(context)["arguments"]["terms"])
    result = {"content": [{"type": "text", "text": str(total)}], "structuredContent": {"sum": total}}
    return json.dumps({"type": "call_tool_result", "content": json.dumps(result)})


@app.mcp_tool()
@app.mcp_tool_property(arg_name="name", description="Its name.", is_required=True)
@app.mcp_tool_property(arg_name="text", description="Its text.", is_required=True)
@app.blob_output(arg_name="blob", path="notes/{mcptoolargs.name}.txt", connection="AzureWebJobsStorage")
async def save(blob: func.Out[str], name: str, text: str) -> str:
    """Save a note."""
    blob.set(text)
    return "saved"


@app.mcp_tool()
@app.mcp_tool_property(arg_name="name", description="Its name.", is_required=True)
@app.blob_input(arg_name="blob", path="notes/{mcptoolargs.name}.txt", connection="AzureWebJobsStorage")
async def load(blob: str, name: str) -> str:
    """Load a note."""
    return "no such note" if blob is None else f"{type(blob).__name__}: {blob}"


@app.mcp_prompt_trigger(
    arg_name="context",
    prompt_name="advise",
    title="Advice",
    description="Ask for advice.",
    prompt_arguments=[func.PromptArgument("topic", "About what.", required=True)],
)
def advise(context: func.PromptInvocationContext) -> str:
    """A prompt."""
    return f"Give advice about {context.arguments['topic']}."


@app.mcp_resource_trigger(
    arg_name="context", uri="sample://plain", resource_name="plain", mime_type="text/html", metadata='{"a": 1}'
)
def plain(context: str) -> str:
    """A resource that returns its text."""
    return "<p>plain</p>"


@app.mcp_resource_trigger(
    arg_name="context", uri="sample://wrapped", resource_name="wrapped", mime_type="text/html", metadata='{"a": 1}'
)
def wrapped(context: str) -> str:
    """A resource that returns more than its text."""
    content = {"uri": "sample://wrapped", "mimeType": "text/html", "text": "<p>wrapped</p>", "_meta": {"b": 2}}
    return json.dumps({"content": json.dumps(content)})


@app.route(route="slow", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def slow(req: func.HttpRequest) -> func.HttpResponse:
    """Take some time before there is an answer."""
    print("slow has begun")
    await asyncio.sleep(0.5)
    print("slow has ended")
    return func.HttpResponse("slow")


@app.route(route="echo/{part}", methods=["POST"])
def echo(req: func.HttpRequest) -> func.HttpResponse:
    """Return the request."""
    document = {
        "part": req.route_params["part"],
        "query": dict(req.params),
        "header": req.headers.get("x-sample"),
        "body": req.get_body().hex(),
    }
    return func.HttpResponse(
        json.dumps(document), status_code=201, mimetype="application/json", headers={"x-answer": "yes"}
    )


@app.route(route="open", auth_level=func.AuthLevel.ANONYMOUS)
def everybody(req: func.HttpRequest) -> func.HttpResponse:
    """Need no key."""
    return func.HttpResponse(b"\x00\xff", mimetype="application/octet-stream")


@app.mcp_tool()
@app.mcp_tool_property(arg_name="orchestrator", description="Which.", is_required=True)
@app.mcp_tool_property(arg_name="id", description="Its id.", is_required=True)
@app.mcp_tool_property(arg_name="argument", description="JSON.", is_required=False)
@app.durable_client_input(client_name="client")
async def start(client, orchestrator: str, id: str, argument: Optional[str] = None) -> str:
    """Start an orchestration."""
    return await client.start_new(orchestrator, id, json.loads(argument) if argument else None)


@app.mcp_tool()
@app.mcp_tool_property(arg_name="id", description="Its id.", is_required=True)
@app.durable_client_input(client_name="client")
async def status(client, id: str) -> str:
    """The state of an orchestration, as the durable client has it."""
    found = await client.get_status(id, show_input=True)
    if not found:
        return "unknown"
    return json.dumps(
        {
            "status": found.runtime_status.name,
            "input": found.input_,
            "output": found.output,
            "custom": found.custom_status,
        }
    )


@app.mcp_tool()
@app.mcp_tool_property(arg_name="id", description="Its id.", is_required=True)
@app.durable_client_input(client_name="client")
async def stop(client, id: str) -> str:
    """Terminate an orchestration."""
    await client.terminate(id, "because")
    return "stopped"


@app.mcp_tool()
@app.mcp_tool_property(arg_name="id", description="Its id.", is_required=True)
@app.durable_client_input(client_name="client")
async def purge(client, id: str) -> str:
    """Forget an orchestration."""
    return str((await client.purge_instance_history(id)).instances_deleted)


@app.activity_trigger(input_name="number")
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number


@app.activity_trigger(input_name="seconds")
def rest(seconds: float) -> float:
    """Take some time."""
    time.sleep(seconds)
    return seconds


@app.activity_trigger(input_name="text")
def refuse(text: str) -> str:
    """Fail."""
    raise ValueError(text)


@app.orchestration_trigger(context_name="context")
def chain(context: df.DurableOrchestrationContext):
    """Double a number several times."""
    job = context.get_input()
    value = job["start"]
    for step in range(job["steps"]):
        context.set_custom_status({"step": step})
        value = yield context.call_activity("double", value)
    return {"value": value}


@app.orchestration_trigger(context_name="context")
def everything(context: df.DurableOrchestrationContext):
    """Fan out, and wait for all."""
    values = yield context.task_all([context.call_activity("double", number) for number in context.get_input()])
    return values


@app.orchestration_trigger(context_name="context")
def race(context: df.DurableOrchestrationContext):
    """Rest for a while, or until a timer fires; then rest again if asked to, and double a number."""
    seconds, limit, *then = context.get_input()
    resting = context.call_activity("rest", seconds)
    timer = context.create_timer(context.current_utc_datetime + timedelta(seconds=limit))
    winner = yield context.task_any([resting, timer])
    if winner is resting:
        timer.cancel()
    for again in then:
        yield context.call_activity("rest", again)
    doubled = yield context.call_activity("double", 21)
    return {"winner": "rest" if winner is resting else "timer", "doubled": doubled}


@app.orchestration_trigger(context_name="context")
def window(context: df.DurableOrchestrationContext):
    """Keep several rests in flight: each that ends makes place for the next. Returns the order of their ends."""
    job = context.get_input()
    waiting = list(job["seconds"])
    awaited, order = [], []
    while waiting or awaited:
        while waiting and len(awaited) < job["width"]:
            awaited.append((waiting[0], context.call_activity("rest", waiting.pop(0))))
        tasks = [task for _, task in awaited]
        # Cancelled at once, it lets the extension go on to what comes after this task_any.
        timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1)) if job["timers"] else None
        winner = yield context.task_any([*tasks, *([timer] if timer else [])])
        if timer:
            timer.cancel()
        order.append(next(seconds for seconds, task in awaited if task is winner))
        awaited = [(seconds, task) for seconds, task in awaited if task is not winner]
    return order


@app.orchestration_trigger(context_name="context")
def count_down(context: df.DurableOrchestrationContext):
    """Double, and begin anew with one less."""
    left = context.get_input()
    if left == 0:
        return "done"
    context.set_custom_status(left)
    # Abandoned: its answer comes when this execution has ended.
    resting = context.call_activity("rest", 0.3)
    doubling = context.call_activity("double", left)
    yield context.task_any([resting, doubling])
    context.continue_as_new(left - 1)


@app.orchestration_trigger(context_name="context")
def fall(context: df.DurableOrchestrationContext):
    """Fail by an activity, or (without an input) by itself."""
    text = context.get_input()
    if text is None:
        raise RuntimeError("no input")
    yield context.call_activity("refuse", text)


@app.orchestration_trigger(context_name="context")
def boast(context: df.DurableOrchestrationContext):
    """Set a custom status that is too large."""
    context.set_custom_status("x" * 9000)
    yield context.call_activity("double", 1)
