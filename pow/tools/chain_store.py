"""Chains that are kept under a name: what a store of them does, and one in a folder.

A store holds the chain JSON as bytes. `pow.tools.blob_chains` is another one, in Azure Blob Storage.
"""

import asyncio
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from pow.errors import ChainStoreError, InvalidArgument
from pow.units import quote

# The container in Blob Storage, and the folder beside the journal.
CHAINS = "chains"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_name(name: object) -> str:
    """`name` itself, if a chain may bear it.

    Raises:
        InvalidArgument: it isn't 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"name must be 1 to 64 letters (A to Z), digits, dots, dashes and underscores, not {quote(name)}"
        )
    return name


def file_name(name: str) -> str:
    """What a store's file or blob is called for a name that `check_name` has let through."""
    return f"{name}.json"


class ChainStore(Protocol):
    """Documents under names that `check_name` lets through. Methods raise ChainStoreError when it can't be reached."""

    async def load(self, name: str) -> bytes | None:
        """The document of that name, or None."""

    async def save(self, name: str, document: bytes, *, overwrite: bool) -> bool:
        """Keep a document, whole or not at all; False when the name is taken and is not to be overwritten."""


class LateChains:
    """A store that is made when it is needed first, where making it takes time that most calls needn't wait for."""

    def __init__(self, make: Callable[[], ChainStore]) -> None:
        """
        Args:
            make: makes the store.
        """
        self._make = make
        self._chains: ChainStore | None = None

    async def load(self, name: str) -> bytes | None:
        return await (await self._store()).load(name)

    async def save(self, name: str, document: bytes, *, overwrite: bool) -> bool:
        return await (await self._store()).save(name, document, overwrite=overwrite)

    async def _store(self) -> ChainStore:
        if self._chains is None:
            self._chains = await asyncio.to_thread(self._make)
        return self._chains


class FolderChains:
    """Named chains as files of a folder, which is made when the first one is saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._load, name)

    async def save(self, name: str, document: bytes, *, overwrite: bool) -> bool:
        return await asyncio.to_thread(self._save, name, document, overwrite)

    def _load(self, name: str) -> bytes | None:
        try:
            return (self._folder / file_name(name)).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ChainStoreError(f"the chain {name!r} can't be read: {error}") from error

    def _save(self, name: str, document: bytes, overwrite: bool) -> bool:
        target = self._folder / file_name(name)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, path = tempfile.mkstemp(dir=self._folder, prefix=".", suffix=".tmp")
            written = Path(path)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(document)
                    file.flush()
                    os.fsync(descriptor)
                if overwrite:
                    written.replace(target)
                else:
                    # Unlike renaming, linking fails when the name is taken, be it in the same moment.
                    os.link(written, target)
            except FileExistsError:
                return False
            finally:
                written.unlink(missing_ok=True)
        except OSError as error:
            raise ChainStoreError(f"the chain {name!r} can't be written: {error}") from error
        return True
