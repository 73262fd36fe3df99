"""The folder that azd deploys: what it holds, that it runs with the native kernels, and what must not be deployed."""

import json
import os
import platform
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from wheel_builds import HANG_SECONDS, ROOT, run, wheel

HOOK = ROOT / "infra" / "hooks" / "prepackage.py"
SITE = Path(".python_packages", "lib", "site-packages")
HERE = ".".join(map(str, sys.version_info[:2]))

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="the package is for Linux on x86-64, and runs only there",
)

# Started as the Functions host starts an app: its folder first, then what it depends on, and nothing else.
IMPORT_APP = """
import json, sys
folder = sys.argv[1]
sys.path[:0] = [folder, folder + "/.python_packages/lib/site-packages"]
import function_app
import pow.scanning.backends
print(json.dumps([pow.__file__, pow.scanning.backends.active_backend().name]))
"""


@dataclass(frozen=True)
class Package:
    folder: Path
    said: str


def hook(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(ROOT, sys.executable, HOOK, "--python-version", HERE, *arguments)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel, under the name that `make wheel` gives it."""
    folder = tmp_path_factory.mktemp("wheels")
    shutil.copy(wheel(), folder)
    (plain,) = folder.iterdir()
    plain.rename(folder / plain.name.replace("-linux_x86_64", "-manylinux_2_28_x86_64"))
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the app's own files, and more: the package holds the former alone."""
    folder = tmp_path_factory.mktemp("app")
    for name in ("function_app.py", "host.json", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "pow").mkdir()
    (folder / "pow" / "__init__.py").write_text("raise ImportError('the sources hide the wheel')")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels: Path, app: Path) -> Package:
    folder = tmp_path_factory.mktemp("package") / "functionapp"
    # Of an earlier run.
    (folder / SITE).mkdir(parents=True)
    (folder / SITE / "left_over.py").touch()
    done = hook("--app", app, "--find-links", wheels, "--output", folder)
    assert done.returncode == 0, done.stderr
    return Package(folder, done.stdout)


@pytest.fixture
def package(made: Package, tmp_path: Path) -> Iterator[Path]:
    """A package that a test may spoil."""
    copied = shutil.copytree(made.folder, tmp_path / "functionapp")
    yield copied
    shutil.rmtree(copied)


def refusal(package: Path, app: Path) -> str:
    """What the hook finds wrong about a package."""
    checked = hook("--check", "--app", app, "--output", package)
    assert checked.returncode == 1
    return checked.stderr


def test_the_package_holds_the_app_and_its_dependencies_and_no_sources_of_pow(made: Package, app: Path) -> None:
    assert {path.name for path in made.folder.iterdir()} == {"function_app.py", "host.json", ".python_packages"}
    for name in ("function_app.py", "host.json"):
        assert (made.folder / name).read_bytes() == (app / name).read_bytes()
    site = made.folder / SITE
    assert [path.name for path in site.glob("pow/*.so")] == ["_native.abi3.so"]
    assert {path.name.partition("-")[0] for path in site.glob("*.dist-info")} >= {
        "azure_functions",
        "azure_functions_durable",
        "azure_storage_blob",
        "durabletask",
        "mcp",
        "pow_mcp",
    }
    # They would run this machine's Python.
    assert not (site / "bin").exists()


def test_the_hook_says_in_one_line_what_it_made(made: Package) -> None:
    (line,) = made.said.splitlines()

    assert line.startswith(f"{made.folder}: the function app for Python {HERE} on x86_64 Linux with ")
    assert line.endswith(" MiB, ready to deploy")


def test_the_app_in_the_package_mines_with_a_native_kernel_of_the_wheel(made: Package) -> None:
    # -I and -S: none of this environment's packages, nor its editable pow.
    command = [sys.executable, "-I", "-S", "-c", IMPORT_APP, str(made.folder)]
    settings = {name: value for name, value in os.environ.items() if name != "POW_BACKEND"}
    ran = subprocess.run(
        command, cwd=made.folder, env=settings, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
    )

    assert ran.returncode == 0, ran.stderr
    module, backend = json.loads(ran.stdout.splitlines()[-1])
    assert Path(module) == made.folder / SITE / "pow" / "__init__.py"
    assert backend != "hashlib"


def test_the_package_replaces_an_earlier_one(made: Package) -> None:
    assert not (made.folder / SITE / "left_over.py").exists()


def test_sources_of_pow_beside_the_app_must_not_be_deployed(package: Path, app: Path) -> None:
    shutil.copytree(ROOT / "pow", package / "pow")

    said = refusal(package, app)
    assert "holds pow/: it would hide the wheel's pow with its native extension, and hashlib would mine" in said


def test_the_hook_does_not_delete_a_folder_that_it_did_not_make(tmp_path: Path, app: Path, wheels: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    refused = hook("--app", app, "--find-links", wheels, "--output", tmp_path)

    assert refused.returncode == 1
    assert "holds thesis.txt, which is none of the app" in refused.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_package_without_the_extension_must_not_be_deployed(package: Path, app: Path) -> None:
    (package / SITE / "pow" / "_native.abi3.so").unlink()

    assert "must hold one native extension, _native.abi3.so, but holds none" in refusal(package, app)


def test_a_package_for_another_processor_must_not_be_deployed(package: Path, app: Path) -> None:
    extension = package / SITE / "pow" / "_native.abi3.so"
    image = bytearray(extension.read_bytes())
    image[18] = 183
    extension.write_bytes(image)

    assert f"{SITE}/pow/_native.abi3.so is not for x86_64 Linux" in refusal(package, app)


@pytest.mark.parametrize(
    ("distribution", "sentence"),
    [
        ("grpcio", "durabletask needs grpcio"),
        # By the extra that requirements.txt names.
        ("azure_storage_blob", "pow-mcp needs azure-storage-blob"),
    ],
)
def test_a_package_that_lacks_a_dependency_must_not_be_deployed(
    distribution: str, sentence: str, package: Path, app: Path
) -> None:
    (missing,) = (package / SITE).glob(f"{distribution}-*.dist-info")
    shutil.rmtree(missing)

    assert sentence in refusal(package, app)


def test_a_requirement_applies_by_the_markers_of_the_target_rather_than_of_this_machine(tmp_path: Path) -> None:
    target = runpy.run_path(str(HOOK))["Target"]("3.99", "x86_64")

    target.pip(
        *("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", tmp_path),
        'six; python_version == "3.99" and sys_platform == "linux"',
        f'no-such-package-as-this-one; python_version == "{HERE}"',
    )

    assert (tmp_path / "six.py").is_file()


@pytest.mark.parametrize("name", ["pow_mcp-{}-cp311-abi3-linux_x86_64.whl", "pow_mcp-{}-cp311-abi3-win_amd64.whl"])
def test_a_wheel_for_elsewhere_is_not_taken_and_the_hook_says_where_to_get_the_right_one(
    name: str, tmp_path: Path, app: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / name.format(version())).touch()

    refused = hook("--app", app, "--find-links", tmp_path / "wheels", "--output", tmp_path / "functionapp")

    assert refused.returncode == 1
    assert f"no wheel of pow-mcp {version()} for Python {HERE} on x86_64 Linux is in {tmp_path / 'wheels'}" in (
        refused.stderr
    )
    assert "`make wheel`" in refused.stderr
    assert f"pip download pow-mcp=={version()} --no-deps" in refused.stderr


def test_a_wheel_is_known_to_be_of_this_checkout_or_by_what_it_is_not(wheels: Path, tmp_path: Path) -> None:
    defined = runpy.run_path(str(HOOK))
    (built,) = wheels.iterdir()
    assert defined["outdated_by"](built) is None

    # The functions look up where the checkout is when they are called.
    chain = Path("pow", "mining", "chain.py")
    (tmp_path / chain).parent.mkdir(parents=True)
    (tmp_path / chain).write_bytes((ROOT / chain).read_bytes().replace(b"\n", b"\r\n"))
    defined["outdated_by"].__globals__["ROOT"] = tmp_path
    assert defined["outdated_by"](built) is None
    (tmp_path / "pow" / "new.py").touch()
    assert defined["outdated_by"](built) == "pow/new.py"


@pytest.mark.parametrize(
    ("environment", "guarded"),
    [
        ({"AUTH_ENABLED": "true"}, True),
        ({"AUTH_ENABLED": "false", "OBO_ENABLED": "True"}, True),
        ({"AUTH_ENABLED": "false", "OBO_ENABLED": ""}, False),
    ],
)
def test_the_package_asks_for_no_key_where_entra_guards_the_app(
    environment: dict[str, str], guarded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    defined = runpy.run_path(str(HOOK))
    # What it depends on doesn't matter here, and takes its time.
    monkeypatch.setattr(defined["Target"], "pip", lambda *_: None)

    defined["fill"](tmp_path / "functionapp", ROOT, tmp_path / "no.whl", defined["Target"](HERE, "x86_64"))

    host = json.loads((ROOT / "host.json").read_text("utf-8"))
    if guarded:
        host["extensions"]["mcp"]["system"] = {"webhookAuthorizationLevel": "Anonymous"}
    assert json.loads((tmp_path / "functionapp" / "host.json").read_text("utf-8")) == host


def test_the_app_asks_for_the_version_that_this_checkout_builds() -> None:
    assert runpy.run_path(str(HOOK))["pinned_version"](ROOT) == version()


def test_the_script_for_azd_passes_on_what_it_is_given() -> None:
    helped = run(ROOT, ROOT / "infra" / "hooks" / "prepackage.sh", "--help")

    assert helped.returncode == 0, helped.stderr
    assert "Make the folder that azd deploys as the function app" in " ".join(helped.stdout.split())


def version() -> str:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["version"])
