"""Named chains in a folder, and in Blob Storage as Azurite has it."""

import asyncio
import errno
import os
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient
from azurite import Azurite
from functions_process import start_azurite
from python_process import HANG_SECONDS

from pow.errors import ChainStoreError, InvalidArgument, SettingsError
from pow.tools.blob_chains import BlobChains, names_a_storage
from pow.tools.chain_store import CHAINS, FolderChains, check_name, file_name

pytestmark = pytest.mark.anyio

STORAGE = "AzureWebJobsStorage"
# Long enough for a busy machine, and well below what clients wait for a tool.
SOON = 30.0


# Names


@pytest.mark.parametrize("name", ["a", "A.b-c_9", ".", "..", "x" * 64])
def test_letters_digits_dots_dashes_and_underscores_make_a_name(name: str) -> None:
    assert check_name(name) == name
    assert file_name(name) == f"{name}.json"


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "a b", "a/b", "../a", "a\\b", "a\n", "ä", "a\x00", "%2e", None, 5, ["a"]]
)
def test_anything_else_is_no_name(name: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^name must be 1 to 64 letters"):
        check_name(name)


def test_a_long_name_is_shown_only_in_part() -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_name("é" * 10_000)
    assert len(str(refused.value)) < 200
    assert str(refused.value).endswith("…")


# In a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / CHAINS


def kept(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder; None for what is no file."""
    return {path.name: path.read_bytes() if path.is_file() else None for path in folder.iterdir()}


def file_at(path: Path) -> Path:
    path.write_text("a file")
    return path


def folder_at(path: Path, mode: int = 0o700) -> Path:
    path.mkdir(mode, parents=True)
    return path


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_folder_keeps_what_it_is_given(folder: Path) -> None:
    chains = FolderChains(folder)
    assert await chains.load("a") is None

    assert await chains.save("a", b"\x00\xff\r\n", overwrite=False)
    assert await chains.save("..", b"dots", overwrite=False)

    assert await FolderChains(folder).load("a") == b"\x00\xff\r\n"
    assert await chains.load("..") == b"dots"
    assert kept(folder) == {"a.json": b"\x00\xff\r\n", "...json": b"dots"}


async def test_a_name_that_is_taken_is_overwritten_only_if_that_is_asked_for(folder: Path) -> None:
    chains = FolderChains(folder)
    assert await chains.save("a", b"1", overwrite=True)

    assert not await chains.save("a", b"2", overwrite=False)
    assert await chains.load("a") == b"1"
    assert await chains.save("a", b"3", overwrite=True)
    assert kept(folder) == {"a.json": b"3"}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
async def test_the_folder_and_its_files_are_for_their_owner_alone(folder: Path) -> None:
    await FolderChains(folder).save("a", b"1", overwrite=False)

    assert permissions(folder) == 0o700
    assert permissions(folder / "a.json") == 0o600


def test_of_many_that_save_at_once_exactly_one_has_the_name(folder: Path) -> None:
    together = threading.Barrier(20)

    def save(number: int) -> bool:
        document = b"%d" % number * 10_000
        together.wait(HANG_SECONDS)
        return asyncio.run(FolderChains(folder).save("a", document, overwrite=False))

    with ThreadPoolExecutor(20) as threads:
        saved = list(threads.map(save, range(20)))

    assert saved.count(True) == 1
    assert kept(folder) == {"a.json": b"%d" % saved.index(True) * 10_000}


@pytest.mark.parametrize("overwrite", [True, False], ids=["overwriting", "anew"])
async def test_a_save_that_fails_leaves_everything_as_it_was(
    folder: Path, overwrite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    chains = FolderChains(folder)
    await chains.save("kept", b"1", overwrite=False)
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(ChainStoreError, match=r"the chain 'kept' can't be written: .*No space left on device"):
        await chains.save("kept", b"2", overwrite=overwrite)

    assert kept(folder) == {"kept.json": b"1"}


async def test_a_folder_that_is_none_is_an_error_of_the_store(tmp_path: Path) -> None:
    folder = file_at(tmp_path / CHAINS)

    with pytest.raises(ChainStoreError, match="the chain 'a' can't be read"):
        await FolderChains(folder).load("a")
    with pytest.raises(ChainStoreError, match="the chain 'a' can't be written"):
        await FolderChains(folder).save("a", b"1", overwrite=False)


async def test_a_file_that_can_not_be_read_or_replaced_is_an_error_of_the_store(folder: Path) -> None:
    folder_at(folder / "a.json")

    with pytest.raises(ChainStoreError, match="the chain 'a' can't be read"):
        await FolderChains(folder).load("a")
    with pytest.raises(ChainStoreError, match="the chain 'a' can't be written"):
        await FolderChains(folder).save("a", b"1", overwrite=True)
    assert kept(folder) == {"a.json": None}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="nothing is denied to this user")
async def test_a_folder_that_may_not_be_entered_is_an_error_of_the_store(folder: Path) -> None:
    folder_at(folder, mode=0)

    with pytest.raises(ChainStoreError, match="the chain 'a' can't be read"):
        await FolderChains(folder).load("a")


# In Blob Storage


@pytest.fixture(scope="module")
def azurite() -> Iterator[Azurite]:
    with start_azurite() as running:
        yield running


@pytest.fixture(scope="module")
def blobs(azurite: Azurite) -> BlobChains:
    return BlobChains({STORAGE: azurite.connection_string})


async def test_the_container_is_made_when_the_first_of_many_is_saved_and_one_has_the_name() -> None:
    with start_azurite() as storage:
        chains = BlobChains({STORAGE: storage.connection_string})
        with ContainerClient.from_connection_string(storage.connection_string, CHAINS) as container:
            assert await chains.load("a") is None
            assert not container.exists()

            documents = [b"%d" % number for number in range(8)]
            saves = [chains.save("a", document, overwrite=False) for document in documents]
            saved = await asyncio.gather(*saves)

            assert saved.count(True) == 1
            assert await chains.load("a") == documents[saved.index(True)]
            # Where the bindings of the Functions app look.
            assert [blob.name for blob in container.list_blobs()] == ["a.json"]


async def test_a_blob_that_there_is_is_overwritten_only_if_that_is_asked_for(blobs: BlobChains) -> None:
    assert await blobs.save("taken", b"1", overwrite=True)

    assert not await blobs.save("taken", b"2", overwrite=False)
    assert await blobs.load("taken") == b"1"
    assert await blobs.save("taken", b"\x00\xff", overwrite=True)
    assert await blobs.load("taken") == b"\x00\xff"


async def test_a_blob_that_there_is_not_is_none(blobs: BlobChains) -> None:
    await blobs.save("another", b"1", overwrite=True)

    assert await blobs.load("missing") is None


async def test_storage_that_is_down_is_told_of_before_callers_give_up() -> None:
    with start_azurite() as storage:
        chains = BlobChains({STORAGE: storage.connection_string})
        await chains.save("a", b"1", overwrite=False)

    async with asyncio.timeout(SOON):
        with pytest.raises(ChainStoreError, match=r"^the chain 'a' can't be read: .*") as read:
            await chains.load("a")
        with pytest.raises(ChainStoreError, match=r"^the chain 'a' can't be written: .*"):
            await chains.save("a", b"2", overwrite=True)
    assert "\n" not in str(read.value)


class BeingDeleted(BaseHTTPRequestHandler):
    """Blob Storage, for half a minute after its container was deleted; Azurite deletes at once."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"<Error><Code>ContainerBeingDeleted</Code><Message>Try again later.</Message></Error>"
        self.send_response(409)
        self.send_header("x-ms-error-code", "ContainerBeingDeleted")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


async def test_a_container_that_is_being_deleted_does_not_make_a_name_taken(azurite: Azurite) -> None:
    with HTTPServer(("127.0.0.1", 0), BeingDeleted) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            chains = BlobChains({STORAGE: azurite.connection_string.replace(azurite.endpoint, endpoint)})
            with pytest.raises(ChainStoreError, match="the chain 'a' can't be written: Try again later"):
                await chains.save("a", b"1", overwrite=False)
        finally:
            server.shutdown()


@pytest.mark.parametrize("text", ["nonsense", "AccountKey=Zm9v", "AccountKey=Zm9v;BlobEndpoint", ";;"])
def test_what_is_no_connection_string_is_an_error_of_the_settings(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^setting AzureWebJobsStorage is no connection string"):
        BlobChains({STORAGE: text})


@pytest.mark.parametrize("suffix", ["", "__accountName", "__blobServiceUri"])
def test_the_environment_names_a_storage_by_any_of_the_platforms_settings(suffix: str) -> None:
    assert names_a_storage({STORAGE + suffix: "x"})
    assert not names_a_storage({STORAGE + suffix: ""})


def test_other_settings_name_no_storage() -> None:
    assert not names_a_storage({"AzureWebJobsStorage__clientId": "x", "AZUREWEBJOBSFEATUREFLAGS": "x"})


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({"__accountName": "kept"}, "https://kept.blob.core.windows.net/chains"),
        (
            {"__blobServiceUri": "https://kept.example.org", "__credential": "managedidentity", "__clientId": "x"},
            "https://kept.example.org/chains",
        ),
    ],
    ids=str,
)
def test_an_account_is_signed_in_to_with_an_identity(settings: dict[str, str], address: str) -> None:
    chains = BlobChains({STORAGE + suffix: value for suffix, value in settings.items()})

    assert chains._container.url == address
