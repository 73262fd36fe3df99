"""What a process remembers of workflows, as long as there is room for it."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Remembered(Generic[T]):
    """The newest entries of a mapping."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: how many it keeps; with one more, the oldest is forgotten.
        """
        self._most = most
        self._entries: OrderedDict[Hashable, T] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def get(self, key: Hashable, default: T) -> T:
        """What was added last under a key."""
        return self._entries.get(key, default)

    def pop(self, key: Hashable) -> T | None:
        """The same, and forget it; None for nothing."""
        return self._entries.pop(key, None)

    def add(self, key: Hashable, value: T) -> None:
        """Remember it; what was there under that key is forgotten."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)
