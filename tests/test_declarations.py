"""What a tool is declared to be: its schemas, the sentences about its arguments, and that all hosts tell the same."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired

import pytest
from functions_process import declared_functions
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from typing_extensions import TypedDict

from pow.azure.triggers import tool_trigger
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.mcp.server import mcp_server
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.chain_store import FolderChains
from pow.tools.composition import House, mining_house
from pow.tools.declarations import READS, Argument, Schema, Tool, schema_of
from pow.tools.mining import mining_work

OTHER = Settings(mining_difficulty=7, max_difficulty=9, max_blocks=3)
NAMES = (
    *("start_mining", "get_mining_result", "cancel_mining", "list_minings", "estimate_mining"),
    *("verify_chain", "save_chain", "get_chain", "whoami"),
)


def house_with(settings: Settings, pool: MinerPool) -> House:
    """The miner's house; nobody calls its tools, so its engine isn't started."""
    work = mining_work(pool, settings)
    return mining_house(work, EmbeddedEngine(work), settings, FolderChains(Path("unused")))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[MinerPool]:
    with MinerPool(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def house(one_thread: MinerPool) -> House:
    return house_with(Settings(), one_thread)


def tool_named(house: House, name: str) -> Tool:
    tool = house.tool(name)
    assert tool is not None
    return tool


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema."""
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from parts(part)


# Schemas


def test_the_house_has_these_tools(house: House) -> None:
    assert {tool.name for tool in house.tools} == set(NAMES)
    assert house.tool("mine") is None


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_an_object_with_nothing_to_look_up_elsewhere(house: House, name: str) -> None:
    tool = tool_named(house, name)

    for schema in (tool.input_schema, tool.output_schema):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert set(schema.get("required", [])) <= set(schema["properties"])
        assert not [part for part in parts(schema) if part.keys() & {"$ref", "$defs", "title"}]


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_described_and_required_or_has_a_default(house: House, name: str) -> None:
    schema = tool_named(house, name).input_schema

    for argument, declared in schema["properties"].items():
        assert declared["description"].endswith(".")
        assert (argument in schema.get("required", [])) != ("default" in declared)
        if "default" in declared:
            Draft202012Validator(declared).validate(declared["default"])


@pytest.mark.parametrize(
    ("name", "required"),
    [
        ("start_mining", []),
        ("get_mining_result", ["workflow_id"]),
        ("cancel_mining", ["workflow_id"]),
        ("list_minings", []),
        ("estimate_mining", []),
        ("verify_chain", ["chain"]),
        ("save_chain", ["name", "workflow_id"]),
        ("get_chain", ["name"]),
        ("whoami", []),
    ],
)
def test_what_a_tool_can_not_do_without_is_required(house: House, name: str, required: list[str]) -> None:
    assert tool_named(house, name).input_schema.get("required", []) == required


def test_what_a_result_always_has_is_required(house: House) -> None:
    start = tool_named(house, "start_mining").output_schema

    assert start["required"] == ["status", "workflow_id"]
    assert set(start["properties"]["status"]["enum"]) == {"completed", "running", "failed", "not_found"}
    assert set(start["properties"]["chain"]["required"]) == {"genesis", "difficulty", "blocks"}
    assert start["properties"]["chain"]["properties"]["blocks"]["items"]["properties"]["nonce"] == {"type": "integer"}
    assert tool_named(house, "get_mining_result").output_schema == start
    assert tool_named(house, "cancel_mining").output_schema == start
    (listed,) = tool_named(house, "list_minings").output_schema["properties"].values()
    assert set(listed["items"]["required"]) == {"status", "workflow_id"}
    assert {"difficulty", "blocks", "genesis", "progress", "started_at"} <= set(listed["items"]["properties"])


@pytest.mark.parametrize("name", ["start_mining", "estimate_mining"])
def test_the_settings_show_in_the_schemas(one_thread: MinerPool, name: str) -> None:
    properties = tool_named(house_with(OTHER, one_thread), name).input_schema["properties"]

    assert {key: properties["difficulty"][key] for key in ("minimum", "maximum", "default")} == {
        "minimum": 1,
        "maximum": 9,
        "default": 7,
    }
    # Four by default, where so many are allowed.
    assert {key: properties["blocks"][key] for key in ("minimum", "maximum", "default")} == {
        "minimum": 1,
        "maximum": 3,
        "default": 3,
    }


class Song(TypedDict):
    """A song.

    Sung, too.
    """

    title: str
    description: NotRequired[str]


class Album(TypedDict):
    """Songs."""

    songs: list[Song]
    first: Song


def test_a_property_may_have_the_name_of_a_keyword_and_docstrings_lose_their_indentation() -> None:
    song = {
        "type": "object",
        "description": "A song.\n\nSung, too.",
        "properties": {"title": {"type": "string"}, "description": {"type": "string"}},
        "required": ["title"],
    }

    assert schema_of(Album) == {
        "type": "object",
        "description": "Songs.",
        "properties": {"songs": {"type": "array", "items": song}, "first": song},
        "required": ["first", "songs"],
    }


# Sentences


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("save_chain", {}, "save_chain needs the argument 'name': The chain's name"),
        ("save_chain", {"name": "a"}, "save_chain needs the argument 'workflow_id': The workflow_id that start_mining"),
        (
            "save_chain",
            {"name": "a", "workflow_id": "b", "force": True},
            "save_chain has no argument 'force'; it takes name, workflow_id, overwrite",
        ),
        ("save_chain", {"nome": "a"}, "save_chain has no argument 'nome'; it takes name, "),
        ("start_mining", {"dificulty": 8}, "start_mining has no argument 'dificulty'; it takes difficulty, blocks, "),
        ("start_mining", {"\ud800": 8}, r"start_mining has no argument '\ud800'; it takes "),
        ("whoami", {"name": "a"}, "whoami has no argument 'name'; it takes none"),
    ],
    ids=ascii,
)
def test_an_unknown_or_missing_argument_gets_a_sentence(
    house: House, name: str, arguments: dict[str, object], sentence: str
) -> None:
    fault = tool_named(house, name).fault(arguments)

    assert fault is not None
    assert fault.startswith(sentence)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("save_chain", {"name": "a", "workflow_id": "b"}),
        ("save_chain", {"name": "a", "workflow_id": None, "overwrite": True}),
        ("start_mining", {}),
        ("start_mining", {"difficulty": None}),
        ("whoami", {}),
    ],
    ids=str,
)
def test_arguments_with_the_right_names_have_no_fault(house: House, name: str, arguments: dict[str, object]) -> None:
    assert tool_named(house, name).fault(arguments) is None


def test_a_name_that_never_ends_is_quoted_in_part(house: House) -> None:
    fault = tool_named(house, "whoami").fault({"x" * 10_000: 1})

    assert fault is not None
    assert len(fault) < 200


# Hosts


def test_the_declarations_and_the_triggers_need_no_package_of_azure_and_not_the_mcp_sdk() -> None:
    probe = (
        "import sys, pow.tools.composition, pow.azure.triggers; "
        "print({'azure', 'mcp', 'mcp_types', 'pydantic'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.strip() == "set()"


def told(tool: Tool) -> dict[str, Any]:
    return {"description": tool.description, "inputSchema": tool.input_schema, "outputSchema": tool.output_schema}


@pytest.mark.anyio
@pytest.mark.parametrize("settings", [Settings(), OTHER], ids=["default", "other"])
async def test_the_sdk_s_server_lists_the_tools_as_they_are_declared(one_thread: MinerPool, settings: Settings) -> None:
    house = house_with(settings, one_thread)
    listed = [
        tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in await mcp_server(house).list_tools()
    ]

    for entry, tool in zip(listed, house.tools, strict=True):
        hints = tool.hints
        assert entry == {
            **told(tool),
            "name": tool.name,
            "title": tool.title,
            "annotations": {
                "readOnlyHint": hints.read_only,
                "destructiveHint": hints.destructive,
                "idempotentHint": hints.idempotent,
                "openWorldHint": False,
            },
            **({"_meta": tool.meta} if tool.meta else {}),
        }


@pytest.mark.anyio
async def test_the_functions_app_declares_the_tools_as_the_sdk_s_server_lists_them(house: House) -> None:
    listed = {tool.name: tool for tool in await mcp_server(house).list_tools()}
    triggers = [
        binding
        for bindings in declared_functions().values()
        for binding in bindings
        if binding["type"] == "mcpToolTrigger"
    ]

    assert {trigger["toolName"] for trigger in triggers} == set(listed)
    for trigger in triggers:
        tool = listed[trigger["toolName"]]
        assert trigger["description"] == tool.description
        assert json.loads(trigger["inputSchema"]) == tool.input_schema
        assert json.loads(trigger["outputSchema"]) == tool.output_schema
        assert json.loads(trigger.get("metadata", "null")) == tool.meta


async def _nothing(call: object, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


@pytest.mark.parametrize("default", [None, False, 0, "", 7])
def test_a_default_shows_unless_it_is_none(default: object) -> None:
    schema: Schema = {"type": "integer"}
    tool = Tool("t", "T", "T.", (Argument("a", schema, "A.", default=default),), Song, READS, _nothing)

    shown = {} if default is None else {"default": default}
    assert tool.input_schema == {"type": "object", "properties": {"a": {**schema, "description": "A.", **shown}}}
    assert json.loads(tool_trigger(tool)["inputSchema"]) == tool.input_schema
