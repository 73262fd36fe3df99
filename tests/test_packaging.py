"""The build: with a compiler, without one, and when one is demanded."""

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
from wheel_builds import HANG_SECONDS, ROOT, copy_checkout, pip, run, source_distribution, wheel

pytestmark = pytest.mark.skipif(os.name != "posix", reason="compilers are chosen by CC here")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources, without anything built."""
    return copy_checkout(tmp_path / "checkout")


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
    built = run(
        checkout, sys.executable, "setup.py", "build_ext", "--inplace", CC="/nowhere/cc", POW_REQUIRE_NATIVE="1"
    )

    assert built.returncode != 0
    assert "/nowhere/cc" in built.stderr


def test_the_source_distribution_holds_what_building_needs_and_nothing_built() -> None:
    with tarfile.open(source_distribution()) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    sources = [path for pattern in ("*.c", "*.h", "*.pyx") for path in (ROOT / "native").glob(pattern)]
    written = {path.relative_to(ROOT).as_posix() for path in sources if path.name != "_native.c"}
    assert written | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= names
    assert "native/_native.c" not in names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


def test_the_wheel_from_it_is_for_every_python_from_3_11_on_and_holds_what_it_must() -> None:
    built = wheel()

    assert "-cp311-abi3-" in built.name
    names = zipfile.ZipFile(built).namelist()
    assert [name for name in names if name.startswith("pow/_native.abi3.")]
    package = [path for path in (ROOT / "pow").rglob("*") if path.is_file()]
    written = {path.relative_to(ROOT).as_posix() for path in package if path.suffix not in (".so", ".pyd", ".pyc")}
    assert {"pow/py.typed", "pow/_native.pyi", "pow/longwork/engines/__init__.py"} <= written <= set(names)
    # Neither sources of the kernels nor tests.
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"pow", "pow_mcp"}
    assert not [name for name in names if name.endswith((".c", ".h", ".pyx"))]
