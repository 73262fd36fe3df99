"""Prove the pow-mcp that is installed beside this Python: with its native kernels, and without them.

The kernels' tests run against it from a folder of their own, where no checkout's `pow` comes first on the path. Then
the extension is deleted, and they run once more: hashlib must do. Only for an environment that is thrown away.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
NATIVE_TESTS = (
    "test_chain",
    "test_scan",
    "test_batches",
    "test_histogram",
    "test_backend_choice",
    "test_native_binding",
)
FALLBACK_TESTS = ("test_chain", "test_scan", "test_backend_choice")
ACTIVE = "import pow.scanning.backends as it; print(it.__file__); print(it.active_backend().name)"


def python(folder: Path, *arguments: str) -> list[str]:
    """Run this Python with a folder before all else on its path; the lines it prints, unless it is to show them."""
    captured = arguments[0] == "-c"
    settings = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "POW_BACKEND")}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=settings,
        stdout=subprocess.PIPE if captured else None,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"ERROR: {' '.join(arguments)} failed with status {done.returncode}")
    return done.stdout.splitlines() if captured else []


def run_tests(folder: Path, names: tuple[str, ...]) -> None:
    python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{name}.py" for name in names))


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))

        module, backend = python(folder, "-c", ACTIVE)
        print(f"{module}: {backend}", flush=True)
        package = Path(module).parents[1]
        extensions = [path for path in package.glob("_native*") if path.suffix != ".pyi"]
        if not package.is_relative_to(sys.prefix) or sys.prefix == sys.base_prefix:
            sys.exit(f"ERROR: {package} is not in a virtual environment of its own")
        if backend == "hashlib" or len(extensions) != 1:
            sys.exit(f"ERROR: the wheel must bring one native extension that works; it has {extensions}")
        run_tests(folder, NATIVE_TESTS)

        extensions[0].unlink()
        module, backend = python(folder, "-c", ACTIVE)
        print(f"{module}: {backend}", flush=True)
        if backend != "hashlib":
            sys.exit(f"ERROR: without the extension hashlib must mine, not {backend}")
        run_tests(folder, FALLBACK_TESTS)


if __name__ == "__main__":
    main()
