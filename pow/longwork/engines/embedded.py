"""The embedded engine: workflows as rows of resumable states, in this process. There is nothing to replay.

Some threads take turns at the running workflows: one loads a workflow's state, runs what the work plans, merges
the answers, and writes the state when its turn ends, and once a second in between. What can't be written
stays in memory and is written as soon as that is possible: a full disk ends nothing and loses nothing.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from pow.errors import EngineError, PowError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, Started, WorkflowState
from pow.longwork.engines.journal import FILE_NAME
from pow.longwork.engines.table import Table, Workflow, why
from pow.longwork.engines.turns import Turns
from pow.longwork.overhead import Overhead
from pow.longwork.work import AnyWork, Control, Message

# How long a turn is while others wait: short enough that nobody notices, and long enough that its end (a row
# written, a row read, a search begun) costs nothing.
_TURN_SECONDS = 0.1
# For runs to end in at a shutdown; one that takes no notice is left behind with its last partial answer.
_END_SECONDS = 2.0

# From one run to the next, until it was measured here.
_OVERHEAD_SECONDS = 50e-6

T = TypeVar("T")

logger = logging.getLogger(__name__)


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
        self._closing = False
        self._table = Table(work, state_dir, on_end=self._tell, on_readable=self._queue)
        # The table's lock guards the turns, too.
        self._changed = self._table.changed
        self._turns: Turns[Workflow] = Turns()
        self._overhead = Overhead(_OVERHEAD_SECONDS)
        self._threads: list[threading.Thread] = []
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def describe(self) -> str:
        if self._state_dir is None:
            return "embedded engine, kept in memory"
        return f"embedded engine, journal {self._state_dir / FILE_NAME}"

    @property
    def run_overhead(self) -> float:
        return self._overhead.seconds

    def fault(self) -> str | None:
        return self._table.fault

    @property
    def closing(self) -> bool:
        return self._closing

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        running = await asyncio.to_thread(self._table.open)
        for workflow in running:
            workflow.ticket = self._turns.join(workflow, workflow.owner, workflow.used)
        if running:
            logger.warning("resumed %d unfinished workflow(s) from the journal", len(running))
        # One of them, and there are two at least, serves newcomers first, so that quick work is soon done.
        takers = [self._turns.take] * max(self._work.concurrency - 1, 1)
        for take in (*takers, self._take_newcomer_first):
            self._threads.append(threading.Thread(target=self._take_turns, args=(take,), name="turns", daemon=True))
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
        self._table.stop_keeping()

    def _end(self) -> None:
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._table.close()

    # What callers ask for

    async def start(self, call: CallContext, job: Message, twin_key: str, *, fresh: bool = False) -> Started:
        def join(workflow: Workflow) -> None:
            workflow.ticket = self._turns.join(workflow, workflow.owner)
            self._changed.notify()

        def accept() -> Started:
            return self._table.accept(call.caller, job, twin_key, fresh=fresh, join=join)

        return await self._soon(accept)

    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        return await self._read(self._table.state, workflow_id)

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
        table = self._table
        _ = table.journal  # where it is closed, nothing can be cancelled any more
        with self._changed:
            workflow = table.workflows.get(workflow_id)
        if workflow is None or workflow.status != "running":
            return
        with suppress(PowError):  # whose job can't be read is cancelled all the same
            table.load(workflow)
        if self._finish(workflow, "terminated") and not table.write(workflow) and self._closing:
            raise EngineError(f"the cancel could not be kept: {table.fault}")

    async def newest(self, call: CallContext, limit: int) -> Sequence[WorkflowState]:
        return await self._read(self._table.newest, call.caller, limit)

    async def counts(self, call: CallContext) -> Mapping[EngineStatus, int]:
        return await asyncio.to_thread(self._counts)

    def _counts(self) -> dict[EngineStatus, int]:
        try:
            return self._table.journal.counts()
        except sqlite3.Error as error:
            raise EngineError(f"the journal can't be read: {why(error)}") from error

    async def _soon(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call in the event loop's own thread, which takes microseconds, unless a disk is waited for just now."""
        if self._table.busy:
            return await asyncio.to_thread(function, *arguments)
        return function(*arguments)

    async def _read(self, read: Callable[..., T], *arguments: Any) -> T:
        try:
            return await self._soon(read, *arguments)
        except sqlite3.Error as error:
            raise EngineError(f"the journal can't be read: {why(error)}") from error

    # Turns

    def _take_turns(self, take: Callable[[], Workflow | None]) -> None:
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
                self._fail(workflow, error)

    def _take_newcomer_first(self) -> Workflow | None:
        return self._turns.take_newcomer() or self._turns.take()

    def _turn(self, workflow: Workflow, *, newcomers_first: bool) -> None:
        try:
            if self._load(workflow):
                self._run_for_a_turn(workflow, newcomers_first)
        finally:
            with self._changed:
                workflow.turns -= 1
        with self._changed:
            ended = workflow.status != "running"
            due = ended or self._closing or self._turns.waiting or self._table.is_due(workflow)
        if due:
            self._table.write(workflow)
        if ended:
            self._tell(workflow.id)

    def _load(self, workflow: Workflow) -> bool:
        """Get a workflow's state into memory; whether it can have its turn."""
        try:
            return self._table.load(workflow)
        except PowError as error:
            self._fail(workflow, error)
            return False

    def _run_for_a_turn(self, workflow: Workflow, newcomers_first: bool) -> None:
        began = time.monotonic()

        def is_over() -> bool:
            if self._closing or self._turns.waiting == 0:
                return self._closing
            ticket = workflow.ticket
            gives_way = newcomers_first and ticket is not None and self._turns.gives_way(ticket)
            return gives_way or time.monotonic() - began >= _TURN_SECONDS

        claim = self._next_run(workflow, is_over)
        used, runs = workflow.used, 0
        while claim is not None:
            claim = self._run(workflow, *claim, is_over)
            runs += 1
        if runs > 1:
            self._overhead.add(max(time.monotonic() - began - (workflow.used - used), 0.0) / runs)

    def _next_run(self, workflow: Workflow, is_over: Callable[[], bool]) -> tuple[Message, Control[Any]] | None:
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
        self, workflow: Workflow, new: Sequence[Message], is_over: Callable[[], bool]
    ) -> tuple[Message, Control[Any]]:
        request = new[0]
        control: Control[Any] = Control(
            workflow.id,
            is_over,
            lambda answer: self._merge_partial(workflow, request, answer),
        )
        workflow.in_flight = (*workflow.in_flight, (request, control))
        if len(new) > 1:
            self._queue(workflow)
        return request, control

    def _queue(self, workflow: Workflow) -> None:
        """Let a workflow have another turn. Called under the lock."""
        ticket = workflow.ticket
        if ticket is not None and ticket.token is None:
            self._turns.queue(ticket)
            self._changed.notify()

    def _run(
        self, workflow: Workflow, request: Message, control: Control[Any], is_over: Callable[[], bool]
    ) -> tuple[Message, Control[Any]] | None:
        """Run one request of a workflow, take in its answer, and begin the next one if its turn goes on."""
        started = time.monotonic()
        error: Exception | None = None
        answer: Message = {}
        try:
            answer = self._work.run(request, control)
        except Exception as raised:
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
                    if not self._closing:
                        self._queue(workflow)
                    return None
        if error is not None:
            self._fail(workflow, error)
            return None
        return self._next_run(workflow, is_over)

    def _merge(self, workflow: Workflow, request: Message, answer: Message) -> None:
        """Called under the lock."""
        merged = self._work.merge(workflow.state, request, answer)
        if merged is not workflow.state:
            workflow.state = merged
            workflow.version += 1
            workflow.updated_at = time.time()

    def _merge_partial(self, workflow: Workflow, request: Message, answer: Message) -> None:
        with self._changed:
            if workflow.status != "running":
                return
            self._merge(workflow, request, answer)
            due = self._table.is_due(workflow)
        if due:
            self._table.write(workflow)

    # Ends

    def _fail(self, workflow: Workflow, error: Exception) -> None:
        if self._finish(workflow, "failed", str(error) or repr(error)):
            if not isinstance(error, PowError):
                logger.error("workflow %s failed", workflow.id, exc_info=error)
            self._table.write(workflow)
            self._tell(workflow.id)

    def _finish(self, workflow: Workflow, status: EngineStatus, error: str | None = None) -> bool:
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
