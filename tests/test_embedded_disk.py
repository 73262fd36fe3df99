"""The embedded engine on a disk that gives trouble: what runs goes on, what ends is told, nothing is lost."""

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from primes.primes import PrimesWork, State
from workflows import done_beyond, end_of, run, start, state_of, until
from works import MINING, PRIMES, Case, each_work

from pow.errors import EngineError
from pow.longwork.call import NOBODY
from pow.longwork.engines.embedded import EmbeddedEngine
from pow.longwork.engines.journal import FILE_NAME
from pow.longwork.work import StepControl

pytestmark = pytest.mark.anyio


class Disk:
    """A file system of two megabytes, and a file that fills it up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def recovered(engine: EmbeddedEngine) -> None:
    async def is_well() -> bool:
        return engine.fault() is None

    await until(is_well)


@each_work
async def test_on_a_full_disk_what_runs_goes_on_and_new_work_is_refused(case: Case, disk: Disk) -> None:
    async with EmbeddedEngine(case.work, state_dir=disk.folder / "state") as engine:
        assert engine.fault() is None
        running, _ = await start(engine, case, case.endless)
        disk.fill()

        for fresh in (False, True):
            with pytest.raises(EngineError, match=r"new work can't be accepted, since it could not be kept: .* full"):
                await start(engine, case, fresh=fresh)
        assert (engine.fault() or "").startswith("the journal can't be written: ")
        done = await done_beyond(engine, case, running)
        await done_beyond(engine, case, running, done)

        disk.free()
        await recovered(engine)
        assert (await run(engine, case)).status == "completed"
        done = await done_beyond(engine, case, running, done)

    async with EmbeddedEngine(case.work, state_dir=disk.folder / "state") as engine:
        state = await state_of(engine, running)
        assert case.done(case.job(case.endless), state.report) >= done


@each_work
async def test_a_cancel_on_a_full_disk_works_and_is_written_when_there_is_room(case: Case, disk: Disk) -> None:
    async with EmbeddedEngine(case.work, state_dir=disk.folder / "state") as engine:
        cancelled, _ = await start(engine, case, case.endless)
        await done_beyond(engine, case, cancelled)
        disk.fill()

        state = await engine.cancel(NOBODY, cancelled)

        assert state is not None
        assert state.status == "terminated"
        assert engine.fault() is not None
        assert (await state_of(engine, cancelled)).status == "terminated"
        disk.free()
        await recovered(engine)

    async with EmbeddedEngine(case.work, state_dir=disk.folder / "state") as engine:
        assert (await state_of(engine, cancelled)).status == "terminated"


class Gated(PrimesWork):
    """Primes, counted once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def step(self, state: State, control: StepControl[State]) -> State:
        self.gate.wait()
        return super().step(state, control)


async def test_what_ends_on_a_full_disk_is_told_and_written_when_there_is_room(disk: Disk) -> None:
    work = Gated()
    async with EmbeddedEngine(work, state_dir=disk.folder / "state") as engine:
        workflow_id, _ = await start(engine, PRIMES)
        disk.fill()
        work.gate.set()

        ended = await end_of(engine, workflow_id)

        output: Any = ended.output
        assert work.result(output).document == PRIMES.document
        assert engine.fault() is not None
        disk.free()
        await recovered(engine)

    async with EmbeddedEngine(work, state_dir=disk.folder / "state") as engine:
        assert await state_of(engine, workflow_id) == ended


async def test_a_cancel_that_a_shutdown_leaves_no_time_to_keep_is_not_acknowledged(disk: Disk) -> None:
    async with EmbeddedEngine(PRIMES.work, state_dir=disk.folder / "state") as engine:
        workflow_id, _ = await start(engine, PRIMES, PRIMES.endless)
        disk.fill()
        engine.begin_shutdown()

        with pytest.raises(EngineError, match="the cancel could not be kept"):
            await engine.cancel(NOBODY, workflow_id)


@each_work
async def test_a_folder_that_somebody_has_deleted_is_written_again(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "state"
    async with EmbeddedEngine(case.work, state_dir=folder) as engine:
        before = await run(engine, case)
        running, _ = await start(engine, case, case.endless)
        shutil.rmtree(folder)

        async def is_there() -> bool:
            return (folder / FILE_NAME).exists()

        await until(is_there)
        after = await run(engine, case)
        assert "had been removed, and was written again" in caplog.text

    async with EmbeddedEngine(case.work, state_dir=folder) as engine:
        assert await state_of(engine, before.workflow_id) == before
        assert await state_of(engine, after.workflow_id) == after
        assert (await state_of(engine, running)).status == "running"


async def test_a_file_that_has_taken_the_journal_s_place_is_left_alone(tmp_path: Path) -> None:
    async with EmbeddedEngine(MINING.work, state_dir=tmp_path) as engine:
        journal = tmp_path / FILE_NAME
        journal.rename(tmp_path / "moved")
        journal.write_text("somebody else's")

        async def is_told() -> bool:
            return engine.fault() == "the journal can't be written: another file has taken its place"

        await until(is_told)
        assert journal.read_text() == "somebody else's"
        journal.unlink()
        await recovered(engine)
        assert (await run(engine, MINING)).status == "completed"
