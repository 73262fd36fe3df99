"""What a call costs where there is next to nothing to mine: the fixed cost of each layer, in milliseconds.

A chain of the default length at difficulty 8 by `mine_chain` and by a workflow, and the MCP tools as an
agent has them: the official client, HTTP, and a server in a process of its own.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from mcp import Client
from server_process import ServerProcess

from benchmarks.chains import mine, scan_blocks, workflows
from benchmarks.comparison import Measure, Pair, Report, Section, Work, call_cells
from pow.limits import DEFAULT_BLOCKS
from pow.mining.chain import DEFAULT_GENESIS, Chain
from pow.mining.miner import mine_chain
from pow.mining.pool import MinerPool

DIFFICULTY = 8
JOB = f"{DEFAULT_BLOCKS} blocks at difficulty {DIFFICULTY}"
# Together some tenths of a second: of what stays in this process, and of what goes through a socket.
MANY, FEW = 200, 20
MINE_CHAIN_MILLISECONDS = 1.0

CALLS = Section("calls: milliseconds each, where there is next to nothing to mine")


@pytest.fixture(scope="module")
def chain() -> Chain:
    """The chain that every call has to come to."""
    return mine_chain(DEFAULT_GENESIS, difficulty=DIFFICULTY, blocks=DEFAULT_BLOCKS)


@pytest.mark.benchmark(group="calls")
def test_mine_chain(chain: Chain, measure: Measure, report: Report) -> None:
    pair = Pair(
        f"mine_chain, {JOB}",
        repeated(partial(mine, chain), MANY),
        "scan, the same nonces",
        repeated(partial(scan_blocks, chain), MANY),
        MINE_CHAIN_MILLISECONDS,
    )
    report.add(CALLS, pair.subject, call_cells(measure(pair)))


@pytest.mark.benchmark(group="calls")
def test_workflow(chain: Chain, measure: Measure, report: Report) -> None:
    with workflows(MinerPool()) as mine_by_workflow:
        pair = Pair(
            f"workflow, {JOB}",
            repeated(partial(mine_by_workflow, chain), FEW),
            f"mine_chain, {JOB}",
            repeated(partial(mine, chain), MANY),
        )
        report.add(CALLS, pair.subject, call_cells(measure(pair)))


@pytest.fixture(scope="module")
def agent() -> Iterator["Agent"]:
    """An MCP client of a server in a process of its own, which keeps nothing."""
    with (
        ServerProcess() as server,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(server.client()) as client,
    ):
        yield Agent(client, portal)


@dataclass(frozen=True, slots=True)
class Agent:
    """Calls a server's tools one after the other, without leaving the client's event loop in between."""

    client: Client
    portal: BlockingPortal

    def list_tools(self) -> int:
        """The round trip that does the least."""

        async def calls() -> None:
            for _ in range(FEW):
                assert (await self.client.list_tools()).tools

        self.portal.call(calls)
        return FEW

    def call(self, tool: str, arguments: dict[str, Any], wanted: Chain) -> int:
        """A tool that answers with a chain."""

        async def calls() -> None:
            for _ in range(FEW):
                content = (await self.client.call_tool(tool, arguments)).structured_content
                assert content is not None
                assert content.get("chain") == wanted.to_dict(), content

        self.portal.call(calls)
        return FEW

    def mine(self, difficulty: int) -> str:
        """Start mining; the workflow's id."""
        content = self.portal.call(self.client.call_tool, "start_mining", {"difficulty": difficulty}).structured_content
        assert content is not None
        return str(content["workflow_id"])


@pytest.mark.benchmark(group="calls")
def test_start_mining(agent: Agent, chain: Chain, measure: Measure, report: Report) -> None:
    against_list_tools(
        f"start_mining, {JOB}",
        partial(agent.call, "start_mining", {"difficulty": DIFFICULTY}, chain),
        agent,
        measure,
        report,
    )


@pytest.mark.benchmark(group="calls")
def test_get_mining_result(agent: Agent, chain: Chain, measure: Measure, report: Report) -> None:
    against_list_tools(
        "get_mining_result",
        partial(agent.call, "get_mining_result", {"workflow_id": agent.mine(DIFFICULTY)}, chain),
        agent,
        measure,
        report,
    )


def against_list_tools(subject: str, work: Work, agent: Agent, measure: Measure, report: Report) -> None:
    """Measure a tool call against the round trip that does the least."""
    pair = Pair(subject, work, "list_tools", agent.list_tools)
    report.add(CALLS, pair.subject, call_cells(measure(pair)))


def repeated(call: Callable[[], object], times: int) -> Work:
    """The call so many times."""

    def work() -> int:
        for _ in range(times):
            call()
        return times

    return work
