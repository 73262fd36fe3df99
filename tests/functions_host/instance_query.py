"""The list of instances, filtered and page by page, as the Durable extension gives it on Azure Storage."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.datastructures import QueryParams

from functions_host.instances import Instance

# The client sends back what the last answer had; the last page has none.
CONTINUATION_HEADER = "x-ms-continuation-token"

_PAGE = 100
_LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """What a request asks for."""

    top: int
    prefix: str
    statuses: frozenset[str]
    created_from: datetime | None
    created_to: datetime | None
    show_input: bool

    @classmethod
    def of(cls, parameters: QueryParams) -> "Query":
        """Read the parameters of a request."""
        names = {name.lower(): name for name in parameters}

        def values(name: str) -> list[str]:
            return parameters.getlist(names.get(name.lower(), name))

        def value(name: str, default: str) -> str:
            return (values(name) or [default])[-1]

        def moment(name: str) -> datetime | None:
            text = value(name, "")
            found = datetime.fromisoformat(text) if text else None
            return found.replace(tzinfo=found.tzinfo or UTC) if found else None

        return cls(
            top=max(1, min(int(value("top", str(_PAGE))), _LARGEST_PAGE)),
            prefix=value("instanceIdPrefix", ""),
            statuses=frozenset(name for part in values("runtimeStatus") for name in part.lower().split(",")),
            created_from=moment("createdTimeFrom"),
            created_to=moment("createdTimeTo"),
            show_input=value("showInput", "true").lower() != "false",
        )

    def matches(self, instance: Instance) -> bool:
        """Whether the filters let an instance through."""
        return (
            instance.id.startswith(self.prefix)
            and (not self.statuses or instance.status.lower() in self.statuses)
            and (self.created_from is None or self.created_from <= instance.created)
            and (self.created_to is None or instance.created <= self.created_to)
        )

    def page(self, instances: Mapping[str, Instance], token: str | None) -> tuple[list[Instance], str | None]:
        """A page in the order of the ids, and the token for the next one; None for the token when it is the last.

        The table is read by its key, the id, and the other filters see no more than a page of it: so one may have
        little or nothing left, and still be followed by another.
        """
        after = base64.b64decode(token).decode() if token else ""
        keys = sorted(key for key in instances if key.startswith(self.prefix) and key > after)
        page = [instances[key] for key in keys[: self.top]]
        following = base64.b64encode(page[-1].id.encode()).decode() if len(keys) > self.top else None
        return [instance for instance in page if self.matches(instance)], following
