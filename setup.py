"""Builds the native extension `pow._native`; everything else about the package is in pyproject.toml.

The extension is optional: where it can't be built, the package installs without it and scans with
hashlib. POW_REQUIRE_NATIVE=1 makes a failed build an error; continuous integration sets it.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

REQUIRE_NATIVE = os.environ.get("POW_REQUIRE_NATIVE", "") not in ("", "0")

LOST = """\
WARNING: the native extension pow._native could not be built ({reason}).
WARNING: pow-mcp will scan with hashlib instead: many times slower, and on one core only.
WARNING: To get it, install a C compiler and Python's headers (Debian: gcc python3-dev) and install
WARNING: again; POW_REQUIRE_NATIVE=1 makes this an error.
"""


class OptionalBuildExt(build_ext):  # type: ignore[misc]  # setuptools has no types for its commands
    """build_ext that says what is lost, instead of failing, when there is no working compiler."""

    lost = False

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self._lost(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                self._compile_side_by_side(pool)
                super().build_extension(ext)
        except Exception as error:
            self._lost(error)

    def copy_extensions_to_source(self) -> None:
        if not self.lost:
            super().copy_extensions_to_source()

    def _compile_side_by_side(self, pool: ThreadPoolExecutor) -> None:
        # The kernels take the compiler some ten seconds each, and setuptools would wait for one after the other.
        compile_all = self.compiler.compile

        def compile_each(sources: list[str], **options: Any) -> list[str]:
            objects = pool.map(lambda source: compile_all([source], **options), sources)
            return [name for names in objects for name in names]

        self.compiler.compile = compile_each

    def _lost(self, error: Exception) -> None:
        if REQUIRE_NATIVE:
            raise error
        self.lost = True
        print(LOST.format(reason=str(error).strip().splitlines()[-1]), file=sys.stderr)


def extensions() -> list[Any]:
    native = Extension(
        "pow._native",
        # The slowest to compile come first; a kernel for another kind of processor compiles to nothing.
        sources=[
            "native/scan_avx512.c",
            "native/scan_avx2.c",
            "native/scan_portable.c",
            "native/scan_shani_avx512.c",
            "native/scan_shani.c",
            "native/scan_armv8.c",
            "native/_native.pyx",
            "native/dispatch.c",
            "native/planner.c",
            "native/self_test.c",
            "native/sha256.c",
        ],
        depends=[f"native/{name}.h" for name in ("pow_native", "batch", "sha256", "lanes", "lane_kernel")],
        include_dirs=["native"],
        # No -march: what a kernel needs beyond the baseline it turns on for its own functions.
        extra_compile_args=[] if sys.platform == "win32" else ["-O3", "-std=c11", "-g0"],
        define_macros=[("Py_LIMITED_API", "0x030B0000")],
        py_limited_api=True,
    )
    return [native]


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": OptionalBuildExt},
    # One wheel for Python 3.11 and all after it.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
