"""What a call brings with it: passed on as an argument, from the host's binding down to the engine."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

ReportProgress = Callable[[float, str], Awaitable[None]]
"""(how much was done so far, a sentence) -> sent to the caller."""


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call of a tool: who makes it, and what its host has given for it."""

    caller: str | None = None
    """What tells the caller from all others; None where callers aren't known, or nobody is signed in."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the request; empty where there is none."""
    wait_seconds: float | None = None
    """How long the call waits at most for work to end; None for the server's budget."""
    report: ReportProgress | None = None
    """Sends progress to a caller that asked for it; None where nobody did."""
    client: Any = None
    """What the host hands each invocation to reach its engine by, in the SDK's own type; None elsewhere."""

    def waiting_at_most(self, seconds: float) -> Self:
        """The same call, which waits no longer than so many seconds."""
        return replace(self, wait_seconds=seconds if self.wait_seconds is None else min(seconds, self.wait_seconds))

    def reporting(self, report: ReportProgress) -> Self:
        """The same call, by a caller that hears of progress."""
        return replace(self, report=report)


NOBODY = CallContext()
"""A call that no caller makes: the server's own, and those of hosts that don't know callers."""
