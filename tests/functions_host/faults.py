"""What tests can make go wrong with activities, each as it happens on the real engines."""

import asyncio
from dataclasses import dataclass, field, fields
from typing import Any

from functions_host.errors import HostError


@dataclass
class Faults:
    """The faults that are on. Counts go down as activities meet them."""

    # Every activity runs twice, as at-least-once delivery allows; in turn the earlier and the later answer counts.
    deliver_twice: bool = False
    # With deliver_twice: both answers enter the history.
    record_both: bool = False
    # So many activities' answers are lost, and the activities delivered again after delay_seconds.
    lose_next: int = 0
    delay_seconds: float = 0.5
    # So many activities' answers are lost, and that is that.
    lose_for_good: int = 0
    # So many activities fail without being run.
    fail_next: int = 0
    fail_message: str = "RuntimeError: made to fail by the test"
    # No activity starts while this is on.
    pause: bool = False
    # A cancelled timer fires nevertheless, as on engines that can't take a message back.
    fire_cancelled_timers: bool = False
    # A failed orchestration's error keeps the SDK's `$OutOfProcData$` tail, which the extension cuts off if it can.
    keep_error_tail: bool = False

    _unpaused: asyncio.Event = field(default_factory=asyncio.Event, init=False, repr=False)
    _doubled: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._unpaused.set()

    def update(self, changes: dict[str, Any]) -> None:
        """Switch faults on or off.

        Raises:
            HostError: there is no such fault, or its value has another type.
        """
        known = {entry.name: entry.type for entry in fields(self) if not entry.name.startswith("_")}
        for name, value in changes.items():
            if name not in known:
                raise HostError(f"there is no fault {name!r}; there are {', '.join(known)}")
            kind = type(getattr(self, name))
            if not (isinstance(value, kind) or (kind is float and isinstance(value, int))):
                raise HostError(f"{name} must be a {kind.__name__}, not {value!r}")
            setattr(self, name, value)
        if self.pause:
            self._unpaused.clear()
        else:
            self._unpaused.set()

    def to_dict(self) -> dict[str, Any]:
        """The state of all, as JSON."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if not entry.name.startswith("_")}

    async def unpaused(self) -> None:
        """Wait until activities may start."""
        await self._unpaused.wait()

    def take(self, name: str) -> bool:
        """Whether a counted fault meets this activity."""
        left: int = getattr(self, name)
        if left:
            setattr(self, name, left - 1)
        return left > 0

    def later_counts(self) -> bool:
        """Of an activity that runs twice: whether the answer that comes later is the one that counts."""
        self._doubled += 1
        return self._doubled % 2 == 0
