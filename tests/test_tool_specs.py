"""What hosts without the MCP SDK tell clients of the tools: the same as the SDK's own server does."""

import asyncio
import json
import subprocess
import sys
from importlib.resources import files

import pytest

from pow.mcp.server import Tools, listed_tools, mcp_server
from pow.settings import Settings
from pow.tools.specs import argument_fault, tool_specs

OTHER = Settings(mining_difficulty=7, max_difficulty=9, max_blocks=3)


def test_the_committed_file_is_what_the_server_lists() -> None:
    committed = json.loads(files("pow.tools").joinpath("specs.json").read_text("utf-8"))
    assert committed == listed_tools(Settings()), "run: python -m pow.mcp.server > pow/tools/specs.json"


@pytest.mark.parametrize("settings", [Settings(), OTHER], ids=["default", "other"])
def test_the_settings_show_in_the_specs_as_they_do_in_the_server(settings: Settings) -> None:
    server = mcp_server(Tools(None, None, None, None), settings)  # type: ignore[arg-type]
    listed = {tool.name: tool for tool in asyncio.run(server.list_tools())}
    specs = tool_specs(settings)
    assert set(specs) == set(listed)
    for name, spec in specs.items():
        assert spec.input_schema == listed[name].input_schema
        assert spec.output_schema == listed[name].output_schema
        assert spec.description == listed[name].description


def test_the_specs_need_no_mcp_sdk() -> None:
    program = "import sys, pow.tools.specs, pow.azure.triggers; print(sorted({'mcp', 'pydantic'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "save_chain needs the argument 'name': The chain's name"),
        ({"name": "a"}, "save_chain needs the argument 'workflow_id'"),
        ({"name": "a", "workflow_id": "b", "force": True}, "save_chain has no argument 'force'; it takes name, "),
        ({"name": "a", "workflow_id": "b"}, None),
        ({"name": "a", "workflow_id": "b", "overwrite": True}, None),
    ],
    ids=str,
)
def test_unknown_and_missing_arguments_get_a_sentence(arguments: dict[str, object], sentence: str | None) -> None:
    fault = argument_fault("save_chain", tool_specs(Settings())["save_chain"].input_schema, arguments)
    assert fault == sentence or (fault is not None and sentence is not None and fault.startswith(sentence))
