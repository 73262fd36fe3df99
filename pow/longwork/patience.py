"""How long to wait for a slice that doesn't come back, and before one that failed is tried again.

Engines deliver a slice at least once, but when: a queue hides it for five minutes after its host has died, and a host
that restarts its worker may never end it. So the workflow itself looks after its slices. A second answer changes
nothing, so handing one out too early costs CPU time only, and little of that: each further start is half as long.
"""

from dataclasses import dataclass

# Beside a slice's own length: for handing it out, beginning it, and handing its answer in.
MARGIN_SECONDS = 2.0
# So many times what slices have taken lately, queueing included, is more than one should take.
_TURNAROUND_FACTOR = 1.5
# With each further start of one slice (exponential backoff): it may only be waiting in a long queue.
_GROWTH = 1.4
_SHRINKING = 0.5
_SHORTEST_SECONDS = 0.5

# A slice may fail so many times in a row: its worker was killed, or its host gave it up.
MOST_FAILURES = 10
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Patience:
    """What a workflow grants its slices; the present rule."""

    slice_seconds: float

    def seconds_of(self, starts: int) -> float:
        """How long a slice is that is started for the so manieth time, counted from 1."""
        shortest = min(_SHORTEST_SECONDS, self.slice_seconds)
        return max(self.slice_seconds * _SHRINKING ** (starts - 1), shortest)

    def time_out(self, turnaround: float | None, starts: int) -> float:
        """Seconds after which a slice counts as lost.

        Args:
            turnaround: what slices have taken lately, queueing included; None while nothing is known.
            starts: the how manieth start of the slice this is, counted from 1.
        """
        own = self.seconds_of(starts) + MARGIN_SECONDS
        return max(own, _TURNAROUND_FACTOR * (turnaround or 0.0)) * _GROWTH ** (starts - 1)

    def left(self, turnaround: float | None, starts: int, waited: float) -> float:
        """For how many more seconds to wait for a slice that was started so many seconds ago."""
        return self.time_out(turnaround, starts) - waited


@dataclass(frozen=True, slots=True)
class EarlierPatience(Patience):
    """The rule of versions before this one: their histories are replayed by it, to their end."""

    restarts: bool
    """Whether the workflow looked after its slices at all."""

    def seconds_of(self, starts: int) -> float:
        return self.slice_seconds

    def time_out(self, turnaround: float | None, starts: int) -> float:
        if not self.restarts:
            return float("inf")
        return (60.0 if turnaround is None else max(10.0, 3.0 * turnaround)) * 2.0 ** (starts - 1)

    def left(self, turnaround: float | None, starts: int, waited: float) -> float:
        # Each wait was as long as the first start's, whatever had passed.
        return self.time_out(turnaround, 1)


def pause_seconds(failures: int) -> float:
    """How long to wait before a slice that has failed so many times in a row is tried again: exponential backoff."""
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), _LONGEST_PAUSE_SECONDS)
