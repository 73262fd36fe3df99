"""What the native checks share: the tools they need, and builds of the C programs beside it."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent
# What takes the compiler longest comes first: it decides how long all of them take side by side.
KERNELS = sorted(
    (source for source in (ROOT / "native").glob("*.c") if source.name != "_native.c"),
    key=lambda source: ("avx" not in source.name, -len(source.name)),
)
HANG_SECONDS = 240.0

ON_X86_64 = platform.machine() == "x86_64"
only_on_x86_64 = pytest.mark.skipif(not ON_X86_64, reason="this machine is no x86-64")

# The kernels for x86-64, and the features that each may take for granted. "not_intel" is one of speed alone.
FEATURES = {
    "avx2": {"avx2"},
    "avx512": {"avx2", "avx512f"},
    "shani": {"ssse3", "sse4.1", "sha"},
    "shani_avx512": {"ssse3", "sse4.1", "sha", "avx2", "avx512f", "avx512vl", "not_intel"},
}

Command = Sequence[str | Path]


def tool(name: str) -> str:
    """The path of a tool. A test that lacks it is skipped; in continuous integration it fails."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (.ci/install-tools)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def run(command: Command, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )


def output(command: Command, **settings: str) -> str:
    """What a command that must succeed prints."""
    done = run(command, **settings)
    said = (done.stdout + done.stderr)[-8000:]
    assert done.returncode == 0, f"exit status {done.returncode} of {' '.join(map(str, command))}:\n{said}"
    return done.stdout


@dataclass(frozen=True)
class Recipe:
    """How to compile the kernels and a program that uses them."""

    compiler: str
    flags: tuple[str, ...]
    link: tuple[str, ...] = ()


# As setup.py has them.
AS_INSTALLED = ("-O3", "-std=c11", "-g0")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
PLAIN = {compiler: Recipe(compiler, AS_INSTALLED + WARNINGS) for compiler in ("gcc", "clang")}
SANITIZERS = "-fsanitize=address,undefined"
# With more optimisation, or with the positions of variables, this takes the compiler minutes.
SANITIZED = Recipe(
    "gcc",
    ("-O1", "-std=c11", "-g1", "-fno-var-tracking", "-fno-sanitize-recover=all", SANITIZERS),
    (SANITIZERS,),
)
AARCH64 = Recipe("aarch64-linux-gnu-gcc", AS_INSTALLED + WARNINGS, ("-static",))


def compile_all(recipe: Recipe, sources: Iterable[Path], folder: Path) -> list[Path]:
    """Compile the sources side by side; the object files, in the sources' order."""
    compiler = tool(recipe.compiler)

    def compile_one(source: Path) -> Path:
        compiled = folder / f"{source.stem}.o"
        output([compiler, *recipe.flags, f"-I{ROOT / 'native'}", "-c", source, "-o", compiled])
        return compiled

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def link(recipe: Recipe, objects: Iterable[Path], program: Path) -> Path:
    output([tool(recipe.compiler), *recipe.link, *objects, "-o", program])
    return program


@dataclass(frozen=True)
class Build:
    recipe: Recipe
    objects: tuple[Path, ...]
    program: Path  # check_kernels.c


def build(recipe: Recipe, folder: Path) -> Build:
    objects = compile_all(recipe, [*KERNELS, PROGRAMS / "check_kernels.c"], folder)
    return Build(recipe, tuple(objects), link(recipe, objects, folder / "check_kernels"))


def listed(check_kernels: Command) -> dict[str, str]:
    """What each backend is here: supported, unsupported, or not compiled."""
    lines = output([*check_kernels, "--list"]).splitlines()
    return dict(line.split(": ", 1) for line in lines)


def supported(check_kernels: Command) -> set[str]:
    return {name for name, state in listed(check_kernels).items() if state == "supported"}


def checked(check_kernels: Command, *arguments: str, **settings: str) -> set[str]:
    """Run the check program, which must find nothing wrong; the backends that it has checked."""
    *of_backends, total = output([*check_kernels, *arguments], **settings).splitlines()
    assert total.endswith(" passed, 0 failed"), total
    return {line.split(": ")[0] for line in of_backends}
