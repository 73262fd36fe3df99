"""Whose turn it is: fair queueing of workflows, by owner and then by workflow.

Each has a virtual time, the seconds that its runs have had; who has had the least goes first. One who
comes anew begins at the virtual time of who went last, so that it waits for nobody's past and nobody for
its. (Start-time fair queueing; Goyal, Vin, Cheng, 1996.)
"""

import heapq
from collections.abc import Callable
from itertools import count
from typing import Generic, TypeVar

# Seconds of runs for which a workflow is a newcomer: quick work is done by then.
NEWCOMER_SECONDS = 1.0

T = TypeVar("T")


class Ticket(Generic[T]):
    """A workflow that takes part: in the queue, or having its turn."""

    __slots__ = ("item", "owner", "place", "token", "used", "virtual_time")

    def __init__(self, item: T, owner: "_Owner[T]", place: int, virtual_time: float, used: float) -> None:
        self.item = item
        self.owner = owner
        self.place = place  # in the order of joining
        self.virtual_time = virtual_time
        self.used = used  # seconds
        self.token: int | None = None  # of its place in the queue; what bears an older one in a heap is void

    @property
    def is_newcomer(self) -> bool:
        return self.used < NEWCOMER_SECONDS


class _Owner(Generic[T]):
    __slots__ = ("clock", "heap", "members", "name", "newcomers", "queued", "virtual_time")

    def __init__(self, name: str | None, virtual_time: float) -> None:
        self.name = name
        self.virtual_time = virtual_time
        self.clock = 0.0  # the virtual time of its workflow that went last
        self.heap: list[tuple[float, int, Ticket[T]]] = []
        self.newcomers: list[tuple[int, int, Ticket[T]]] = []  # a heap, too: the newest first
        self.members = 0
        self.queued = 0


class Turns(Generic[T]):
    """The queue. Not thread-safe."""

    def __init__(self) -> None:
        self._owners: dict[str | None, _Owner[T]] = {}
        self._clock = 0.0  # the virtual time of the owner that went last
        self._tokens = count()
        self.waiting = 0
        """How many are queued."""
        self.newcomers = 0
        """How many of them are newcomers."""
        self._newest: Ticket[T] | None = None

    def join(self, item: T, owner: str | None, used: float = 0.0) -> Ticket[T]:
        """Let a workflow take part, and queue it.

        Args:
            item: the workflow.
            owner: whose it is.
            used: seconds that it has had before, in an earlier process.
        """
        group = self._owners.get(owner)
        if group is None:
            group = self._owners[owner] = _Owner(owner, self._clock)
        group.members += 1
        ticket = Ticket(item, group, next(self._tokens), max(group.clock, used), used)
        self._newest = ticket
        self.queue(ticket)
        return ticket

    def gives_way(self, ticket: Ticket[T]) -> bool:
        """Whether one who was taken as a newcomer should let another have its turn. May be asked in any thread."""
        newest = self._newest
        if newest is not None and newest.token is not None and newest.place > ticket.place:
            return True
        return self.newcomers > 0 and not ticket.is_newcomer

    def queue(self, ticket: Ticket[T]) -> None:
        """Queue a workflow for its next turn."""
        owner = ticket.owner
        if not owner.queued:
            owner.virtual_time = max(owner.virtual_time, self._clock)
        ticket.token = token = next(self._tokens)
        owner.queued += 1
        self.waiting += 1
        heapq.heappush(owner.heap, (ticket.virtual_time, token, ticket))
        if ticket.is_newcomer:
            self.newcomers += 1
            heapq.heappush(owner.newcomers, (-ticket.place, token, ticket))

    def take(self) -> T | None:
        """The one who has had the least, of the owner who has had the least; None when nobody waits."""
        owner = self._least(lambda owner: owner.queued > 0)
        while owner is not None:
            _, token, ticket = heapq.heappop(owner.heap)
            if ticket.token == token:
                owner.clock = max(owner.clock, ticket.virtual_time)
                return self._taken(ticket)
        return None

    def take_newcomer(self) -> T | None:
        """The newest newcomer, of the owner who has had the least; None when there is none."""
        owner = self._least(_has_newcomer)
        return None if owner is None else self._taken(heapq.heappop(owner.newcomers)[2])

    def charge(self, ticket: Ticket[T], seconds: float) -> None:
        """Count what a turn took."""
        ticket.used += seconds
        ticket.virtual_time += seconds
        ticket.owner.virtual_time += seconds

    def leave(self, ticket: Ticket[T]) -> None:
        """Let a workflow take part no longer."""
        if ticket.token is not None:
            self._taken(ticket)
        owner = ticket.owner
        owner.members -= 1
        if not owner.members:
            del self._owners[owner.name]

    def _least(self, wanted: Callable[[_Owner[T]], bool]) -> _Owner[T] | None:
        return min(filter(wanted, self._owners.values()), key=lambda owner: owner.virtual_time, default=None)

    def _taken(self, ticket: Ticket[T]) -> T:
        ticket.token = None
        ticket.owner.queued -= 1
        self.waiting -= 1
        self._clock = max(self._clock, ticket.owner.virtual_time)
        if ticket.is_newcomer:
            self.newcomers -= 1
        return ticket.item


def _has_newcomer(owner: _Owner[T]) -> bool:
    while owner.newcomers:
        _, token, ticket = owner.newcomers[0]
        if ticket.token == token:
            return True
        heapq.heappop(owner.newcomers)
    return False
