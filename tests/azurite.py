"""Azurite, the storage emulator, in a process of its own; nothing that is stored in it outlives it."""

import os
import re
import shutil
import signal
import subprocess
import threading
from types import TracebackType
from typing import Self

_PACKAGE = "azurite@3.37.0"
# Port 0 is a free one; the line about it names it.
_OPTIONS = [
    *("--blobHost", "127.0.0.1", "--blobPort", "0"),
    *("--inMemoryPersistence", "--skipApiVersionCheck", "--loose", "--silent", "--disableTelemetry"),
]
_LISTENING = re.compile(r"Blob service (?:is|successfully) listen\w* (?:at|on) (http://\S+)")
# The first start may fetch the package.
_START_SECONDS = 240.0
# Everybody's emulator has this account and key; they are no secret.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class AzuriteMissing(Exception):
    """Azurite can't be started here; the text says why."""


class Azurite:
    """A blob service on a free loopback port. Leaving the context ends it."""

    def __init__(self) -> None:
        """
        Raises:
            AzuriteMissing: there is no Node, or the package can't be had.
        """
        npx = shutil.which("npx")
        if npx is None:
            raise AzuriteMissing("Azurite needs Node: npx isn't on the path")
        self._process = subprocess.Popen(
            [npx, "-y", "-p", _PACKAGE, "azurite-blob", *_OPTIONS],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # npx starts Node as a child of its own, so that only their group can be ended.
            start_new_session=True,
        )
        watchdog = threading.Timer(_START_SECONDS, self._end)
        watchdog.start()
        try:
            self.endpoint = self._wait()
        finally:
            watchdog.cancel()

    @property
    def connection_string(self) -> str:
        """What an app's connection setting holds."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};"
            f"BlobEndpoint={self.endpoint}/{_ACCOUNT};"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._end()

    def _wait(self) -> str:
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if found := _LISTENING.search(line):
                return found[1]
        self._end()
        raise AzuriteMissing(f"Azurite did not start: {''.join(lines).strip()[-500:]}")

    def _end(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
