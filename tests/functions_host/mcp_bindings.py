"""MCP tools, prompts and resources, read from the app's binding metadata as the MCP extension reads them.

Stricter than the extension where that would only show later: a shape that it misreads, or trips over at the first
call, stops the start with a sentence.
"""

import json
from dataclasses import dataclass
from typing import Any

from functions_host.errors import HostError
from functions_host.values import FunctionMetadata

_PROPERTY_TYPES = ("string", "number", "integer", "boolean", "object")
# The extension limits the depth of metadata, for the sake of its own memory.
_METADATA_DEPTH = 32


@dataclass(frozen=True, slots=True)
class McpTool:
    """A tool as clients see it, and the function behind it."""

    function: FunctionMetadata
    name: str
    description: str | None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any] | None
    metadata: dict[str, Any] | None
    use_result_schema: bool

    @property
    def required(self) -> list[str]:
        """The arguments that a call can't do without."""
        return [name for name in self.input_schema.get("required", ()) if isinstance(name, str)]


@dataclass(frozen=True, slots=True)
class McpPrompt:
    """A prompt as clients see it, and the function behind it."""

    function: FunctionMetadata
    name: str
    title: str | None
    description: str | None
    arguments: tuple[dict[str, Any], ...] | None
    metadata: dict[str, Any] | None
    use_result_schema: bool


@dataclass(frozen=True, slots=True)
class McpResource:
    """A resource as clients see it, and the function behind it."""

    function: FunctionMetadata
    uri: str
    name: str
    title: str | None
    description: str | None
    mime_type: str | None
    metadata: dict[str, Any] | None


def read_tool(function: FunctionMetadata) -> McpTool:
    """The tool of a function with an mcpToolTrigger.

    Raises:
        HostError: its binding isn't valid.
    """
    binding = _Binding(function)
    if binding.flag("useWorkerInputSchema"):
        if binding.text("inputSchema") is None:
            raise binding.error("inputSchema", "is null or invalid, which it must not be with useWorkerInputSchema")
        input_schema = binding.schema("inputSchema")
        assert input_schema is not None
    else:
        input_schema = _schema_of_properties(binding)
    return McpTool(
        function=function,
        name=binding.needed("toolName"),
        description=binding.text("description"),
        input_schema=input_schema,
        output_schema=binding.schema("outputSchema"),
        metadata=binding.metadata(),
        use_result_schema=binding.flag("useResultSchema"),
    )


def read_prompt(function: FunctionMetadata) -> McpPrompt:
    """The prompt of a function with an mcpPromptTrigger.

    Raises:
        HostError: its binding isn't valid.
    """
    binding = _Binding(function)
    arguments = binding.json("promptArguments")
    if arguments is not None:
        if not isinstance(arguments, list):
            raise binding.error("promptArguments", "must be a JSON list")
        names = set()
        for argument in arguments:
            if not isinstance(argument, dict) or not isinstance(argument.get("name"), str) or not argument["name"]:
                raise binding.error("promptArguments", f"has an argument without a name: {argument}")
            if not isinstance(argument.get("required", False), bool | None):
                raise binding.error("promptArguments", f"has a `required` that is no boolean: {argument}")
            if argument["name"] in names:
                raise binding.error("promptArguments", f"names {argument['name']} twice")
            names.add(argument["name"])
    return McpPrompt(
        function=function,
        name=binding.needed("promptName"),
        title=binding.text("title"),
        description=binding.text("description"),
        arguments=None if arguments is None else tuple(arguments),
        metadata=binding.metadata(),
        use_result_schema=binding.flag("useResultSchema"),
    )


def read_resource(function: FunctionMetadata) -> McpResource:
    """The resource of a function with an mcpResourceTrigger.

    Raises:
        HostError: its binding isn't valid.
    """
    binding = _Binding(function)
    uri = binding.needed("uri")
    if "{" in uri:
        raise binding.error("uri", f"is a template, which the test host doesn't know: {uri}")
    return McpResource(
        function=function,
        uri=uri,
        name=binding.needed("resourceName"),
        title=binding.text("title"),
        description=binding.text("description"),
        mime_type=binding.text("mimeType"),
        metadata=binding.metadata(),
    )


def _schema_of_properties(binding: "_Binding") -> dict[str, Any]:
    properties = binding.json("toolProperties")
    if properties is None:
        properties = []
    if not isinstance(properties, list):
        raise binding.error("toolProperties", "must be a JSON list")
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for entry in properties:
        if not isinstance(entry, dict):
            raise binding.error("toolProperties", f"has an entry that is no object: {entry!r}")
        found = {key.lower(): value for key, value in entry.items()}
        name, kind = found.get("propertyname"), found.get("propertytype")
        if not isinstance(name, str) or not name.strip():
            raise binding.error("toolProperties", f"has a property without propertyName: {entry}")
        if name in schema["properties"]:
            raise binding.error("toolProperties", f"names {name} twice")
        if kind not in _PROPERTY_TYPES:
            raise binding.error(
                "toolProperties", f"gives {name} the propertyType {kind!r}; it must be one of {_PROPERTY_TYPES}"
            )
        for flag in ("isrequired", "isarray"):
            if not isinstance(found.get(flag, False), bool):
                raise binding.error("toolProperties", f"gives {name} a {flag} that is no boolean: {found[flag]!r}")
        description = found.get("description")
        if not isinstance(description, str | None):
            raise binding.error("toolProperties", f"gives {name} a description that is no text: {description!r}")
        values = found.get("enumvalues")
        if values is not None and not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
            raise binding.error("toolProperties", f"gives {name} enumValues that aren't texts: {values!r}")
        plain = {"type": kind, **({"enum": values} if values else {})}
        typed = {"type": "array", "items": plain} if found.get("isarray") else plain
        schema["properties"][name] = {**typed, "description": description or ""}
        if found.get("isrequired"):
            schema["required"].append(name)
    return schema


class _Binding:
    """The trigger of a function, with errors that say where they are."""

    def __init__(self, function: FunctionMetadata) -> None:
        self._function = function
        self._fields = {key.lower(): value for key, value in function.trigger.items()}

    def error(self, name: str, fault: str) -> HostError:
        return HostError(f"function {self._function.name}: {name} {fault}")

    def text(self, name: str) -> str | None:
        value = self._fields.get(name.lower())
        if not isinstance(value, str | None):
            raise self.error(name, f"must be text (JSON goes in as text, too), not {value!r}")
        return value

    def needed(self, name: str) -> str:
        value = self.text(name)
        if not value or not value.strip():
            raise self.error(name, "is missing")
        return value

    def flag(self, name: str) -> bool:
        value = self._fields.get(name.lower(), False)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def json(self, name: str) -> Any:
        """The JSON in a text; None when there is no text."""
        text = self.text(name)
        if not text:
            return None
        try:
            return json.loads(text)
        except json.JSONDecodeError as fault:
            raise self.error(name, f"must be valid JSON: {fault}") from None

    def schema(self, name: str) -> dict[str, Any] | None:
        """A JSON schema; None when there is none."""
        schema = self.json(name)
        if schema is None:
            return None
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise self.error(name, 'is not a valid MCP tool JSON schema: it must be an object of "type": "object"')
        if not isinstance(schema.get("properties", {}), dict):
            raise self.error(name, "is not a valid MCP tool JSON schema: its properties must be an object")
        if not isinstance(schema.get("required", []), list):
            raise self.error(name, "is not a valid MCP tool JSON schema: its required must be an array")
        return schema

    def metadata(self) -> dict[str, Any] | None:
        metadata = self.json("metadata")
        if metadata is None:
            return None
        if not isinstance(metadata, dict):
            raise self.error("metadata", f"must be a JSON object, not {metadata!r}")
        if _depth(metadata) > _METADATA_DEPTH:
            raise self.error("metadata", f"is nested deeper than {_METADATA_DEPTH}")
        return metadata or None


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(part) for part in value.values()), default=0)
    if isinstance(value, list):
        return 1 + max((_depth(part) for part in value), default=0)
    return 0
