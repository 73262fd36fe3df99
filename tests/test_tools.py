"""The tools' contract: arguments, the budgeted wait, and what each state of a workflow is shown as."""

import uuid
from typing import Any

import pytest

from pow.errors import InvalidArgument
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.mining.chain import Chain, verify_chain
from pow.mining.workflow import MiningJob
from pow.settings import Settings
from pow.tools.mining import MiningTools

pytestmark = pytest.mark.anyio

ENDLESS = 40


def tools_on(engine: DurableTaskEngine, **settings: Any) -> MiningTools:
    return MiningTools(engine, Settings(**settings), lambda: 1e6)


async def test_quick_work_comes_back_inline(
    engine: DurableTaskEngine, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    result = await tools_on(engine).start_mining(difficulty=12)

    assert result["status"] == "completed"
    assert result["chain"] == genesis_chain[12]
    assert str(uuid.UUID(result["workflow_id"])) == result["workflow_id"]
    first = genesis_chain[12]["blocks"][0]
    assert result["result"].splitlines()[0] == "**Mined 4 blocks at difficulty 12**"
    assert f"nonce {first['nonce']:,}, {first['attempts']:,} attempts" in result["result"]
    assert first["hash"][:16] in result["result"]
    assert first["hash"][:17] not in result["result"]
    assert set(result) == {"status", "workflow_id", "result", "chain"}


async def test_long_work_comes_back_as_a_handle_that_says_when_to_ask_again(engine: DurableTaskEngine) -> None:
    result = await tools_on(engine, wait_budget_seconds=0.1).start_mining(difficulty=ENDLESS)

    assert result["status"] == "running"
    assert result["poll_after_seconds"] == 30
    assert result["workflow_id"] in result["next"]
    assert "get_mining_result" in result["next"]
    assert result["progress"]["blocks_done"] == 0
    assert result["progress"]["blocks_total"] == 4
    assert result["progress"]["expected_seconds_left"] > 1000
    assert set(result) == {"status", "workflow_id", "poll_after_seconds", "next", "progress"}


async def test_a_handle_leads_to_the_result(
    engine: DurableTaskEngine, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    tools = tools_on(engine, wait_budget_seconds=0)
    started = await tools.start_mining(difficulty=16)
    await engine.wait(started["workflow_id"], 60)

    result = await tools.get_mining_result(started["workflow_id"])

    assert result["status"] == "completed"
    assert result["chain"] == genesis_chain[16]


async def test_a_caller_that_waits_hears_of_progress(engine: DurableTaskEngine) -> None:
    heard: list[tuple[float, str]] = []

    async def report(hashes: float, sentence: str) -> None:
        heard.append((hashes, sentence))

    await tools_on(engine, wait_budget_seconds=3.5).start_mining(difficulty=ENDLESS, report=report)

    assert [hashes for hashes, _ in heard] == sorted(hashes for hashes, _ in heard)
    assert heard[-1][0] > 0
    assert "0 of 4 blocks mined" in heard[-1][1]
    assert "hashes tried" in heard[-1][1]


async def test_the_measured_rate_shows_in_the_progress(engine: DurableTaskEngine) -> None:
    result = await tools_on(engine, wait_budget_seconds=2.5).start_mining(difficulty=ENDLESS)

    assert result["progress"]["hashes_tried"] > 0
    assert result["progress"]["hashes_per_second"] > 0


async def test_a_cancelled_workflow_is_failed_as_terminated(engine: DurableTaskEngine) -> None:
    tools = tools_on(engine, wait_budget_seconds=0)
    started = await tools.start_mining(difficulty=ENDLESS)
    await engine.cancel(started["workflow_id"])

    result = await tools.get_mining_result(started["workflow_id"])

    assert (result["status"], result["reason"]) == ("failed", "terminated")
    assert "cancelled" in result["error"]
    assert set(result) == {"status", "workflow_id", "reason", "error"}


async def test_a_workflow_that_went_wrong_is_failed_with_its_error(engine: DurableTaskEngine) -> None:
    workflow_id = str(uuid.uuid4())
    # No tool lets such a job through: this is what an engine does with one all the same.
    await engine.start(workflow_id, MiningJob(difficulty=300, blocks=1, genesis="GENESIS"))
    await engine.wait(workflow_id, 60)

    result = await tools_on(engine).get_mining_result(workflow_id)

    assert (result["status"], result["reason"]) == ("failed", "error")
    assert "difficulty must be an integer from 0 to 256, not 300" in result["error"]


@pytest.mark.parametrize("workflow_id", ["abc", "", 7, None, [], "0" * 1000, "'; DROP TABLE workflow; --", "\ud800"])
async def test_what_is_no_id_is_not_found(engine: DurableTaskEngine, workflow_id: object) -> None:
    result = await tools_on(engine).get_mining_result(workflow_id)

    assert result["status"] == "not_found"
    assert result["workflow_id"] == str(workflow_id)
    assert "Not a workflow id" in result["error"]


async def test_an_unknown_id_is_not_found(engine: DurableTaskEngine) -> None:
    workflow_id = str(uuid.uuid4())

    result = await tools_on(engine).get_mining_result(workflow_id)

    assert (result["status"], result["workflow_id"]) == ("not_found", workflow_id)
    assert "no workflow with this id" in result["error"]


async def test_an_id_is_known_in_capitals_and_with_spaces_too(engine: DurableTaskEngine) -> None:
    tools = tools_on(engine)
    started = await tools.start_mining(difficulty=4)

    result = await tools.get_mining_result(f"  {started['workflow_id'].upper()}\n")

    assert (result["status"], result["workflow_id"]) == ("completed", started["workflow_id"])


@pytest.mark.parametrize(
    ("arguments", "job"),
    [
        ({}, MiningJob(21, 4, "GENESIS")),
        ({"difficulty": None, "blocks": None, "genesis": None}, MiningJob(21, 4, "GENESIS")),
        ({"difficulty": "16", "blocks": " 2 "}, MiningJob(16, 2, "GENESIS")),
        ({"difficulty": 16.0}, MiningJob(16, 4, "GENESIS")),
        ({"difficulty": 1, "blocks": 1, "genesis": ""}, MiningJob(1, 1, "")),
        ({"difficulty": 40, "blocks": 64, "genesis": "é" * 32}, MiningJob(40, 64, "é" * 32)),
    ],
    ids=str,
)
async def test_arguments_that_agents_send_are_understood(
    engine: DurableTaskEngine, arguments: dict[str, object], job: MiningJob
) -> None:
    assert tools_on(engine).job(**arguments) == job


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"difficulty": 0}, "difficulty must be an integer from 1 to 40, not 0"),
        ({"difficulty": 41}, "difficulty must be an integer from 1 to 40, not 41"),
        ({"difficulty": -3}, "difficulty must be an integer from 1 to 40, not -3"),
        ({"difficulty": 20.5}, "difficulty must be an integer from 1 to 40, not 20.5"),
        ({"difficulty": float("nan")}, "difficulty must be an integer from 1 to 40, not nan"),
        ({"difficulty": float("inf")}, "difficulty must be an integer from 1 to 40, not inf"),
        ({"difficulty": True}, "difficulty must be an integer from 1 to 40, not True"),
        ({"difficulty": "high"}, "difficulty must be an integer from 1 to 40, not 'high'"),
        ({"difficulty": "1_0"}, "difficulty must be an integer from 1 to 40, not '1_0'"),
        ({"difficulty": "٣"}, r"difficulty must be an integer from 1 to 40, not '\u0663'"),
        ({"difficulty": ""}, "difficulty must be an integer from 1 to 40, not ''"),
        ({"difficulty": "9" * 5000}, f"difficulty must be an integer from 1 to 40, not '{'9' * 79}…"),
        ({"difficulty": [20]}, "difficulty must be an integer from 1 to 40, not [20]"),
        ({"blocks": 0}, "blocks must be an integer from 1 to 64, not 0"),
        ({"blocks": 65}, "blocks must be an integer from 1 to 64, not 65"),
        ({"genesis": 7}, "genesis must be text, not 7"),
        ({"genesis": "x" * 65}, "genesis must be at most 64 bytes of UTF-8, not 65"),
        ({"genesis": "é" * 33}, "genesis must be at most 64 bytes of UTF-8, not 66"),
        ({"genesis": "a\x00b"}, "genesis must not contain control characters or line breaks; it has U+0000"),
        ({"genesis": "a\u2028b"}, "genesis must not contain control characters or line breaks; it has U+2028"),
        ({"genesis": "\ud800"}, "genesis must not contain control characters or line breaks; it has U+D800"),
    ],
    ids=ascii,
)
async def test_a_bad_argument_gets_its_sentence_and_starts_nothing(
    engine: DurableTaskEngine, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await tools_on(engine).start_mining(**arguments)

    assert sentence in str(raised.value)
    assert await engine.list(10) == []


async def test_the_limits_are_the_settings(engine: DurableTaskEngine) -> None:
    tools = tools_on(engine, mining_difficulty=5, max_difficulty=6, max_blocks=2)

    assert tools.job() == MiningJob(5, 2, "GENESIS")
    with pytest.raises(InvalidArgument, match="from 1 to 6, not 7"):
        tools.job(difficulty=7)
    with pytest.raises(InvalidArgument, match="from 1 to 2, not 3"):
        tools.job(blocks=3)


async def test_a_wait_is_over_when_the_host_shuts_down(engine: DurableTaskEngine) -> None:
    tools = tools_on(engine, wait_budget_seconds=3600)
    engine.begin_shutdown()

    result = await tools.start_mining(difficulty=ENDLESS)

    assert result["status"] == "running"


async def test_every_mined_chain_verifies(engine: DurableTaskEngine) -> None:
    result = await tools_on(engine).start_mining(difficulty=10, blocks=20, genesis="another")

    chain = Chain.from_dict(result["chain"])
    assert len(chain.blocks) == 20
    assert verify_chain(chain)
