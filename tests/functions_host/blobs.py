"""Blob input and output bindings on a real storage account or Azurite, with binding expressions in their paths."""

import asyncio
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobServiceClient

from functions_host.configuration import HostConfiguration
from functions_host.errors import HostError
from functions_host.values import Value, body_bytes

BindingData = Mapping[str, Any]
"""What expressions may name: texts, and objects of texts."""

_EXPRESSION = re.compile(r"\{([^{}:]+)(?::[^{}]*)?\}")


class Blobs:
    """The storage accounts that the app's settings name."""

    def __init__(self, configuration: HostConfiguration) -> None:
        """
        Args:
            configuration: where connection strings come from.
        """
        self._configuration = configuration
        self._services: dict[str, BlobServiceClient] = {}

    async def read(self, binding: Mapping[str, Any], data: BindingData) -> Value:
        """The content for an input binding; None when there is no such blob.

        Raises:
            HostError: its path or connection does not resolve, or the storage refuses the request.
        """
        blob = self._blob(binding, data)

        def download() -> bytes | None:
            try:
                return blob.download_blob().readall()
            except ResourceNotFoundError:
                return None
            except AzureError as error:
                raise _refused(blob, error) from error

        content = await asyncio.to_thread(download)
        # Without a data type the host binds text.
        if content is None or str(binding.get("dataType", "STRING")).upper() in ("BINARY", "STREAM"):
            return content
        return content.decode("utf-8", "replace")

    async def write(self, binding: Mapping[str, Any], data: BindingData, value: Value) -> None:
        """Store what a function gave an output binding; the container is made when it isn't there.

        Raises:
            HostError: its path or connection does not resolve, or the storage refuses the request.
        """
        blob = self._blob(binding, data)

        def upload() -> None:
            service = self._services[str(binding.get("connection"))]
            try:
                with suppress(ResourceExistsError):
                    service.create_container(blob.container_name)
                blob.upload_blob(body_bytes(value), overwrite=True)
            except AzureError as error:
                raise _refused(blob, error) from error

        await asyncio.to_thread(upload)

    def _blob(self, binding: Mapping[str, Any], data: BindingData) -> BlobClient:
        path = resolve(self._configuration.resolve(binding["path"]), data)
        container, slash, name = path.partition("/")
        if not (container and slash and name):
            raise HostError(f"a blob's path must be container/name, not {path!r}")
        return self._service(str(binding.get("connection"))).get_blob_client(container, name)

    def _service(self, connection: str) -> BlobServiceClient:
        if connection not in self._services:
            setting = self._configuration.setting
            text = setting(connection) or setting(f"AzureWebJobs{connection}")
            if not text:
                raise HostError(
                    f"Storage account connection string '{connection}' does not exist. Make sure that it is a defined "
                    "App Setting. (The test host knows no identity-based connections.)"
                )
            self._services[connection] = BlobServiceClient.from_connection_string(text)
        return self._services[connection]


def _refused(blob: BlobClient, error: AzureError) -> HostError:
    return HostError(f"the storage refuses {blob.container_name}/{blob.blob_name}: {error.message}")


def resolve(template: str, data: BindingData) -> str:
    """The template with each `{expression}` replaced.

    Raises:
        HostError: an expression names what isn't there.
    """

    def value(match: re.Match[str]) -> str:
        expression = match[1]
        if expression.lower() == "rand-guid":
            return str(uuid.uuid4())
        if expression.lower() == "datetime":
            return datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        found: Any = data
        for part in expression.split("."):
            key = _key(found, part)
            if key is None:
                raise HostError(f"Error while accessing '{part}': property doesn't exist, in {template!r}")
            found = found[key]
        if not isinstance(found, str):
            raise HostError(f"{expression!r} in {template!r} is no text")
        return found

    return _EXPRESSION.sub(value, template)


def _key(found: Any, part: str) -> str | None:
    if not isinstance(found, Mapping):
        return None
    return next((key for key in found if key.lower() == part.lower()), None)
