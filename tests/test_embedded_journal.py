"""The embedded engine's journal: what outlives its process, and what is read of other files in its place."""

import asyncio
import gc
import json
import shutil
import sqlite3
import threading
import weakref
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from primes.primes import Job, PrimesWork, State
from workflows import done_beyond, end_of, listed, run, start, state_of, until
from works import MINING, PRIMES, Case, chain, each_work

from pow.errors import EngineError
from pow.longwork.call import NOBODY
from pow.longwork.engine import KEEP_SECONDS
from pow.longwork.engines import embedded
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.engines.journal import FILE_NAME
from pow.longwork.work import StepControl

pytestmark = pytest.mark.anyio


def query(folder: Path, statement: str, *values: object) -> list[Any]:
    """Ask or change the file of an engine that has stopped, or of a copy."""
    with closing(sqlite3.connect(folder / FILE_NAME)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def killed(folder: Path) -> Path:
    """What a process leaves behind that is killed now: its files, as they are."""
    copy = folder.with_name(f"{folder.name}-killed")
    shutil.copytree(folder, copy)
    return copy


# --- what is written


@each_work
async def test_a_workflow_is_on_disk_before_its_start_is_acknowledged(case: Case, tmp_path: Path) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path / "state") as engine:
        workflow_id, _ = await start(engine, case, owner="somebody")
        left = killed(tmp_path / "state")

    async with EmbeddedEngine(case.work, state_dir=left) as engine:
        state = await end_of(engine, workflow_id)
    assert (state.status, state.owner) == ("completed", "somebody")
    assert case.work.result(case.work.restore(state.output or {})).document == case.document


@each_work
@pytest.mark.parametrize("shutting_down", [False, True])
async def test_a_cancel_is_on_disk_before_it_is_acknowledged(case: Case, shutting_down: bool, tmp_path: Path) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path / "state") as engine:
        workflow_id, _ = await start(engine, case, case.endless)
        if shutting_down:
            engine.begin_shutdown()
        cancelled = await engine.cancel(NOBODY, workflow_id)
        left = killed(tmp_path / "state")

    assert cancelled is not None
    for folder in (left, tmp_path / "state"):
        async with EmbeddedEngine(case.work, state_dir=folder) as engine:
            assert (await state_of(engine, workflow_id)).status == "terminated"


@each_work
async def test_a_kill_takes_back_no_more_than_a_moment(case: Case, tmp_path: Path) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path / "state") as engine:
        workflow_id, _ = await start(engine, case, case.endless)
        # What a second came to has been written by the time that the next one's shows.
        done = await done_beyond(engine, case, workflow_id)
        await done_beyond(engine, case, workflow_id, done)
        left = killed(tmp_path / "state")

    async with EmbeddedEngine(case.work, state_dir=left) as engine:
        state = await state_of(engine, workflow_id)
        assert case.done(case.job(case.endless), state.report) >= done


@pytest.mark.parametrize(
    ("case", "arguments", "document"),
    [
        (MINING, {"difficulty": 20}, chain(20)),
        (PRIMES, {"below": 10_000_000}, {"below": 10_000_000, "primes": 664_579}),
    ],
    ids=["mine_chain", "count_primes"],
)
async def test_a_workflow_that_is_stopped_again_and_again_has_the_same_result(
    case: Case, arguments: dict[str, object], document: Any, tmp_path: Path
) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        started = await start(engine, case, arguments)
        first = await state_of(engine, started.workflow_id)
    seen = first
    for _ in range(3):
        async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
            state = await state_of(engine, started.workflow_id)
            assert case.done(case.job(arguments), state.report) >= case.done(case.job(arguments), seen.report)
            assert state.created_at == first.created_at
            seen = state
    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        state = await end_of(engine, started.workflow_id)
    assert case.work.result(case.work.restore(state.output or {})).document == document
    assert state.created_at == first.created_at


@each_work
async def test_what_has_ended_is_the_same_after_a_restart(case: Case, tmp_path: Path) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        completed = await run(engine, case, owner="a")
        cancelled, _ = await start(engine, case, case.endless, owner="a")
        terminated = await engine.cancel(NOBODY, cancelled)

    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        assert await state_of(engine, completed.workflow_id) == completed
        assert await state_of(engine, cancelled) == terminated
        assert await listed(engine, "a") == [(cancelled, "terminated"), (completed.workflow_id, "completed")]


@each_work
async def test_a_running_workflow_has_its_twin_after_a_restart(case: Case, tmp_path: Path) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        started = await start(engine, case, case.endless, owner="a")

    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        assert await start(engine, case, case.endless, owner="a") == (started.workflow_id, True)


async def test_a_thousand_long_chains_are_listed(tmp_path: Path) -> None:
    async with EmbeddedEngine(MINING.work, state_dir=tmp_path) as engine:
        mined = await run(engine, MINING, {"difficulty": 1, "blocks": 64})
    query(
        tmp_path,
        "INSERT INTO workflow (id, owner, twin, status, job, state, used, created_at, updated_at, ended) "
        "WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 1000) "
        "SELECT printf('copy-%04d', n), owner, twin, status, job, state, used, created_at, updated_at, ended "
        "FROM workflow, count",
    )

    async with EmbeddedEngine(MINING.work, state_dir=tmp_path) as engine:
        newest = await engine.newest(NOBODY, 100)
        assert [state.workflow_id for state in newest] == [f"copy-{number:04d}" for number in range(1000, 900, -1)]
        assert {state.status for state in newest} == {"completed"}
        assert await engine.counts(NOBODY) == {"completed": 1001}
        assert (await state_of(engine, "copy-0001")).output == mined.output


class Remembered(PrimesWork):
    """Primes, whose first states tell whether anybody still holds them."""

    def __init__(self) -> None:
        self.held: list[weakref.ref[Any]] = []

    def first(self, job: Job) -> State:
        state: Any = type("HeldState", (dict,), {})(super().first(job))
        self.held.append(weakref.ref(state))
        return state  # type: ignore[no-any-return]


async def test_what_has_ended_leaves_the_memory(tmp_path: Path) -> None:
    work = Remembered()
    async with EmbeddedEngine(work, state_dir=tmp_path) as engine:
        for _ in range(20):
            await run(engine, PRIMES)
            cancelled, _ = await start(engine, PRIMES, PRIMES.endless)
            await engine.cancel(NOBODY, cancelled)

        async def are_let_go() -> bool:
            gc.collect()
            # Each thread may hold the one that it was at last.
            return sum(held() is not None for held in work.held) <= 4

        await until(are_let_go)


class Stubborn(PrimesWork):
    """Primes, whose runs take no notice of anything before they are let on."""

    def __init__(self) -> None:
        self.begun, self.let_on = threading.Event(), threading.Event()

    def step(self, state: State, control: StepControl[State]) -> State:
        self.begun.set()
        self.let_on.wait()
        return super().step(state, control)


async def test_a_run_that_takes_no_notice_of_a_shutdown_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embedded, "_END_SECONDS", 0.01)
    work = Stubborn()
    threads = set(threading.enumerate())
    async with EmbeddedEngine(work, state_dir=tmp_path) as engine:
        workflow_id, _ = await start(engine, PRIMES)
        await asyncio.to_thread(work.begun.wait)
    work.let_on.set()
    for thread in set(threading.enumerate()) - threads:
        if thread.name == "turns":
            thread.join()
    assert not caplog.records

    async with EmbeddedEngine(work, state_dir=tmp_path) as engine:
        assert (await end_of(engine, workflow_id)).status == "completed"


# --- retention


async def test_what_ended_a_week_of_running_ago_is_forgotten_whatever_the_clock_says(tmp_path: Path) -> None:
    async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path) as engine:
        old, new = await run(engine, PRIMES), await run(engine, PRIMES)
        running, _ = await start(engine, PRIMES, PRIMES.endless)
    query(tmp_path, "UPDATE clock SET seconds = ?", 2 * KEEP_SECONDS)
    query(tmp_path, "UPDATE workflow SET ended = ? WHERE id = ?", KEEP_SECONDS - 10.0, old.workflow_id)
    query(tmp_path, "UPDATE workflow SET ended = ? WHERE id = ?", KEEP_SECONDS + 10.0, new.workflow_id)

    async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path) as engine:

        async def is_forgotten() -> bool:
            return await engine.state(NOBODY, old.workflow_id) is None

        await until(is_forgotten)
        assert await state_of(engine, new.workflow_id) == new
        assert (await state_of(engine, running)).status == "running"


async def test_a_clock_that_was_set_ten_days_ahead_deletes_nothing(tmp_path: Path) -> None:
    async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path) as engine:
        finished = await run(engine, PRIMES)
    query(tmp_path, "UPDATE workflow SET created_at = created_at - 864000, updated_at = updated_at - 864000")

    for _ in range(2):
        async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path) as engine:
            assert (await state_of(engine, finished.workflow_id)).output == finished.output
            assert (await run(engine, PRIMES)).status == "completed"


# --- what can't be read


@each_work
async def test_a_row_that_cannot_be_read_is_left_out_and_logged_and_the_others_run(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        ended = (await run(engine, case)).workflow_id
        broken, _ = await start(engine, case, case.endless)
        running, _ = await start(engine, case, case.endless, fresh=True)
    query(tmp_path, "UPDATE workflow SET state = '{\"a\": ' WHERE id = ?", broken)

    async with EmbeddedEngine(case.work, state_dir=tmp_path) as engine:
        await done_beyond(engine, case, running)
        assert await listed(engine) == [(running, "running"), (ended, "completed")]
        assert (await state_of(engine, broken)).error == "what was kept of this workflow can't be read"
        assert (await run(engine, case)).status == "completed"
        assert f"workflow {broken} can't be read" in caplog.text
        # It can still be put out of the way.
        assert await engine.cancel(NOBODY, broken)
    assert query(tmp_path, "SELECT status FROM workflow WHERE id = ?", broken) == [("terminated",)]


async def test_two_engines_do_not_share_a_state_directory(tmp_path: Path) -> None:
    async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path):
        with pytest.raises(EngineError, match="another pow-mcp server uses the state directory"):
            await EmbeddedEngine(PRIMES.work, state_dir=tmp_path).__aenter__()
    async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path) as engine:
        assert (await run(engine, PRIMES)).status == "completed"


async def test_a_journal_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    query(tmp_path, "PRAGMA user_version = 99")

    with pytest.raises(EngineError, match="has format 99, but this version reads formats up to 2"):
        await EmbeddedEngine(PRIMES.work, state_dir=tmp_path).__aenter__()


async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"something else altogether" * 100)

    with pytest.raises(EngineError, match="can't be used as a journal"):
        await EmbeddedEngine(PRIMES.work, state_dir=tmp_path).__aenter__()


async def test_a_state_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EngineError, match="can't be made"):
        await EmbeddedEngine(PRIMES.work, state_dir=tmp_path / "file" / "below").__aenter__()


async def test_a_damaged_log_is_kept_and_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with EmbeddedEngine(PRIMES.work, state_dir=tmp_path / "state") as engine:
        ids = [(await run(engine, PRIMES, {"below": 100 + number})).workflow_id for number in range(5)]
        left = killed(tmp_path / "state")
    log = left / f"{FILE_NAME}-wal"
    damaged = bytearray(log.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    log.write_bytes(damaged)

    async with EmbeddedEngine(PRIMES.work, state_dir=left) as engine:
        known = await listed(engine)
        assert (await run(engine, PRIMES)).status == "completed"
    # SQLite itself would have said nothing.
    assert len(known) < len(ids)
    assert "is damaged" in caplog.text
    (kept,) = left.glob(f"{FILE_NAME}-wal.damaged-*")
    assert kept.read_bytes() == damaged
    assert str(kept) in caplog.text


# --- the first version's journal

FIRST_FORMAT = """
CREATE TABLE workflow (
    id TEXT PRIMARY KEY, orchestration TEXT NOT NULL, input TEXT NOT NULL, accepted_at REAL NOT NULL,
    finished_at REAL, status INTEGER, output TEXT, error TEXT, custom_status TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE slice (
    workflow_id TEXT NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL, PRIMARY KEY (workflow_id, request)
) STRICT, WITHOUT ROWID;
CREATE INDEX workflow_accepted ON workflow (accepted_at);
PRAGMA user_version = 1;
"""


def first_input(**changes: Any) -> str:
    given = {"difficulty": 16, "blocks": 4, "genesis": "GENESIS", "slice_seconds": 1.0, "fan_out": 1}
    given |= {"restart_lost_slices": False, "owner": "me", "nonces": [], "next_nonce": 0, "gaps": [], "hit": None}
    return json.dumps(given | {"rate": None, "turnaround": None, "hashes": 0, "seconds": 0.0} | changes)


def first_slice(start: int, next_nonce: int, *, found: bool = False, difficulty: int = 16) -> tuple[str, str]:
    request = {"difficulty": difficulty, "index": 1, "previous_hash": "GENESIS", "seconds": 1.0, "start": start}
    return json.dumps(request), json.dumps({"found": found, "next_nonce": next_nonce, "seconds": 1.0})


async def test_a_journal_of_the_first_version_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = json.dumps({"blocks_done": 4, "blocks_total": 4, "hashes": 5, "seconds": 1.0, "nonces": []})
    workflows = [
        ("endless", first_input(difficulty=200), 1000.0, None, None, None, None, None),
        ("unfinished", first_input(), 1001.0, None, None, None, None, None),
        ("continued", first_input(nonces=[88_270], hashes=88_271), 1002.0, None, None, None, None, None),
        ("completed", first_input(), 1003.0, 1004.0, 1, json.dumps(chain(16)), None, report),
        ("failed", first_input(), 1005.0, 1006.0, 3, None, "this went wrong", None),
        ("terminated", first_input(owner=None), 1007.0, 1008.0, 5, None, None, None),
        ("unreadable", "{}", 1009.0, None, None, None, None, None),
    ]
    slices = [
        ("endless", *first_slice(10**12, 10**13, difficulty=200)),
        ("endless", *first_slice(0, 10**12, difficulty=200)),
        ("unfinished", *first_slice(0, 50_000)),
        ("unfinished", *first_slice(50_000, 88_271, found=True)),
    ]
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.executescript(FIRST_FORMAT)
        connection.executemany("INSERT INTO workflow VALUES (?, 'mine_chain', ?, ?, ?, ?, ?, ?, ?)", workflows)
        connection.executemany("INSERT INTO slice VALUES (?, ?, ?)", slices)

    for _ in range(2):
        async with EmbeddedEngine(MINING.work, state_dir=tmp_path) as engine:
            endless = await state_of(engine, "endless")
            assert MINING.done(MINING.job(MINING.endless), endless.report) >= 10**13
            for workflow_id in ("unfinished", "continued", "completed"):
                state = await end_of(engine, workflow_id)
                assert MINING.work.result(MINING.work.restore(state.output or {})).document == chain(16)
                assert state.owner == "me"
            failed, terminated = await state_of(engine, "failed"), await state_of(engine, "terminated")
            assert (failed.status, failed.error) == ("failed", "this went wrong")
            assert (terminated.status, terminated.owner) == ("terminated", None)
            assert (terminated.created_at, terminated.updated_at) == (1007.0, 1008.0)
            assert [workflow_id for workflow_id, _ in await listed(engine, "me")] == [
                "failed",
                "completed",
                "continued",
                "unfinished",
                "endless",
            ]
    assert "workflow unreadable of the older journal can't be read, and is left out" in caplog.text
    assert "took over 6 workflow(s) of an older version's journal" in caplog.text
