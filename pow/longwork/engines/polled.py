"""What engines share whose workflows a service keeps: it is asked again and again, and tells nothing by itself."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

from pow.longwork.call import CallContext
from pow.longwork.engine import Started, WorkflowState
from pow.longwork.engines.driver import SLICE_SECONDS, Activities, id_prefix, new_id
from pow.longwork.orchestration import WorkflowInput, first_input
from pow.longwork.work import AnyWork, Message

# Between two looks at a workflow that somebody waits for: ever less often.
_POLL_SECONDS = (0.05, 1.0)
_POLL_GROWTH = 1.5
# After a terminate it ends as soon as its service has heard of it.
_CANCEL_SECONDS = 10.0


class PolledEngine(ABC):
    """The part of an `Engine` that is the same on each of them."""

    def __init__(self, work: AnyWork, *, slice_seconds: float = SLICE_SECONDS, width: int = 1) -> None:
        """
        Args:
            work: what its workflows do.
            slice_seconds: how long one activity runs.
            width: how many workers run slices of the same workflow at once.
        """
        self._work = work
        self._slice_seconds = slice_seconds
        self._width = width
        self._activities = Activities(work)
        # Set when the process ends: nobody should wait any longer.
        self._ending = asyncio.Event()
        # From the look for a twin to its start: two equal calls in the same moment are twins, too.
        self._starting = asyncio.Lock()

    @property
    def closing(self) -> bool:
        return self._ending.is_set()

    def fault(self) -> str | None:
        return None

    @abstractmethod
    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        """As in `Engine`."""

    @abstractmethod
    async def _begin(self, call: CallContext, workflow_id: str, given: WorkflowInput) -> None:
        """Start an orchestration under an id."""

    @abstractmethod
    async def _running(self, call: CallContext, prefix: str) -> Sequence[WorkflowState]:
        """The running workflows whose ids begin so."""

    @abstractmethod
    async def _terminate(self, call: CallContext, workflow_id: str) -> None:
        """Ask for the end of a workflow."""

    async def start(self, call: CallContext, job: Message, twin_key: str, *, fresh: bool = False) -> Started:
        async with self._starting:
            running = [] if fresh else await self._running(call, id_prefix(twin_key))
            for state in running:
                # Prefixes may be equal by chance.
                if (state.job, state.owner) == (job, call.caller):
                    return Started(state.workflow_id, joined=True)
            given = first_input(
                self._work,
                job,
                slice_seconds=self._slice_seconds,
                width=self._width,
                restart_lost_slices=self._width > 1,
                owner=call.caller,
                created_at=time.time(),
            )
            workflow_id = new_id(twin_key)
            await self._begin(call, workflow_id, given)
        return Started(workflow_id)

    async def wait(self, call: CallContext, workflow_id: str, seconds: float) -> WorkflowState | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        pause, longest = _POLL_SECONDS
        while True:
            state = await self.state(call, workflow_id)
            left = deadline - loop.time()
            if state is None or state.ended or left <= 0 or self.closing:
                return state
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), min(pause, left))
            pause = min(pause * _POLL_GROWTH, longest)

    async def cancel(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        state = await self.state(call, workflow_id)
        if state is None or state.ended:
            return state
        await self._terminate(call, workflow_id)
        # A slice on another machine runs on to its end, for nobody.
        self._activities.cancel(workflow_id)
        return await self.wait(call, workflow_id, _CANCEL_SECONDS)
