"""The embedded engine: workflows as rows of resumable states, in this process. There is nothing to replay.

Some threads take turns at the running workflows: one loads a workflow's state, runs what the work plans, merges
the answers, and writes the state when its turn ends, and once a second in between. What can't be written
stays in memory and is written as soon as that is possible: a full disk ends nothing and loses nothing.
"""

import asyncio
import json
import logging
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from pow.errors import EngineError, PowError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, Started, WorkflowState
from pow.longwork.engines.journal import FILE_NAME, Journal, Row
from pow.longwork.engines.turns import Ticket, Turns
from pow.longwork.work import AnyWork, Control, Message

# How long a turn is while others wait: short enough that nobody notices, and long enough that its end (a row
# written, a row read, a search begun) costs nothing.
_TURN_SECONDS = 0.1
# What is merged from partial answers is written this often.
_WRITE_SECONDS = 0.9
# Between two looks at what couldn't be written, and whether the file is still there.
_KEEPER_SECONDS = 0.5
_TICK_SECONDS = 60.0
# For runs to end in at a shutdown; one that takes no notice is left behind with its last partial answer.
_END_SECONDS = 2.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class _Workflow:
    """A running workflow, or one whose end isn't written yet. Changed under the engine's lock only."""

    __slots__ = (
        *("id", "number", "owner", "ticket", "job", "state", "status", "error", "used"),
        *("created_at", "updated_at", "in_flight", "turns", "version", "written", "written_at"),
    )

    def __init__(self, number: int, workflow_id: str, owner: str | None, used: float) -> None:
        self.number = number
        self.id = workflow_id
        self.owner = owner
        self.used = used
        self.ticket: Ticket[_Workflow] | None = None
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


class EmbeddedEngine:
    """Runs workflows in this process; an asynchronous context manager."""

    def __init__(self, work: AnyWork, *, state_dir: Path | None = None, width: int = 1) -> None:
        """
        Args:
            work: what its workflows do.
            state_dir: the folder of the journal; None keeps it in memory.
            width: how many runs of one workflow there are side by side.
        """
        self._work = work
        self._state_dir = state_dir
        self._width = width
        self._journal: Journal | None = None
        self._closing = False
        self._fault: str | None = None
        # Guards all that follows, and each workflow; never held while a disk or a work is waited for.
        self._changed = threading.Condition()
        self._workflows: dict[str, _Workflow] = {}
        self._unwritten: set[_Workflow] = set()
        self._unread: set[_Workflow] = set()
        self._turns: Turns[_Workflow] = Turns()
        # One writes at a time, so that what is written last is the newest.
        self._writing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._keeper_due = threading.Event()
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def describe(self) -> str:
        if self._state_dir is None:
            return "embedded engine, kept in memory"
        return f"embedded engine, journal {self._state_dir / FILE_NAME}"

    def fault(self) -> str | None:
        return self._fault

    @property
    def closing(self) -> bool:
        return self._closing

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._journal = await asyncio.to_thread(Journal, self._state_dir, self._adopt)
        for number, workflow_id, owner, used in self._journal.waiting():
            workflow = _Workflow(number, workflow_id, owner, used)
            workflow.ticket = self._turns.join(workflow, owner, used)
            self._workflows[workflow_id] = workflow
        if self._workflows:
            logger.warning("resumed %d unfinished workflow(s) from the journal", len(self._workflows))
        # One of them, and there are two at least, serves newcomers first, so that quick work is soon done.
        takers = [self._turns.take] * max(self._work.concurrency - 1, 1)
        for take in (*takers, self._take_newcomer_first):
            self._threads.append(threading.Thread(target=self._take_turns, args=(take,), name="turns", daemon=True))
        self._threads.append(threading.Thread(target=self._keep, name="journal keeper", daemon=True))
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop without losing work: runs end with what they have, and it is written."""
        self.begin_shutdown()
        await asyncio.to_thread(self._end)

    def begin_shutdown(self) -> None:
        """End all runs, and let every `wait` return now, so that callers get their handle in good time."""
        self._closing = True
        for workflow_id in self._waiters:
            self._wake(workflow_id)
        with self._changed:
            self._changed.notify_all()
        self._keeper_due.set()

    def _end(self) -> None:
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        with self._changed:
            unwritten = [workflow for workflow in self._workflows.values() if workflow.version != workflow.written]
        for workflow in unwritten:
            self._write(workflow)
        with self._writing:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    # What callers ask for

    async def start(self, call: CallContext, job: Message, twin_key: str, *, fresh: bool = False) -> Started:
        return await self._soon(self._start, call.caller, job, twin_key, fresh)

    def _start(self, owner: str | None, job: Message, twin_key: str, fresh: bool) -> Started:
        with self._writing:
            journal = self._open_journal()
            if self._closing:
                raise EngineError("the server is shutting down, and takes no new work")
            try:
                twin = None if fresh else journal.twin(twin_key)
                if twin is not None and twin in self._workflows and self._workflows[twin].status == "running":
                    return Started(twin, joined=True)
                state = self._work.begin(job)
                row = journal.insert(str(uuid.uuid4()), owner, twin_key, json.dumps(job), json.dumps(state))
            except sqlite3.Error as error:
                self._note(error)
                raise EngineError(
                    f"new work can't be accepted, since it could not be kept: {_why(error)}; what runs goes on, "
                    f"so make room, and call again"
                ) from error
            # Before another call with this key looks for its twin.
            workflow = _Workflow(row.number, row.id, owner, 0.0)
            workflow.job, workflow.state = job, state
            workflow.created_at = workflow.updated_at = row.created_at
            workflow.written_at = time.monotonic()
            with self._changed:
                self._workflows[row.id] = workflow
                workflow.ticket = self._turns.join(workflow, owner)
                self._changed.notify()
        return Started(row.id)

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        return await self._read(self._state, workflow_id)

    def _state(self, workflow_id: str) -> WorkflowState | None:
        with self._changed:
            state = self._remembered(workflow_id)
        if state is not None:
            return state
        row = self._open_journal().find(workflow_id)
        if row is None:
            return None
        return self._recorded(row, with_output=True) or WorkflowState(
            row.id, "failed", error="what was kept of this workflow can't be read", owner=row.owner
        )

    async def wait(self, call: CallContext, workflow_id: str, seconds: float) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        # Before the first look, so that an end right after it is not missed.
        woken = asyncio.Event()
        self._waiters.setdefault(workflow_id, set()).add(woken)
        try:
            while True:
                state = await self.state(call, workflow_id)
                left = deadline - loop.time()
                if state is None or state.ended or left <= 0 or self._closing:
                    return state
                with suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), left)
        finally:
            self._waiters[workflow_id].discard(woken)
            if not self._waiters[workflow_id]:
                del self._waiters[workflow_id]

    async def cancel(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        await asyncio.to_thread(self._cancel, workflow_id)
        return await self.state(call, workflow_id)

    def _cancel(self, workflow_id: str) -> None:
        self._open_journal()
        with self._changed:
            workflow = self._workflows.get(workflow_id)
        if workflow is None or workflow.status != "running":
            return
        if workflow.state is None:
            self._load(workflow)
        if self._finish(workflow, "terminated") and not self._write(workflow) and self._closing:
            raise EngineError(f"the cancel could not be kept: {self._fault}")

    async def newest(self, call: CallContext, limit: int) -> Sequence[WorkflowState]:
        return await self._read(self._newest, call.caller, limit)

    def _newest(self, owner: str | None, limit: int) -> list[WorkflowState]:
        listed: list[WorkflowState] = []
        for row in self._open_journal().newest(owner, limit):
            with self._changed:
                state = self._remembered(row.id)
            state = state or self._recorded(row, with_output=False)
            if state is not None:
                listed.append(state)
        return listed

    async def counts(self, call: CallContext) -> Mapping[EngineStatus, int]:
        return await asyncio.to_thread(self._counts)

    def _counts(self) -> dict[EngineStatus, int]:
        try:
            return self._open_journal().counts()
        except sqlite3.Error as error:
            raise EngineError(f"the journal can't be read: {_why(error)}") from error

    async def _soon(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call in the event loop's own thread, which takes microseconds, unless a disk is waited for just now."""
        if self._writing.locked() or (self._journal is not None and self._journal.busy):
            return await asyncio.to_thread(function, *arguments)
        return function(*arguments)

    async def _read(self, read: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._soon(read, *arguments)
        except sqlite3.Error as error:
            raise EngineError(f"the journal can't be read: {_why(error)}") from error

    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise EngineError("the workflow engine is not running")
        return self._journal

    def _remembered(self, workflow_id: str) -> WorkflowState | None:
        """A workflow as memory has it, if that has more than the journal. Called under the lock."""
        workflow = self._workflows.get(workflow_id)
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

    # Turns

    def _take_turns(self, take: Callable[[], _Workflow | None]) -> None:
        while True:
            with self._changed:
                while (workflow := None if self._closing else take()) is None:
                    if self._closing:
                        return
                    self._changed.wait()
                workflow.turns += 1
            try:
                self._turn(workflow, newcomers_first=take == self._take_newcomer_first)
            except Exception as error:
                logger.exception("workflow %s failed", workflow.id)
                self._fail(workflow, error)

    def _take_newcomer_first(self) -> _Workflow | None:
        return self._turns.take_newcomer() or self._turns.take()

    def _turn(self, workflow: _Workflow, *, newcomers_first: bool) -> None:
        try:
            if workflow.state is None and not self._load(workflow):
                return
            self._run_for_a_turn(workflow, newcomers_first)
        finally:
            with self._changed:
                workflow.turns -= 1
        with self._changed:
            ended = workflow.status != "running"
            due = ended or self._closing or self._turns.waiting or self._is_due(workflow)
        if due:
            self._write(workflow)
        if ended:
            self._tell(workflow.id)

    def _run_for_a_turn(self, workflow: _Workflow, newcomers_first: bool) -> None:
        began = time.monotonic()

        def is_over() -> bool:
            if self._closing or self._turns.waiting == 0:
                return self._closing
            ticket = workflow.ticket
            gives_way = newcomers_first and ticket is not None and self._turns.gives_way(ticket)
            return gives_way or time.monotonic() - began >= _TURN_SECONDS

        claim = self._next_run(workflow, is_over)
        while claim is not None:
            claim = self._run(workflow, *claim, is_over)

    def _load(self, workflow: _Workflow) -> bool:
        """Read a workflow's state from the journal; whether there is one."""
        try:
            row = self._open_journal().find(workflow.id)
            if row is None:
                raise KeyError(workflow.id)
            job, state = self._work.job_of(json.loads(row.job)), self._work.restore(json.loads(row.state))
        except PowError as error:
            # Not a job that could have been accepted.
            self._fail(workflow, error)
            return False
        except sqlite3.Error as error:
            self._note(error)
            with self._changed:
                self._unread.add(workflow)
            return False
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("workflow %s can't be read, and waits for the next start: %r", workflow.id, error)
            with self._changed:
                if workflow.ticket is not None:
                    self._turns.leave(workflow.ticket)
                    workflow.ticket = None
            return False
        with self._changed:
            if workflow.state is None:
                workflow.job, workflow.state = job, state
                workflow.created_at, workflow.updated_at = row.created_at, row.updated_at
                workflow.written_at = time.monotonic()
        return True

    def _next_run(self, workflow: _Workflow, is_over: Callable[[], bool]) -> tuple[Message, Control[Any]] | None:
        """Begin what the work plans next, if there is anything; finish the workflow if it is done."""
        with self._changed:
            if workflow.status != "running":
                return None
            in_flight = [request for request, _ in workflow.in_flight]
            try:
                wanted = self._work.plan(workflow.state, self._width, in_flight)
            except PowError as error:
                finish: tuple[EngineStatus, str | None] = ("failed", str(error))
            else:
                new = [request for request in wanted if request not in in_flight]
                if new:
                    return self._begin(workflow, new, is_over)
                if wanted:
                    return None  # what is in flight decides
                finish = ("completed", None)
        self._finish(workflow, *finish)
        return None

    def _begin(
        self, workflow: _Workflow, new: Sequence[Message], is_over: Callable[[], bool]
    ) -> tuple[Message, Control[Any]]:
        request = new[0]
        control: Control[Any] = Control(
            workflow.id,
            is_over,
            lambda answer: self._merge_partial(workflow, request, answer),
        )
        workflow.in_flight = (*workflow.in_flight, (request, control))
        ticket = workflow.ticket
        if len(new) > 1 and ticket is not None and ticket.token is None:
            self._turns.queue(ticket)
            self._changed.notify()
        return request, control

    def _run(
        self, workflow: _Workflow, request: Message, control: Control[Any], is_over: Callable[[], bool]
    ) -> tuple[Message, Control[Any]] | None:
        """Run one request of a workflow, take in its answer, and begin the next one if its turn goes on."""
        started = time.monotonic()
        error: Exception | None = None
        answer: Message = {}
        try:
            answer = self._work.run(request, control)
        except PowError as raised:
            error = raised
        except Exception as raised:
            logger.exception("workflow %s failed", workflow.id)
            error = raised
        seconds = time.monotonic() - started
        with self._changed:
            workflow.in_flight = tuple(flight for flight in workflow.in_flight if flight[1] is not control)
            if workflow.status != "running":
                return None
            workflow.used += seconds
            ticket = workflow.ticket
            if ticket is not None:
                self._turns.charge(ticket, seconds)
            if error is None:
                self._merge(workflow, request, answer)
                if control.over:
                    if ticket is not None and ticket.token is None and not self._closing:
                        self._turns.queue(ticket)
                        self._changed.notify()
                    return None
        if error is not None:
            self._fail(workflow, error)
            return None
        return self._next_run(workflow, is_over)

    def _merge(self, workflow: _Workflow, request: Message, answer: Message) -> None:
        """Called under the lock."""
        merged = self._work.merge(workflow.state, request, answer)
        if merged is not workflow.state:
            workflow.state = merged
            workflow.version += 1
            workflow.updated_at = time.time()

    def _merge_partial(self, workflow: _Workflow, request: Message, answer: Message) -> None:
        with self._changed:
            if workflow.status != "running":
                return
            self._merge(workflow, request, answer)
            due = self._is_due(workflow)
        if due:
            self._write(workflow)

    def _is_due(self, workflow: _Workflow) -> bool:
        return time.monotonic() - workflow.written_at >= _WRITE_SECONDS

    # Ends

    def _fail(self, workflow: _Workflow, error: Exception) -> None:
        if self._finish(workflow, "failed", str(error) or repr(error)):
            self._write(workflow)
            self._tell(workflow.id)

    def _finish(self, workflow: _Workflow, status: EngineStatus, error: str | None = None) -> bool:
        """Let a running workflow end; whether it was running."""
        with self._changed:
            if workflow.status != "running":
                return False
            workflow.status, workflow.error = status, error
            workflow.updated_at = time.time()
            workflow.version += 1
            in_flight, workflow.in_flight = workflow.in_flight, ()
            if workflow.ticket is not None:
                self._turns.leave(workflow.ticket)
                workflow.ticket = None
        for _, control in in_flight:
            control.cancel()
        if status == "terminated":
            self._tell(workflow.id)
        return True

    def _tell(self, workflow_id: str) -> None:
        """Wake who waits for a workflow that has ended."""
        if workflow_id in self._waiters and self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake, workflow_id)

    def _wake(self, workflow_id: str) -> None:
        for woken in self._waiters.get(workflow_id, ()):
            woken.set()

    # The journal

    def _write(self, workflow: _Workflow) -> bool:
        """Write a workflow's state, or its end; whether that went well. Otherwise it is tried again later."""
        with self._writing:
            journal = self._journal
            if journal is None:
                return False  # a run that took no notice of the shutdown ends now
            with self._changed:
                version, state = workflow.version, workflow.state
                if version != workflow.written:
                    values: dict[str, Any] = {
                        "status": workflow.status,
                        "error": workflow.error,
                        "used": workflow.used,
                        "updated_at": workflow.updated_at,
                    }
                number = workflow.number
            if version != workflow.written:
                try:
                    text = None if state is None else json.dumps(state)
                    journal.update(number, state=text, **values)
                except sqlite3.Error as error:
                    self._note(error)
                    with self._changed:
                        self._unwritten.add(workflow)
                    return False
            with self._changed:
                self._written(workflow, version)
        return True

    def _written(self, workflow: _Workflow, version: int) -> None:
        """Called under the lock."""
        workflow.written = version
        workflow.written_at = time.monotonic()
        self._unwritten.discard(workflow)
        if version != workflow.version:
            return
        # The journal answers for it from here on; memory stays flat.
        if workflow.status != "running":
            self._workflows.pop(workflow.id, None)
        elif not workflow.in_flight and not workflow.turns:
            workflow.job = workflow.state = None

    def _keep(self) -> None:
        """The keeper's thread: writes what couldn't be written, keeps the file, and lets old workflows go."""
        ticked = time.monotonic() - _TICK_SECONDS
        while not self._closing:
            journal = self._journal
            if journal is None:
                return
            try:
                journal.keep_file()
                journal.checkpoint()
                with self._changed:
                    unwritten = list(self._unwritten)
                for workflow in unwritten:
                    if not self._write(workflow):
                        break
                    if workflow.status != "running":
                        self._tell(workflow.id)
                if self._fault is not None or time.monotonic() - ticked >= _TICK_SECONDS:
                    journal.tick()
                    ticked = time.monotonic()
                    self._queue_unread()
                    if not self._unwritten and self._fault is not None:
                        logger.warning("the journal can be written again")
                        self._fault = None
            except (sqlite3.Error, OSError) as error:
                self._note(error)
            self._keeper_due.wait(_KEEPER_SECONDS)

    def _queue_unread(self) -> None:
        """Let workflows whose rows couldn't be read have their turns again."""
        with self._changed:
            unread, self._unread = self._unread, set()
            for workflow in unread:
                if workflow.ticket is not None and workflow.ticket.token is None:
                    self._turns.queue(workflow.ticket)
            self._changed.notify_all()

    def _note(self, error: Exception) -> None:
        """Remember why the journal can't be written, and log it once."""
        fault = f"the journal can't be written: {_why(error)}"
        if fault != self._fault:
            logger.error("%s (%s)", fault, error)
        self._fault = fault

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


def _why(error: Exception) -> str:
    """What went wrong, without the paths of this machine."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileExistsError):
        return "another file has taken its place"
    return str(error)
