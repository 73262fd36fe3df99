"""The kernels on processors that this machine has not, under qemu-user: that they are right, not how fast.

qemu has no AVX-512; AVX2 it has since 7.2, the SHA instructions of x86-64 since 8.2.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from native_checks.tools import (
    AARCH64,
    FEATURES,
    ROOT,
    Build,
    Command,
    Recipe,
    checked,
    listed,
    only_on_x86_64,
    output,
    run,
    supported,
    tool,
)

QEMU_WITH_AVX2 = (7, 2)
each_processor = pytest.mark.parametrize("processor", ["Nehalem", "Haswell", "Skylake-Server", "Icelake-Server"])


def on(processor: str) -> list[str]:
    """What to put before a command for x86-64."""
    return [tool("qemu-x86_64"), "-cpu", processor]


def version_of(qemu: str) -> tuple[int, int]:
    found = re.search(r"version (\d+)\.(\d+)", output([qemu, "--version"]))
    assert found
    return int(found[1]), int(found[2])


def expected_on(processor: str, cpu_features: Path) -> set[str]:
    """The kernels whose features the processor has; `cpu_features` finds them in another way than the kernels do."""
    features = set(output([*on(processor), cpu_features]).split())
    return {"portable"} | {name for name, needs in FEATURES.items() if needs <= features}


@only_on_x86_64
@each_processor
def test_the_kernels_whose_features_a_processor_has_agree_with_a_plain_sha_256(
    processor: str, check_kernels: Path, cpu_features: Path
) -> None:
    expected = expected_on(processor, cpu_features)

    assert ("avx2" in expected) == (processor != "Nehalem" and version_of(tool("qemu-x86_64")) >= QEMU_WITH_AVX2)
    assert supported([*on(processor), check_kernels]) == expected
    assert checked([*on(processor), check_kernels], "--cases", "122", "--window", "5000") == expected


@only_on_x86_64
def test_the_kernel_of_sha_instructions_agrees_with_a_plain_sha_256_where_qemu_has_them(
    check_kernels: Path, cpu_features: Path
) -> None:
    expected = expected_on("max", cpu_features)
    if "shani" not in expected:
        pytest.skip("this qemu has no SHA instructions; version 8.2 brought them")

    assert supported([*on("max"), check_kernels]) == expected
    assert checked([*on("max"), check_kernels], "--cases", "122", "--window", "5000", "shani") == {"shani"}


@only_on_x86_64
@each_processor
def test_the_module_mines_a_known_chain_with_each_kernel_that_the_processor_supports(
    processor: str, check_kernels: Path
) -> None:
    command = [*on(processor), sys.executable, "-m", "pow"]
    settings = {"POW_BACKEND": "auto"}
    chains = json.loads((ROOT / "tests" / "genesis_chains.json").read_text("utf-8"))["chains"]
    (chain,) = (chain for chain in chains if (chain["genesis"], chain["difficulty"]) == ("GENESIS", 12))

    backends = json.loads(output([*command, "backends", "--json"], **settings))
    usable = {backend["name"] for backend in backends if backend["supported"] and backend["self_test"]} - {"hashlib"}
    assert usable == supported([*on(processor), check_kernels])
    for backend in usable:
        mine = [*command, "mine", "--difficulty", "12", "--blocks", "4", "--backend", backend, "--json"]
        assert json.loads(output(mine, **settings)) == {**chain, "blocks": chain["blocks"][:4]}, backend


def test_an_aarch64_with_sha_2_runs_both_of_its_kernels(built: Callable[[Recipe], Build]) -> None:
    command: Command = [tool("qemu-aarch64"), "-cpu", "max", built(AARCH64).program]

    assert supported(command) == {"portable", "armv8"}
    assert checked(command, "--cases", "122", "--window", "5000") == {"portable", "armv8"}


def test_an_aarch64_without_sha_2_runs_the_portable_kernel_alone(built: Callable[[Recipe], Build]) -> None:
    # qemu models no such processor. Before version 10, one whose vectors are switched off still has them, and
    # says that it has neither them nor what builds on them.
    command: Command = [tool("qemu-aarch64"), "-cpu", "cortex-a53,vfp=off,neon=off", built(AARCH64).program]
    if run([*command, "--list"]).returncode:
        pytest.skip("this qemu can't take SHA-2 from an aarch64; versions before 10 can")

    assert listed(command)["armv8"] == "unsupported"
    assert checked(command, "--cases", "122", "--window", "5000") == {"portable"}


def test_clang_compiles_the_armv8_kernel_too(tmp_path: Path) -> None:
    headers = Path("/usr/aarch64-linux-gnu/include")
    if not headers.is_dir():
        tool("aarch64-linux-gnu-gcc")  # it brings them
    target = ["--target=aarch64-linux-gnu", f"-isystem{headers}"]
    flags = ["-O3", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'native'}"]

    output([tool("clang"), *target, *flags, "-c", ROOT / "native" / "scan_armv8.c", "-o", tmp_path / "scan_armv8.o"])
    symbols = output([tool("nm"), tmp_path / "scan_armv8.o"])
    assert re.search(r" T pow_run_armv8$", symbols, re.MULTILINE)
