"""In what servers of the scheduler's protocol differ, as options of the stand-in."""

import json
from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """How the stand-in behaves; the defaults are what the scheduler is taken to do.

    `scheduler.process` says which servers do what.
    """

    paging: Literal["token", "offset", "all", "none"] = "token"
    """How `QueryInstances` pages, or that it isn't there: see `scheduler.lists`."""
    page_size: int = 100
    """What a page has at most, whatever the client asks for; `all` has no such limit."""
    starts_between_pages: int = 0
    """How many workflows of another app begin right after each page."""
    after_terminate: Literal["drop", "go"] = "drop"
    """Whether the answer of a terminated workflow's slice leads to nothing, or to one more slice."""
    used_id: Literal["refuse", "replace"] = "refuse"
    """Whether a start with an id that is in use is refused, or replaces the workflow, be it running."""
    leases: bool = False
    """Whether slices of a worker whose stream of work has ended are handed out again."""

    def to_json(self) -> str:
        """For the stand-in's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "SchedulerOptions":
        """What `to_json` made."""
        return cls(**json.loads(text))
