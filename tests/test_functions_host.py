"""The test host for Functions apps behaves as Azure's does, as far as apps can tell: bindings, MCP, HTTP, blobs."""

import asyncio
import json
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azurite import Azurite, AzuriteMissing
from functions_host.configuration import HostConfiguration
from functions_host.errors import HostError
from functions_host.mcp_front import McpFront
from functions_host.runtime_wheels import runtime_folder
from functions_host.values import FunctionMetadata, Reply
from functions_process import FunctionsProcess, declared_functions, missing, start_azurite
from mcp import MCPError
from python_process import HANG_SECONDS
from sample_host import MODES, SAMPLE, Host, sample, start, text

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with sample() as running:
        yield running


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with start_azurite() as running:
        yield running


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


@MODES
async def test_the_server_is_named_as_host_json_says(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("sample", "7.8.9")
        assert client.instructions == "Try everything."


@MODES
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


@MODES
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


@MODES
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


@MODES
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
            for tool_name in ("load", "save"):
                refused = await client.call_tool(tool_name, {"name": "../x", "text": "t"})
                assert refused.is_error
                (content,) = refused.content
                assert content.type == "text"
                assert content.text == f"An error occurred invoking '{tool_name}'."


async def test_a_blob_without_a_connection_fails_the_call(host: Host) -> None:
    async with host.client() as client:
        result = await client.call_tool("load", {"name": "x"})
    assert result.is_error
    assert "Storage account connection string 'AzureWebJobsStorage' does not exist" in host.log()


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
