"""The test host's MCP endpoint and HTTP routes answer and refuse as the real host's with MCP extension 1.6.0 do."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from functions_process import MCP_PATH, Keys
from mcp_types import TextResourceContents
from sample_host import MODES, Host, sample, text

pytestmark = pytest.mark.anyio

KEYS = Keys()
JSON_AND_EVENTS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with sample(key=KEYS) as running:
        yield running


def post(host: Host, message: Any, key: str | None = KEYS.system, **headers: str) -> tuple[int, bytes]:
    sent = {**JSON_AND_EVENTS, **headers, **({} if key is None else {"x-functions-key": key})}
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    status, _, answer = host.request("POST", MCP_PATH, body, sent)
    return status, answer


def initialize(revision: str) -> dict[str, Any]:
    client = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}


PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@MODES
async def test_the_newest_revision_is_that_of_june_2025_whatever_a_client_asks_for(host: Host, mode: str) -> None:
    async with host.client(mode) as client:
        assert client.protocol_version == "2025-06-18"
        assert await text(client, "greet", name="Ada")


@pytest.mark.parametrize(
    ("asked", "answered"), [("2025-03-26", "2025-03-26"), ("2025-11-25", "2025-06-18"), ("2030-01-01", "2025-06-18")]
)
def test_an_older_revision_is_kept_and_a_newer_one_is_not(host: Host, asked: str, answered: str) -> None:
    status, answer = post(host, initialize(asked), **{"mcp-protocol-version": asked})

    assert status == 200
    assert json.loads(answer.partition(b"data: ")[2])["result"]["protocolVersion"] == answered


def test_a_request_that_says_by_itself_who_asks_is_not_understood(host: Host) -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    _, answer = post(host, request, **{"mcp-protocol-version": "2026-07-28"})

    assert json.loads(answer)["error"]["code"] == -32601


async def test_tools_are_listed_by_their_names(host: Host) -> None:
    async with host.client() as client:
        names = [tool.name for tool in (await client.list_tools()).tools]

    assert names == sorted(names)
    assert names[:2] == ["add", "block"]


async def test_a_resource_has_the_metadata_that_its_function_returns_and_no_other(host: Host) -> None:
    async with host.client() as client:
        resources = (await client.list_resources()).resources
        (plain,) = (await client.read_resource("sample://plain")).contents
        (wrapped,) = (await client.read_resource("sample://wrapped")).contents

    assert {resource.name: resource.meta for resource in resources} == {"plain": {"a": 1}, "wrapped": {"a": 1}}
    assert isinstance(plain, TextResourceContents)
    assert isinstance(wrapped, TextResourceContents)
    assert (plain.text, plain.mime_type, plain.meta) == ("<p>plain</p>", "text/html", None)
    assert (wrapped.text, wrapped.mime_type, wrapped.meta) == ("<p>wrapped</p>", "text/html", {"b": 2})


@pytest.mark.parametrize(
    ("key", "status"),
    [(None, 401), ("nobody's", 401), (KEYS.function, 403), (KEYS.system, 200), (KEYS.master, 200)],
    ids=["none", "unknown", "function", "system", "master"],
)
def test_the_webhook_takes_the_system_key_and_the_master_key(host: Host, key: str | None, status: int) -> None:
    assert post(host, PING, key)[0] == status
    assert post(host, PING, key, Origin="https://elsewhere.example")[0] == status


@pytest.mark.parametrize(
    ("key", "status"),
    [(None, 401), ("nobody's", 401), (KEYS.system, 401), (KEYS.function, 201), (KEYS.master, 201)],
    ids=["none", "unknown", "system", "function", "master"],
)
def test_a_function_takes_its_key_and_the_master_key(host: Host, key: str | None, status: int) -> None:
    sent = {} if key is None else {"x-functions-key": key}
    assert host.request("POST", "/api/echo/part", b"", sent)[0] == status
    if key:
        assert host.request("POST", f"/api/echo/part?code={key}", b"")[0] == status


def test_a_body_that_is_no_json_and_a_client_that_takes_no_events_are_refused(host: Host) -> None:
    assert post(host, b"{") == (500, b"")
    assert post(host, PING, Accept="application/json")[0] == 406


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 404), ("HEAD", 404), ("DELETE", 404)])
def test_a_method_that_a_trigger_does_not_declare_is_not_found(host: Host, method: str, status: int) -> None:
    assert host.request(method, "/api/slow")[0] == status
