"""The tools' contract: arguments, the budgeted wait, and what each state of a workflow is shown as."""

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from python_process import HANG_SECONDS

from pow.errors import EngineError, InvalidArgument
from pow.longwork.call import NOBODY, CallContext
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.service import LongWorkService
from pow.mining.chain import Chain, verify_chain
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.settings import Settings
from pow.tools.mining import NAMES, mining_work

pytestmark = pytest.mark.anyio

ENDLESS = 40


ServiceWith = Callable[..., LongWorkService]


@pytest.fixture
def service_with(engine: EmbeddedEngine, pool: MinerPool) -> ServiceWith:
    """What the tools do on the engine, with settings of a test's own."""

    def service(**given: Any) -> LongWorkService:
        settings = Settings(**given)
        return LongWorkService(mining_work(pool, settings), engine, NAMES, settings.wait_budget_seconds)

    return service


async def start(service: LongWorkService, call: CallContext = NOBODY, **arguments: object) -> dict[str, Any]:
    return dict(await service.start(call, arguments))


async def test_quick_work_comes_back_inline(
    service_with: ServiceWith, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    result = await start(service_with(), difficulty=12)

    assert result["status"] == "completed"
    assert result["chain"] == genesis_chain[12]
    assert str(uuid.UUID(result["workflow_id"])) == result["workflow_id"]
    first = genesis_chain[12]["blocks"][0]
    assert result["result"].splitlines()[0] == "**Mined 4 blocks at difficulty 12**"
    assert f"nonce {first['nonce']:,}, {first['attempts']:,} attempts" in result["result"]
    assert first["hash"][:16] in result["result"]
    assert first["hash"][:17] not in result["result"]
    assert set(result) == {"status", "workflow_id", "result", "chain"}


async def test_long_work_comes_back_as_a_handle_that_says_when_to_ask_again(service_with: ServiceWith) -> None:
    result = await start(service_with(wait_budget_seconds=0.1), difficulty=ENDLESS)

    assert result["status"] == "running"
    assert result["poll_after_seconds"] == 30
    assert result["workflow_id"] in result["next"]
    assert "get_mining_result" in result["next"]
    assert result["progress"]["blocks_done"] == 0
    assert result["progress"]["blocks_total"] == 4
    assert result["progress"]["expected_seconds_left"] > 1000
    assert set(result) == {"status", "workflow_id", "poll_after_seconds", "next", "progress"}


async def test_a_handle_leads_to_the_result(
    service_with: ServiceWith, engine: EmbeddedEngine, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    service = service_with(wait_budget_seconds=0)
    started = await start(service, difficulty=16)
    await engine.wait(NOBODY, started["workflow_id"], 60)

    result = dict(await service.get(NOBODY, started["workflow_id"]))

    assert result["status"] == "completed"
    assert result["chain"] == genesis_chain[16]


async def test_a_call_waits_for_the_shorter_of_its_own_time_and_the_budget(
    service_with: ServiceWith, engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def wait(call: CallContext, workflow_id: str, seconds: float) -> None:
        waited.append(round(seconds, 1))

    monkeypatch.setattr(engine, "wait", wait)
    for budget in (20.0, 0.5):
        await start(service_with(wait_budget_seconds=budget), NOBODY.waiting_at_most(1.0), difficulty=1)
    await start(service_with(wait_budget_seconds=0.5), difficulty=1)

    assert waited == [1.0, 0.5, 0.5]


async def test_a_caller_that_waits_hears_of_progress(service_with: ServiceWith) -> None:
    heard: list[tuple[float, str]] = []

    async def report(hashes: float, sentence: str) -> None:
        heard.append((hashes, sentence))

    await start(service_with(wait_budget_seconds=3.5), NOBODY.reporting(report), difficulty=ENDLESS)

    assert [hashes for hashes, _ in heard] == sorted(hashes for hashes, _ in heard)
    assert heard[-1][0] > 0
    assert "0 of 4 blocks mined" in heard[-1][1]
    assert "hashes tried" in heard[-1][1]


async def test_the_measured_rate_shows_in_the_progress(service_with: ServiceWith) -> None:
    result = await start(service_with(wait_budget_seconds=2.5), difficulty=ENDLESS)

    assert result["progress"]["hashes_tried"] > 0
    assert result["progress"]["hashes_per_second"] > 0


async def test_a_cancelled_workflow_is_failed_as_terminated(service_with: ServiceWith, engine: EmbeddedEngine) -> None:
    service = service_with(wait_budget_seconds=0)
    started = await start(service, difficulty=ENDLESS)
    await engine.cancel(NOBODY, started["workflow_id"])

    result = await service.get(NOBODY, started["workflow_id"])

    assert (result["status"], result["reason"]) == ("failed", "terminated")
    assert "cancelled" in result["error"]
    assert set(result) == {"status", "workflow_id", "reason", "error"}


async def test_a_workflow_that_went_wrong_is_failed_with_its_error(
    service_with: ServiceWith, engine: EmbeddedEngine
) -> None:
    # No tool lets such a job through: this is what an engine does with one all the same.
    workflow_id, _ = await engine.start(NOBODY, MiningJob(difficulty=300, blocks=1, genesis="GENESIS"), "no twin")
    await engine.wait(NOBODY, workflow_id, 60)

    result = await service_with().get(NOBODY, workflow_id)

    assert (result["status"], result["reason"]) == ("failed", "error")
    assert "difficulty must be an integer from 0 to 256, not 300" in result["error"]


async def test_another_caller_s_workflow_is_not_found_and_not_listed(service_with: ServiceWith) -> None:
    service = service_with(wait_budget_seconds=0)
    ada, bob = CallContext(caller="ada"), CallContext(caller="bob")
    started = await start(service, ada, difficulty=ENDLESS)

    for call in (bob, NOBODY):
        assert (await service.get(call, started["workflow_id"]))["status"] == "not_found"
        assert (await service.cancel(call, started["workflow_id"]))["status"] == "not_found"
        assert await service.list(call) == []
    assert [listed["workflow_id"] for listed in await service.list(ada)] == [started["workflow_id"]]
    assert (await service.get(ada, started["workflow_id"]))["status"] == "running"


@pytest.mark.parametrize("workflow_id", ["abc", "", 7, None, [], "0" * 1000, "'; DROP TABLE workflow; --", "\ud800"])
async def test_what_is_no_id_is_not_found(service_with: ServiceWith, workflow_id: object) -> None:
    result = await service_with().get(NOBODY, workflow_id)

    assert result["status"] == "not_found"
    assert result["workflow_id"] == str(workflow_id)
    assert "Not a workflow id" in result["error"]


async def test_an_unknown_id_is_not_found(service_with: ServiceWith) -> None:
    workflow_id = str(uuid.uuid4())

    result = await service_with().get(NOBODY, workflow_id)

    assert (result["status"], result["workflow_id"]) == ("not_found", workflow_id)
    assert "no workflow with this id" in result["error"]


async def test_an_id_is_known_in_capitals_and_with_spaces_too(service_with: ServiceWith) -> None:
    service = service_with()
    started = await start(service, difficulty=4)

    result = await service.get(NOBODY, f"  {started['workflow_id'].upper()}\n")

    assert (result["status"], result["workflow_id"]) == ("completed", started["workflow_id"])


def job(difficulty: int = 21, blocks: int = 4, genesis: str = "GENESIS") -> MiningJob:
    return {"difficulty": difficulty, "blocks": blocks, "genesis": genesis}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, job()),
        ({"difficulty": None, "blocks": None, "genesis": None}, job()),
        ({"difficulty": "16", "blocks": " 2 "}, job(difficulty=16, blocks=2)),
        ({"difficulty": 16.0}, job(difficulty=16)),
        ({"difficulty": 1, "blocks": 1, "genesis": ""}, job(difficulty=1, blocks=1, genesis="")),
        ({"difficulty": 40, "blocks": 64, "genesis": "é" * 32}, job(difficulty=40, blocks=64, genesis="é" * 32)),
    ],
    ids=str,
)
async def test_arguments_that_agents_send_are_understood(
    service_with: ServiceWith, arguments: dict[str, object], expected: MiningJob
) -> None:
    assert service_with().work.parse(arguments) == expected


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
    service_with: ServiceWith, engine: EmbeddedEngine, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await start(service_with(), **arguments)

    assert sentence in str(raised.value)
    assert await engine.newest(NOBODY, 10) == []


async def test_the_limits_are_the_settings(service_with: ServiceWith) -> None:
    work = service_with(mining_difficulty=5, max_difficulty=6, max_blocks=2).work

    assert work.parse({}) == job(difficulty=5, blocks=2)
    with pytest.raises(InvalidArgument, match="from 1 to 6, not 7"):
        work.parse({"difficulty": 7})
    with pytest.raises(InvalidArgument, match="from 1 to 2, not 3"):
        work.parse({"blocks": 3})


async def test_a_wait_is_over_when_the_host_shuts_down(service_with: ServiceWith, engine: EmbeddedEngine) -> None:
    service = service_with(wait_budget_seconds=3600)
    waiting = asyncio.create_task(start(service, difficulty=ENDLESS))
    async with asyncio.timeout(HANG_SECONDS):
        while not await service.list(NOBODY):
            await asyncio.sleep(0.01)
        engine.begin_shutdown()
        result = await waiting

    assert result["status"] == "running"


async def test_a_host_that_shuts_down_takes_no_new_work(service_with: ServiceWith, engine: EmbeddedEngine) -> None:
    engine.begin_shutdown()

    with pytest.raises(EngineError, match="the server is shutting down"):
        await start(service_with(), difficulty=ENDLESS)


async def test_every_mined_chain_verifies(service_with: ServiceWith) -> None:
    result = await start(service_with(), difficulty=10, blocks=20, genesis="another")

    chain = Chain.from_dict(result["chain"])
    assert len(chain.blocks) == 20
    assert verify_chain(chain)
