"""The host's keys, and what each of them opens."""

from dataclasses import dataclass
from enum import Enum
from secrets import compare_digest

from starlette.requests import Request


class Access(Enum):
    """What a request's key is worth: the number is the status of the refusal."""

    GRANTED = 200
    UNKNOWN = 401
    FORBIDDEN = 403


@dataclass(frozen=True, slots=True)
class Keys:
    """A key of each kind; the same text may be several of them."""

    # `mcp_extension`, of the MCP webhook.
    system: str
    # Of functions whose level is `function`.
    function: str
    # Opens everything.
    master: str

    def for_webhook(self, request: Request) -> Access:
        """Whether a request may use the MCP webhook."""
        if _has(request, self.system, self.master):
            return Access.GRANTED
        return Access.FORBIDDEN if _has(request, self.function) else Access.UNKNOWN

    def for_function(self, request: Request, level: str) -> Access:
        """Whether a request may call a function with an HTTP trigger of a level."""
        opened_by = {"anonymous": (), "function": (self.function, self.master), "admin": (self.master,)}[level]
        return Access.GRANTED if not opened_by or _has(request, *opened_by) else Access.UNKNOWN


def _has(request: Request, *keys: str) -> bool:
    given = request.headers.get("x-functions-key") or request.query_params.get("code") or ""
    return any(compare_digest(given.encode(), key.encode()) for key in keys)
