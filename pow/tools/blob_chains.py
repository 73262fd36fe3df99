"""Named chains in Azure Blob Storage, through its SDK (the extra `blob`)."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pow.errors import ChainStoreError, SettingsError
from pow.tools.chain_store import CHAINS, file_name

# The settings under which Azure Functions knows its storage: a connection string, or an account's name
# or address to sign in to with an identity.
STORAGE = "AzureWebJobsStorage"


def names_a_storage(environment: Mapping[str, str]) -> bool:
    """Whether the environment says where the storage is."""
    return any(environment.get(STORAGE + suffix) for suffix in ("", "__accountName", "__blobServiceUri"))


class BlobChains:
    """Named chains as blobs of the container `chains`, which is made when the first one is saved."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """
        Args:
            environment: where the settings AzureWebJobsStorage… are.

        Raises:
            SettingsError: the settings can't be understood, or azure-storage-blob isn't installed.
        """
        self._container = _container(environment)

    async def load(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._load, name)

    async def save(self, name: str, document: bytes, *, overwrite: bool) -> bool:
        return await asyncio.to_thread(self._save, name, document, overwrite)

    def _load(self, name: str) -> bytes | None:
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        try:
            content: bytes = self._container.download_blob(file_name(name)).readall()
            return content
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise ChainStoreError(f"the chain {name!r} can't be read: {_first_line(error)}") from error

    def _save(self, name: str, document: bytes, overwrite: bool) -> bool:
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        try:
            try:
                self._container.upload_blob(file_name(name), document, overwrite=overwrite)
            except ResourceNotFoundError:
                self._make_container()
                self._container.upload_blob(file_name(name), document, overwrite=overwrite)
        except AzureError as error:
            # Not by its class: the SDK makes a ResourceExistsError, too, of a container that is being deleted.
            if getattr(error, "error_code", None) == "BlobAlreadyExists":
                return False
            raise ChainStoreError(f"the chain {name!r} can't be written: {_first_line(error)}") from error
        return True

    def _make_container(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        with suppress(ResourceExistsError):  # by somebody else, meanwhile
            self._container.create_container()


def _container(environment: Mapping[str, str]) -> Any:
    try:
        from azure.storage.blob import ContainerClient, LinearRetry
    except ImportError as error:
        raise SettingsError(
            f"setting {STORAGE} names a storage, which needs azure-storage-blob: pip install 'pow-mcp[blob]'"
        ) from error
    # A store that is down is to be told of before callers give up. By the SDK's own choice that takes minutes:
    # it waits 15 seconds and more before each of three further tries, and a minute for an answer.
    retry = LinearRetry(backoff=1, random_jitter_range=1, retry_total=2)
    options: dict[str, Any] = {"retry_policy": retry, "connection_timeout": 5, "read_timeout": 10}
    connection_string = environment.get(STORAGE)
    if connection_string:
        try:
            return ContainerClient.from_connection_string(connection_string, CHAINS, **options)
        except ValueError as error:
            raise SettingsError(f"setting {STORAGE} is no connection string: {error}") from error
    from azure.identity import DefaultAzureCredential, ManagedIdentityCredential

    client_id = environment.get(f"{STORAGE}__clientId")
    if environment.get(f"{STORAGE}__credential") == "managedidentity":
        credential: Any = ManagedIdentityCredential(client_id=client_id)
    else:
        credential = DefaultAzureCredential(managed_identity_client_id=client_id)
    address = environment.get(f"{STORAGE}__blobServiceUri")
    address = address or f"https://{environment.get(f'{STORAGE}__accountName')}.blob.core.windows.net"
    return ContainerClient(address, CHAINS, credential, **options)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
