"""The tools for named chains, on the embedded engine and a folder."""

import json
import uuid
from pathlib import Path
from typing import Any, cast

import pytest

from pow.cli.main import main
from pow.errors import ChainStoreError, InvalidArgument
from pow.longwork.call import NOBODY, CallContext
from pow.longwork.engine import Engine, WorkflowState
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.service import LongWorkService
from pow.mining.chain import Chain
from pow.mining.messages import MiningJob
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, markdown_report
from pow.tools.chain_store import FolderChains
from pow.tools.chains import ChainTools
from pow.tools.mining import NAMES

pytestmark = pytest.mark.anyio

DIFFICULTY = 12
ENDLESS = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "chains"


class Tools:
    """The tools as one caller has them."""

    def __init__(self, pool: MinerPool, engine: Engine, folder: Path, caller: str | None = None) -> None:
        service = LongWorkService(MiningWork(pool), engine, NAMES, wait_budget_seconds=0)
        self._tools = ChainTools(service, FolderChains(folder))
        self._call = CallContext(caller=caller)

    async def save_chain(self, name: object, workflow_id: object, overwrite: object = None) -> dict[str, Any]:
        return dict(await self._tools.save_chain(self._call, name, workflow_id, overwrite))

    async def get_chain(self, name: object) -> dict[str, Any]:
        return dict(await self._tools.get_chain(name))


@pytest.fixture
def tools(pool: MinerPool, engine: EmbeddedEngine, folder: Path) -> Tools:
    return Tools(pool, engine, folder)


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


class Liar:
    """An engine whose workflows all end in the same state. A real one mines what verifies."""

    def __init__(self, output: dict[str, Any]) -> None:
        self._output = output

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState:
        return WorkflowState(workflow_id, "completed", output=self._output)


@pytest.fixture
def lying(pool: MinerPool, folder: Path, genesis_chain: dict[int, dict[str, Any]]) -> Tools:
    """The tools on an engine whose chains don't verify; nothing has to be started for it."""
    job = MiningJob(difficulty=60, blocks=4, genesis="GENESIS")
    nonces = [block["nonce"] for block in genesis_chain[DIFFICULTY]["blocks"]]
    return Tools(pool, cast(Engine, Liar({**MiningWork(pool).begin(job), "nonces": nonces})), folder)


async def started(engine: EmbeddedEngine, difficulty: int = DIFFICULTY, owner: str | None = None) -> str:
    job = MiningJob(difficulty=difficulty, blocks=4, genesis="GENESIS")
    workflow_id, _ = await engine.start(CallContext(caller=owner), job, "no twin", fresh=True)
    return workflow_id


async def ended(engine: EmbeddedEngine, difficulty: int = DIFFICULTY, owner: str | None = None) -> str:
    workflow_id = await started(engine, difficulty, owner)
    state = await engine.wait(NOBODY, workflow_id, 60)
    assert state is not None
    assert state.ended
    return workflow_id


# save_chain


async def test_a_completed_chain_is_kept_as_the_command_line_verifies_it(
    tools: Tools,
    engine: EmbeddedEngine,
    folder: Path,
    genesis_chain: dict[int, dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    workflow_id = await ended(engine)

    result = await tools.save_chain("a.b-c_9", workflow_id)

    chain = genesis_chain[DIFFICULTY]
    assert result == {
        "status": "saved",
        "name": "a.b-c_9",
        "workflow_id": workflow_id,
        "result": f"Saved as `a.b-c_9`. {markdown_report(Chain.from_dict(chain))}",
    }
    kept = folder / "a.b-c_9.json"
    assert json.loads(kept.read_bytes()) == chain
    assert main(["verify", "--json", str(kept)]) == 0
    assert json.loads(capsys.readouterr().out)["valid"] is True


async def test_a_workflow_is_known_in_any_form_of_its_id(tools: Tools, engine: EmbeddedEngine) -> None:
    workflow_id = await ended(engine)

    result = await tools.save_chain("a", f" {{{workflow_id.upper()}}} ")

    assert (result["status"], result["workflow_id"]) == ("saved", workflow_id)


async def test_a_name_that_is_taken_is_replaced_only_if_that_is_asked_for(
    tools: Tools, engine: EmbeddedEngine, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    first, second = await ended(engine, 8), await ended(engine)
    await tools.save_chain("a", first)

    for overwrite in (None, False, " False "):
        refused = await tools.save_chain("a", second, overwrite)
        assert (refused["status"], refused["workflow_id"]) == ("exists", second)
        assert "overwrite true" in refused["error"]
    assert (await tools.get_chain("a"))["chain"]["difficulty"] == 8

    assert (await tools.save_chain("a", second, "True"))["status"] == "saved"
    assert (await tools.get_chain("a"))["chain"] == genesis_chain[DIFFICULTY]


@pytest.mark.parametrize("workflow_id", ["abc", "", None, 7])
async def test_what_is_no_id_is_not_found(tools: Tools, workflow_id: object) -> None:
    result = await tools.save_chain("a", workflow_id)

    assert (result["status"], result["workflow_id"]) == ("not_found", str(workflow_id))
    assert "no workflow with this id" in result["error"]


async def test_an_id_of_no_workflow_is_not_found(tools: Tools) -> None:
    workflow_id = str(uuid.uuid4())

    result = await tools.save_chain("a", workflow_id)

    assert (result["status"], result["workflow_id"]) == ("not_found", workflow_id)
    assert "no workflow with this id" in result["error"]


async def test_a_workflow_of_somebody_else_is_not_found(pool: MinerPool, engine: EmbeddedEngine, folder: Path) -> None:
    workflow_id = await ended(engine, owner="ada")

    assert (await Tools(pool, engine, folder, "bob").save_chain("a", workflow_id))["status"] == "not_found"
    assert (await Tools(pool, engine, folder, "ada").save_chain("a", workflow_id))["status"] == "saved"


async def test_a_running_workflow_has_nothing_to_save_yet(tools: Tools, engine: EmbeddedEngine) -> None:
    result = await tools.save_chain("a", await started(engine, ENDLESS))

    assert result["status"] == "running"
    assert "get_mining_result" in result["error"]


async def test_a_cancelled_workflow_has_nothing_to_save(tools: Tools, engine: EmbeddedEngine) -> None:
    workflow_id = await started(engine, ENDLESS)
    await engine.cancel(NOBODY, workflow_id)

    result = await tools.save_chain("a", workflow_id)

    assert result["status"] == "failed"
    assert result["error"].startswith("The workflow has no chain: ")


async def test_a_failed_workflow_has_nothing_to_save_and_says_why(tools: Tools, engine: EmbeddedEngine) -> None:
    result = await tools.save_chain("a", await ended(engine, 300))

    assert result["status"] == "failed"
    assert "difficulty must be an integer from 0 to 256, not 300" in result["error"]


async def test_a_chain_that_does_not_verify_is_not_kept(lying: Tools, folder: Path) -> None:
    result = await lying.save_chain("a", str(uuid.uuid4()))

    assert result["status"] == "failed"
    assert result["error"].startswith("The chain does not verify, so it was not saved: block 1: ")
    assert await FolderChains(folder).load("a") is None


@pytest.mark.parametrize("overwrite", ["maybe", "", 1, 0, []])
async def test_overwrite_is_true_or_false(lying: Tools, overwrite: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^overwrite must be true or false, not "):
        await lying.save_chain("a", str(uuid.uuid4()), overwrite)


@pytest.mark.parametrize("name", ["a b", "../a", "", None])
async def test_a_name_that_no_chain_may_bear_is_refused(lying: Tools, name: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^name must be 1 to 64 letters"):
        await lying.save_chain(name, str(uuid.uuid4()))
    with pytest.raises(InvalidArgument, match=r"^name must be 1 to 64 letters"):
        await lying.get_chain(name)


async def test_a_store_that_can_not_be_reached_is_an_error_and_not_a_status(
    tools: Tools, engine: EmbeddedEngine, folder: Path
) -> None:
    put(folder, b"a file")

    with pytest.raises(ChainStoreError):
        await tools.save_chain("a", await ended(engine))
    with pytest.raises(ChainStoreError):
        await tools.get_chain("a")


# get_chain


async def test_a_kept_chain_comes_back_with_its_report(
    tools: Tools, engine: EmbeddedEngine, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    await tools.save_chain("a", await ended(engine))

    chain = genesis_chain[DIFFICULTY]
    assert await tools.get_chain("a") == {
        "status": "found",
        "name": "a",
        "result": markdown_report(Chain.from_dict(chain)),
        "chain": chain,
    }


async def test_a_name_that_nothing_is_kept_under_is_not_found(lying: Tools) -> None:
    result = await lying.get_chain("a")

    assert (result["status"], result["name"]) == ("not_found", "a")
    assert "save_chain" in result["error"]


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"\xff\xfe", b"[]", b"{}", b"[" * 200_000, b'{"genesis": "GENESIS", "difficulty": 8, "blocks": 1}'],
    ids=["empty", "cut", "no text", "a list", "no chain", "nested", "no blocks"],
)
async def test_what_is_kept_but_is_no_chain_is_failed(lying: Tools, folder: Path, document: bytes) -> None:
    put(folder / "a.json", document)

    result = await lying.get_chain("a")

    assert result.keys() == {"status", "name", "error"}
    assert (result["status"], result["name"]) == ("failed", "a")
    assert result["error"].startswith("What is kept under this name is no chain: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"genesis": "GENESIS"', b'"genesis": "GENESYS"'),
        (b'"genesis": "GENESIS"', b'"genesis": "\\ud800"'),
        (b'"difficulty": 12', b'"difficulty": 40'),
        (b'"index": 2', b'"index": 3'),
        (b'"attempts": ', b'"attempts": 1'),
    ],
    ids=str,
)
async def test_a_kept_chain_that_was_altered_by_hand_is_failed(
    lying: Tools, folder: Path, genesis_chain: dict[int, dict[str, Any]], old: bytes, new: bytes
) -> None:
    document = json.dumps(genesis_chain[DIFFICULTY]).encode()
    put(folder / "a.json", document)
    assert (await lying.get_chain("a"))["status"] == "found"
    assert old in document
    put(folder / "a.json", document.replace(old, new, 1))

    result = await lying.get_chain("a")

    assert result["status"] == "failed"
    assert "chain" not in result
    assert result["error"].startswith("What is kept under this name is no chain: ")
