"""What a tool's function is given by the MCP extension, and what it gives back, without any package of Azure."""

import json
import subprocess
import sys
from typing import Any

import pytest

from pow.azure.triggers import BoundChain, Call, answer, tool_trigger
from pow.errors import InvalidArgument
from pow.settings import Settings

pytestmark = pytest.mark.anyio


def call(name: str = "start_mining", **fields: Any) -> str:
    return json.dumps({"name": name, **fields})


async def echo(**arguments: Any) -> dict[str, Any]:
    return {"status": "completed", **arguments}


def test_the_module_needs_no_package_of_azure_and_not_the_mcp_sdk() -> None:
    probe = "import sys, pow.azure.triggers; print({'azure', 'mcp', 'pydantic'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.strip() == "set()"


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


async def said(text: str, tool: Any = echo) -> str:
    """What is wrong with a call."""
    result = unwrapped(await answer(text, tool))
    assert result.keys() == {"content", "isError"}
    assert result["isError"] is True
    (content,) = result["content"]
    assert content["type"] == "text"
    return str(content["text"])


async def test_a_result_comes_as_text_and_as_structure() -> None:
    result = unwrapped(await answer(call(arguments={"genesis": "größe 🧱"}), echo))

    expected = {"status": "completed", "genesis": "größe 🧱"}
    assert result["structuredContent"] == expected
    (content,) = result["content"]
    assert content["type"] == "text"
    assert json.loads(content["text"]) == expected
    assert "größe 🧱" in content["text"]
    assert result["isError"] is False
    assert result.keys() == {"content", "structuredContent", "isError"}


async def test_an_argument_that_is_null_reaches_the_tool_as_none() -> None:
    result = unwrapped(await answer(call(arguments={"difficulty": None}), echo))

    assert result["structuredContent"] == {"status": "completed", "difficulty": None}


async def test_an_unknown_argument_is_a_fault_that_names_the_known_ones() -> None:
    fault = await said(call(arguments={"dificulty": 8}))

    assert fault.startswith("start_mining has no argument 'dificulty'; it takes difficulty, blocks, genesis")


async def test_a_tools_own_keywords_are_no_arguments() -> None:
    assert "has no argument 'report'" in await said(call(arguments={"report": 1}))


async def test_a_missing_argument_is_a_fault_that_says_what_it_is() -> None:
    assert await said(call("get_mining_result")) == (
        "get_mining_result needs the argument 'workflow_id': The workflow_id that start_mining returned."
    )


async def test_a_tool_is_found_in_any_case_of_its_name_as_the_extension_finds_it() -> None:
    result = unwrapped(await answer(call("Start_Mining", arguments={"blocks": 2}), echo))

    assert result["structuredContent"] == {"status": "completed", "blocks": 2}


async def test_what_pow_raises_on_purpose_reaches_the_agent_in_its_own_words() -> None:
    async def refuse() -> dict[str, Any]:
        raise InvalidArgument("difficulty must be an integer from 1 to 40, not 41")

    assert await said(call(), refuse) == "difficulty must be an integer from 1 to 40, not 41"


async def test_any_other_exception_is_the_hosts() -> None:
    async def fail() -> dict[str, Any]:
        raise RuntimeError("a secret of the function")

    with pytest.raises(RuntimeError, match="a secret of the function"):
        await answer(call(), fail)


def test_a_trigger_carries_the_limits_of_the_settings() -> None:
    declared = tool_trigger("start_mining", Settings(max_difficulty=25, mining_difficulty=7, max_blocks=9))

    properties = json.loads(declared["inputSchema"])["properties"]
    assert (properties["difficulty"]["maximum"], properties["difficulty"]["default"]) == (25, 7)
    assert (properties["blocks"]["maximum"], properties["blocks"]["default"]) == (9, 4)


# Blob bindings


class Blob:
    """Both bindings of a blob; what they have of the worker's InputStream and Out."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = content
        self.written: str | None = None

    def read(self) -> bytes:
        return self.content

    def set(self, val: str) -> None:
        self.written = val


async def test_a_bound_chain_is_the_blobs_content_or_none() -> None:
    assert await BoundChain(Blob(b"{}")).load("a") == b"{}"
    assert await BoundChain(None).load("a") is None


async def test_a_chain_is_saved_where_there_is_no_blob() -> None:
    saved = Blob()

    assert await BoundChain(None, saved).save("a", '"größe"'.encode(), overwrite=False)
    assert saved.written == '"größe"'


async def test_a_blob_is_overwritten_only_if_that_is_asked_for() -> None:
    saved = Blob()

    assert not await BoundChain(Blob(b"1"), saved).save("a", b"2", overwrite=False)
    assert saved.written is None
    assert await BoundChain(Blob(b"1"), saved).save("a", b"2", overwrite=True)
    assert saved.written == "2"
