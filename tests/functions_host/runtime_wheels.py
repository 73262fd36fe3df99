"""The worker library that Azure runs for Python apps, fetched once and unpacked.

It can't be a declared dependency: it asks for Python 3.13 and runs on 3.11, where this project starts. The protocol's
generated modules come from the other wheel's own tests; nowhere else are they published.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from functions_host.errors import HostError

RUNTIME = "azure-functions-runtime==1.3.0"
PROTOCOL = "azure-functions-runtime-v1==1.2.0"
# Their own name, so that nobody's `tests` package is in the way.
PROTOCOL_PACKAGE = "functions_host_protocol"

_RUNTIME_PACKAGE = "azure_functions_runtime"
_PROTOCOL_FOLDER = "tests/protos/"
_FETCH_SECONDS = 120


def runtime_folder(cache: Path | None = None) -> Path:
    """A folder for `sys.path` with both packages; fetched when it isn't there yet.

    Raises:
        HostError: they can't be fetched, as without a network.
    """
    folder = (cache or Path(sys.prefix) / "functions-runtime") / f"{RUNTIME}+{PROTOCOL}".replace("==", "-")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            unpacked = Path(scratch) / "unpacked"
            _unpack(_download(Path(scratch)), unpacked)
            try:
                # Another process may have been faster; what it made is the same.
                unpacked.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
    return folder


def _download(folder: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"]
    try:
        done = subprocess.run(
            [*command, "--dest", str(folder), RUNTIME, PROTOCOL],
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{RUNTIME} and {PROTOCOL} did not come within {_FETCH_SECONDS} s") from error
    if done.returncode != 0:
        raise HostError(f"{RUNTIME} and {PROTOCOL} can't be fetched: {done.stderr.strip()[-500:]}")
    return sorted(folder.glob("*.whl"))


def _unpack(wheels: list[Path], target: Path) -> None:
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.startswith(f"{_RUNTIME_PACKAGE}/"):
                    place = target / name
                elif name.startswith(_PROTOCOL_FOLDER):
                    place = target / PROTOCOL_PACKAGE / name.removeprefix(_PROTOCOL_FOLDER)
                else:
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, place.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
