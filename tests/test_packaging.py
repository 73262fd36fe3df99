"""The build: with a compiler, without one, and when one is demanded."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
HANG_SECONDS = 240.0
NEEDED = ("LICENSE", "README.md", "pyproject.toml", "setup.py", "native", "pow")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="compilers are chosen by CC here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, without anything built."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in NEEDED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "_native.c"))
        else:
            shutil.copy(source, folder / name)
    return folder


def run(checkout: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )


def pip(checkout: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(
        checkout,
        *("-m", "pip", "--disable-pip-version-check", command[0], ".", "--no-deps", "--no-build-isolation"),
        *command[1:],
        **settings,
    )


def test_without_a_compiler_the_install_says_what_is_lost_and_hashlib_mines_the_same(
    checkout: Path, tmp_path: Path, genesis_chain: dict[int, dict[str, Any]]
) -> None:
    installed = pip(
        checkout, "install", "--verbose", "--target", str(tmp_path / "site"), CC="/nowhere/cc", POW_REQUIRE_NATIVE=""
    )

    assert installed.returncode == 0, installed.stderr
    said = installed.stdout + installed.stderr
    assert "WARNING: the native extension pow._native could not be built" in said
    assert "pow-mcp will scan with hashlib instead" in said
    # A Python of its own, since the one that runs the tests finds its own build of the extension.
    venv.create(tmp_path / "venv")

    def pow_mcp(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [tmp_path / "venv" / "bin" / "python", "-m", "pow", *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )

    listed = pow_mcp("backends")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["backend", "hashlib"]
    assert "the native extension is missing" in listed.stderr
    assert json.loads(pow_mcp("mine", "--difficulty", "12", "--json").stdout) == genesis_chain[12]


def test_a_demanded_extension_that_cannot_be_built_is_an_error(checkout: Path) -> None:
    built = run(checkout, "setup.py", "build_ext", "--inplace", CC="/nowhere/cc", POW_REQUIRE_NATIVE="1")

    assert built.returncode != 0
    assert "/nowhere/cc" in built.stderr


def test_the_wheel_is_for_every_python_from_3_11_on_and_holds_what_it_must(checkout: Path, tmp_path: Path) -> None:
    built = pip(checkout, "wheel", "--wheel-dir", str(tmp_path), POW_REQUIRE_NATIVE="1")

    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp311-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("pow/_native.abi3.") for name in names)
    for package in ("pow", "pow/engines"):
        for module in (ROOT / package).glob("*.py"):
            assert f"{package}/{module.name}" in names
    assert {"pow/py.typed", "pow/_native.pyi"} <= set(names)
    assert not [name for name in names if name.startswith(("tests", "native", "benchmarks"))]
