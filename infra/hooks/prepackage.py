"""Make the folder that azd deploys as the function app: `dist/functionapp`.

azd calls this before it packages the service (through prepackage.sh or prepackage.ps1), and `make package` does, too.
The folder holds the app's own files and, in `.python_packages`, everything that `requirements.txt` names and what that
depends on, for the Python and the processor of the function app rather than for this machine's. The package `pow` is
the wheel's: a `pow/` folder beside `function_app.py` would come first on the path, without the native extension, and
mining would fall back to hashlib without a word. So the folder is checked at the end, and a wrong one is an error.

Where Entra guards the app, by AUTH_ENABLED or OBO_ENABLED of azd's environment, the package's host.json says that the
MCP extension's key isn't asked for. An application setting says so, too, but it was seen to have no effect.

It needs nothing beyond Python and pip, on Linux, macOS or Windows. Only the wheel has to be there already where it
can't be built: anywhere but on a Linux of the function app's processor.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

try:
    # As pip itself reads requirements. The standard library has nothing for it.
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name
    from pip._vendor.packaging.version import Version
except ImportError:
    sys.exit(f"ERROR: {sys.executable} has no pip: `{sys.executable} -m ensurepip` or the system's packages bring it")

ROOT = Path(__file__).resolve().parents[2]
HOST = "host.json"
APP_FILES = ("function_app.py", HOST)
REQUIREMENTS = "requirements.txt"
# azd gives the values of its environment to hooks. Either of these lets infra/ put Entra before the app.
ENTRA = ("AUTH_ENABLED", "OBO_ENABLED")
# As azd reads the value of a bool.
TRUE = {"1", "t", "true"}
# Where the Functions host looks for what an app depends on.
PACKAGES = Path(".python_packages", "lib", "site-packages")
DISTRIBUTION = "pow_mcp"
PACKAGE = "pow"
EXTENSION = "_native.abi3.so"
# What the wheel is built from.
SOURCES = ("pyproject.toml", "setup.py", "native/*.c", "native/*.h", "native/*.pyx", "pow/**/*.py")
GENERATED = "_native.c"

# The newest glibc that a wheel may ask for: no newer than that of the images that Functions runs on.
NEWEST_GLIBC = 28
# The oldest that wheels for a processor know, and the names of some before they were numbered.
OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}
LEGACY_PLATFORMS = {"x86_64": ("manylinux2014", "manylinux2010", "manylinux1"), "aarch64": ("manylinux2014",)}
# How an ELF file names its processor, in the two bytes at 18.
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}

# Earlier ones take no package that wants a newer Python than the one that pip runs on.
OLDEST_PIP = "24.1"
# pip chooses files for the Python and the platform that it is told, but decides by those that it runs on whether a
# requirement with a marker (`; sys_platform == "win32"`) applies, and has no option for it.
PIP_FOR_TARGET = """
import json, sys
from pip._vendor.packaging import markers
here, target = markers.default_environment, json.loads(sys.argv.pop(1))
markers.default_environment = lambda: {**here(), **target}
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


class PackageError(Exception):
    """The folder can't be made, or isn't what may be deployed. The message says what to do."""


@dataclass(frozen=True)
class Target:
    """The Python that the function app runs on, and its processor."""

    python: str  # 3.13
    processor: str

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there, the newest first."""
        numbered = [f"manylinux_2_{minor}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC[self.processor] - 1, -1)]
        return [f"{name}_{self.processor}" for name in (*numbered, *LEGACY_PLATFORMS[self.processor])]

    @property
    def markers(self) -> Mapping[str, str]:
        """The values of environment markers there."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.processor,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def pip(self, *arguments: str | Path) -> None:
        with tempfile.TemporaryDirectory(prefix="pow-pip-") as folder:
            command = [sys.executable, "-c", PIP_FOR_TARGET, json.dumps(dict(self.markers)), *map(str, arguments)]
            # To standard error: standard output is for the one line of this script.
            if subprocess.run(command, env=with_new_pip(folder), stdout=sys.stderr, check=False).returncode:
                raise PackageError(f"pip could not install {REQUIREMENTS} for {self}; what it says is above")

    def __str__(self) -> str:
        return f"Python {self.python} on {self.processor} Linux"


def with_new_pip(folder: str) -> Mapping[str, str]:
    """An environment in which Python has a pip that is new enough; where it hasn't, one is put into the folder."""
    if Version(importlib.metadata.version("pip")) >= Version(OLDEST_PIP):
        return os.environ
    newer = ("install", "--quiet", "--disable-pip-version-check", "--target", folder, f"pip>={OLDEST_PIP}")
    if subprocess.run([sys.executable, "-m", "pip", *newer], stdout=sys.stderr, check=False).returncode:
        raise PackageError(f"{sys.executable} has a pip older than {OLDEST_PIP}, and pip could not get a newer one")
    return {**os.environ, "PYTHONPATH": folder}


def pinned_version(app: Path) -> str:
    """The version of pow-mcp that the app asks for."""
    for requirement in requirements(app):
        if requirement.name.replace("-", "_").lower() == DISTRIBUTION:
            pins = [it.version for it in requirement.specifier if it.operator == "=="]
            if len(pins) == 1:
                return str(pins[0])
    raise PackageError(f"{app / REQUIREMENTS} must pin one version of pow-mcp: pow-mcp==…")


def requirements(app: Path) -> list[Requirement]:
    lines = (line.split(" #")[0].strip() for line in (app / REQUIREMENTS).read_text("utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def wheels(folder: Path, version: str, target: Target) -> list[Path]:
    """The project's wheels of that version in a folder that run on the target, the newest first."""
    fitting = [
        wheel
        for wheel in folder.glob(f"{DISTRIBUTION}-{version}-*-abi3-*.whl")
        if set(wheel.stem.split("-")[-1].split(".")) & set(target.platforms)
    ]
    return sorted(fitting, key=lambda wheel: wheel.stat().st_mtime, reverse=True)


def outdated_by(wheel: Path) -> str | None:
    """A source file of this checkout that the wheel isn't built from."""
    built = zipfile.ZipFile(wheel)
    names = set(built.namelist())
    for pattern in SOURCES:
        for source in ROOT.glob(pattern):
            name = source.relative_to(ROOT).as_posix()
            if name.startswith(f"{PACKAGE}/"):
                # Checkouts on Windows may have other ends of lines.
                if name not in names or built.read(name).splitlines() != source.read_bytes().splitlines():
                    return name
            elif source.name != GENERATED and source.stat().st_mtime > wheel.stat().st_mtime:
                return name
    return None


def can_build(target: Target) -> bool:
    return sys.platform.startswith("linux") and platform.machine() == target.processor and bool(shutil.which("make"))


def choose_wheel(version: str, target: Target, find_links: Path | None) -> Path:
    """The wheel of pow-mcp to deploy: one that was given, or one of this checkout, built if need be.

    Raises:
        PackageError: there is none, and it can't be built here.
    """
    folder = find_links or ROOT / "dist"
    found = next(iter(wheels(folder, version, target)), None)
    if found is None:
        problem = f"no wheel of pow-mcp {version} for {target} is in {folder}"
    elif find_links is None and (newer := outdated_by(found)):
        problem = f"{found} is not built from this checkout's {newer}"
    else:
        return found
    if find_links is None and can_build(target):
        print(f"{problem}: building it", file=sys.stderr)
        if subprocess.run(["make", "wheel"], cwd=ROOT, stdout=sys.stderr, check=False).returncode:
            raise PackageError("make wheel failed; what it says is above")
        found = next(iter(wheels(folder, version, target)), None)
        if found is not None:
            return found
    raise PackageError(
        f"{problem}. It is built by `make wheel` on {target.processor} Linux. Elsewhere put a prebuilt one there, from "
        f"the project's release {version}, or by: {Path(sys.executable).name} -m pip download pow-mcp=={version} "
        f"--no-deps --only-binary=:all: --platform {target.platforms[0]} --dest {folder}"
    )


def fill(output: Path, app: Path, wheel: Path, target: Target) -> None:
    """Put the app and all that it depends on into the folder, in place of an earlier package."""
    foreign = unexpected(output)
    if foreign:
        raise PackageError(f"{output} holds {', '.join(foreign)}, which is none of the app: {advice(foreign, output)}")
    missing = [name for name in (*APP_FILES, REQUIREMENTS) if not (app / name).is_file()]
    if missing:
        raise PackageError(f"the function app in {app} lacks {', '.join(missing)}")
    if output.exists():
        shutil.rmtree(output)
    site = output / PACKAGES
    site.mkdir(parents=True)
    for name in APP_FILES:
        shutil.copyfile(app / name, output / name)
    if guarded_by_entra(os.environ):
        ask_for_no_key(output / HOST)
    target.pip(
        *("install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-warn-conflicts"),
        *("--target", site),
        *("--implementation", "cp", "--python-version", target.python),
        *("--abi", f"cp{target.python.replace('.', '')}", "--abi", "abi3", "--abi", "none"),
        *(part for name in target.platforms for part in ("--platform", name)),
        *("--only-binary=:all:", "--requirement", app / REQUIREMENTS, wheel),
    )
    # Commands, which would run this machine's Python.
    shutil.rmtree(site / "bin", ignore_errors=True)


def guarded_by_entra(environment: Mapping[str, str]) -> bool:
    return any(environment.get(name, "").strip().lower() in TRUE for name in ENTRA)


def ask_for_no_key(host: Path) -> None:
    """Let a host.json say that callers of the MCP extension need no key."""
    document = json.loads(host.read_text("utf-8"))
    system = document.setdefault("extensions", {}).setdefault("mcp", {}).setdefault("system", {})
    system["webhookAuthorizationLevel"] = "Anonymous"
    host.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", "utf-8")


def unexpected(output: Path) -> list[str]:
    """What the folder holds beside what is made here, and beside what running the app there leaves."""
    expected = {*APP_FILES, PACKAGES.parts[0], "__pycache__"}
    names = sorted(path for path in output.iterdir() if path.name not in expected) if output.is_dir() else []
    return [f"{path.name}/" if path.is_dir() else path.name for path in names]


def advice(foreign: Iterable[str], output: Path) -> str:
    if {f"{PACKAGE}/", f"{PACKAGE}.py"} & set(foreign):
        return "it would hide the wheel's pow with its native extension, and hashlib would mine. Remove it"
    return f"remove it, or give another folder than {output}"


def verify(output: Path, app: Path, target: Target) -> None:
    """Let a folder pass that may be deployed.

    Raises:
        PackageError: it may not be; the message lists everything that is wrong.
    """
    problems = list(found_wrong(output, app, target))
    if problems:
        raise PackageError(f"{output} must not be deployed:\n" + "\n".join(f"  - {problem}" for problem in problems))


def found_wrong(output: Path, app: Path, target: Target) -> Iterator[str]:
    foreign = unexpected(output)
    if foreign:
        yield f"beside the app it holds {', '.join(foreign)}: {advice(foreign, output)}"
    yield from (f"{name} is missing" for name in APP_FILES if not (output / name).is_file())
    extensions = [path.name for path in (output / PACKAGES / PACKAGE).glob("_native*")]
    binaries = [name for name in extensions if not name.endswith(".pyi")]
    if binaries != [EXTENSION]:
        yield f"{PACKAGES / PACKAGE} must hold one native extension, {EXTENSION}, but holds {binaries or 'none'}"
    for library in sorted((output / PACKAGES).rglob("*.so*")):
        header = library.read_bytes()[:20]
        if header[:4] != b"\x7fELF" or int.from_bytes(header[18:20], "little") != ELF_MACHINES[target.processor]:
            yield f"{library.relative_to(output)} is not for {target.processor} Linux"
    yield from unmet(output / PACKAGES, requirements(app), target)


def unmet(site: Path, wanted: Iterable[Requirement], target: Target) -> Iterator[str]:
    """Each requirement, of the app and of what it depends on, that is not installed there in a fitting version."""
    installed = {canonicalize_name(it.name): it for it in importlib.metadata.distributions(path=[str(site)])}
    pending = [("the app", requirement) for requirement in wanted]
    seen: set[tuple[str, str]] = set()
    while pending:
        by, requirement = pending.pop()
        distribution = installed.get(canonicalize_name(requirement.name))
        if distribution is None:
            yield f"{by} needs {requirement}, which is missing"
        elif not requirement.specifier.contains(distribution.version, prereleases=True):
            yield f"{by} needs {requirement}, but {distribution.version} is there"
        else:
            for extra in {"", *requirement.extras} - {extra for name, extra in seen if name == distribution.name}:
                seen.add((distribution.name, extra))
                environment = {**target.markers, "extra": extra}
                needs = map(Requirement, distribution.requires or ())
                pending += [(distribution.name, it) for it in needs if not it.marker or it.marker.evaluate(environment)]


def summary(output: Path, target: Target) -> str:
    count = len(list((output / PACKAGES).glob("*.dist-info")))
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    return (
        f"{output}: the function app for {target} with {count} packages and the native pow, {size / 2**20:.0f} MiB, "
        "ready to deploy"
    )


def python_version(given: str) -> str:
    if not re.fullmatch(r"3\.\d+", given):
        raise argparse.ArgumentTypeError(f"expected a version like 3.13, not {given!r}")
    return given


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make the folder that azd deploys as the function app: its own files, and in .python_packages the "
        "wheel of pow-mcp and all that requirements.txt asks for, for the function app's Python and processor.",
        epilog="The wheel is taken from dist, and built there by `make wheel` where this is possible and the one there "
        "is missing or not built from this checkout.",
    )
    add = parser.add_argument
    add("--output", type=Path, default=ROOT / "dist" / "functionapp", metavar="FOLDER", help="what to make")
    add("--python-version", type=python_version, default="3.13", metavar="3.X", help="its Python (default: 3.13)")
    add("--platform", choices=sorted(ELF_MACHINES), default="x86_64", help="its processor, on Linux (default: x86_64)")
    add("--find-links", type=Path, metavar="FOLDER", help="take the wheel of pow-mcp from here, however old it is")
    add("--app", type=Path, default=ROOT, metavar="FOLDER", help=f"where {', '.join(APP_FILES)} and {REQUIREMENTS} are")
    add("--check", action="store_true", help="only check the folder, which was made before")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    target = Target(arguments.python_version, arguments.platform)
    app, output = arguments.app.resolve(), arguments.output.resolve()
    try:
        if not arguments.check:
            find_links = arguments.find_links and arguments.find_links.resolve()
            wheel = choose_wheel(pinned_version(app), target, find_links)
            fill(output, app, wheel, target)
        verify(output, app, target)
    except PackageError as error:
        sys.exit(f"ERROR: {error}")
    print(summary(output, target))


if __name__ == "__main__":
    main()
