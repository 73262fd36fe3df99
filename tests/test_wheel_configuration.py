"""What the workflows build and publish, as their own files and cibuildwheel understand them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
HANG_SECONDS = 60.0

# One each, for the limited API of Python 3.11.
EXPECTED = {
    "cp311-manylinux_x86_64",
    "cp311-manylinux_aarch64",
    "cp311-musllinux_x86_64",
    "cp311-musllinux_aarch64",
    "cp311-macosx_x86_64",
    "cp311-macosx_arm64",
    "cp311-win_amd64",
}


def workflow(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text("utf-8"))
    return loaded


def builds() -> list[dict[str, str]]:
    rows: list[dict[str, str]] = workflow("wheels.yml")["jobs"]["wheels"]["strategy"]["matrix"]["include"]
    return rows


def identifiers(platform: str, archs: str) -> list[str]:
    """What cibuildwheel builds there, by the configuration in pyproject.toml."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("CIBW_")}
    listed = subprocess.run(
        [
            *(sys.executable, "-m", "cibuildwheel", "--print-build-identifiers"),
            *("--platform", platform, "--archs", archs, str(ROOT)),
        ],
        env=settings,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split()


def test_the_workflow_builds_each_platform_s_wheel_once() -> None:
    pytest.importorskip("cibuildwheel", reason="cibuildwheel is not installed (the group `test`)")
    found = [name for row in builds() for name in identifiers(row["platform"], row["arch"])]

    assert sorted(found) == sorted(EXPECTED)


def test_each_wheel_is_built_on_a_machine_of_its_own_kind() -> None:
    kinds = {
        ("linux", "x86_64"): "ubuntu-latest",
        ("linux", "aarch64"): "ubuntu-24.04-arm",
        ("macos", "arm64"): "macos-latest",
        ("macos", "x86_64"): "macos-15-intel",
        ("windows", "AMD64"): "windows-latest",
    }

    assert {(row["platform"], row["arch"]): row["runner"] for row in builds()} == kinds


def test_only_a_tag_is_published_by_the_one_job_that_may_identify_itself() -> None:
    wheels = workflow("wheels.yml")

    assert wheels["permissions"] == {"contents": "read"}
    assert {name: job.get("permissions") for name, job in wheels["jobs"].items()} == {
        "wheels": None,
        "sdist": None,
        "publish": {"id-token": "write"},
        "release": {"contents": "write"},
    }
    publish = wheels["jobs"]["publish"]
    assert publish["if"] == "github.event_name == 'push' && startsWith(github.ref, 'refs/tags/v')"
    assert publish["environment"] == "pypi"
    assert set(publish["needs"]) == {"wheels", "sdist"}
    assert wheels["jobs"]["release"]["needs"] == ["publish"]
    # No password anywhere.
    assert "secrets." not in (WORKFLOWS / "wheels.yml").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(path.name for path in WORKFLOWS.glob("*.yml")))
def test_a_workflow_names_a_version_of_each_action_and_ends_by_itself(name: str) -> None:
    jobs = workflow(name)["jobs"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]

    assert used
    assert not [action for action in used if not action.partition("@")[2].removeprefix("release/").startswith("v")]
    assert all(job["timeout-minutes"] <= 60 for job in jobs.values())


def test_continuous_integration_runs_the_oldest_python_and_that_of_azure() -> None:
    job = workflow("ci.yml")["jobs"]["checks"]

    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == ".ci/run"
