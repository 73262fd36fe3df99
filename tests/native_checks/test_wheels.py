"""The wheels that `make wheel` and `make wheel-aarch64` build in a clean checkout, where they are to run.

Each is made once. What takes the other processor's compiler and emulator, one core each, runs beside the first's tests.
"""

import json
import os
import shlex
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from wheel_builds import copy_checkout

from native_checks.disassembly import AARCH64, X86_64
from native_checks.test_disassembly import assert_well_placed
from native_checks.tools import ROOT, Command, only_on_x86_64, output, tool

pytestmark = only_on_x86_64

NOT_A_DEBIAN = 77
PROBE = """
import json, platform, sys
sys.path[:0] = sys.argv[1:]
import pow.scanning.backends as scanning

usable = [name for name, backend in scanning.all_backends().items() if backend.usable]
nonces = {name: scanning.scan(b"1:GENESIS:", 0, 10**6, 12, backend=name) for name in usable}
print(json.dumps([platform.machine(), sys.version_info[:2], scanning.__file__, scanning.active_backend().name, nonces]))
"""
# As in genesis_chains.json.
FIRST_NONCE = 904
NEWEST_GLIBC = (2, 28)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean checkout in which `make wheel` has run."""
    folder = copy_checkout(tmp_path_factory.mktemp("clean") / "checkout")
    for name in ("host.json", "function_app.py", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    output(["make", "-C", folder, "wheel"], MAKEFLAGS="")
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    (made,) = (checkout / "dist").glob("*_x86_64.whl")
    return made


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def python_3_13(architecture: str) -> Command:
    """How to run Python 3.13 on that architecture."""
    fetched = subprocess.run(
        [ROOT / ".ci" / "python-3.13", architecture], capture_output=True, text=True, timeout=240, check=False
    )
    if fetched.returncode == NOT_A_DEBIAN:
        pytest.skip(fetched.stderr.strip())
    assert fetched.returncode == 0, fetched.stderr
    return shlex.split(fetched.stdout)


class Found(NamedTuple):
    machine: str
    version: list[int]
    module: str
    active: str
    nonces: dict[str, int]


def probe(python: Command, *path: Path) -> Found:
    """What `pow`, from those folders, is and finds on a Python that has nothing else."""
    settings = {"POW_BACKEND": "auto"}
    # A failed self-test is a warning.
    lines = output([*python, "-I", "-S", "-W", "error", "-c", PROBE, *path], **settings).splitlines()
    return Found(*json.loads(lines[-1]))


@dataclass(frozen=True)
class CrossBuilt:
    wheel: Future[Path]
    found: Future[Found]


@pytest.fixture(scope="module")
def cross_built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrossBuilt]:
    """The wheel of `make wheel-aarch64`, and what an emulated Python finds with it, as soon as they are there."""
    folder = tmp_path_factory.mktemp("aarch64")

    def make() -> Path:
        output(["make", "-C", checkout, "wheel-aarch64"], MAKEFLAGS="")
        (made,) = (checkout / "dist").glob("*_aarch64.whl")
        unpacked(made, folder)
        return made

    def emulate() -> Found:
        tool("qemu-aarch64")
        return probe(python_3_13("arm64"), folder)

    with ThreadPoolExecutor(1) as pool:
        wheel = pool.submit(make)
        yield CrossBuilt(wheel, pool.submit(emulate))


@pytest.mark.usefixtures("cross_built")
def test_the_wheel_is_for_every_linux_since_manylinux_2_28_and_every_python_since_3_11(
    wheel: Path, checkout: Path
) -> None:
    assert wheel.name.endswith("-cp311-abi3-manylinux_2_28_x86_64.whl")
    shown = json.loads(output([checkout / ".venv" / "bin" / "auditwheel", "show", "--json", wheel]))
    (symbols,) = shown["versioned_symbols"].values()
    versions = {tuple(map(int, symbol.removeprefix("GLIBC_").split("."))) for symbol in symbols}
    assert max(versions) <= NEWEST_GLIBC
    assert (shown["external_libs"], shown["unsupported_isa"]) == ({}, False)


def test_the_wheel_has_no_search_path_of_the_machine_that_built_it(wheel: Path, tmp_path: Path) -> None:
    dynamic = output([tool("readelf"), "--dynamic", unpacked(wheel, tmp_path) / "pow" / "_native.abi3.so"])

    assert "NEEDED" in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


def test_the_wheel_has_wide_instructions_only_where_they_are_dispatched_to(wheel: Path, tmp_path: Path) -> None:
    assert_well_placed(X86_64, unpacked(wheel, tmp_path / "wheel") / "pow" / "_native.abi3.so", tmp_path)


@pytest.fixture(scope="module")
def environment(wheel: Path, checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment in which the wheel is installed from a folder, with no index to ask."""
    folder = tmp_path_factory.mktemp("environment")
    output([*pip(checkout), "download", "--dest", folder / "house", *constraints(checkout), wheel])
    output([checkout / ".venv" / "bin" / "python", "-m", "venv", "--without-pip", folder / "venv"])
    offline = ("--no-index", "--find-links", folder / "house")
    output([*pip(checkout, folder / "venv"), "install", *offline, "pow-mcp"])
    return folder / "venv"


def pip(checkout: Path, environment: Path | None = None) -> Command:
    """The checkout's pip, for another environment if need be."""
    into: Command = ["--python", environment / "bin" / "python"] if environment else []
    return [checkout / ".venv" / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", *into]


def constraints(checkout: Path) -> Command:
    return ["--constraint", checkout / "requirements.lock"] if os.environ.get("CI") else []


def test_the_wheel_installs_without_an_index_into_an_empty_environment(environment: Path) -> None:
    backends = json.loads(output([environment / "bin" / "pow-mcp", "backends", "--json"], POW_BACKEND="auto"))

    assert {backend["name"] for backend in backends if backend["supported"]} > {"portable", "hashlib"}


def test_there_it_passes_the_kernels_tests_with_its_extension_and_without(environment: Path, checkout: Path) -> None:
    output(
        [*pip(checkout, environment), "install", *constraints(checkout), "--group", f"{checkout}/pyproject.toml:test"]
    )

    said = output([environment / "bin" / "python", checkout / "infra" / "wheels" / "check_wheel.py"])

    native, fallback = (line for line in said.splitlines() if line.startswith(str(environment)))
    assert not native.endswith(": hashlib")
    assert fallback.endswith(": hashlib")


def test_the_package_for_azure_mines_natively_on_a_real_python_3_13(checkout: Path) -> None:
    python = python_3_13("amd64")

    said = output(["make", "-C", checkout, "package"], MAKEFLAGS="")
    folder = checkout / "dist" / "functionapp"
    assert f"{folder}: the function app for Python 3.13 on x86_64 Linux" in said
    site = folder / ".python_packages" / "lib" / "site-packages"
    imported = "import sys; sys.path[:0] = sys.argv[1:]; import function_app; print(function_app.__file__)"
    app = output([*python, "-I", "-S", "-c", imported, folder, site])
    assert app.splitlines()[-1] == str(folder / "function_app.py")

    found = probe(python, folder, site)
    assert (found.machine, found.version) == ("x86_64", [3, 13])
    assert found.module == str(site / "pow" / "scanning" / "backends.py")
    assert found.active != "hashlib"
    assert {"portable", "hashlib", found.active} <= set(found.nonces)
    assert set(found.nonces.values()) == {FIRST_NONCE}


def test_the_cross_built_wheel_has_sha_2_only_where_it_is_dispatched_to(
    cross_built: CrossBuilt, tmp_path: Path
) -> None:
    wheel = cross_built.wheel.result()

    assert wheel.name.endswith("-cp311-abi3-manylinux_2_28_aarch64.whl")
    assert_well_placed(AARCH64, unpacked(wheel, tmp_path / "wheel") / "pow" / "_native.abi3.so", tmp_path)


def test_the_cross_built_wheel_finds_the_same_nonce_with_each_kernel_on_an_aarch64_python(
    cross_built: CrossBuilt,
) -> None:
    cross_built.wheel.result()
    found = cross_built.found.result()

    assert (found.machine, found.version) == ("aarch64", [3, 13])
    assert found.active in ("portable", "armv8")
    # Each has passed its self-test.
    assert found.nonces == dict.fromkeys(("portable", "armv8", "hashlib"), FIRST_NONCE)
