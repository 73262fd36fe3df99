"""What a task hub keeps while no host runs: instances and the activities on their way, a file for each.

Azure Storage keeps histories in a table, and messages in queues; what matters to apps is that both outlive the host.
"""

import pickle
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from functions_host.instances import ActivityMessage, Instance


class Store:
    """A folder of pickles, or nothing at all."""

    def __init__(self, folder: Path | None) -> None:
        """
        Args:
            folder: made when it isn't there; None keeps nothing.
        """
        self._folder = folder
        for kind in ("instances", "activities"):
            if folder is not None:
                (folder / kind).mkdir(parents=True, exist_ok=True)

    def save(self, kept: Instance | ActivityMessage) -> None:
        """Keep this state of it, in the place of an earlier one."""
        if self._folder is None:
            return
        path = self._path(self._folder, kept)
        scratch = path.with_suffix(".new")
        scratch.write_bytes(pickle.dumps(kept))
        # A host that is killed leaves the earlier state or this one, never half of it.
        scratch.rename(path)

    def forget(self, kept: Instance | ActivityMessage) -> None:
        """Keep it no longer."""
        if self._folder is not None:
            self._path(self._folder, kept).unlink(missing_ok=True)

    def instances(self) -> list[Instance]:
        """All that are kept, the oldest first."""
        found = [kept for kept in self._load("instances") if isinstance(kept, Instance)]
        return sorted(found, key=lambda instance: instance.created)

    def activities(self) -> list[ActivityMessage]:
        """All that are kept, in the order in which they were scheduled."""
        found = [kept for kept in self._load("activities") if isinstance(kept, ActivityMessage)]
        return sorted(found, key=lambda message: (message.sent, message.event["EventId"]))

    def _load(self, kind: str) -> Iterator[object]:
        for path in (self._folder / kind).glob("*.pickle") if self._folder else ():
            yield pickle.loads(path.read_bytes())

    @staticmethod
    def _path(folder: Path, kept: Instance | ActivityMessage) -> Path:
        kind = "instances" if isinstance(kept, Instance) else "activities"
        return folder / kind / f"{quote(kept.id, safe='')}.pickle"
