"""The pages that are committed are what their sources give."""

import re
import subprocess
from pathlib import Path

import pytest
from ui_sources import ROOT, build_pages, installed_ui

PAGES = ["mining_app.html", "dashboard.html"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both pages, built just now."""
    folder = tmp_path_factory.mktemp("ui")
    build_pages(folder)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_the_committed_page_is_what_the_sources_give(built: Path, page: str) -> None:
    assert (built / page).read_bytes() == (ROOT / "pow" / "ui" / page).read_bytes(), "run make ui and commit pow/ui"


def test_the_sources_have_the_types_that_they_say() -> None:
    checked = subprocess.run(["npx", "tsc"], cwd=installed_ui(), capture_output=True, text=True, timeout=200)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_one_file_that_loads_nothing(page: str) -> None:
    html = (ROOT / "pow" / "ui" / page).read_text("utf-8")

    # What the script says is no markup.
    markup = re.sub(r"(<(script|style)[^>]*>).*?(</\2>)", r"\1\3", html, flags=re.DOTALL)
    assert re.findall(r"<(script|style)\b", markup) == ["script", "style"]
    assert not re.search(r"\ssrc=", markup)
    assert re.findall(r'<link [^>]*href="([^"]*)"', markup) == ["data:,"]
