"""What several test files share: copies of the checkout, and one wheel built from one of them."""

import atexit
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
HANG_SECONDS = 240.0
# What is built from, and with.
NEEDED = ("LICENSE", "README.md", "MANIFEST.in", "Makefile", "requirements.lock", "pyproject.toml", "setup.py")
FOLDERS = ("native", "pow", "infra", "tests")
BUILT = shutil.ignore_patterns("*.so", "__pycache__", "_native.c")


def copy_checkout(folder: Path) -> Path:
    """A copy of the sources, without anything built."""
    folder.mkdir()
    for name in NEEDED:
        shutil.copy(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=BUILT)
    return folder


def run(folder: Path, *command: str | Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def pip(checkout: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command of pip on a checkout, with what the running Python has to build it with."""
    return run(
        checkout,
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", command[0], ".", "--no-deps"),
        *("--no-build-isolation", *command[1:]),
        **settings,
    )


@cache
def scratch() -> Path:
    """A folder for as long as the tests run. Not a fixture: those that test files share are all in conftest.py."""
    folder = tempfile.TemporaryDirectory(prefix="pow-wheel-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def source_distribution() -> Path:
    """The source distribution of this checkout; made once in a run."""
    checkout = copy_checkout(scratch() / "checkout")
    made = run(checkout, sys.executable, "setup.py", "--quiet", "sdist")
    assert made.returncode == 0, made.stderr
    (archive,) = (checkout / "dist").glob("*.tar.gz")
    return archive


@cache
def wheel() -> Path:
    """The wheel that this machine builds from the source distribution; made once in a run."""
    with tarfile.open(source_distribution()) as archive:
        archive.extractall(scratch() / "unpacked", filter="data")
    (unpacked,) = (scratch() / "unpacked").iterdir()
    built = pip(unpacked, "wheel", "--wheel-dir", str(scratch() / "wheel"), POW_REQUIRE_NATIVE="1")
    assert built.returncode == 0, built.stderr
    (made,) = (scratch() / "wheel").glob("*.whl")
    return made
