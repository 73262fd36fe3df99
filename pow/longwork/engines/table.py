"""The embedded engine's table of workflows: what the journal has, and what memory has that differs from it.

A workflow's state is in memory while somebody is at it, and as long as it couldn't be written. Whatever is written
or read goes by here, so what a disk does wrong is dealt with in one place.
"""

import json
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pow.errors import EngineError, PowError
from pow.longwork.engine import EngineStatus, Started, WorkflowState
from pow.longwork.engines.journal import Journal, Row
from pow.longwork.engines.turns import Ticket
from pow.longwork.work import AnyWork, Control, Message

# What is merged from partial answers is written this often.
_WRITE_SECONDS = 0.9
# Between two looks at what couldn't be written, and whether the file is still there.
_KEEPER_SECONDS = 0.5
_TICK_SECONDS = 60.0

logger = logging.getLogger(__name__)


class Workflow:
    """A running workflow, or one whose end isn't written yet. Changed under the table's lock only."""

    __slots__ = (
        *("id", "number", "owner", "ticket", "job", "state", "status", "error", "used"),
        *("created_at", "updated_at", "in_flight", "turns", "version", "written", "written_at"),
    )

    def __init__(self, number: int, workflow_id: str, owner: str | None, used: float) -> None:
        self.number = number
        self.id = workflow_id
        self.owner = owner
        self.used = used
        self.ticket: Ticket[Workflow] | None = None
        self.status: EngineStatus = "running"
        self.error: str | None = None
        # These are only here while somebody is at it, or they differ from the journal's.
        self.job: Message | None = None
        self.state: Message | None = None
        self.created_at = self.updated_at = 0.0
        self.in_flight: tuple[tuple[Message, Control[Any]], ...] = ()
        self.turns = 0  # how many threads are at it
        self.version = self.written = 0
        self.written_at = 0.0


class Table:
    """The workflows of one engine. Thread-safe."""

    def __init__(
        self,
        work: AnyWork,
        state_dir: Path | None,
        *,
        on_end: Callable[[str], object],
        on_readable: Callable[[Workflow], object],
    ) -> None:
        """
        Args:
            work: what the workflows do.
            state_dir: the folder of the journal; None keeps it in memory.
            on_end: called with the id of a workflow whose end is written late.
            on_readable: called under the lock with each workflow whose row couldn't be read for a while.
        """
        self._work = work
        self._state_dir = state_dir
        self._on_end = on_end
        self._on_readable = on_readable
        self._journal: Journal | None = None
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="journal keeper", daemon=True)
        # Why the journal can't be written at the moment.
        self.fault: str | None = None
        # Guards all that follows, and each workflow; never held while a disk or a work is waited for.
        self.changed = threading.Condition()
        self.workflows: dict[str, Workflow] = {}
        self._unwritten: set[Workflow] = set()
        self._unread: set[Workflow] = set()
        # One writes at a time, so that what is written last is the newest.
        self._writing = threading.Lock()

    def open(self) -> list[Workflow]:
        """Open the journal; the running workflows in it.

        Raises:
            EngineError: it can't be used, or another server has it open.
        """
        self._journal = Journal(self._state_dir, self._adopt)
        for number, workflow_id, owner, used in self._journal.waiting():
            self.workflows[workflow_id] = Workflow(number, workflow_id, owner, used)
        self._keeper.start()
        return list(self.workflows.values())

    def stop_keeping(self) -> None:
        """Let the keeper's thread end; what it had to do is left to `close`."""
        self._closing.set()

    def close(self) -> None:
        """Write what isn't written, and close the journal."""
        self._closing.set()
        self._keeper.join()
        with self.changed:
            unwritten = [workflow for workflow in self.workflows.values() if workflow.version != workflow.written]
        for workflow in unwritten:
            self.write(workflow)
        with self._writing:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    @property
    def journal(self) -> Journal:
        """The open journal.

        Raises:
            EngineError: it isn't open.
        """
        if self._journal is None:
            raise EngineError("the workflow engine is not running")
        return self._journal

    @property
    def busy(self) -> bool:
        """Whether a disk is waited for just now."""
        return self._writing.locked() or (self._journal is not None and self._journal.busy)

    # Reading

    def state(self, workflow_id: str) -> WorkflowState | None:
        """A workflow now; None when the id is unknown."""
        with self.changed:
            state = self._remembered(workflow_id)
        if state is not None:
            return state
        row = self.journal.find(workflow_id)
        if row is None:
            return None
        return self._recorded(row, with_output=True) or WorkflowState(
            row.id, "failed", error="what was kept of this workflow can't be read", owner=row.owner
        )

    def newest(self, owner: str | None, limit: int) -> list[WorkflowState]:
        """The owner's newest workflows, newest first; without those that can't be read."""
        listed: list[WorkflowState] = []
        for row in self.journal.newest(owner, limit):
            with self.changed:
                state = self._remembered(row.id)
            state = state or self._recorded(row, with_output=False)
            if state is not None:
                listed.append(state)
        return listed

    def _remembered(self, workflow_id: str) -> WorkflowState | None:
        """A workflow as memory has it, if that has more than the journal. Called under the lock."""
        workflow = self.workflows.get(workflow_id)
        if workflow is None or (workflow.state is None and workflow.status == "running"):
            return None
        return WorkflowState(
            workflow_id,
            workflow.status,
            job=workflow.job,
            report=None if workflow.state is None else self._work.report(workflow.state),
            output=workflow.state if workflow.status == "completed" else None,
            error=workflow.error,
            owner=workflow.owner,
            created_at=workflow.created_at,
            updated_at=workflow.updated_at,
        )

    def _recorded(self, row: Row, *, with_output: bool) -> WorkflowState | None:
        """A workflow as the journal has it; None when that can't be read."""
        completed = row.status == "completed"
        try:
            state = self._work.restore(json.loads(row.state)) if with_output or not completed else None
            try:
                job = self._work.job_of(json.loads(row.job))
            except PowError:
                job = None  # not one that could have been accepted, so it has failed or will
            return WorkflowState(
                row.id,
                row.status,
                job=job,
                report=None if state is None else self._work.report(state),
                output=state if completed else None,
                error=row.error,
                owner=row.owner,
                created_at=row.created_at,
                updated_at=row.updated_at,
            )
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("workflow %s can't be read from the journal: %r", row.id, error)
            return None

    def load(self, workflow: Workflow) -> bool:
        """Read a workflow's state from the journal, if memory doesn't have it; whether that could be read.

        Raises:
            PowError: its job isn't one that could have been accepted.
        """
        if workflow.state is not None:
            return True
        try:
            row = self.journal.find(workflow.id)
            if row is None:
                raise KeyError(workflow.id)
            job, state = self._work.job_of(json.loads(row.job)), self._work.restore(json.loads(row.state))
        except sqlite3.Error as error:
            self._note(error)
            with self.changed:
                self._unread.add(workflow)
            return False
        except PowError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("workflow %s can't be read, and waits for the next start: %r", workflow.id, error)
            return False
        with self.changed:
            if workflow.state is None:
                workflow.job, workflow.state = job, state
                workflow.created_at, workflow.updated_at = row.created_at, row.updated_at
                workflow.written_at = time.monotonic()
        return True

    # Writing

    def accept(
        self, owner: str | None, job: Message, twin_key: str, *, fresh: bool, join: Callable[[Workflow], object]
    ) -> Started:
        """Write a new workflow, or find its running twin. `join` is called under the lock with the new one.

        Raises:
            EngineError: it can't be written; nothing was accepted.
        """
        with self._writing:
            journal = self.journal
            if self._closing.is_set():
                raise EngineError("the server is shutting down, and takes no new work")
            try:
                twin = None if fresh else journal.twin(twin_key)
                if twin is not None and twin in self.workflows and self.workflows[twin].status == "running":
                    return Started(twin, joined=True)
                state = self._work.begin(job)
                row = journal.insert(str(uuid.uuid4()), owner, twin_key, json.dumps(job), json.dumps(state))
            except sqlite3.Error as error:
                self._note(error)
                raise EngineError(
                    f"new work can't be accepted, since it could not be kept: {why(error)}; what runs goes on, "
                    f"so make room, and call again"
                ) from error
            # Before another call with this key looks for its twin.
            workflow = Workflow(row.number, row.id, owner, 0.0)
            workflow.job, workflow.state = job, state
            workflow.created_at = workflow.updated_at = row.created_at
            workflow.written_at = time.monotonic()
            with self.changed:
                self.workflows[row.id] = workflow
                join(workflow)
        return Started(row.id)

    def is_due(self, workflow: Workflow) -> bool:
        """Whether it is time to write what a workflow has come to. Called under the lock."""
        return time.monotonic() - workflow.written_at >= _WRITE_SECONDS

    def write(self, workflow: Workflow) -> bool:
        """Write a workflow's state, or its end; whether that went well. Otherwise it is tried again later."""
        with self._writing:
            journal = self._journal
            if journal is None:
                return False  # a run that took no notice of the shutdown ends now
            with self.changed:
                version, state = workflow.version, workflow.state
                status, error, used = workflow.status, workflow.error, workflow.used
                updated_at = workflow.updated_at
            if version != workflow.written:
                try:
                    text = None if state is None else json.dumps(state)
                    journal.update(
                        workflow.number, status=status, state=text, error=error, used=used, updated_at=updated_at
                    )
                except sqlite3.Error as fault:
                    self._note(fault)
                    with self.changed:
                        self._unwritten.add(workflow)
                    return False
            with self.changed:
                self._written(workflow, version)
        return True

    def _written(self, workflow: Workflow, version: int) -> None:
        """Called under the lock."""
        workflow.written = version
        workflow.written_at = time.monotonic()
        self._unwritten.discard(workflow)
        if version != workflow.version:
            return
        # The journal answers for it from here on; memory stays flat.
        if workflow.status != "running":
            self.workflows.pop(workflow.id, None)
        elif not workflow.in_flight and not workflow.turns:
            workflow.job = workflow.state = None

    # What the disk does wrong

    def _keep(self) -> None:
        """The keeper's thread: writes what couldn't be written, keeps the file, and lets old workflows go."""
        ticked = time.monotonic() - _TICK_SECONDS
        while not self._closing.is_set():
            journal = self._journal
            if journal is None:
                return
            try:
                journal.keep_file()
                journal.checkpoint()
                with self.changed:
                    unwritten = list(self._unwritten)
                for workflow in unwritten:
                    if not self.write(workflow):
                        break
                    if workflow.status != "running":
                        self._on_end(workflow.id)
                if self.fault is not None or time.monotonic() - ticked >= _TICK_SECONDS:
                    journal.tick()
                    ticked = time.monotonic()
                    self._queue_unread()
                    if not self._unwritten and self.fault is not None:
                        logger.warning("the journal can be written again")
                        self.fault = None
            except (sqlite3.Error, OSError) as error:
                self._note(error)
            self._closing.wait(_KEEPER_SECONDS)

    def _queue_unread(self) -> None:
        """Let workflows whose rows couldn't be read have their turns again."""
        with self.changed:
            unread, self._unread = self._unread, set()
            for workflow in unread:
                self._on_readable(workflow)
            self.changed.notify_all()

    def _note(self, error: Exception) -> None:
        """Remember why the journal can't be written, and log it once."""
        fault = f"the journal can't be written: {why(error)}"
        if fault != self.fault:
            logger.error("%s (%s)", fault, error)
        self.fault = fault

    def _adopt(self, given: Message, slices: Sequence[tuple[Message, Message]]) -> tuple[Message, Message]:
        """A workflow of the first format: its slices that were answered since its input, merged."""
        job, state = self._work.job_of(given), self._work.restore(given)
        while True:
            merged = state
            for request, answer in slices:
                merged = self._work.merge(merged, request, answer)
            if merged is state:
                return job, state
            state = merged


def why(error: Exception) -> str:
    """What went wrong, without the paths of this machine."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileExistsError):
        return "another file has taken its place"
    return str(error)
