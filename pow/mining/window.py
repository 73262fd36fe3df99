"""Which nonces of a block are ruled out, which are being searched, and which come next.

A block is searched in slices: ranges of nonces, each of them searched by one worker for a bounded time.
With a fan-out of one there is one slice at a time, open-ended. With more, a window of ranges moves up:
several workers search at once, each its own range, and the smallest nonce is still exact, since a hit
counts only when everything below it has been ruled out.

All of this is deterministic: the same answers in the same order lead to the same ranges.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pow.limits import NONCE_STOP
from pow.mining.odds import expected_hashes

# A hit leaves the ranges above it searched for nothing, so each range is a small part of the block.
_PARTS_PER_WORKER = 16
# Handing a range out costs some milliseconds of CPU, of which this makes little.
_SHORTEST_SECONDS = 0.25
# Before anything is known of the workers: some 50 ms of a native kernel, some seconds of hashlib.
_FIRST_NONCES = 1 << 21
# A slice of fewer nonces says nothing about the rate.
_TELLING_NONCES = 1 << 16
# The weight of the newest slice in the running average of the rate.
_RATE_WEIGHT = 0.5


class NonceRange(NamedTuple):
    """The nonces of [start, stop); open-ended when `stop` is NONCE_STOP."""

    start: int
    stop: int = NONCE_STOP


class Pace:
    """How fast slices of a workflow have been searched lately, whoever did it."""

    def __init__(self, rate: float | None = None) -> None:
        """
        Args:
            rate: nonces a second of one slice; None before the first has ended.
        """
        self.rate = rate

    def record(self, nonces: int, seconds: float) -> None:
        """Count a slice that has ended."""
        if seconds > 0 and nonces >= _TELLING_NONCES:
            measured = nonces / seconds
            self.rate = measured if self.rate is None else self.rate + _RATE_WEIGHT * (measured - self.rate)

    def range_nonces(self, difficulty: int, fan_out: int, slice_seconds: float) -> int:
        """How many nonces a worker should be handed at once."""
        if self.rate is None:
            return _FIRST_NONCES
        part = expected_hashes(difficulty) / (_PARTS_PER_WORKER * fan_out)
        return int(max(min(part, self.rate * slice_seconds), self.rate * _SHORTEST_SECONDS, 1))


class BlockWindow:
    """The search for one block's smallest nonce."""

    def __init__(self, next_nonce: int = 0, gaps: Sequence[Sequence[int]] = (), hit: int | None = None) -> None:
        """
        Args:
            next_nonce: no nonce from here on has been handed out.
            gaps: [start, stop) of ranges below it, lowest first, that were handed out and came back unfinished.
            hit: the smallest nonce so far that meets the difficulty.
        """
        self._next_nonce = next_nonce
        self._gaps = [NonceRange(start, stop) for start, stop in gaps]
        self._hit = hit
        self._awaited: set[NonceRange] = set()

    def to_state(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON has them. Call it when nothing is awaited."""
        assert not self._awaited, f"ranges are still being searched: {sorted(self._awaited)}"
        return {"next_nonce": self._next_nonce, "gaps": [list(gap) for gap in self._gaps], "hit": self._hit}

    @property
    def nonce(self) -> int | None:
        """The block's nonce: a hit below which everything has been ruled out; None until there is one."""
        below = [*self._gaps, *self._awaited]
        return None if self._hit is None or any(left.start < self._hit for left in below) else self._hit

    @property
    def awaited(self) -> frozenset[NonceRange]:
        """The ranges that were handed out and whose answers still matter."""
        return frozenset(self._awaited)

    def take(self, nonces: int) -> NonceRange | None:
        """The lowest range to search next, of at most so many nonces; None when no more are needed."""
        if self._gaps:
            gap = self._gaps.pop(0)
            taken = NonceRange(gap.start, min(gap.stop, gap.start + nonces))
            if taken.stop < gap.stop:
                self._gaps.insert(0, NonceRange(taken.stop, gap.stop))
        elif self._hit is None and self._next_nonce < NONCE_STOP:
            taken = NonceRange(self._next_nonce, min(self._next_nonce + nonces, NONCE_STOP))
            self._next_nonce = taken.stop
        else:
            return None
        self._awaited.add(taken)
        return taken

    def answer(self, searched: NonceRange, *, found: bool, next_nonce: int) -> bool:
        """Take in how a range's search ended: all its nonces below `next_nonce` have been tried.

        Returns:
            Whether it matters; not when it is a second answer, or lies above a hit.
        """
        if searched not in self._awaited:
            return False
        self._awaited.remove(searched)
        if found:
            self._hit = next_nonce - 1 if self._hit is None else min(self._hit, next_nonce - 1)
            self._drop_what_lies_above()
        elif next_nonce < searched.stop:
            self._give_back(NonceRange(next_nonce, searched.stop))
        return True

    def _drop_what_lies_above(self) -> None:
        assert self._hit is not None
        self._gaps = [gap for gap in self._gaps if gap.start < self._hit]
        self._awaited = {awaited for awaited in self._awaited if awaited.start < self._hit}

    def _give_back(self, unfinished: NonceRange) -> None:
        if unfinished.stop == self._next_nonce:
            self._next_nonce = unfinished.start
        else:
            self._gaps = sorted([*self._gaps, unfinished])
