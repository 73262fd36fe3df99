"""The example of an agent's script, against the real server: with tasks and without."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from python_process import HANG_SECONDS
from server_process import ServerProcess

from pow.mining.chain import Chain
from pow.mining.miner import mine_chain
from pow.mining.work import markdown_report

AGENT = Path(__file__).parent.parent / "examples" / "agent.py"


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(AGENT), "--url", url, *arguments], capture_output=True, text=True, timeout=HANG_SECONDS
    )


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A chain that takes long enough for a server that doesn't wait to say that it is at it."""
    return mine_chain("an agent", difficulty=21, blocks=3)


@pytest.mark.parametrize(("flags", "kind"), [([], "task"), (["--legacy"], "workflow")], ids=["tasks", "no tasks"])
def test_the_agent_mines_with_tasks_and_without(flags: list[str], kind: str, chain: Chain) -> None:
    with ServerProcess(WaitBudgetSeconds="0") as server:
        ended = run(f"{server.url}/mcp", "--difficulty", "21", "--blocks", "3", "--genesis", "an agent", *flags)

    assert (ended.returncode, ended.stdout) == (0, markdown_report(chain) + "\n"), ended.stderr
    assert ended.stderr.startswith(f"{kind} ")


def test_quick_work_needs_neither(server: ServerProcess) -> None:
    ended = run(f"{server.url}/mcp", "--difficulty", "4")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Mined 4 blocks at difficulty 4" in ended.stdout


@pytest.mark.parametrize("flags", [[], ["--legacy"]], ids=["tasks", "no tasks"])
def test_what_the_server_refuses_is_said(server: ServerProcess, flags: list[str]) -> None:
    ended = run(f"{server.url}/mcp", "--difficulty", "99", *flags)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "difficulty must be an integer from 1 to 40, not 99" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_that_does_not_answer_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
    ended = run(url)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: {url}: ")
    assert "Traceback" not in ended.stderr
