"""The sources of the pages, with what npm installs for them, in a folder of the tests' own."""

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

ROOT = Path(__file__).parent.parent
# Kept between runs, since npm's part takes long. What the browser tests show is beside it.
BROWSER_FOLDER = ROOT / ".browser"

_INSTALL_SECONDS = 200


def unavailable(what: str) -> NoReturn:
    """Leave the test out where something isn't installed; in continuous integration everything has to be."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}, and CI=true allows for no test to be left out")
    pytest.skip(what)


@cache
def installed_ui() -> Path:
    """A fresh copy of `ui/`, with the packages that its lock file names."""
    if shutil.which("npm") is None:
        unavailable("npm is not installed")
    folder = BROWSER_FOLDER / "ui"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        if old.name not in ("node_modules", ".installed"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    shutil.copytree(ROOT / "ui", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
    lock = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    marker = folder / ".installed"
    if not marker.exists() or marker.read_text() != lock:
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=folder,
            check=True,
            timeout=_INSTALL_SECONDS,
        )
        marker.write_text(lock)
    return folder


def build_pages(folder: Path, *pages: str) -> None:
    """Build pages, or both that ship, from the sources into a folder."""
    ended = subprocess.run(
        ["node", "build.mjs", *pages],
        cwd=installed_ui(),
        env={**os.environ, "UI_OUT": str(folder)},
        capture_output=True,
        text=True,
        timeout=_INSTALL_SECONDS,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
