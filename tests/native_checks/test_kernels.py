"""Every kernel against a plain SHA-256 (check_kernels.c): as it is, under sanitizers and valgrind."""

from collections.abc import Callable
from pathlib import Path

import pytest

from native_checks.tools import (
    FEATURES,
    ON_X86_64,
    PLAIN,
    SANITIZED,
    Build,
    Command,
    Recipe,
    checked,
    only_on_x86_64,
    output,
    supported,
    tool,
)


@pytest.mark.parametrize("compiler", PLAIN)
def test_every_kernel_of_this_machine_agrees_with_a_plain_sha_256(
    compiler: str, built: Callable[[Recipe], Build]
) -> None:
    program = built(PLAIN[compiler]).program

    assert "portable" in supported([program])
    assert checked([program], "--cases", "300") == supported([program])


@only_on_x86_64
def test_the_kernels_that_a_processor_supports_are_those_whose_features_it_has(
    check_kernels: Path, cpu_features: Path
) -> None:
    features = set(output([cpu_features]).split())

    expected = {name for name, needs in FEATURES.items() if needs <= features}
    assert supported([check_kernels]) == {"portable", *expected}


def skip_where_force_does_not_help(backend: str, cpu_features: Path) -> None:
    """Skip the test if a kernel lacks more than SHA instructions, which are emulated, and speed."""
    lacks = FEATURES[backend] - {"sha", "not_intel"} - set(output([cpu_features]).split())
    if lacks:
        pytest.skip(f"this processor lacks {', '.join(sorted(lacks))}")


# Emulated, a kernel hashes about 3,000 nonces a second. Its longest batches begin in windows of so many nonces.
@only_on_x86_64
@pytest.mark.parametrize(("backend", "longest"), [("shani", "2100"), ("shani_avx512", "4100")])
def test_kernels_of_sha_instructions_agree_with_a_plain_sha_256_wherever_they_can_run(
    backend: str,
    longest: str,
    built: Callable[[Recipe], Build],
    with_sha_ni: Callable[[Build], Path],
    cpu_features: Path,
) -> None:
    skip_where_force_does_not_help(backend, cpu_features)
    program: Command = [with_sha_ni(built(PLAIN["gcc"])), "--force"]

    assert checked(program, "--cases", "122", "--window", "250", backend) == {backend}
    assert checked(program, "--cases", "7", "--window", longest, backend) == {backend}


SANITIZERS_SETTINGS = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def test_no_kernel_does_what_c_leaves_undefined_or_touches_memory_that_is_not_its_own(
    built: Callable[[Recipe], Build],
) -> None:
    program = built(SANITIZED).program

    assert checked([program], "--cases", "122", "--window", "5000", **SANITIZERS_SETTINGS) == supported([program])


@only_on_x86_64
@pytest.mark.parametrize("backend", ["shani", "shani_avx512"])
def test_nor_does_a_kernel_of_sha_instructions_wherever_it_can_run(
    backend: str, built: Callable[[Recipe], Build], with_sha_ni: Callable[[Build], Path], cpu_features: Path
) -> None:
    skip_where_force_does_not_help(backend, cpu_features)
    program: Command = [with_sha_ni(built(SANITIZED)), "--force"]

    assert checked(program, "--cases", "61", "--window", "100", backend, **SANITIZERS_SETTINGS) == {backend}


# Of what CPUID says, valgrind passes on only what it can run itself: no AVX-512, and no SHA instructions.
def test_valgrind_finds_nothing_wrong_with_the_kernels_whose_instructions_it_knows(check_kernels: Path) -> None:
    valgrind: Command = [tool("valgrind"), "-q", "--error-exitcode=9", check_kernels]

    names = checked(valgrind, "--cases", "122", "--window", "5000")
    assert names == supported(valgrind)
    if ON_X86_64:
        assert names == {"portable", "avx2"} & supported([check_kernels])
