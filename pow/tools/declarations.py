"""The one declaration of a tool, which every host binds: what it is called, takes and returns, and what it does.

JSON schemas are made of it, so that all hosts tell clients the same.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from inspect import cleandoc
from typing import Any, NamedTuple

import msgspec

from pow.longwork.call import CallContext
from pow.units import quote

Schema = dict[str, Any]
"""A JSON schema."""

Handler = Callable[[CallContext, Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""(the call, its arguments) -> the result. Raises PowError with a sentence for the agent."""


class Hints(NamedTuple):
    """What a tool does to the world, for clients that ask before a call."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False


READS = Hints(read_only=True, idempotent=True)
"""Of tools that change nothing."""


class Argument(NamedTuple):
    """An argument of a tool. Handlers are given the raw value, and say themselves what is wrong with it."""

    name: str
    schema: Schema
    description: str
    default: object = None
    required: bool = False


@dataclass(frozen=True)
class Tool:
    """A tool."""

    name: str
    title: str
    description: str
    arguments: tuple[Argument, ...]
    result: type
    """The TypedDict that its handler returns."""
    hints: Hints
    handler: Handler
    starts_work: bool = False
    """Whether what it returns may be a handle to work that goes on."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """`_meta`, as clients get it."""

    @cached_property
    def input_schema(self) -> Schema:
        """The JSON schema of its arguments."""
        properties = {
            argument.name: {
                **argument.schema,
                "description": argument.description,
                **({} if argument.default is None else {"default": argument.default}),
            }
            for argument in self.arguments
        }
        schema: Schema = {"type": "object", "properties": properties}
        required = [argument.name for argument in self.arguments if argument.required]
        return {**schema, "required": required} if required else schema

    @cached_property
    def output_schema(self) -> Schema:
        """The JSON schema of its result."""
        return schema_of(self.result)

    def fault(self, arguments: Mapping[str, object]) -> str | None:
        """What is wrong with the names of a call's arguments, as a sentence; None when nothing is.

        Hosts drop unknown ones, so that a misspelt `dificulty` would run at the default.
        """
        known = {argument.name: argument for argument in self.arguments}
        unknown = next((name for name in arguments if name not in known), None)
        if unknown is not None:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            return f"{self.name} has no argument {quote(unknown)}; {takes}"
        missing = next((name for name, argument in known.items() if argument.required and name not in arguments), None)
        if missing is not None:
            return f"{self.name} needs the argument {missing!r}: {known[missing].description}"
        return None


class PromptArgument(NamedTuple):
    """An optional argument of a prompt, which is text."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that people choose in their client."""

    name: str
    title: str
    description: str
    arguments: tuple[PromptArgument, ...]
    text: Callable[[Mapping[str, str | None]], str]


def count_to(most: int) -> Schema:
    """An integer from 1 on."""
    return {"type": "integer", "minimum": 1, "maximum": most}


def schema_of(kind: type) -> Schema:
    """The JSON schema of a TypedDict, with nothing to look up elsewhere: some clients can't follow references."""
    schema = msgspec.json.schema(kind)
    inlined: Schema = _inlined(schema, schema.get("$defs", {}))
    return inlined


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rpartition("/")[2]], definitions)
    inlined = {}
    for name, value in part.items():
        # Where one of these words isn't followed by a text, it is a property's name.
        if name == "$defs" or (name == "title" and isinstance(value, str)):
            continue
        if name == "description" and isinstance(value, str):
            value = cleandoc(value)  # before Python 3.13, docstrings come with the indentation of their source
        inlined[name] = _inlined(value, definitions)
    return inlined
