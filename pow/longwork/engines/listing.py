"""Lists of workflows that a service keeps: in pages, in its own order, of many callers and other apps.

What a page tells of a workflow is little: not whose it is, nor when it was started, since a history that is continued
as new counts as created then. So what a workflow itself says is read, but only of those that can be among the newest
of the caller, and only once of others'.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from pow.errors import EngineError
from pow.longwork.call import CallContext
from pow.longwork.engine import EngineStatus, WorkflowState
from pow.longwork.engines.remembered import Remembered

# For a list and for counts, whatever the service has.
_LIST_SECONDS = 10.0
# Services with more workflows are asked for the newest first: of the last hour, of the last day, of all times.
_SMALL = 2000
_WINDOWS_SECONDS = (3600.0, 86400.0)
# A service's clock and whole seconds may be off from the clock of who started a workflow.
_CLOCK_SECONDS = 60.0
# Workflows read side by side, and those whose owners are remembered.
_READ_AT_ONCE = 16
_REMEMBERED_OWNERS = 20_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A workflow of the work's as a page of the service has it."""

    workflow_id: str
    status: EngineStatus
    created_at: float
    """Unix seconds of its present history's start, by the service: never before the workflow's own."""
    owner: str | None = None
    """Who started it, where the page tells."""
    owner_known: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """Which workflows of the work's a list is to have."""

    prefix: str = ""
    """Of their ids."""
    statuses: Sequence[EngineStatus] = ()
    """Which they may have; all if empty."""
    since: float | None = None
    """Created by the service's clock at this Unix time or later; None for all."""


_ALL = Filter()


class Listing(ABC):
    """The part of an `Engine` that lists and counts."""

    def __init__(self) -> None:
        self._owners = Remembered[str | None](_REMEMBERED_OWNERS)

    @abstractmethod
    async def state(self, call: CallContext, workflow_id: str) -> WorkflowState | None:
        """As in `Engine`."""

    @abstractmethod
    def _pages(self, call: CallContext, wanted: Filter) -> AsyncIterator[Sequence[Entry]]:
        """The work's workflows, page by page, without inputs and outputs, in whatever order; a page may be empty."""

    async def newest(self, call: CallContext, limit: int) -> Sequence[WorkflowState]:
        found: list[WorkflowState] = []
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                entries = await self._entries(call, most=_SMALL)
                if len(entries) < _SMALL:
                    return await self._newest_of(call, entries, limit)
                for window in _WINDOWS_SECONDS:
                    since = time.time() - window
                    found = await self._newest_of(call, await self._entries(call, Filter(since=since)), limit)
                    if len(found) == limit and (found[-1].created_at or 0.0) >= since + _CLOCK_SECONDS:
                        return found
                return await self._newest_of(call, await self._entries(call), limit)
        except TimeoutError:
            if not found:
                raise EngineError(
                    f"the workflow engine did not list its workflows within {_LIST_SECONDS:g} s"
                ) from None
            logger.warning("a list has the workflows of a shorter time only, since the engine took too long")
            return found

    async def counts(self, call: CallContext) -> Mapping[EngineStatus, int]:
        try:
            async with asyncio.timeout(_LIST_SECONDS):
                return Counter(entry.status for entry in await self._entries(call))
        except TimeoutError:
            raise EngineError(f"the workflow engine did not count its workflows within {_LIST_SECONDS:g} s") from None

    async def _entries(self, call: CallContext, wanted: Filter = _ALL, *, most: int | None = None) -> list[Entry]:
        """Of all pages, each id once: some services page by offset, and repeat themselves while others start."""
        entries: dict[str, Entry] = {}
        async for page in self._pages(call, wanted):
            entries.update((entry.workflow_id, entry) for entry in page)
            if most is not None and len(entries) >= most:
                break
        return list(entries.values())

    async def _newest_of(self, call: CallContext, entries: Sequence[Entry], limit: int) -> list[WorkflowState]:
        """The caller's newest of these, newest first by the time that they keep themselves."""
        candidates = sorted(
            (entry for entry in entries if self._may_be_owned_by(call.caller, entry)),
            key=lambda entry: entry.created_at,
            reverse=True,
        )
        found: list[WorkflowState] = []
        for start in range(0, len(candidates), _READ_AT_ONCE):
            # Whatever follows was started no later than its history, so it can't be among the newest any more.
            latest = candidates[start].created_at + _CLOCK_SECONDS
            if len(found) >= limit and (found[limit - 1].created_at or 0.0) >= latest:
                break
            read = await asyncio.gather(
                *(self.state(call, entry.workflow_id) for entry in candidates[start : start + _READ_AT_ONCE])
            )
            for state in read:
                if state is not None:
                    self._owners.add(state.workflow_id, state.owner)
                    if state.owner == call.caller:
                        found.append(state)
            found.sort(key=lambda state: state.created_at or 0.0, reverse=True)
        return found[:limit]

    def _may_be_owned_by(self, caller: str | None, entry: Entry) -> bool:
        if entry.owner_known:
            return entry.owner == caller
        return self._owners.get(entry.workflow_id, caller) == caller
