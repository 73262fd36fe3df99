"""The test host for Functions apps behaves like the host on Azure, as far as apps can tell."""

import asyncio
import json
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azurite import Azurite, AzuriteMissing
from functions_host.configuration import HostConfiguration
from functions_host.errors import HostError
from functions_host.history import task_scheduled, timestamp
from functions_host.mcp_front import McpFront
from functions_host.replay import ReplayError, replay
from functions_host.runtime_wheels import runtime_folder
from functions_host.worker import FunctionMetadata, Reply
from functions_process import FunctionsProcess, declared_functions, missing, start_azurite
from mcp import Client, MCPError
from python_process import HANG_SECONDS

pytestmark = pytest.mark.anyio

SAMPLE = Path(__file__).parent / "functions_host" / "sample_app"
REVISIONS = pytest.mark.parametrize("mode", ["legacy", "auto"], ids=["2025-11-25", "2026-07-28"])
TASK_SCHEDULED, TASK_COMPLETED, TIMER_CREATED, TIMER_FIRED = 4, 5, 10, 11

Host = FunctionsProcess


def sample(*arguments: str, **options: Any) -> Host:
    return FunctionsProcess(SAMPLE, *arguments, SampleHub="hub", **options)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with sample() as running:
        yield running


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with start_azurite() as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "host" in request.fixturenames:
        off = {"deliver_twice": False, "record_both": False, "pause": False, "fire_cancelled_timers": False}
        counts = {"lose_next": 0, "lose_for_good": 0, "fail_next": 0, "keep_error_tail": False}
        request.getfixturevalue("host").admin("POST", "/test/faults", off | counts)


async def text(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    (content,) = result.content
    assert content.type == "text"
    return content.text


def start(host: Host, orchestrator: str, argument: Any = None) -> str:
    started = host.admin("POST", "/test/start", {"orchestrator": orchestrator, "input": argument})
    instance_id: str = started["id"]
    return instance_id


async def run(host: Host, orchestrator: str, argument: Any = None) -> dict[str, Any]:
    return await host.until_ended(start(host, orchestrator, argument))


def events(instance: dict[str, Any], kind: int) -> list[dict[str, Any]]:
    return [event for event in instance["history"] if event["EventType"] == kind]


def outcomes(instance: dict[str, Any]) -> list[str]:
    return [activity["outcome"] for activity in instance["activities"]]


# The app and its bindings


def test_the_bindings_that_an_app_declares_can_be_listed_without_serving_it() -> None:
    declared = declared_functions(SAMPLE)

    assert [binding["type"] for binding in declared["load"]] == ["blob", "mcpToolTrigger"]
    assert declared["load"][0]["path"] == "notes/{mcptoolargs.name}.txt"
    assert declared["chain"] == [{"direction": "IN", "type": "orchestrationTrigger", "name": "context"}]


def app_with(tmp_path: Path, body: str, host_json: dict[str, Any] | None = None) -> Path:
    (tmp_path / "function_app.py").write_text(f"import azure.functions as func\napp = func.FunctionApp()\n{body}")
    bundle = {"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.36.0, 5.0.0)"}
    document = {"version": "2.0", "extensionBundle": bundle} if host_json is None else host_json
    (tmp_path / "host.json").write_text(json.dumps(document))
    return tmp_path


TOOL = """
@app.mcp_tool_trigger(arg_name='context', tool_name='t')
def t(context: str) -> str:
    return ''
"""


def tool(name: str = "f", **fields: Any) -> FunctionMetadata:
    return FunctionMetadata(name, name, ({"type": "mcpToolTrigger", "name": "context", "toolName": "t", **fields},))


def prompt(arguments: str) -> FunctionMetadata:
    trigger = {"type": "mcpPromptTrigger", "name": "context", "promptName": "p", "promptArguments": arguments}
    return FunctionMetadata("f", "f", (trigger,))


@pytest.mark.parametrize(
    ("functions", "sentence"),
    [
        ([tool(useWorkerInputSchema=True)], "inputSchema is null or invalid"),
        ([tool(useWorkerInputSchema=True, inputSchema="[]")], 'must be an object of "type": "object"'),
        (
            [tool(useWorkerInputSchema=True, inputSchema='{"type": "object", "properties": []}')],
            "properties must be an object",
        ),
        (
            [tool(useWorkerInputSchema=True, inputSchema='{"type": "object", "required": "a"}')],
            "required must be an array",
        ),
        ([tool(outputSchema='{"type": "array"}')], 'must be an object of "type": "object"'),
        ([tool(outputSchema="{")], "outputSchema must be valid JSON"),
        ([tool(outputSchema={"type": "object"})], "outputSchema must be text"),
        ([tool(useResultSchema="yes")], "useResultSchema must be true or false, not 'yes'"),
        ([tool(metadata="[1]")], "metadata must be a JSON object"),
        ([tool(toolName=" ")], "toolName is missing"),
        ([tool(toolProperties='[{"propertyType": "string"}]')], "has a property without propertyName"),
        (
            [tool(toolProperties='[{"propertyName": "a", "propertyType": "int"}]')],
            "gives a the propertyType 'int'; it must be one of",
        ),
        (
            [tool(toolProperties='[{"propertyName": "a", "propertyType": "string", "isRequired": "yes"}]')],
            "gives a a isrequired that is no boolean: 'yes'",
        ),
        ([tool(), tool("g", toolName="T")], "function g: the name 'T' is already registered"),
        ([prompt("{}")], "promptArguments must be a JSON list"),
        ([prompt('[{"required": true}]')], "has an argument without a name"),
        ([prompt('[{"name": "a"}, {"name": "a"}]')], "promptArguments names a twice"),
    ],
    ids=str,
)
def test_mcp_bindings_that_the_extension_would_misread_are_refused_with_a_sentence(
    functions: list[FunctionMetadata], sentence: str
) -> None:
    async def invoke(*_: object) -> Reply:
        return Reply()

    with pytest.raises(HostError) as refused:
        McpFront(functions, invoke)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            "@app.timer_trigger(arg_name='t', schedule='* * * * * *')\ndef f(t: func.TimerRequest) -> None: ...",
            "no timerTrigger",
        ),
        (
            TOOL.replace("tool_name='t'", "tool_name='t', useResultSchema='yes'"),
            "useResultSchema must be true or false",
        ),
        ("raise ValueError('while importing')", "ValueError: while importing"),
        ("", "the app has no functions"),
    ],
)
def test_an_app_that_cannot_be_hosted_is_refused_with_a_sentence(tmp_path: Path, body: str, sentence: str) -> None:
    with pytest.raises(AssertionError) as refused:
        FunctionsProcess(app_with(tmp_path, body))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({}, '"version" must be "2.0", not None'),
        ({"version": "2.0", "extensionBundle": {"id": "x", "version": "1"}}, "extensionBundle needs an id"),
    ],
)
def test_a_host_json_that_azure_would_not_take_is_refused(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HostError) as refused:
        HostConfiguration(document, {})
    assert sentence in str(refused.value)


def test_a_trigger_of_an_extension_needs_the_bundle(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"mcpToolTrigger needs host\.json's extensionBundle"):
        FunctionsProcess(app_with(tmp_path, TOOL, {"version": "2.0"}))


def test_app_settings_override_host_json_in_any_case_of_its_keys() -> None:
    settings = {"AzureFunctionsJobHost__extensions__durableTask__hubName": "%Hub%x", "Hub": "a"}
    configuration = HostConfiguration({"version": "2.0", "Extensions": {"DurableTask": {"HubName": "z"}}}, settings)

    assert configuration.get("extensions", "durableTask", "hubName") == "ax"
    with pytest.raises(HostError, match="must be a whole number from 1 on, not 'ax'"):
        configuration.integer("extensions", "durableTask", "hubName", default=1)
    with pytest.raises(HostError, match="there is no app setting Other"):
        configuration.resolve("%Other%")


def test_app_settings_come_from_the_environment_and_then_from_local_settings(tmp_path: Path) -> None:
    body = """
import os
@app.route(route="settings", auth_level=func.AuthLevel.ANONYMOUS)
def settings(req: func.HttpRequest) -> str:
    return os.environ["One"] + os.environ["Two"]
"""
    (tmp_path / "local.settings.json").write_text('{"IsEncrypted": false, "Values": {"One": "1", "Two": "2"}}')
    with FunctionsProcess(app_with(tmp_path, body), Two="3") as host:
        assert host.request("GET", "/api/settings")[2] == b"13"
    (tmp_path / "local.settings.json").write_text('{"Values": {"One": 1}}')
    with pytest.raises(AssertionError, match="One must be text, not 1"):
        FunctionsProcess(tmp_path)


def test_a_task_hub_without_its_setting_stops_the_start() -> None:
    with pytest.raises(AssertionError, match="there is no app setting SampleHub"):
        FunctionsProcess(SAMPLE)


def test_sigterm_ends_it_cleanly_even_while_an_activity_runs() -> None:
    with sample() as host:
        start(host, "race", [60, 60])
        assert host.signal(signal.SIGTERM) == 0


# MCP


@REVISIONS
async def test_the_server_is_named_as_host_json_says(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("sample", "7.8.9")
        assert client.instructions == "Try everything."


@REVISIONS
async def test_tools_have_the_schemas_that_their_bindings_declare(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert tools["greet"].description == "Greet somebody."
    assert tools["greet"].input_schema == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Whom to greet."},
            "times": {"type": "integer", "description": "How often."},
        },
        "required": ["name"],
    }
    assert tools["headers"].input_schema["properties"]["tags"]["type"] == "array"
    assert tools["add"].input_schema["required"] == ["terms"]
    assert tools["add"].output_schema is not None
    assert tools["add"].output_schema["required"] == ["sum"]
    assert tools["add"].meta == {"example/shown": {"in": "bold"}}


@REVISIONS
async def test_a_tool_answers_in_text_and_in_structure(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        once = await client.call_tool("greet", {"name": "Ada"})
        twice = await client.call_tool("greet", {"name": "Ada", "times": 2})
        added = await client.call_tool("add", {"terms": [1, 2, 3]})

    assert once.structured_content == {"text": "Hello Ada!"}
    assert twice.structured_content == {"text": "Hello Ada! Hello Ada!"}
    (content,) = once.content
    assert content.type == "text"
    assert json.loads(content.text) == once.structured_content
    assert added.structured_content == {"sum": 6}


@REVISIONS
async def test_a_failed_function_tells_the_client_no_more_than_that(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        result = await client.call_tool("fail", {})

    assert result.is_error
    (content,) = result.content
    assert content.type == "text"
    assert content.text == "An error occurred invoking 'fail'."
    assert "a secret of the function" in host.log()


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("greet", {}, "One or more required tool properties are missing values. Please provide: name"),
        ("greet", {"name": None}, "One or more required tool properties are missing values. Please provide: name"),
        ("add", {}, "One or more required tool properties are missing values. Please provide: terms"),
        ("nothing", {}, "Unknown tool: 'nothing'"),
    ],
)
async def test_a_call_that_cannot_be_bound_is_an_error_of_the_protocol(
    host: Host, name: str, arguments: dict[str, Any], sentence: str
) -> None:
    async with host.client() as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool(name, arguments)
    assert (refused.value.code, refused.value.message) == (-32602, sentence)


async def test_a_function_gets_its_call_and_the_headers_as_the_extension_writes_them(host: Host) -> None:
    async with host.client(headers={"x-ms-client-principal-name": "ada@example.org"}) as client:
        context = json.loads(await text(client, "headers", tags=["a", "b"]))

    assert (context["name"], context["arguments"]) == ("headers", {"tags": ["a", "b"]})
    assert context["transport"]["name"] == "http-streamable"
    headers = context["transport"]["properties"]["headers"]
    assert headers["X-MS-CLIENT-PRINCIPAL-NAME"] == "ada@example.org"
    assert headers["Content-Type"] == "application/json"


async def test_a_tool_that_blocks_the_worker_blocks_every_other_tool_but_not_the_host(host: Host) -> None:
    async with host.client() as client:
        blocking = asyncio.create_task(text(client, "block", seconds=1.5))
        async with asyncio.timeout(HANG_SECONDS):
            while "Function name: block" not in host.log():
                await asyncio.sleep(0.02)
        other = asyncio.create_task(text(client, "greet", name="Ada"))
        assert await asyncio.to_thread(host.admin, "GET", "/test/instances") is not None
        assert not blocking.done()
        assert not other.done()
        assert await blocking == "unblocked"
        await other


@REVISIONS
async def test_prompts_take_their_arguments(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        (prompt,) = (await client.list_prompts()).prompts
        got = await client.get_prompt("advise", {"topic": "chess"})
        with pytest.raises(MCPError, match=r"required prompt arguments are missing values\. Please provide: topic"):
            await client.get_prompt("advise", {})

    assert (prompt.name, prompt.title, prompt.description) == ("advise", "Advice", "Ask for advice.")
    assert prompt.arguments is not None
    assert [(argument.name, argument.required) for argument in prompt.arguments] == [("topic", True)]
    (message,) = got.messages
    assert message.role == "user"
    assert message.content.type == "text"
    assert message.content.text == "Give advice about chess."


async def test_the_webhook_asks_for_the_key_unless_host_json_says_anonymous() -> None:
    with sample(key="k3y") as host:
        assert host.request("POST", "/runtime/webhooks/mcp", b"{}")[0] == 401
        assert host.request("POST", "/runtime/webhooks/mcp", b"{}", {"x-functions-key": "other"})[0] == 401
        async with host.client() as client:
            assert await text(client, "greet", name="Ada")

    anonymous = "AzureFunctionsJobHost__extensions__mcp__system__webhookAuthorizationLevel"
    with sample(key="k3y", **{anonymous: "Anonymous"}) as host:
        assert host.request("POST", "/runtime/webhooks/mcp", b"{}")[0] != 401


# HTTP


async def test_http_triggers_pass_bytes_headers_and_routes_both_ways() -> None:
    with sample(key="k3y") as host:
        assert host.request("POST", "/api/echo/part", b"x")[0] == 401
        body = bytes(range(256))
        sent = {"x-sample": "s", "x-functions-key": "k3y"}
        status, headers, answer = host.request("POST", "/api/echo/some?a=1", body, sent)
        by_query = host.request("POST", "/api/echo/some?code=k3y", body)
        everybody = host.request("GET", "/api/open")

    assert (status, headers["x-answer"]) == (201, "yes")
    assert json.loads(answer) == {"part": "some", "query": {"a": "1"}, "header": "s", "body": body.hex()}
    assert by_query[0] == 201
    assert (everybody[0], everybody[2]) == (200, b"\x00\xff")


# Blobs


async def test_blobs_come_and_go_by_the_arguments_of_the_call(azurite: Azurite) -> None:
    name = uuid.uuid4().hex
    with sample(azurite=azurite.connection_string) as host:
        async with host.client() as client:
            assert await text(client, "load", name=name) == "no such note"
            assert await text(client, "save", name=name, text="grüezi") == "saved"
            assert await text(client, "load", name=name) == "str: grüezi"
            assert await text(client, "save", name=name, text="again") == "saved"
            assert await text(client, "load", name=name) == "str: again"


async def test_a_blob_without_a_connection_fails_the_call(host: Host) -> None:
    async with host.client() as client:
        result = await client.call_tool("load", {"name": "x"})
    assert result.is_error
    assert "Storage account connection string 'AzureWebJobsStorage' does not exist" in host.log()


# Orchestrations


async def test_the_durable_client_starts_asks_stops_and_forgets(host: Host) -> None:
    instance_id, endless = str(uuid.uuid4()), str(uuid.uuid4())
    async with host.client() as client:
        assert await text(client, "status", id=instance_id) == "unknown"
        job = json.dumps({"start": 5, "steps": 3})
        assert await text(client, "start", orchestrator="chain", id=instance_id, argument=job) == instance_id
        await host.until_ended(instance_id)
        done = json.loads(await text(client, "status", id=instance_id))
        assert done == {"status": "Completed", "input": job, "output": {"value": 40}, "custom": {"step": 2}}

        await text(client, "start", orchestrator="race", id=endless, argument="[1, 100]")
        running = json.loads(await text(client, "status", id=endless))
        assert running["status"] in ("Pending", "Running")
        assert await text(client, "stop", id=endless) == "stopped"
        stopped = await host.until_ended(endless)
        assert json.loads(await text(client, "status", id=endless))["output"] == "because"
        assert await text(client, "purge", id=endless) == "1"
        assert await text(client, "status", id=endless) == "unknown"

        unknown = await client.call_tool("start", {"orchestrator": "nothing", "id": "x"})
        assert unknown.is_error
    assert stopped["runtimeStatus"] == "Terminated"
    assert "The function 'nothing' doesn't exist" in host.log()


@pytest.mark.parametrize("schema", ["1", "2", "3"])
async def test_every_version_of_the_answers_form_is_understood(schema: str) -> None:
    with sample("--schema-version", schema) as host:
        chained = await run(host, "chain", {"start": 1, "steps": 3})
        fanned = await run(host, "everything", [1, 2, 3, 4, 5])
        raced = await run(host, "race", [0.01, 60])
    assert chained["output"] == {"value": 8}
    assert fanned["output"] == [2, 4, 6, 8, 10]
    assert raced["output"] == {"winner": "rest", "doubled": 42}


async def test_a_history_is_written_as_dtfx_does(host: Host) -> None:
    instance = await run(host, "chain", {"start": 1, "steps": 2})

    assert [event["EventType"] for event in instance["history"]] == [12, 0, 4, 13, 12, 5, 4, 13, 12, 5, 1, 13]
    assert [event["EventId"] for event in events(instance, TASK_SCHEDULED)] == [0, 1]
    assert [event["TaskScheduledId"] for event in events(instance, TASK_COMPLETED)] == [0, 1]
    assert all(event["IsPlayed"] for event in instance["history"])
    assert instance["episodes"] == 3


async def test_no_more_activities_run_at_once_than_host_json_allows() -> None:
    with sample() as three, sample("--max-activities", "1") as one:
        for host in (three, one):
            await run(host, "window", {"seconds": [0.11, 0.12, 0.13, 0.14, 0.15], "width": 5, "timers": False})
        most = [host.admin("GET", "/test/state")["most_activities_at_once"] for host in (three, one)]
    assert most == [3, 1]


async def test_a_timer_fires_and_a_cancelled_one_does_not(host: Host) -> None:
    slow = await run(host, "race", [2.0, 0.2])
    fast = await run(host, "race", [0.1, 0.5, 1.0])

    assert slow["output"] == {"winner": "timer", "doubled": 42}
    assert [event["TimerId"] for event in events(slow, TIMER_FIRED)] == [1]
    assert fast["output"] == {"winner": "rest", "doubled": 42}
    assert len(events(fast, TIMER_CREATED)) == 1
    assert events(fast, TIMER_FIRED) == []


async def test_the_answer_of_an_abandoned_activity_enters_the_history_while_the_instance_runs(host: Host) -> None:
    instance = await run(host, "race", [0.5, 0.1, 1.0])

    assert instance["output"] == {"winner": "timer", "doubled": 42}
    assert [event["TaskScheduledId"] for event in events(instance, TASK_COMPLETED)] == [0, 2, 3]


async def test_what_follows_a_task_any_waits_for_a_new_task_of_it_unless_a_cancelled_timer_is_there(
    host: Host,
) -> None:
    """When 0.3 has ended, a free place is there for 0.11, but the extension still waits for 1.5, the newest."""
    job = {"seconds": [0.1, 0.3, 1.5, 0.11], "width": 2}
    plain = await run(host, "window", {**job, "timers": False})
    timed = await run(host, "window", {**job, "timers": True})

    assert plain["output"] == [0.1, 0.3, 1.5, 0.11]
    assert timed["output"] == [0.1, 0.3, 0.11, 1.5]
    assert (len(events(timed, TIMER_CREATED)), len(events(timed, TIMER_FIRED))) == (4, 0)


async def test_continue_as_new_begins_a_history_of_its_own_and_drops_the_answers_of_the_old_one(host: Host) -> None:
    instance = await run(host, "count_down", 3)

    assert (instance["output"], instance["executions"], instance["customStatus"]) == ("done", 4, 1)
    inputs = [json.loads(json.loads(history[1]["Input"])) for history in instance["histories"]]
    assert inputs == [3, 2, 1, 0]
    assert all(history[2]["EventId"] == 0 for history in instance["histories"][:3])
    known = await host.until(instance["instanceId"], lambda found: "running" not in outcomes(found))
    assert Counter(activity["name"] for activity in known["activities"]) == {"rest": 3, "double": 3}
    assert {entry["outcome"] for entry in known["activities"] if entry["name"] == "double"} == {"recorded"}
    assert {entry["outcome"] for entry in known["activities"] if entry["name"] == "rest"} == {"dropped"}


async def test_terminate_ends_an_instance_at_once_and_not_its_activity(host: Host) -> None:
    instance_id = start(host, "race", [0.5, 60])
    await host.until(instance_id, lambda found: outcomes(found) == ["running"])
    assert host.request("POST", f"/durabletask/instances/{instance_id}/terminate?reason=enough")[0] == 202
    instance = await host.until_ended(instance_id)
    assert (instance["runtimeStatus"], instance["output"]) == ("Terminated", "enough")
    assert outcomes(instance) == ["running"]
    assert instance["pending_timers"] == []
    later = await host.until(instance_id, lambda found: outcomes(found) != ["running"])
    assert outcomes(later) == ["dropped"]
    assert host.request("POST", f"/durabletask/instances/{instance_id}/terminate?reason=enough")[0] == 410


async def test_failures_carry_the_texts_of_the_extension(host: Host) -> None:
    by_itself = await run(host, "fall")
    by_activity = await run(host, "fall", "too hot")
    host.admin("POST", "/test/faults", {"keep_error_tail": True})
    with_tail = await run(host, "fall", "too hot")
    too_large = await run(host, "boast")

    assert {entry["runtimeStatus"] for entry in (by_itself, by_activity, with_tail, too_large)} == {"Failed"}
    assert by_itself["output"] == "Orchestrator function 'fall' failed: no input"
    begin = "Orchestrator function 'fall' failed: Activity function 'refuse' failed:  ValueError: too hot"
    assert by_activity["output"].startswith(begin)
    assert "$OutOfProcData$" not in by_activity["output"]
    assert "\n\n$OutOfProcData$:{" in with_tail["output"]
    assert "must not exceed 16 KB" in too_large["output"]


async def test_an_input_that_is_not_what_the_orchestrator_expects_fails_it(host: Host) -> None:
    started = host.admin("POST", "/test/start", {"orchestrator": "chain", "id": "raw", "raw_input": '"{}"'})
    instance = await host.until_ended("raw")
    assert started == {"id": "raw"}
    assert instance["output"] == "Orchestrator function 'chain' failed: 'start'"


def activity(name: str) -> dict[str, Any]:
    return {"actionType": 0, "functionName": name, "input": "1"}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"actions": [[activity("other")]], "schemaVersion": 2}, "number 0 was double before and is other now"),
        (
            {"actions": [[{"actionType": 5, "fireAt": timestamp()}]], "schemaVersion": 2},
            "number 0 was double before and is a timer now",
        ),
        ({"actions": [[activity("none")]], "schemaVersion": 2}, "The function 'none' doesn't exist"),
        ({"actions": [[{"actionType": 11, "compoundActions": []}]], "schemaVersion": 2}, "contains no tasks"),
        ({"actions": [[{"actionType": 6}]], "schemaVersion": 2}, "has no action of type 6"),
        ({"actions": [[], []], "schemaVersion": 1}, "to be of length 1 in outer layer but got size: 2"),
        ({"actions": [[]], "schemaVersion": 9}, "knows no schema version 9"),
    ],
)
def test_an_answer_that_contradicts_the_history_or_asks_for_what_is_not_there_is_an_error(
    answer: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ReplayError) as refused:
        replay(answer, [task_scheduled(0, "double", "[]")], ["double", "other"])
    assert fault in str(refused.value)


# Faults


async def test_an_activity_that_is_delivered_twice_counts_once(host: Host) -> None:
    host.admin("POST", "/test/faults", {"deliver_twice": True})
    instance = await run(host, "chain", {"start": 1, "steps": 4})

    assert instance["output"] == {"value": 16}
    assert Counter(entry["task_id"] for entry in instance["activities"]) == {0: 2, 1: 2, 2: 2, 3: 2}
    pairs = [tuple(outcomes(instance)[at : at + 2]) for at in range(0, 8, 2)]
    assert sorted(map(sorted, pairs)) == [["duplicate", "recorded"]] * 4


async def test_two_answers_of_one_activity_in_the_history_do_no_harm(host: Host) -> None:
    host.admin("POST", "/test/faults", {"deliver_twice": True, "record_both": True})
    instance = await run(host, "chain", {"start": 1, "steps": 3})

    assert instance["output"] == {"value": 8}
    counts = Counter(event["TaskScheduledId"] for event in events(instance, TASK_COMPLETED))
    assert max(counts.values()) == 2


async def test_a_lost_activity_is_delivered_again_and_one_lost_for_good_is_not(host: Host) -> None:
    host.admin("POST", "/test/faults", {"lose_next": 2, "delay_seconds": 0.05})
    again = await run(host, "chain", {"start": 1, "steps": 2})
    host.admin("POST", "/test/faults", {"lose_for_good": 1})
    stuck_id = start(host, "chain", {"start": 1, "steps": 2})
    stuck = await host.until(stuck_id, lambda found: outcomes(found) == ["lost"])

    assert again["output"] == {"value": 4}
    assert outcomes(again) == ["lost", "lost", "recorded", "recorded"]
    assert stuck["runtimeStatus"] == "Running"


async def test_an_activity_fails_on_demand(host: Host) -> None:
    host.admin("POST", "/test/faults", {"fail_next": 1, "fail_message": "MemoryError: full"})
    instance = await run(host, "chain", {"start": 1, "steps": 2})

    assert instance["output"].startswith(
        "Orchestrator function 'chain' failed: Activity function 'double' failed:  MemoryError: full"
    )
    assert outcomes(instance) == ["failed"]


async def test_activities_wait_while_they_are_paused(host: Host) -> None:
    host.admin("POST", "/test/faults", {"pause": True})
    instance_id = start(host, "chain", {"start": 1, "steps": 1})
    await host.until(instance_id, lambda found: found["episodes"] == 1)
    assert host.instance(instance_id)["activities"] == []
    host.admin("POST", "/test/faults", {"pause": False})
    assert (await host.until_ended(instance_id))["output"] == {"value": 2}


async def test_a_cancelled_timer_that_fires_nevertheless_does_no_harm(host: Host) -> None:
    host.admin("POST", "/test/faults", {"fire_cancelled_timers": True})
    instance = await run(host, "race", [0.01, 0.5, 1.0])

    assert instance["output"] == {"winner": "rest", "doubled": 42}
    assert len(events(instance, TIMER_FIRED)) == 1


def test_a_fault_that_is_not_known_is_refused(host: Host) -> None:
    with pytest.raises(AssertionError, match="there is no fault"):
        host.admin("POST", "/test/faults", {"loose_next": 1})
    with pytest.raises(AssertionError, match="lose_next must be a int"):
        host.admin("POST", "/test/faults", {"lose_next": "one"})


# Without a network


def test_wheels_that_cannot_be_fetched_are_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(HostError, match=r"azure-functions-runtime==.* can't be fetched: "):
        runtime_folder(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize(("ci", "outcome"), [("", pytest.skip.Exception), ("true", pytest.fail.Exception)])
def test_what_is_missing_skips_a_test_but_fails_it_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no network"):
        missing("no network")


def test_azurite_without_node_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AzuriteMissing, match="needs Node"):
        Azurite()
