"""host.json with the overrides that app settings make to it, as the Functions host reads them."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from functions_host.errors import HostError

_OVERRIDE = re.compile(r"AzureFunctionsJobHost(?:__|:)", re.IGNORECASE)
_BUNDLES = (
    "Microsoft.Azure.Functions.ExtensionBundle",
    "Microsoft.Azure.Functions.ExtensionBundle.Preview",
    "Microsoft.Azure.Functions.ExtensionBundle.Experimental",
)


_DURATION = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of time as .NET writes it: hours:minutes:seconds, maybe with days and a point in front."""

    text: str
    seconds: float

    def __str__(self) -> str:
        return self.text


def load_local_settings(app: Path) -> None:
    """Give this process the app settings in local.settings.json that it hasn't got, as `func start` does.

    Raises:
        HostError: it isn't valid.
    """
    path = app / "local.settings.json"
    if not path.is_file():
        return
    try:
        values = json.loads(path.read_text("utf-8")).get("Values", {})
        for name, value in values.items():
            if not isinstance(value, str):
                raise HostError(f"{path}: {name} must be text, not {value!r}")
            os.environ.setdefault(name, value)
    except (json.JSONDecodeError, AttributeError) as error:
        raise HostError(f"{path} must be a JSON object with an object `Values`: {error}") from None


class HostConfiguration:
    """host.json; keys are looked up in any case, and `%Name%` stands for an app setting, as in .NET."""

    def __init__(self, document: dict[str, Any], settings: Mapping[str, str]) -> None:
        """
        Args:
            document: the content of host.json.
            settings: the app settings, which the app has as its environment.

        Raises:
            HostError: it isn't a host.json that the Functions host would start with.
        """
        self._document = document
        self._settings = settings
        if document.get("version") != "2.0":
            raise HostError(f'host.json: "version" must be "2.0", not {document.get("version")!r}')
        bundle = document.get("extensionBundle")
        if bundle is not None and (bundle.get("id") not in _BUNDLES or not bundle.get("version")):
            raise HostError(f"host.json: extensionBundle needs an id ({', '.join(_BUNDLES)}) and a version: {bundle}")
        for name, value in settings.items():
            if _OVERRIDE.match(name):
                self._override(re.split(r"__|:", name)[1:], value)

    @classmethod
    def read(cls, app: Path, settings: Mapping[str, str] | None = None) -> "HostConfiguration":
        """The configuration of the app in a folder.

        Raises:
            HostError: there is no host.json, or it isn't valid.
        """
        path = app / "host.json"
        try:
            document = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise HostError(f"{path} is missing") from None
        except json.JSONDecodeError as error:
            raise HostError(f"{path} is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise HostError(f"{path} must be a JSON object")
        return cls(document, os.environ if settings is None else settings)

    @property
    def has_bundle(self) -> bool:
        """Whether extensions, such as MCP's and Durable's, come with the app."""
        return "extensionBundle" in self._document

    def get(self, *path: str, default: Any = None) -> Any:
        """The value at a path such as ("extensions", "mcp", "serverName")."""
        value: Any = self._document
        for part in path:
            key = _key(value, part)
            if key is None:
                return default
            value = value[key]
        return self.resolve(value) if isinstance(value, str) else value

    def integer(self, *path: str, default: int) -> int:
        """A whole number from 1 on at a path.

        Raises:
            HostError: something else is there.
        """
        value = self.get(*path, default=default)
        try:
            number = int(value)
        except (TypeError, ValueError):
            number = 0
        if number < 1:
            raise HostError(f"host.json: {'.'.join(path)} must be a whole number from 1 on, not {value!r}")
        return number

    def duration(self, *path: str, default: str) -> Duration:
        """A span of time at a path.

        Raises:
            HostError: something else is there.
        """
        text = str(self.get(*path, default=default))
        match = _DURATION.fullmatch(text)
        if match is None:
            raise HostError(f"host.json: {'.'.join(path)} must be a span such as 00:05:00, not {text!r}")
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
        return Duration(text, ((days * 24 + hours) * 60 + minutes) * 60 + seconds)

    def function_timeout(self) -> Duration | None:
        """How long an invocation may take; None, written as "-1", for as long as it likes.

        Raises:
            HostError: functionTimeout is something else.
        """
        return None if self.get("functionTimeout") == "-1" else self.duration("functionTimeout", default="00:30:00")

    def resolve(self, text: str) -> str:
        """The text with each `%Name%` replaced by that app setting.

        Raises:
            HostError: there is no such setting.
        """

        def setting(match: re.Match[str]) -> str:
            value = self.setting(match[1])
            if value is None:
                raise HostError(f"'%{match[1]}%' does not resolve: there is no app setting {match[1]}")
            return value

        return re.sub(r"%([A-Za-z_][\w:.]*)%", setting, text)

    def setting(self, name: str) -> str | None:
        """An app setting; None when there is none."""
        return self._settings.get(name)

    def _override(self, path: list[str], value: str) -> None:
        place: dict[str, Any] = self._document
        for part in path[:-1]:
            key = _key(place, part) or part
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[_key(place, path[-1]) or path[-1]] = value


def _key(value: Any, part: str) -> str | None:
    if not isinstance(value, dict):
        return None
    return next((key for key in value if key.lower() == part.lower()), None)
