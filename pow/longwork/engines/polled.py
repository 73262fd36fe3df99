"""What engines share whose workflows a service keeps: it is asked again and again, and tells nothing by itself.

Such a service is elsewhere: it stalls, restarts, and is cut off. So every call ends in time, waits outlive what passes,
and what was accepted is known by the id that was made for it here.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar
from weakref import WeakValueDictionary

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import Started, WorkflowState
from pow.longwork.engines.activities import Activities
from pow.longwork.engines.driver import SLICE_SECONDS, id_prefix, new_id
from pow.longwork.engines.listing import Filter, Listing
from pow.longwork.orchestration import WorkflowInput, first_input
from pow.longwork.overhead import Overhead
from pow.longwork.work import AnyWork, Message

# Between two looks at a workflow that somebody waits for: ever less often.
_POLL_SECONDS = (0.005, 1.0)
_POLL_GROWTH = 1.5
# Before the next look when the service didn't answer.
_TROUBLE_SECONDS = 0.25
# A look by somebody who waits no longer may take this long all the same.
_SHORTEST_LOOK_SECONDS = 2.0

# For one answer of the service, for a start with all that it takes, and for a cancel until it has taken effect.
CALL_SECONDS = 5.0
_START_SECONDS = 5.0
_CANCEL_SECONDS = 10.0

T = TypeVar("T")


class PolledEngine(Listing, ABC):
    """The part of an `Engine` that is the same on each of them."""

    def __init__(
        self, work: AnyWork, overhead: Overhead, *, slice_seconds: float = SLICE_SECONDS, width: int = 1
    ) -> None:
        """
        Args:
            work: what its workflows do.
            overhead: what the service takes from one slice to the next.
            slice_seconds: how long one activity runs.
            width: how many workers run slices of the same workflow at once.
        """
        super().__init__()
        self._work = work
        self._slice_seconds = slice_seconds
        self._width = width
        self._activities = Activities(work, overhead)
        # Set when the process ends: nobody should wait any longer.
        self._ending = asyncio.Event()
        # By the twin's key, from the look for a twin to its start: two equal calls in the same moment are twins, too.
        self._starting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def closing(self) -> bool:
        return self._ending.is_set()

    @property
    def run_overhead(self) -> float:
        return self._activities.overhead.seconds

    def fault(self) -> str | None:
        return None

    @abstractmethod
    def describe(self) -> str:
        """As in `Engine`."""

    @abstractmethod
    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        """As in `Engine`."""

    @abstractmethod
    async def _begin(self, call: CallContext, workflow_id: str, given: WorkflowInput) -> None:
        """Start an orchestration under an id."""

    @abstractmethod
    async def _terminate(self, call: CallContext, workflow_id: str) -> None:
        """Ask for the end of a workflow."""

    async def start(self, call: CallContext, job: Message, twin_key: str, *, fresh: bool = False) -> Started:
        lock = self._starting.setdefault(twin_key, asyncio.Lock())
        persistence = _Persistence()
        try:
            async with asyncio.timeout(_START_SECONDS), lock:
                twin = None if fresh else await persistence.get(lambda: self._twin(call, job, id_prefix(twin_key)))
                if twin is not None and not twin.ended:
                    return Started(twin.workflow_id, joined=True)
                workflow_id = new_id(twin_key)
                given = self._first_input(call, job, None if twin is None else twin.kept)
                await persistence.get(lambda: self._begin_unless_begun(call, workflow_id, given, persistence.failed))
        except TimeoutError as error:
            raise EngineError(
                f"{self.describe()} did not say within {_START_SECONDS:g} s whether it accepted the workflow; "
                f"the list of workflows shows it if it did ({persistence.trouble or 'there was no answer'})"
            ) from error
        return Started(workflow_id)

    async def _twin(self, call: CallContext, job: Message, prefix: str) -> WorkflowState | None:
        """An equal workflow that runs, or else one that has failed, from whose state another may go on."""
        kept: WorkflowState | None = None
        for entry in await self._entries(call, Filter(prefix, ("running", "failed"))):
            state = await self.state(call, entry.workflow_id)
            # Prefixes may be equal by chance.
            if state is None or (state.job, state.owner) != (job, call.caller):
                continue
            if not state.ended:
                return state
            if state.kept is not None and (kept is None or (state.created_at or 0.0) > (kept.created_at or 0.0)):
                kept = state
        return kept

    def _first_input(self, call: CallContext, job: Message, state: Message | None) -> WorkflowInput:
        """The input of a new workflow, which goes on from a state; from the beginning without one."""
        return first_input(
            self._work,
            job,
            slice_seconds=self._slice_seconds,
            width=self._width,
            owner=call.caller,
            created_at=time.time(),
            state=state,
        )

    async def _begin_unless_begun(self, call: CallContext, workflow_id: str, given: WorkflowInput, tried: bool) -> None:
        """Start a workflow, once: where an answer was lost on its way, the id tells whether the order was, too."""
        if tried and await self.state(call, workflow_id) is not None:
            return
        await self._begin(call, workflow_id, given)

    async def wait(self, call: CallContext, workflow_id: str, seconds: float) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause, longest = _POLL_SECONDS
        seen: WorkflowState | None = None
        while True:
            trouble: EngineError | None = None
            try:
                async with asyncio.timeout(max(deadline - loop.time(), _SHORTEST_LOOK_SECONDS)):
                    seen = await self.state(call, workflow_id)
                if seen is None or seen.ended:
                    return seen
            except EngineError as error:
                trouble = error
            except TimeoutError:
                trouble = EngineError(f"{self.describe()} did not answer in time")
            left = deadline - loop.time()
            if left <= 0 or self.closing:
                if trouble is not None and seen is None:
                    raise trouble
                return seen
            pause = min(pause * _POLL_GROWTH, longest) if trouble is None else max(pause, _TROUBLE_SECONDS)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), min(pause, left))

    async def cancel(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        persistence = _Persistence()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                state = await persistence.get(lambda: self.state(call, workflow_id))
                if state is None or state.ended:
                    return state
                await persistence.get(lambda: self._terminate(call, workflow_id))
        except TimeoutError as error:
            raise EngineError(
                f"{self.describe()} did not say within {CALL_SECONDS:g} s whether the workflow is cancelled "
                f"({persistence.trouble or 'there was no answer'})"
            ) from error
        # A worker elsewhere sees it for itself, soon.
        self._activities.cancel(workflow_id)
        return await self.wait(call, workflow_id, _CANCEL_SECONDS)


class _Persistence:
    """Tries again what a service fails to do, until somebody's time-out ends it. The service may be back soon."""

    def __init__(self) -> None:
        self.trouble: EngineError | None = None

    @property
    def failed(self) -> bool:
        """Whether anything has failed so far."""
        return self.trouble is not None

    async def get(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What the first attempt gives that succeeds."""
        while True:
            try:
                return await attempt()
            except EngineError as error:
                self.trouble = error
            await asyncio.sleep(_TROUBLE_SECONDS)
