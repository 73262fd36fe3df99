"""The embedded engine while it runs: what callers see of workflows, their cancelling, their sharing of the cores."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from workflows import HANG_SECONDS, done_beyond, end_of, listed, run, start, state_of, until
from works import MINING, PRIMES, Case, chain, each_work

from pow.errors import EngineError, PowError
from pow.longwork.call import NOBODY
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.work import Control
from pow.mining.miner import shared_pool
from pow.mining.pool import MinerPool
from pow.mining.work import MiningWork, mined_chain

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(case: Case) -> AsyncIterator[EmbeddedEngine]:
    """An engine that keeps nothing, for the test's work."""
    async with EmbeddedEngine(case.work) as running:
        yield running


mining_only = pytest.mark.parametrize("case", [MINING], ids=["mine_chain"])


# --- running


@each_work
async def test_a_workflow_runs_to_its_work_s_result(case: Case, engine: EmbeddedEngine) -> None:
    state = await run(engine, case)

    assert state.status == "completed"
    assert state.job == case.job()
    assert state.output is not None
    assert case.work.result(case.work.restore(state.output)).document == case.document
    assert state.report == case.work.report(case.work.restore(state.output))
    assert state.created_at is not None
    assert state.updated_at is not None
    assert state.created_at <= state.updated_at


@mining_only
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("threads", [1, 5])
async def test_any_width_and_number_of_threads_gives_the_same_chain(
    case: Case, width: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that a block takes many ranges.
    monkeypatch.setattr("pow.mining.window._FIRST_NONCES", 1 << 14)
    monkeypatch.setattr("pow.mining.window._SHORTEST_SECONDS", 0.001)
    with MinerPool(threads) as pool:
        async with EmbeddedEngine(MiningWork(pool), width=width) as engine:
            states = await asyncio.gather(*(run(engine, case, {"difficulty": 18}) for _ in range(3)))

    for state in states:
        output: Any = state.output
        assert mined_chain(output).to_dict() == chain(18)


@mining_only
async def test_hashlib_gives_the_same_chain(case: Case) -> None:
    with MinerPool(backend="hashlib") as pool:
        async with EmbeddedEngine(MiningWork(pool)) as engine:
            state = await run(engine, case, {"difficulty": 12})

    output: Any = state.output
    assert mined_chain(output).to_dict() == chain(12)


@each_work
async def test_a_hundred_workflows_at_once_all_complete(case: Case, engine: EmbeddedEngine) -> None:
    arguments: dict[str, object] = {"difficulty": 8} if case is MINING else {"below": 1000}
    states = await asyncio.gather(*(run(engine, case, arguments) for _ in range(100)))

    assert [state.status for state in states] == ["completed"] * 100
    assert await engine.counts(NOBODY) == {"completed": 100}


@each_work
async def test_progress_goes_on_while_a_workflow_runs(case: Case, engine: EmbeddedEngine) -> None:
    workflow_id, _ = await start(engine, case, case.endless)

    done = await done_beyond(engine, case, workflow_id)
    await done_beyond(engine, case, workflow_id, done)


class Broken(MiningWork):
    """Mining whose runs fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__(shared_pool())
        self.error = error

    def run(self, request: Any, control: Control[Any]) -> Any:
        raise self.error


@mining_only
@pytest.mark.parametrize("error", [PowError("this went wrong"), ZeroDivisionError("this went wrong")], ids=repr)
async def test_a_run_that_fails_fails_its_workflow_and_no_other(
    case: Case, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    work = Broken(error)
    async with EmbeddedEngine(work) as engine:
        failed = [await run(engine, case) for _ in range(3)]

    assert [(state.status, state.error) for state in failed] == [("failed", "this went wrong")] * 3
    # What nobody has foreseen is logged, for operators.
    assert ("ZeroDivisionError" in caplog.text) == isinstance(error, ZeroDivisionError)


# --- what is asked for


@each_work
async def test_an_unknown_workflow_is_none(case: Case, engine: EmbeddedEngine) -> None:
    unknown = str(uuid.uuid4())

    assert await engine.state(NOBODY, unknown) is None
    assert await engine.wait(NOBODY, unknown, HANG_SECONDS) is None
    assert await engine.cancel(NOBODY, unknown) is None


@each_work
async def test_a_wait_that_is_over_tells_of_a_running_workflow(case: Case, engine: EmbeddedEngine) -> None:
    workflow_id, _ = await start(engine, case, case.endless)

    state = await engine.wait(NOBODY, workflow_id, 0.0)

    assert state is not None
    assert state.status == "running"
    assert state.job == case.job(case.endless)


@each_work
async def test_the_list_has_the_newest_first_whatever_their_status(case: Case, engine: EmbeddedEngine) -> None:
    oldest = (await run(engine, case)).workflow_id
    cancelled, _ = await start(engine, case, case.endless)
    await engine.cancel(NOBODY, cancelled)
    running, _ = await start(engine, case, case.endless)

    expected = [(running, "running"), (cancelled, "terminated"), (oldest, "completed")]
    assert await listed(engine) == expected
    assert await listed(engine, limit=2) == expected[:2]
    assert await engine.counts(NOBODY) == {"running": 1, "terminated": 1, "completed": 1}


@each_work
async def test_each_owner_s_list_has_only_what_is_theirs(case: Case, engine: EmbeddedEngine) -> None:
    owned = {owner: (await run(engine, case, owner=owner)).workflow_id for owner in ("a", "b", None)}

    for owner, workflow_id in owned.items():
        assert await listed(engine, owner) == [(workflow_id, "completed")]
        assert (await state_of(engine, workflow_id)).owner == owner
    assert await listed(engine, "c") == []


# --- twins


@each_work
async def test_an_equal_call_joins_the_running_workflow(case: Case, engine: EmbeddedEngine) -> None:
    first = await start(engine, case, case.endless)
    second = await start(engine, case, case.endless)
    fresh = await start(engine, case, case.endless, fresh=True)

    assert (first.joined, second.joined, fresh.joined) == (False, True, False)
    assert second.workflow_id == first.workflow_id != fresh.workflow_id


@each_work
async def test_another_job_and_another_owner_s_equal_one_are_no_twins(case: Case, engine: EmbeddedEngine) -> None:
    started = [
        await start(engine, case, case.endless, owner="a"),
        await start(engine, case, case.endless, owner="b"),
        await start(engine, case, case.other, owner="a"),
    ]

    assert len({workflow_id for workflow_id, _ in started}) == 3
    assert not any(joined for _, joined in started)


@each_work
async def test_nobody_joins_what_has_ended(case: Case, engine: EmbeddedEngine) -> None:
    first = await start(engine, case, case.endless)
    await engine.cancel(NOBODY, first.workflow_id)
    second = await start(engine, case, case.endless)

    assert not second.joined
    assert second.workflow_id != first.workflow_id


@each_work
async def test_equal_calls_in_the_same_moment_are_twins(case: Case, engine: EmbeddedEngine) -> None:
    started = await asyncio.gather(*(start(engine, case, case.endless) for _ in range(20)))

    assert len({workflow_id for workflow_id, _ in started}) == 1
    assert [joined for _, joined in started].count(False) == 1


# --- cancelling


@each_work
async def test_cancelling_ends_the_workflow_and_its_run_at_once(case: Case, engine: EmbeddedEngine) -> None:
    workflow_id, _ = await start(engine, case, case.endless)
    done = await done_beyond(engine, case, workflow_id)
    waiting = asyncio.create_task(end_of(engine, workflow_id))

    cancelled = await engine.cancel(NOBODY, workflow_id)

    assert cancelled is not None
    assert cancelled.status == "terminated"
    assert cancelled.job is not None
    assert case.done(cancelled.job, cancelled.report) >= done
    assert await waiting == cancelled
    assert await engine.cancel(NOBODY, workflow_id) == cancelled
    # Its threads serve others.
    assert (await run(engine, case)).status == "completed"


@mining_only
async def test_no_search_outlives_its_workflow(case: Case) -> None:
    with MinerPool() as pool:
        async with EmbeddedEngine(MiningWork(pool)) as engine:
            workflow_id, _ = await start(engine, case, case.endless)

            async def searches() -> bool:
                return pool.searches > 0

            async def no_searches() -> bool:
                return pool.searches == 0

            await until(searches)
            await engine.cancel(NOBODY, workflow_id)
            await until(no_searches)


@each_work
async def test_cancelling_one_workflow_leaves_the_others_alone(case: Case, engine: EmbeddedEngine) -> None:
    cancelled, _ = await start(engine, case, case.endless)
    other, _ = await start(engine, case, case.endless, fresh=True)

    await engine.cancel(NOBODY, cancelled)

    await done_beyond(engine, case, other)
    assert (await state_of(engine, cancelled)).status == "terminated"


@each_work
async def test_cancelling_a_finished_workflow_changes_nothing(case: Case, engine: EmbeddedEngine) -> None:
    finished = await run(engine, case)

    assert await engine.cancel(NOBODY, finished.workflow_id) == finished


# --- sharing


@each_work
async def test_a_crowd_of_one_owner_s_keeps_nobody_s_quick_work_from_its_end(
    case: Case, engine: EmbeddedEngine
) -> None:
    for _ in range(260):
        await start(engine, case, case.endless, owner="busy", fresh=True)

    assert (await run(engine, case, owner="somebody")).status == "completed"
    assert (await run(engine, case, owner="busy")).status == "completed"
    assert await engine.counts(NOBODY) == {"running": 260, "completed": 2}


@each_work
async def test_each_workflow_of_a_crowd_gets_its_turns(case: Case, engine: EmbeddedEngine) -> None:
    crowd = [(await start(engine, case, case.endless, owner=str(i % 2), fresh=True)).workflow_id for i in range(6)]

    for workflow_id in crowd:
        await done_beyond(engine, case, workflow_id)


# --- the end


@each_work
async def test_a_shutdown_ends_every_wait_and_takes_no_new_work(case: Case, engine: EmbeddedEngine) -> None:
    workflow_id, _ = await start(engine, case, case.endless)
    waiting = asyncio.create_task(engine.wait(NOBODY, workflow_id, HANG_SECONDS))
    await asyncio.sleep(0)

    engine.begin_shutdown()

    state = await waiting
    assert state is not None
    assert state.status == "running"
    assert engine.closing
    with pytest.raises(EngineError, match="shutting down"):
        await start(engine, case)


async def test_a_stopped_engine_says_so() -> None:
    engine = EmbeddedEngine(PRIMES.work)
    with pytest.raises(EngineError, match="not running"):
        await engine.state(NOBODY, str(uuid.uuid4()))
    async with engine:
        pass

    for asked in (
        engine.state(NOBODY, str(uuid.uuid4())),
        engine.cancel(NOBODY, str(uuid.uuid4())),
        engine.newest(NOBODY, 1),
        engine.counts(NOBODY),
        start(engine, PRIMES),
    ):
        with pytest.raises(EngineError, match="not running"):
            await asked


async def test_operators_are_told_where_workflows_are_kept(tmp_path: Any) -> None:
    assert EmbeddedEngine(PRIMES.work).describe() == "embedded engine, kept in memory"
    assert EmbeddedEngine(PRIMES.work, state_dir=tmp_path).describe() == (
        f"embedded engine, journal {tmp_path / 'journal.sqlite3'}"
    )
