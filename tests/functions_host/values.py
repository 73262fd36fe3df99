"""What crosses the protocol between the host and the worker, in the words of the host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Json:
    """A value that crosses the protocol as JSON text."""

    text: str


@dataclass(frozen=True, slots=True)
class HttpRequestData:
    """An HTTP request on its way to the app; None as body when there is none."""

    method: str
    url: str
    headers: dict[str, str]
    query: dict[str, str]
    route: dict[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class HttpResponseData:
    """An HTTP response on its way back; cookies as (name, value) pairs."""

    status: int
    headers: dict[str, str]
    body: bytes
    cookies: tuple[tuple[str, str], ...]


Value = str | bytes | int | float | Json | HttpRequestData | HttpResponseData | None


@dataclass(frozen=True, slots=True)
class FunctionMetadata:
    """A function of the app as the worker declares it: its bindings are the objects of function.json."""

    name: str
    function_id: str
    bindings: tuple[dict[str, Any], ...]

    @property
    def trigger(self) -> dict[str, Any]:
        """The binding that runs it."""
        return next(binding for binding in self.bindings if binding["type"].lower().endswith("trigger"))

    def others(self, direction: str) -> list[dict[str, Any]]:
        """The bindings beside the trigger: the inputs ("in") or the outputs ("out")."""
        return [
            binding
            for binding in self.bindings
            if binding is not self.trigger and str(binding.get("direction", "in")).lower() == direction
        ]


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception in the app."""

    message: str
    stack: str

    @property
    def text(self) -> str:
        """As the host words it; the Durable extension takes this apart again."""
        return f"Result: Failure\nException: {self.message}\nStack: {self.stack}"


@dataclass(frozen=True, slots=True)
class Reply:
    """How an invocation ended."""

    value: Value = None
    outputs: Mapping[str, Value] = field(default_factory=dict)
    failure: Failure | None = None
    # The failure is the host's: the worker died, or the time was up. The app's own code raised nothing.
    cut_off: bool = False


def body_bytes(value: Value) -> bytes:
    """A value as the body of a response."""
    match value:
        case None:
            return b""
        case bytes():
            return value
        case Json(text):
            return text.encode()
        case _:
            return str(value).encode()
