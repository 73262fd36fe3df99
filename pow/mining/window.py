"""Which nonces of a block were tried, which are being searched, and which come next.

A block is searched in ranges of nonces. With one worker there is one range at a time, open-ended. With more, a
window of ranges moves up: several workers search at once, each its own range, and the smallest nonce is
still exact, since a hit counts only when everything below it was tried.

What was tried is a set of nonces: an answer that comes twice, or in parts, adds to it only what is new.
All of this is deterministic: the same answers in the same order lead to the same ranges.
"""

from bisect import insort
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from pow.limits import NONCE_STOP
from pow.mining.odds import expected_hashes

# A hit leaves the ranges above it searched for nothing, so each range is a small part of the block.
_PARTS_PER_WORKER = 16
# Handing a range out costs some milliseconds of CPU, of which this makes little.
_SHORTEST_SECONDS = 0.25
# Workers that search side by side hand in after so many seconds at most, to begin with.
_RANGE_SECONDS = 10.0
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


def updated_rate(rate: float | None, nonces: int, seconds: float) -> float | None:
    """The running average of how fast slices are searched, in nonces a second, with another one counted."""
    if seconds <= 0 or nonces < _TELLING_NONCES:
        return rate
    measured = nonces / seconds
    return measured if rate is None else rate + _RATE_WEIGHT * (measured - rate)


def range_nonces(rate: float | None, difficulty: int, width: int) -> int:
    """How many nonces a worker should be handed at once.

    Args:
        rate: nonces a second of one worker; None while nothing is known.
        difficulty: leading zero bits of the block's hash.
        width: how many workers there are.
    """
    if rate is None:
        return _FIRST_NONCES
    part = expected_hashes(difficulty) / (_PARTS_PER_WORKER * width)
    return int(max(min(part, rate * _RANGE_SECONDS), rate * _SHORTEST_SECONDS, 1))


class BlockWindow:
    """The search for one block's smallest nonce."""

    def __init__(self, tried: Sequence[Sequence[int]] = (), hit: int | None = None) -> None:
        """
        Args:
            tried: [start, stop) of ranges whose nonces were tried, lowest first, none touching another. An empty one
                is a mark: what is handed out doesn't reach across it.
            hit: the smallest nonce so far that meets the difficulty.
        """
        self.tried = [NonceRange(start, stop) for start, stop in tried]
        self.hit = hit

    @property
    def nonce(self) -> int | None:
        """The block's nonce: a hit below which everything was tried; None until there is one."""
        if self.hit is None:
            return None
        return self.hit if self.hit == 0 or self._covers(0, self.hit) else None

    @property
    def next_nonce(self) -> int:
        """All nonces below it were tried."""
        return self.tried[0].stop if self.tried and self.tried[0].start == 0 else 0

    def add(self, start: int, stop: int, *, found: bool) -> int:
        """Count the nonces of [start, stop) as tried, of which the last one is a hit if one was found.

        Returns:
            How many of them hadn't been tried before; 0 for a range above a hit, which no longer matters.
        """
        if self.hit is not None and start > self.hit:
            return 0
        if found:
            self.hit = stop - 1 if self.hit is None else min(self.hit, stop - 1)
        before = sum(old.stop - old.start for old in self.tried)
        self._unite(NonceRange(start, stop))
        return sum(old.stop - old.start for old in self.tried) - before

    def matters(self, searched: NonceRange) -> bool:
        """Whether a range that is being searched may still hold the block's nonce."""
        stop = searched.stop if self.hit is None else min(searched.stop, self.hit)
        return searched.start < stop and not self._covers(searched.start, stop)

    def mark(self, nonce: int) -> None:
        """Let nothing that is handed out reach across this nonce, unless both sides of it were tried."""
        self._unite(NonceRange(nonce, nonce))

    def next_ranges(self, in_search: Collection[NonceRange], nonces: int) -> Iterator[tuple[NonceRange, bool]]:
        """The ranges to search next beside those in search: the lowest first, of so many nonces at most each.

        Yields:
            A range, and whether it is a part of a gap, more of which lies right above it.
        """
        end = NONCE_STOP if self.hit is None else self.hit
        taken = [*self.tried]
        for searched in in_search:
            insort(taken, searched)
        start = 0
        for other in [*taken, NonceRange(NONCE_STOP, NONCE_STOP)]:
            while start < min(other.start, end):
                # After a hit a gap below it is still searched to its end, as it was handed out.
                stop = min(start + nonces, other.start)
                yield NonceRange(start, stop), stop < other.start < NONCE_STOP
                start = stop
            start = max(start, other.stop)

    def _covers(self, start: int, stop: int) -> bool:
        return any(old.start <= start and stop <= old.stop for old in self.tried)

    def _unite(self, new: NonceRange) -> None:
        start, stop = new
        apart: list[NonceRange] = []
        for old in self.tried:
            if old.stop < start or old.start > stop:
                apart.append(old)
            else:
                start, stop = min(start, old.start), max(stop, old.stop)
        insort(apart, NonceRange(start, stop))
        self.tried = apart
