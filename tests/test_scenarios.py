"""What agents go through, by a real MCP client: the same on every host."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azurite import Azurite
from functions_process import start_azurite
from hosts import HOSTS, ByGateway, Host, OnFunctions
from mcp import MCPError
from mcp_types import TextResourceContents
from raw_caller import RawCaller

from pow import __version__
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.mcp.mining_app import MINING_APP_NAME, MINING_APP_PAGE_META, MINING_APP_TITLE, mining_app_html
from pow.mining.pool import MinerPool
from pow.scanning.backends import native_missing
from pow.settings import Settings
from pow.tools.chain_store import FolderChains
from pow.tools.composition import mining_house
from pow.tools.declarations import Tool
from pow.tools.mining import INSTRUCTIONS, mining_work

pytestmark = pytest.mark.anyio

ENDLESS = 40


@pytest.fixture(scope="module", params=HOSTS)
def host_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def storage() -> Iterator[Azurite]:
    """The storage emulator, in which named chains are."""
    with start_azurite() as running:
        yield running


@pytest.fixture(scope="module")
def host(host_name: str, storage: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with what it comes with, but for longer chains."""
    state_dir = tmp_path_factory.mktemp("state")
    with HOSTS[host_name](state_dir, storage.connection_string, MaxBlocks="200", WaitBudgetSeconds="60") as running:
        yield running


@pytest.fixture(scope="module")
def hasty(host_name: str, storage: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that waits for nothing, and mines slowly, so that a block is worth several slices at once."""
    state_dir = tmp_path_factory.mktemp("state")
    slow = {"MiningThreads": "1", "POW_BACKEND": "hashlib" if native_missing() else "portable"}
    settings = {"WaitBudgetSeconds": "0", "MiningFanOut": "3", **slow}
    with HOSTS[host_name](state_dir, storage.connection_string, **settings) as running:
        yield running


def declared_tools(settings: Settings) -> tuple[Tool, ...]:
    """The tools as they are declared, on an engine that nobody calls."""
    work = mining_work(MinerPool(1), settings)
    return mining_house(work, EmbeddedEngine(work), settings, FolderChains(Path("nowhere"))).tools


async def test_a_host_says_what_it_is(host: Host) -> None:
    async with host.client() as client:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("pow-mcp", __version__)
        assert client.instructions == INSTRUCTIONS


async def test_the_tools_are_the_same_everywhere(host: Host) -> None:
    async with host.client() as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    declared = declared_tools(Settings(max_blocks=200))
    assert set(listed) == {tool.name for tool in declared}
    for tool in declared:
        assert listed[tool.name].description == tool.description
        assert listed[tool.name].input_schema == tool.input_schema
        assert listed[tool.name].output_schema == tool.output_schema


async def test_the_mining_tools_have_a_page_which_is_the_same_everywhere(host: Host) -> None:
    async with host.client() as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        (resource,) = (await client.list_resources()).resources
        (content,) = (await client.read_resource(resource.uri)).contents
    assert {name for name, tool in listed.items() if tool.meta} == {"start_mining", "get_mining_result"}
    assert listed["start_mining"].meta == listed["get_mining_result"].meta == {"ui": {"resourceUri": resource.uri}}
    assert (resource.name, resource.title, resource.meta) == (MINING_APP_NAME, MINING_APP_TITLE, MINING_APP_PAGE_META)
    assert content.mime_type == resource.mime_type == "text/html;profile=mcp-app"
    assert content.meta == MINING_APP_PAGE_META
    assert isinstance(content, TextResourceContents)
    assert content.text == mining_app_html()


async def test_quick_work_comes_back_inline(host: Host, genesis_chain: dict[int, dict[str, Any]]) -> None:
    result = await host.call("start_mining", difficulty=16)
    assert (result["status"], result["chain"]) == ("completed", genesis_chain[16])
    assert await host.call("get_mining_result", workflow_id=result["workflow_id"]) == result


async def test_long_work_is_polled_until_it_is_completed(hasty: Host, genesis_chain: dict[int, dict[str, Any]]) -> None:
    started = await hasty.call("start_mining", difficulty=21)
    assert started["status"] == "running"
    assert started["workflow_id"] in started["next"]
    result = await hasty.poll(started["workflow_id"])
    assert (result["status"], result["chain"]) == ("completed", genesis_chain[21])


async def test_slices_side_by_side_mine_the_same_chain(hasty: Host, genesis_chain: dict[int, dict[str, Any]]) -> None:
    started = await hasty.call("start_mining", difficulty=24)
    result = await hasty.poll(started["workflow_id"])
    assert (result["status"], result["chain"]) == ("completed", genesis_chain[24])
    if isinstance(hasty, OnFunctions):
        events = hasty.instance(started["workflow_id"])["history"]
        # Between two turns of the orchestration, which begin with event 12, four slices (4) are scheduled at most:
        # one for each of three workers, and one that lies ready.
        turns = "".join({4: "s", 12: "|"}.get(event["EventType"], "") for event in events).split("|")
        assert max(len(turn) for turn in turns) == 4


async def test_a_workflow_that_goes_wrong_is_failed_with_its_error(host: Host) -> None:
    workflow_id = await host.failing_workflow()
    assert await host.poll(workflow_id) == {
        "status": "failed",
        "workflow_id": workflow_id,
        "reason": "error",
        "error": "difficulty must be an integer from 0 to 256, not 300",
    }


async def test_a_cancelled_workflow_is_failed_as_terminated(hasty: Host) -> None:
    started = await hasty.call("start_mining", difficulty=ENDLESS)
    cancelled = await hasty.call("cancel_mining", workflow_id=started["workflow_id"])
    assert (cancelled["status"], cancelled["reason"]) == ("failed", "terminated")
    assert await hasty.call("get_mining_result", workflow_id=started["workflow_id"]) == cancelled
    assert await hasty.call("cancel_mining", workflow_id=started["workflow_id"]) == cancelled


async def test_a_task_is_polled_and_cancelled(hasty: Host) -> None:
    if type(hasty) is OnFunctions:
        pytest.skip("the MCP extension knows nothing of tasks")
    caller = RawCaller(hasty.url)
    task = await asyncio.to_thread(caller.call, "start_mining", difficulty=ENDLESS)
    assert (task["resultType"], task["status"]) == ("task", "working")
    assert (await asyncio.to_thread(caller.get, task["taskId"]))["status"] == "working"
    await asyncio.to_thread(caller.result, "tasks/cancel", taskId=task["taskId"])
    assert (await hasty.poll(task["taskId"]))["reason"] == "terminated"
    assert (await asyncio.to_thread(caller.get, task["taskId"]))["status"] == "cancelled"


async def test_a_host_that_can_not_stream_refuses_listeners(host: Host) -> None:
    if not isinstance(host, ByGateway):
        pytest.skip("only the gateway answers with whole documents, and serves tasks")
    kinds: list[dict[str, Any]] = [{"taskIds": []}, {"toolsListChanged": True}]
    for wanted in kinds:
        status, answer = await asyncio.to_thread(
            RawCaller(host.url).request, "subscriptions/listen", notifications=wanted
        )
        assert (status, answer["error"]["code"]) == (404, -32601)
        assert "poll with tasks/get" in answer["error"]["message"]


async def test_a_completed_workflow_can_not_be_cancelled_any_more(host: Host) -> None:
    completed = await host.call("start_mining", difficulty=4)
    assert await host.call("cancel_mining", workflow_id=completed["workflow_id"]) == completed


async def test_a_lost_id_is_found_again(hasty: Host) -> None:
    started = await hasty.call("start_mining", difficulty=ENDLESS, blocks=3, genesis="lost")
    workflow_id = started["workflow_id"]
    newest = (await hasty.call("list_minings", limit=1))["minings"]
    garbled = workflow_id[:5] + ("0" if workflow_id[5] != "0" else "1") + workflow_id[6:]
    shortened = workflow_id[:-2]
    hints = [await hasty.call("get_mining_result", workflow_id=wrong) for wrong in (garbled, shortened)]
    await hasty.call("cancel_mining", workflow_id=workflow_id)
    ended = (await hasty.call("list_minings", limit="1"))["minings"]

    assert [listed["workflow_id"] for listed in newest] == [workflow_id]
    assert (newest[0]["status"], newest[0]["difficulty"], newest[0]["blocks"]) == ("running", ENDLESS, 3)
    assert (newest[0]["genesis"], newest[0]["progress"]["blocks_done"]) == ("lost", 0)
    assert [(hint["status"], hint["closest"]) for hint in hints] == [("not_found", workflow_id)] * 2
    assert workflow_id in hints[0]["error"]
    assert [(listed["workflow_id"], listed["status"]) for listed in ended] == [(workflow_id, "failed")]


async def test_equal_calls_of_the_same_moment_start_one_workflow(hasty: Host) -> None:
    calls = [hasty.call("start_mining", difficulty=ENDLESS, genesis="at once") for _ in range(5)]
    results = await asyncio.gather(*calls)
    (workflow_id,) = {result["workflow_id"] for result in results}
    assert sorted("joined" in result for result in results) == [False, True, True, True, True]
    await hasty.call("cancel_mining", workflow_id=workflow_id)


async def test_the_same_call_joins_its_running_twin_unless_it_asks_for_a_fresh_one(hasty: Host) -> None:
    first = await hasty.call("start_mining", difficulty=ENDLESS, genesis="twin")
    again = await hasty.call("start_mining", difficulty=str(ENDLESS), genesis="twin", blocks=4)
    other = await hasty.call("start_mining", difficulty=ENDLESS, genesis="twin", blocks=5)
    fresh = await hasty.call("start_mining", difficulty=ENDLESS, genesis="twin", fresh=True)
    for result in (first, other, fresh):
        await hasty.call("cancel_mining", workflow_id=result["workflow_id"])
    after = await hasty.call("start_mining", difficulty=ENDLESS, genesis="twin")
    await hasty.call("cancel_mining", workflow_id=after["workflow_id"])

    assert again["workflow_id"] == first["workflow_id"]
    assert (again["joined"], "joined" in first) == (True, False)
    assert len({result["workflow_id"] for result in (first, other, fresh, after)}) == 4


async def test_an_estimate_counts_what_a_block_costs_beside_hashing(host: Host) -> None:
    """Blocks of a hash or two: all of it is the engine's."""
    few = await host.call("estimate_mining", difficulty=1, blocks=2)
    many = await host.call("estimate_mining", difficulty=1, blocks=200)
    hashing = 200 * 2 / many["hashes_per_second"]
    assert many["expected_seconds"] > 2 * hashing
    assert many["expected_seconds"] == pytest.approx(100 * few["expected_seconds"], rel=0.5)


async def test_a_job_is_estimated_before_it_is_started(host: Host) -> None:
    easy = await host.call("estimate_mining", difficulty=8)
    hard = await host.call("estimate_mining", difficulty=ENDLESS, blocks=2)

    assert (easy["blocks"], easy["fits_budget"], easy["budget_seconds"]) == (4, True, 60.0)
    assert (hard["blocks"], hard["fits_budget"]) == (2, False)
    assert hard["median_seconds"] < hard["expected_seconds"] < hard["percentile_95_seconds"]
    assert 8 < hard["largest_difficulty_within_budget"] < ENDLESS
    assert hard["odds"].startswith("50 % by ")


async def test_chains_are_verified(host: Host, genesis_chain: dict[int, dict[str, Any]]) -> None:
    chain = genesis_chain[12]
    broken = {**chain, "blocks": [*chain["blocks"][:1], {**chain["blocks"][1], "nonce": 5, "attempts": 6}]}
    assert (await host.call("verify_chain", chain=chain))["valid"] is True
    verdict = await host.call("verify_chain", chain=broken)
    assert (verdict["valid"], verdict["block"], verdict["fault"]) == (False, 2, "hash_mismatch")
    assert (await host.call("verify_chain", chain={"blocks": "none"}))["fault"] == "not_a_chain"


@pytest.mark.parametrize(
    "workflow_id", ["abc", "", "6f820914-1bc1-4487-97fd-3f33b803aebc", "'; DROP TABLE workflow; --", "../../x"]
)
@pytest.mark.parametrize("tool", ["get_mining_result", "cancel_mining"])
async def test_an_id_that_is_no_workflow_is_not_found(host: Host, tool: str, workflow_id: str) -> None:
    result = await host.call(tool, workflow_id=workflow_id)
    assert (result["status"], result["workflow_id"]) == ("not_found", workflow_id)
    assert result["error"]


async def test_arguments_that_agents_send_as_strings_are_understood(
    host: Host, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    result = await host.call("start_mining", difficulty="12", blocks=" 2 ")
    assert result["chain"] == {**genesis_chain[12], "blocks": genesis_chain[12]["blocks"][:2]}


@pytest.mark.parametrize(
    ("tool", "arguments", "sentence"),
    [
        ("start_mining", {"difficulty": 41}, "difficulty must be an integer from 1 to 40, not 41"),
        ("start_mining", {"difficulty": "hard"}, "difficulty must be an integer from 1 to 40, not 'hard'"),
        ("start_mining", {"blocks": 201}, "blocks must be an integer from 1 to 200, not 201"),
        ("start_mining", {"genesis": "a\nb"}, "genesis must not contain control characters or line breaks"),
        ("start_mining", {"dificulty": 8}, "start_mining has no argument 'dificulty'"),
        ("save_chain", {"name": "a b", "workflow_id": "x"}, "name must be 1 to 64 letters"),
        ("get_chain", {"name": "x" * 65}, "name must be 1 to 64 letters"),
        ("save_chain", {"name": "a", "workflow_id": "x", "overwrite": "maybe"}, "overwrite must be true or false"),
        ("whoami", {"me": 1}, "whoami has no argument 'me'; it takes none"),
    ],
    ids=str,
)
async def test_a_bad_argument_gets_its_sentence(
    host: Host, tool: str, arguments: dict[str, Any], sentence: str
) -> None:
    async with host.client() as client:
        result = await client.call_tool(tool, arguments)
    assert result.is_error
    (content,) = result.content
    assert content.type == "text"
    assert sentence in content.text


@pytest.mark.parametrize("name", ["../secret", "/", "a/b", "\\", "%2e%2e"])
async def test_no_name_leads_out_of_the_store(host: Host, name: str) -> None:
    async with host.client() as client:
        refused = await client.call_tool("get_chain", {"name": name})
    assert refused.is_error
    (content,) = refused.content
    assert content.type == "text"
    assert content.text.startswith("name must be 1 to 64 letters")


async def test_a_missing_argument_is_refused_by_its_name(host: Host) -> None:
    async with host.client() as client:
        try:
            result = await client.call_tool("get_mining_result", {})
        except MCPError as error:  # the extension refuses it before the app is called
            said = str(error)
        else:
            assert result.is_error
            (content,) = result.content
            assert content.type == "text"
            said = content.text
    assert "workflow_id" in said


async def test_a_long_history_is_continued_as_new(host: Host) -> None:
    # A slice for each block, and 25 slices to a history.
    result = await host.call("start_mining", difficulty=1, blocks=150)
    assert result["status"] == "completed"
    assert len(result["chain"]["blocks"]) == 150
    if isinstance(host, OnFunctions):
        assert host.instance(result["workflow_id"])["executions"] == 6


async def test_a_slice_that_is_lost_and_delivered_again_changes_nothing(
    host_name: str, storage: Azurite, tmp_path: Path, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    # Slowly, so that there is a slice to lose.
    slow = {"WaitBudgetSeconds": "0", "MiningThreads": "1", "POW_BACKEND": "hashlib"}
    with HOSTS[host_name](tmp_path, storage.connection_string, **slow) as host:
        started = await host.lose_a_slice("start_mining", difficulty=18)
        result = await host.poll(started["workflow_id"])
        assert (result["status"], result["chain"]) == ("completed", genesis_chain[18])
        if isinstance(host, OnFunctions):
            assert "lost" in outcomes(host, started)


def outcomes(host: OnFunctions, started: dict[str, Any]) -> list[str]:
    return [run["outcome"] for run in host.instance(started["workflow_id"])["activities"]]


async def test_slices_that_are_delivered_twice_change_nothing(
    host: Host, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    if not isinstance(host, OnFunctions):
        pytest.skip("the embedded engine delivers a slice again only after a crash")
    host.faults(deliver_twice=True)
    result = await host.call("start_mining", difficulty=16)
    host.faults(deliver_twice=False)
    assert (result["status"], result["chain"]) == ("completed", genesis_chain[16])
    assert outcomes(host, result).count("duplicate") >= 4


async def test_a_chain_is_kept_under_a_name(host: Host, host_name: str) -> None:
    name = f"{host_name}.chain_1"
    mined = await host.call("start_mining", difficulty=8, genesis="first")
    assert (await host.call("get_chain", name=name))["status"] == "not_found"

    saved = await host.call("save_chain", name=name, workflow_id=mined["workflow_id"])
    found = await host.call("get_chain", name=name)

    assert saved["status"] == "saved"
    assert (found["status"], found["chain"], found["result"]) == ("found", mined["chain"], mined["result"])


async def test_a_name_that_is_taken_is_overwritten_only_when_asked(host: Host, host_name: str) -> None:
    name = f"{host_name}-taken"
    first = await host.call("start_mining", difficulty=8, genesis="first")
    second = await host.call("start_mining", difficulty=8, genesis="second")
    await host.call("save_chain", name=name, workflow_id=first["workflow_id"])

    refused = await host.call("save_chain", name=name, workflow_id=second["workflow_id"])
    assert refused["status"] == "exists"
    assert (await host.call("get_chain", name=name))["chain"] == first["chain"]

    replaced = await host.call("save_chain", name=name, workflow_id=second["workflow_id"], overwrite="true")
    assert replaced["status"] == "saved"
    assert (await host.call("get_chain", name=name))["chain"] == second["chain"]


async def test_only_a_completed_chain_is_saved(hasty: Host, host_name: str) -> None:
    started = await hasty.call("start_mining", difficulty=ENDLESS)
    name = f"{host_name}-incomplete"
    running = await hasty.call("save_chain", name=name, workflow_id=started["workflow_id"])
    await hasty.call("cancel_mining", workflow_id=started["workflow_id"])
    cancelled = await hasty.call("save_chain", name=name, workflow_id=started["workflow_id"])
    unknown = await hasty.call("save_chain", name=name, workflow_id=str(uuid.uuid4()))
    no_id = await hasty.call("save_chain", name=name, workflow_id="x")

    assert [result["status"] for result in (running, cancelled, unknown, no_id)] == [
        *("running", "failed"),
        *("not_found", "not_found"),
    ]
    assert (await hasty.call("get_chain", name=name))["status"] == "not_found"


async def test_nobody_is_signed_in_without_authentication(host: Host) -> None:
    async with host.client(**{"X-MS-CLIENT-PRINCIPAL-NAME": "mallory@example.com"}) as client:
        result = await client.call_tool("whoami", {})
    assert result.structured_content is not None
    assert result.structured_content["signed_in"] is False


async def test_the_platform_s_authentication_tells_who_calls(host_name: str, storage: Azurite, tmp_path: Path) -> None:
    with HOSTS[host_name](tmp_path, storage.connection_string, WEBSITE_AUTH_ENABLED="True") as host:
        headers = {
            "X-MS-CLIENT-PRINCIPAL-NAME": "ada@example.com",
            "X-MS-CLIENT-PRINCIPAL-ID": "9b6f5b8e-0000-4000-8000-000000000001",
            "X-MS-CLIENT-PRINCIPAL-IDP": "aad",
        }
        async with host.client(**headers) as client:
            result = await client.call_tool("whoami", {})
    assert result.structured_content is not None
    assert result.structured_content["signed_in"] is True
    assert result.structured_content["name"] == "ada@example.com"


async def test_callers_do_not_see_each_other_s_workflows(host_name: str, storage: Azurite, tmp_path: Path) -> None:
    settings = {"WEBSITE_AUTH_ENABLED": "True", "WaitBudgetSeconds": "0"}
    ada, bob = ({"X-MS-CLIENT-PRINCIPAL-ID": name, "X-MS-CLIENT-PRINCIPAL-NAME": name} for name in ("ada", "bob"))
    with HOSTS[host_name](tmp_path, storage.connection_string, **settings) as host:

        async def call(caller: dict[str, str], tool: str, **arguments: Any) -> Any:
            async with host.client(**caller) as client:
                return (await client.call_tool(tool, arguments)).structured_content

        of_ada = await call(ada, "start_mining", difficulty=ENDLESS)
        of_bob = await call(bob, "start_mining", difficulty=ENDLESS)
        workflow_id = of_ada["workflow_id"]
        peeks = [
            await call(bob, tool, workflow_id=given)
            for tool in ("get_mining_result", "cancel_mining")
            for given in (workflow_id, workflow_id[:-1])
        ]
        saved = await call(bob, "save_chain", name="stolen", workflow_id=workflow_id)

        assert of_bob["workflow_id"] != workflow_id
        assert [(peek["status"], "closest" in peek) for peek in peeks] == [("not_found", False)] * 4
        assert saved["status"] == "not_found"
        listed = [(await call(caller, "list_minings"))["minings"] for caller in (ada, bob)]
        assert [[entry["workflow_id"] for entry in entries] for entries in listed] == [
            [workflow_id],
            [of_bob["workflow_id"]],
        ]
        assert (await call(ada, "get_mining_result", workflow_id=workflow_id))["status"] == "running"


async def test_there_is_a_prompt_for_a_demo(host: Host) -> None:
    async with host.client() as client:
        (prompt,) = (await client.list_prompts()).prompts
        by_default = await client.get_prompt("mine_demo_chain", {})
        harder = await client.get_prompt("mine_demo_chain", {"difficulty": "25"})
    assert (prompt.name, prompt.title) == ("mine_demo_chain", "Mine a demo chain")
    assert prompt.arguments is not None
    assert [(argument.name, argument.required) for argument in prompt.arguments] == [("difficulty", False)]
    texts = [result.messages[0].content for result in (by_default, harder)]
    assert [text.type for text in texts] == ["text", "text"]
    assert "4 blocks at difficulty 21" in str(texts[0])
    assert "4 blocks at difficulty 25" in str(texts[1])
