"""What a tool's function is given by the MCP extension, and what it gives back, without any package of Azure."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from callers import AUTHENTICATED, OBJECT, SIGNED_IN

from pow.azure.host import invocation_seconds
from pow.azure.triggers import Call, answer, bind_tools, mining_app_answer, tool_trigger
from pow.errors import InvalidArgument
from pow.identity.callers import Identities
from pow.longwork.call import CallContext
from pow.longwork.engines.durable_functions import DurableFunctionsEngine
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.chain_store import FolderChains
from pow.tools.composition import House, mining_house
from pow.tools.declarations import Handler, Tool
from pow.tools.mining import MINING_APP_URI, mining_work

pytestmark = pytest.mark.anyio


def call(name: str = "start_mining", **fields: Any) -> str:
    return json.dumps({"name": name, **fields})


async def echo(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"status": "completed", **arguments}


def house_with(settings: Settings) -> House:
    """A house whose callers the platform has authenticated. Its pool never starts a thread."""
    work = mining_work(MinerPool(1), settings)
    house = mining_house(work, DurableFunctionsEngine(work), settings, FolderChains(Path("unused")))
    return replace(house, identities=Identities(None, AUTHENTICATED))


HOUSE = house_with(Settings())


def tool_that(does: Handler = echo, name: str = "start_mining") -> Tool:
    """A tool of the house that does something else."""
    tool = HOUSE.tool(name)
    assert tool is not None
    return replace(tool, handler=does)


# Calls


def test_a_call_has_its_arguments_and_its_headers_in_lower_case() -> None:
    headers = {"X-MS-CLIENT-PRINCIPAL": "abc", "accept": "application/json,text/event-stream"}
    transport = {"name": "http-streamable", "sessionId": None, "properties": {"headers": headers}}

    parsed = Call.from_json(call(arguments={"difficulty": 8}, sessionid="1", clientinfo={}, transport=transport))

    assert parsed == Call(
        "start_mining",
        {"difficulty": 8},
        {"x-ms-client-principal": "abc", "accept": "application/json,text/event-stream"},
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"arguments": None, "transport": None},
        {"transport": {"name": "unknown"}},
        {"transport": {"name": "unknown", "properties": None}},
        {"transport": {"name": "unknown", "properties": {"headers": None}}},
    ],
    ids=str,
)
def test_a_call_without_arguments_and_headers_has_empty_ones(fields: dict[str, Any]) -> None:
    assert Call.from_json(call(**fields)) == Call("start_mining", {}, {})


# Answers


def unwrapped(text: str) -> dict[str, Any]:
    """The result in an answer, whose envelope is the McpToolResult of the extension: JSON texts in a JSON text."""
    envelope = json.loads(text)
    assert envelope.keys() == {"type", "content"}
    assert envelope["type"] == "call_tool_result"
    assert isinstance(envelope["content"], str)
    result: dict[str, Any] = json.loads(envelope["content"])
    return result


async def answered(tool: Tool, **arguments: Any) -> dict[str, Any]:
    return unwrapped(await answer(call(tool.name, arguments=arguments), HOUSE, tool))


async def said(tool: Tool, **arguments: Any) -> str:
    """What is wrong with a call."""
    result = await answered(tool, **arguments)
    assert result.keys() == {"content", "isError"}
    assert result["isError"] is True
    (content,) = result["content"]
    assert content["type"] == "text"
    return str(content["text"])


async def test_a_result_comes_as_text_and_as_structure() -> None:
    result = await answered(tool_that(), genesis="größe 🧱")

    expected = {"status": "completed", "genesis": "größe 🧱"}
    assert result["structuredContent"] == expected
    (content,) = result["content"]
    assert content["type"] == "text"
    assert json.loads(content["text"]) == expected
    assert "größe 🧱" in content["text"]
    assert result["isError"] is False
    assert result.keys() == {"content", "structuredContent", "isError"}


async def test_an_argument_that_is_null_reaches_the_tool_as_none() -> None:
    result = await answered(tool_that(), difficulty=None)

    assert result["structuredContent"] == {"status": "completed", "difficulty": None}


async def test_a_tool_hears_who_calls_with_which_headers_by_which_client() -> None:
    heard: list[CallContext] = []

    async def listen(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        heard.append(call)
        return {}

    client = object()
    headers = {name.title(): value for name, value in SIGNED_IN.items()}
    transport = {"name": "http-streamable", "properties": {"headers": headers}}
    await answer(call(transport=transport), HOUSE, tool_that(listen), client)
    await answer(call(), HOUSE, tool_that(listen), client)

    zoe, nobody = heard
    assert (zoe.caller, zoe.client, zoe.wait_seconds) == (OBJECT, client, None)
    assert zoe.headers == {name.lower(): value for name, value in SIGNED_IN.items()}
    assert nobody == CallContext(client=client)


async def test_an_unknown_argument_is_a_fault_that_names_the_known_ones() -> None:
    fault = await said(tool_that(), dificulty=8)

    assert fault.startswith("start_mining has no argument 'dificulty'; it takes difficulty, blocks, genesis")


async def test_a_tools_own_keywords_are_no_arguments() -> None:
    assert "has no argument 'report'" in await said(tool_that(), report=1)


async def test_a_missing_argument_is_a_fault_that_says_what_it_is() -> None:
    assert await said(tool_that(name="get_mining_result")) == (
        "get_mining_result needs the argument 'workflow_id': The workflow_id that start_mining returned."
    )


async def test_a_tool_is_called_in_any_case_of_its_name_as_the_extension_finds_it() -> None:
    text = call("Start_Mining", arguments={"blocks": 2})

    assert unwrapped(await answer(text, HOUSE, tool_that()))["structuredContent"] == {
        "status": "completed",
        "blocks": 2,
    }


async def test_what_pow_raises_on_purpose_reaches_the_agent_in_its_own_words() -> None:
    async def refuse(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise InvalidArgument("difficulty must be an integer from 1 to 40, not 41")

    assert await said(tool_that(refuse)) == "difficulty must be an integer from 1 to 40, not 41"


async def test_any_other_exception_is_the_hosts() -> None:
    async def fail(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RuntimeError("a secret of the function")

    with pytest.raises(RuntimeError, match="a secret of the function"):
        await answer(call(), HOUSE, tool_that(fail))


# Triggers


def test_a_trigger_carries_the_limits_of_the_settings() -> None:
    tool = house_with(Settings(max_difficulty=25, mining_difficulty=7, max_blocks=9)).tool("start_mining")
    assert tool is not None
    declared = tool_trigger(tool)

    properties = json.loads(declared["inputSchema"])["properties"]
    assert (properties["difficulty"]["maximum"], properties["difficulty"]["default"]) == (25, 7)
    assert (properties["blocks"]["maximum"], properties["blocks"]["default"]) == (9, 4)


def test_a_trigger_names_the_page_of_a_tool_that_has_one() -> None:
    assert json.loads(tool_trigger(tool_that())["metadata"]) == {"ui": {"resourceUri": MINING_APP_URI}}
    assert "metadata" not in tool_trigger(tool_that(name="cancel_mining"))


class App:
    """The two decorators of a DFApp that tools are bound by."""

    def __init__(self) -> None:
        self.functions: dict[str, Any] = {}
        self.clients: dict[str, str] = {}

    def durable_client_input(self, client_name: str) -> Any:
        def decorate(function: Any) -> Any:
            self.clients[function.__name__] = client_name
            return function

        return decorate

    def mcp_tool_trigger(self, **declared: Any) -> Any:
        def decorate(function: Any) -> Any:
            assert (function.__name__, declared["arg_name"]) == (declared["tool_name"], "call")
            self.functions[function.__name__] = function
            return function

        return decorate


async def test_each_tool_is_bound_to_a_function_of_its_name_with_a_client() -> None:
    app = App()
    tools = tuple(replace(tool, handler=echo) for tool in HOUSE.tools)
    bind_tools(app, replace(HOUSE, tools=tools))

    names = [tool.name for tool in HOUSE.tools]
    assert list(app.functions) == names
    assert app.clients == dict.fromkeys(names, "client")
    arguments = {"workflow_id": "a", "chain": {}, "name": "a"}
    for tool in tools:
        given = {name: value for name, value in arguments.items() if name in tool.input_schema["properties"]}
        result = unwrapped(await app.functions[tool.name](call(tool.name, arguments=given), client=object()))
        assert result["structuredContent"] == {"status": "completed", **given}


async def test_a_call_that_takes_too_long_is_ended_with_a_sentence() -> None:
    async def never(call: CallContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        await asyncio.Event().wait()
        return {}

    result = unwrapped(await answer(call(), HOUSE, tool_that(never), seconds=0.05))
    assert result["isError"]
    (content,) = result["content"]
    assert content["text"] == (
        "The call took longer than the 0.05 s that this host has for one, and was ended. Workflows that were started "
        "go on: list_minings has them."
    )


def test_the_page_is_answered_with_its_policy_and_its_border() -> None:
    contents = json.loads(json.loads(mining_app_answer())["content"])
    assert (contents["uri"], contents["mimeType"]) == (MINING_APP_URI, "text/html;profile=mcp-app")
    assert contents["_meta"]["ui"]["prefersBorder"] is True
    assert contents["text"].startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("host_json", "override", "seconds"),
    [
        ('{"functionTimeout": "00:05:00"}', None, 230.0),
        ('{"functionTimeout": "00:02:00"}', None, 96.0),
        ('{"functionTimeout": "00:02:00"}', "00:00:10", 8.0),
        ('{"functionTimeout": "1.00:00:00"}', None, 230.0),
        ('{"functionTimeout": "-1"}', None, 230.0),
        ("{}", None, 230.0),
        ("", None, 230.0),
    ],
    ids=str,
)
def test_an_invocation_has_less_time_than_the_host_grants(
    tmp_path: Path, host_json: str, override: str | None, seconds: float
) -> None:
    (tmp_path / "host.json").write_text(host_json)
    environment = {} if override is None else {"AzureFunctionsJobHost__functionTimeout": override}
    assert invocation_seconds(tmp_path, environment) == seconds
