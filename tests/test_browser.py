"""The dashboard and the MCP App in a real Chromium, against a real server: `tests/browser/` has the scenarios.

Screenshots of every state are left in `.browser/screenshots/`.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from server_process import ServerProcess
from ui_sources import BROWSER_FOLDER, ROOT, build_pages, installed_ui, unavailable

SCENARIOS = Path(__file__).parent / "browser"


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser's command."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        unavailable("Chromium is not installed; .ci/install-browser does it on a Debian")
    return found


def drive(scenarios: str, chromium: str, **environment: str) -> None:
    modules = os.pathsep.join([str(SCENARIOS / "sabotage"), str(ROOT)])
    # The wait budget is over at once, so that what runs for seconds is seen running; the browser needs a core, too.
    with ServerProcess(WaitBudgetSeconds="0", MiningThreads="1", PYTHONPATH=modules) as server:
        ended = subprocess.run(
            ["node", str(SCENARIOS / scenarios)],
            env={
                **os.environ,
                **environment,
                "POW_SERVER": server.url,
                "POW_UI": str(installed_ui()),
                "POW_CHROMIUM": chromium,
                "POW_SCREENSHOTS": str(BROWSER_FOLDER / "screenshots"),
            },
            capture_output=True,
            text=True,
            timeout=240,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    print(ended.stdout)


def test_the_dashboard_in_a_browser(chromium: str) -> None:
    drive("dashboard.mjs", chromium)


def test_the_mining_app_in_a_host_page(chromium: str) -> None:
    build_pages(BROWSER_FOLDER / "pages", "host")
    drive("mining-app.mjs", chromium, POW_HOST_PAGE=str(BROWSER_FOLDER / "pages" / "host.html"))
