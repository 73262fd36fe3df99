"""Wide instructions are only in the functions that are named after a backend that has them."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from native_checks.disassembly import AARCH64, X86_64, Architecture, disassemble, functions, misplaced
from native_checks.tools import AARCH64 as AARCH64_RECIPE
from native_checks.tools import PLAIN, ROOT, Build, Recipe, compile_all, listed, only_on_x86_64, output, tool

# What each backend is made for.
CHARACTERISTIC = {
    "avx2": [r"%ymm"],
    "avx512": [r"%zmm"],
    "shani": [r"sha256rnds2", r"sha256msg1"],
    "shani_avx512": [r"sha256rnds2", r"vpro[lr]d .*%ymm"],
    "armv8": [r"sha256h\s", r"sha256su0"],
}


def assert_well_placed(architecture: Architecture, compiled: Path, folder: Path) -> None:
    instructions = disassemble(architecture, compiled)

    assert misplaced(architecture, instructions, folder) == []
    # Were there no names to go by, or no wide instructions, the above would mean nothing.
    for backend in architecture.backends:
        for characteristic in CHARACTERISTIC[backend]:
            holders = functions(instructions, characteristic)
            assert [name for name in holders if architecture.backend_of(name) == backend], (backend, characteristic)


@only_on_x86_64
def test_the_module_has_wide_instructions_only_in_the_functions_of_backends_that_have_them(tmp_path: Path) -> None:
    modules = list((ROOT / "pow").glob("_native*.so"))

    assert modules, "the extension is not built: make install"
    for module in modules:
        assert_well_placed(X86_64, module, tmp_path)


@only_on_x86_64
@pytest.mark.parametrize("compiler", PLAIN)
def test_any_compiler_leaves_wide_instructions_where_they_belong(
    compiler: str, built: Callable[[Recipe], Build], tmp_path: Path
) -> None:
    assert_well_placed(X86_64, built(PLAIN[compiler]).program, tmp_path)


def test_sha_2_of_aarch64_is_only_in_the_functions_of_its_backend(
    built: Callable[[Recipe], Build], tmp_path: Path
) -> None:
    # Not the whole program: the C library in it chooses among functions by the processor, too.
    recipe = Recipe("aarch64-linux-gnu-gcc", (), ("-shared", "-nostdlib"))
    kernels = [compiled for compiled in built(AARCH64_RECIPE).objects if compiled.stem != "check_kernels"]
    output([tool(recipe.compiler), "-r", *kernels, "-o", tmp_path / "kernels.o"])

    assert_well_placed(AARCH64, tmp_path / "kernels.o", tmp_path)


@pytest.mark.parametrize("compiler", PLAIN)
def test_what_a_kernel_exports_ends_in_the_backend_s_name(compiler: str, built: Callable[[Recipe], Build]) -> None:
    build = built(PLAIN[compiler])
    exported = {}
    for compiled in build.objects:
        if compiled.stem.startswith("scan_"):
            symbols = output([tool("nm"), "--defined-only", "--extern-only", "--format=posix", compiled])
            exported[compiled.stem.removeprefix("scan_")] = [line.split()[0] for line in symbols.splitlines()]

    states = listed([build.program])
    assert set(exported) == set(states)
    for backend, names in exported.items():
        assert all(name.endswith(f"_{backend}") for name in names), (backend, names)
        assert bool(names) == (states[backend] != "not compiled"), backend


# Functions, what to compile them for, and what there is wrong about them.
PLANTED = [
    pytest.param("add", "WIDE(32)", "-mavx2", "vpaddd", id="avx2 outside"),
    pytest.param("add_avx2", "WIDE(32)", "-mavx2", None, id="avx2 inside"),
    pytest.param("add_avx2", "WIDE(64)", "-mavx512f", "vpaddd.*zmm", id="avx512 in avx2"),
    pytest.param("add_avx512", "WIDE(64)", "-mavx512f", None, id="avx512 inside"),
    pytest.param("add_avx512_too", "WIDE(64)", "-mavx512f", "vpaddd.*zmm", id="avx512 in a name that goes on"),
    pytest.param("rotate_avx512", "ROTATE(32)", "-mavx512vl", "vpro[lr]d.*ymm", id="avx512vl in avx512"),
    pytest.param("rotate_shani_avx512", "ROTATE(32)", "-mavx512vl", None, id="avx512vl inside"),
    pytest.param("add_avx2", "EVEX", "-mavx512vl", "vpaddd", id="avx512's encoding of avx2"),
    pytest.param("multiply", "MULTIPLY", "-msse4.1", "pmulld", id="sse4.1 outside"),
    pytest.param("multiply_shani", "MULTIPLY", "-msse4.1", None, id="sse4.1 inside"),
    pytest.param("multiply_shani", "MULTIPLY", "-mavx", "vpmulld", id="avx in shani"),
    pytest.param("count_shani", "COUNT", "-mpopcnt", "popcnt", id="popcnt in shani"),
    pytest.param("shift_shani_avx512", "SHIFT", "-mbmi2", "shlx", id="bmi2 in the widest"),
    pytest.param("last_zero", "LAST_ZERO", "-mtune=generic", None, id="tzcnt that may be bsf"),
    pytest.param("first_zero", "FIRST_ZERO", "-mlzcnt", "lzcnt", id="lzcnt outside"),
    pytest.param("sha", "SHA", "-msha", "sha256msg1", id="sha outside"),
    pytest.param("sha_shani", "SHA", "-msha", None, id="sha inside"),
]
PLANTED_SOURCE = """
#include <immintrin.h>
#define WIDE(bytes) \\
    typedef unsigned v __attribute__((vector_size(bytes))); void NAME(v *x, v *y) { *x += *y; }
#define ROTATE(bytes) \\
    typedef unsigned v __attribute__((vector_size(bytes))); void NAME(v *x) { *x = *x << 3 | *x >> 29; }
#define EVEX void NAME(void) { __asm__("{evex} vpaddd %ymm0, %ymm1, %ymm2"); }
#define MULTIPLY typedef unsigned v __attribute__((vector_size(16))); void NAME(v *x, v *y) { *x *= *y; }
#define COUNT int NAME(unsigned x) { return __builtin_popcount(x); }
#define SHIFT unsigned long NAME(unsigned long x, int by) { return x << by; }
#define LAST_ZERO int NAME(unsigned x) { return __builtin_ctz(x); }
#define FIRST_ZERO int NAME(unsigned x) { return __builtin_clz(x); }
#define SHA void NAME(__m128i *x) { *x = _mm_sha256msg1_epu32(*x, *x); }
FUNCTION
"""


@only_on_x86_64
@pytest.mark.parametrize(("name", "function", "flag", "fault"), PLANTED)
def test_planted_instructions_are_found(name: str, function: str, flag: str, fault: str | None, tmp_path: Path) -> None:
    source = tmp_path / "planted.c"
    source.write_text(PLANTED_SOURCE)
    recipe = Recipe("gcc", ("-O2", "-fPIC", flag, f"-DNAME={name}", f"-DFUNCTION={function}"), ("-shared",))
    library = tmp_path / "planted.so"
    output([tool("gcc"), *recipe.link, *compile_all(recipe, [source], tmp_path), "-o", library])

    found = misplaced(X86_64, disassemble(X86_64, library), tmp_path)
    if fault is None:
        assert found == []
    else:
        assert found
        assert all(line.startswith(f"{name}: ") for line in found)
        assert any(re.search(fault, line) for line in found)
