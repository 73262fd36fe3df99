"""The embedded engine: durable workflows, their cancelling, their sharing of the cores."""

import asyncio
import json
import sqlite3
import stat
import uuid
from pathlib import Path
from typing import Any

import pytest

from pow.errors import EngineError
from pow.longwork.engine import WorkflowState
from pow.longwork.engines import durable_task
from pow.longwork.engines.durable_task import DurableTaskEngine
from pow.longwork.engines.journal import FILE_NAME, Journal
from pow.mining.pool import MinerPool
from pow.mining.workflow import MiningJob

pytestmark = pytest.mark.anyio

HANG_SECONDS = 120.0
ENDLESS = MiningJob(difficulty=200, blocks=1, genesis="GENESIS")


def quick(genesis: str = "GENESIS") -> MiningJob:
    return MiningJob(difficulty=12, blocks=4, genesis=genesis)


async def run(engine: DurableTaskEngine, job: MiningJob) -> WorkflowState:
    workflow_id = str(uuid.uuid4())
    await engine.start(workflow_id, job)
    state = await engine.wait(workflow_id, HANG_SECONDS)
    assert state is not None
    return state


async def until_mining(engine: DurableTaskEngine, *, searches: int = 1) -> None:
    async with asyncio.timeout(HANG_SECONDS):
        while engine.pool.searches != searches:
            await asyncio.sleep(0)


@pytest.mark.parametrize("slice_seconds", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("threads", [1, 2, 5])
async def test_any_slice_size_and_thread_count_gives_the_same_chain(
    genesis_chain: dict[int, dict[str, Any]], slice_seconds: float, threads: int
) -> None:
    async with DurableTaskEngine(MinerPool(threads), slice_seconds=slice_seconds) as engine:
        state = await run(engine, MiningJob(difficulty=18, blocks=4, genesis="GENESIS"))

    assert state.status == "completed"
    assert state.output == genesis_chain[18]


async def test_slices_side_by_side_and_those_that_outlive_their_history_give_the_same_chain(
    genesis_chain: dict[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Histories so short that slices above a hit answer in the next one, whose tasks bear the same numbers.
    monkeypatch.setattr("pow.mining.workflow._SLICES_PER_SHARED_HISTORY", 4)
    monkeypatch.setattr("pow.mining.window._FIRST_NONCES", 1 << 16)
    monkeypatch.setattr("pow.mining.window._SHORTEST_SECONDS", 0.001)
    async with DurableTaskEngine(MinerPool(), fan_out=3) as engine:
        states = await asyncio.gather(*(run(engine, MiningJob(18, 4, "GENESIS")) for _ in range(5)))

    assert [state.status for state in states] == ["completed"] * 5
    assert [state.output for state in states] == [genesis_chain[18]] * 5


async def test_hashlib_gives_the_same_chain(genesis_chain: dict[int, dict[str, Any]]) -> None:
    async with DurableTaskEngine(MinerPool(backend="hashlib")) as engine:
        state = await run(engine, quick())
        assert engine.pool.backend == "hashlib"

    assert state.output == genesis_chain[12]


async def test_a_history_that_is_continued_as_new_gives_the_same_chain(
    genesis_chain: dict[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pow.mining.workflow.SLICES_PER_HISTORY", 3)
    continued: list[str] = []
    carry_on = Journal.carry_on

    def seen(journal: Journal, workflow_id: str, state: str) -> None:
        continued.append(state)
        carry_on(journal, workflow_id, state)

    monkeypatch.setattr(Journal, "carry_on", seen)
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path, slice_seconds=0.0) as engine:
        state = await run(engine, MiningJob(difficulty=20, blocks=4, genesis="GENESIS"))

    assert state.output == genesis_chain[20]
    assert len(continued) > 1
    assert [json.loads(state)["nonces"] for state in continued][-1] == [
        block["nonce"] for block in genesis_chain[20]["blocks"][: len(json.loads(continued[-1])["nonces"])]
    ]


async def test_progress_counts_blocks_and_hashes(engine: DurableTaskEngine) -> None:
    state = await run(engine, quick())

    assert state.progress is not None
    assert state.output is not None
    assert (state.progress.blocks_done, state.progress.blocks_total) == (4, 4)
    assert state.progress.hashes == sum(block["attempts"] for block in state.output["blocks"])
    assert state.progress.seconds > 0
    assert state.job == quick()


async def test_progress_goes_on_within_a_slice_and_no_end_takes_it_back() -> None:
    async def hashes_after(least: int) -> int:
        async with asyncio.timeout(HANG_SECONDS):
            while True:
                (listed,) = await engine.list(1)
                if listed.progress is not None and listed.progress.hashes > least:
                    state = await engine.state(workflow_id)
                    assert state is not None
                    assert state.progress is not None
                    assert state.progress.hashes >= listed.progress.hashes
                    return state.progress.hashes
                await asyncio.sleep(0.01)

    workflow_id = str(uuid.uuid4())
    async with DurableTaskEngine(MinerPool(), slice_seconds=3600.0) as engine:
        await engine.start(workflow_id, ENDLESS)
        tried = await hashes_after(await hashes_after(0))
        cancelled = await engine.cancel(workflow_id)
        assert cancelled is not None
        assert cancelled.progress is not None
        assert cancelled.progress.hashes >= tried
        assert cancelled.progress.seconds > 0
        async with asyncio.timeout(HANG_SECONDS):
            while engine._reached:
                await asyncio.sleep(0.01)


async def test_an_unknown_workflow_is_none(engine: DurableTaskEngine) -> None:
    unknown = str(uuid.uuid4())

    assert await engine.state(unknown) is None
    assert await engine.wait(unknown, HANG_SECONDS) is None
    assert await engine.cancel(unknown) is None


async def test_an_id_is_taken_once(engine: DurableTaskEngine) -> None:
    state = await run(engine, quick())

    with pytest.raises(EngineError, match="already exists"):
        await engine.start(state.workflow_id, quick())


async def test_a_hundred_workflows_at_once_all_complete(engine: DurableTaskEngine) -> None:
    states = await asyncio.gather(*(run(engine, quick(f"genesis {number}")) for number in range(100)))

    assert [state.status for state in states] == ["completed"] * 100
    assert len({json.dumps(state.output) for state in states}) == 100


async def test_a_small_workflow_completes_beside_more_endless_ones_than_there_are_threads(
    engine: DurableTaskEngine,
) -> None:
    endless = [str(uuid.uuid4()) for _ in range(durable_task._EMBEDDED_ACTIVITIES // 8)]
    for workflow_id in endless:
        await engine.start(workflow_id, ENDLESS)
    await until_mining(engine, searches=len(endless))

    small = await run(engine, quick())

    assert small.status == "completed"
    for workflow_id in endless:
        state = await engine.state(workflow_id)
        assert state is not None
        assert state.status == "running"


async def test_cancelling_ends_the_running_slice_at_once() -> None:
    workflow_id = str(uuid.uuid4())
    async with DurableTaskEngine(MinerPool(), slice_seconds=3600) as engine:
        await engine.start(workflow_id, ENDLESS)
        await until_mining(engine)

        state = await engine.cancel(workflow_id)

        assert state is not None
        assert state.status == "terminated"
        # An hour before its time: because it was told to.
        await until_mining(engine, searches=0)
        assert await engine.cancel(workflow_id) == state


async def test_cancelling_one_workflow_leaves_the_others_alone(engine: DurableTaskEngine) -> None:
    cancelled, other = str(uuid.uuid4()), str(uuid.uuid4())
    await engine.start(cancelled, ENDLESS)
    await engine.start(other, ENDLESS)
    await until_mining(engine, searches=2)

    await engine.cancel(cancelled)

    state = await engine.state(other)
    assert state is not None
    assert state.status == "running"


async def test_cancelling_a_finished_workflow_changes_nothing(engine: DurableTaskEngine) -> None:
    finished = await run(engine, quick())

    assert await engine.cancel(finished.workflow_id) == finished


async def test_the_list_has_the_newest_first_whatever_their_state(engine: DurableTaskEngine) -> None:
    oldest = await run(engine, quick())
    cancelled = str(uuid.uuid4())
    await engine.start(cancelled, ENDLESS)
    await engine.cancel(cancelled)
    running = str(uuid.uuid4())
    await engine.start(running, ENDLESS)

    assert [(state.workflow_id, state.status) for state in await engine.list(10)] == [
        (running, "running"),
        (cancelled, "terminated"),
        (oldest.workflow_id, "completed"),
    ]
    assert [state.workflow_id for state in await engine.list(2)] == [running, cancelled]


async def test_finished_workflows_leave_the_memory(engine: DurableTaskEngine) -> None:
    state = await run(engine, quick())

    assert engine._backend is not None
    assert engine._backend._instances == {}
    assert engine._reached == {}
    assert await engine.state(state.workflow_id) == state


async def test_a_restarted_engine_goes_on_where_the_last_one_was_stopped(
    tmp_path: Path, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    workflow_id = str(uuid.uuid4())
    async with DurableTaskEngine(MinerPool(threads=1), state_dir=tmp_path) as engine:
        await engine.start(workflow_id, MiningJob(difficulty=24, blocks=2, genesis="GENESIS"))
        # A search that no thread has begun yet has nothing to keep.
        async with asyncio.timeout(HANG_SECONDS):
            while not engine.pool.hashes:
                await asyncio.sleep(0)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        (answer,) = connection.execute("SELECT answer FROM slice").fetchone()
    connection.close()

    # The slice that the stop cut short is kept with what it had tried.
    assert 0 < json.loads(answer)["next_nonce"] < genesis_chain[24]["blocks"][0]["nonce"]
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        state = await engine.wait(workflow_id, HANG_SECONDS)
        assert state is not None
        assert state.status == "completed"
        assert state.output is not None
        assert state.output["blocks"] == genesis_chain[24]["blocks"][:2]


async def test_finished_workflows_are_answered_after_a_restart(tmp_path: Path) -> None:
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        completed = await run(engine, quick())
        failed = await run(engine, MiningJob(difficulty=300, blocks=1, genesis="GENESIS"))
        cancelled = str(uuid.uuid4())
        await engine.start(cancelled, ENDLESS)
        terminated = await engine.cancel(cancelled)

    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        assert await engine.state(completed.workflow_id) == completed
        assert await engine.state(failed.workflow_id) == failed
        assert await engine.state(cancelled) == terminated
        assert engine.pool.searches == 0
    assert (completed.status, failed.status) == ("completed", "failed")


async def test_finished_workflows_leave_no_slices_behind(tmp_path: Path) -> None:
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        await run(engine, quick())
        cancelled = str(uuid.uuid4())
        await engine.start(cancelled, ENDLESS)
        await until_mining(engine)
        await engine.cancel(cancelled)

    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("SELECT count(*) FROM slice").fetchone() == (0,)
    connection.close()


async def test_workflows_that_finished_long_ago_are_forgotten(tmp_path: Path) -> None:
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        old, new = await run(engine, quick()), await run(engine, quick())
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE workflow SET finished_at = 1 WHERE id = ?", (old.workflow_id,))
    connection.close()

    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        assert await engine.state(old.workflow_id) is None
        assert await engine.state(new.workflow_id) == new


async def test_two_engines_do_not_share_a_state_directory(tmp_path: Path) -> None:
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path):
        with pytest.raises(EngineError, match="another pow-mcp server uses the state directory"):
            async with DurableTaskEngine(MinerPool(), state_dir=tmp_path):
                pass
    async with DurableTaskEngine(MinerPool(), state_dir=tmp_path) as engine:
        assert (await run(engine, quick())).status == "completed"


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else altogether" * 100)

    with pytest.raises(EngineError, match="can't be used as a journal"):
        await DurableTaskEngine(MinerPool(), state_dir=tmp_path).__aenter__()


async def test_a_journal_of_another_format_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(EngineError, match="has format 99, but this version reads format 1"):
        await DurableTaskEngine(MinerPool(), state_dir=tmp_path).__aenter__()


async def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EngineError, match="can't be made"):
        await DurableTaskEngine(MinerPool(), state_dir=tmp_path / "file" / "below").__aenter__()


async def test_nobody_else_can_connect_to_the_embedded_engine(engine: DurableTaskEngine) -> None:
    assert engine._backend is not None
    folder = engine._backend._socket_dir
    assert folder is not None
    assert (folder / "engine.sock").is_socket()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_a_stopped_engine_says_so() -> None:
    engine = DurableTaskEngine(MinerPool())
    async with engine:
        pass

    with pytest.raises(EngineError, match="not running"):
        await engine.state(str(uuid.uuid4()))
