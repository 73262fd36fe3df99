"""The files that `azd` and the Functions host read, as tests look at them, and who reads which setting.

There is no Bicep compiler on the package index, so pycep-parser reads the Bicep files.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pycep import BicepParser

ROOT = Path(__file__).parents[1]

STORAGE = "where the host keeps its things, and the named chains are"
TELEMETRY = "where the host sends telemetry, and as whom"
AUTHENTICATION = "read by App Service's authentication, before a request reaches the app"
# What infra/ sets beside what the app reads: who reads it.
INFRA_PLATFORM = {
    "AzureWebJobsStorage__accountName": STORAGE,
    "AzureWebJobsStorage__credential": STORAGE,
    "AzureWebJobsStorage__clientId": STORAGE,
    "APPLICATIONINSIGHTS_CONNECTION_STRING": TELEMETRY,
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING": TELEMETRY,
    "AzureFunctionsJobHost__extensions__mcp__system__webhookAuthorizationLevel": "overrides host.json: key or Entra",
    "WEBSITE_AUTH_PRM_DEFAULT_WITH_SCOPES": AUTHENTICATION,
    "WEBSITE_AUTH_AAD_ALLOWED_TENANTS": AUTHENTICATION,
    "OVERRIDE_USE_MI_FIC_ASSERTION_CLIENTID": AUTHENTICATION,
}
DURABLE_BACKEND = "overrides host.json: Azure Storage keeps the workflows, so Azurite is enough"
LOCAL_PLATFORM = {
    "FUNCTIONS_WORKER_RUNTIME": "which worker Core Tools starts; Flex Consumption forbids it in Azure",
    "AzureWebJobsStorage": STORAGE,
    "AzureFunctionsJobHost__extensions__durableTask__storageProvider__type": DURABLE_BACKEND,
    "AzureFunctionsJobHost__extensions__durableTask__storageProvider__connectionStringName": DURABLE_BACKEND,
}
HANDLER_PLATFORM = {
    "FUNCTIONS_WORKER_RUNTIME": "which worker Core Tools starts",
    "AzureWebJobsFeatureFlags": "switches the preview of self-hosted MCP servers on",
}


@dataclass(frozen=True)
class BicepFile:
    """A Bicep file: as text, as pycep-parser reads it, and as the names in its code."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text()

    @property
    def parsed(self) -> dict[str, Any]:
        return _parse(self.text)

    @cached_property
    def code(self) -> str:
        """The text without comments and without the literal parts of strings."""
        return "".join(_code(iter(self.text)))

    @cached_property
    def names(self) -> Counter[str]:
        """The names that expressions use: no keys of objects, no properties, no functions, no declarations."""
        code = re.sub(r"\b(param|var|output|resource|module)\s+\w+(\s+[a-z]+(\[\])?\s*(?=[=\n]))?", " ", self.code)
        code = re.sub(r"(?<=[{,\n])(\s*)\w+\s*:(?!:)", r"\1", code)
        return Counter(re.findall(r"(?<![\w.@])[A-Za-z_]\w*\b(?!\s*\()", code))

    def declared(self, kind: str) -> dict[str, Any]:
        """The declarations of a kind, such as `parameters`, by their names."""
        found: dict[str, Any] = self.parsed.get(kind, {})
        return found

    @property
    def locals(self) -> set[str]:
        """Names of loops' items and of lambdas' arguments."""
        loops = re.findall(r"\bfor\s+\(?\s*(\w+)(?:\s*,\s*(\w+)\s*\))?\s+in\b", self.code)
        return {name for pair in loops for name in pair if name} | set(re.findall(r"\b(\w+)\s*=>", self.code))


@cache
def _parse(text: str) -> dict[str, Any]:
    document: dict[str, Any] = BicepParser().parse(text=text)  # type: ignore[assignment]
    return document


def _code(characters: Iterator[str], *, nested: bool = False) -> Iterator[str]:
    """Code up to the end of the text or, nested, of a string's ${interpolation}."""
    depth = 0
    slash = False
    for character in characters:
        if slash and character == "/":
            for skipped in characters:
                if skipped == "\n":
                    break
            yield "\n"
            slash = False
            continue
        if slash:
            yield "/"
        slash = character == "/"
        if slash:
            continue
        if character == "'":
            yield " "
            yield from _interpolations(characters)
            yield " "
            continue
        depth += (character == "{") - (character == "}")
        if nested and depth < 0:
            return
        yield character


def _interpolations(characters: Iterator[str]) -> Iterator[str]:
    """The code inside of a string; its opening quote has been read."""
    before = ""
    for character in characters:
        if before == "\\":
            before = ""
            continue
        if character == "'":
            return
        if before == "$" and character == "{":
            yield " "
            yield from _code(characters, nested=True)
            yield " "
        before = character


def bicep_files(root: Path) -> dict[Path, BicepFile]:
    return {path: BicepFile(path) for path in sorted((root / "infra").rglob("*.bicep"))}


def body(module: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a module's or resource's braces, whether it has a condition, a loop, or neither."""
    config: dict[str, Any] = module["config"]
    while isinstance(config.get("config"), dict):
        config = config["config"]
    return config


def local_modules(files: Mapping[Path, BicepFile]) -> Iterator[tuple[BicepFile, str, dict[str, Any], Path]]:
    """Every use of a module of this repository: by whom, under which name, how, and which file."""
    for file in files.values():
        for name, module in file.declared("modules").items():
            if module["type"] == "local":
                yield file, name, module, (file.path.parent / module["detail"]["path"]).resolve()


def parameter_values(root: Path) -> dict[str, tuple[str, str | None]]:
    """By parameter: the variable of azd's environment that it is read from, and the default."""
    document = json.loads((root / "infra" / "main.parameters.json").read_text())
    found = {}
    for name, entry in document["parameters"].items():
        match = re.fullmatch(r"\$\{([A-Z_]+)(?:=(.*))?\}", entry["value"])
        assert match, f"{name} is not read from the environment: {entry}"
        found[name] = (match[1], match[2])
    return found


def local_settings(folder: Path) -> dict[str, str]:
    values: dict[str, str] = json.loads((folder / "local.settings.json").read_text())["Values"]
    return values
