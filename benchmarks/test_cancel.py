"""How soon a cancelled task stops hashing: milliseconds from the call until the pool searches nothing any more.

The server's own counters say so, which /healthz shows: the end is seen a few milliseconds late, never early.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from python_process import HANG_SECONDS
from raw_caller import RawCaller
from server_process import ServerProcess

from benchmarks.comparison import Report, Section, significant

ROUNDS = 20
TARGET_MILLISECONDS = 200.0
ENDLESS = 40

CANCEL = Section("cancel: milliseconds from tasks/cancel until nothing is hashed")


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server in a process of its own, which keeps nothing and answers with a task at once."""
    with ServerProcess(WaitBudgetSeconds="0") as running:
        yield running


@pytest.mark.benchmark(group="cancel")
def test_cancel(server: ServerProcess, benchmark: BenchmarkFixture, report: Report) -> None:
    caller = RawCaller(f"{server.url}/mcp")
    milliseconds: list[float] = []

    def start() -> tuple[tuple[str], dict[str, str]]:
        before = server.health()["hashes"]
        task_id = caller.call("start_mining", difficulty=ENDLESS)["taskId"]
        # Only chunks that ran to their end count, so this one is surely at work.
        until(server, lambda health: health["hashes"] > before)
        return (task_id,), {}

    def cancel(task_id: str) -> None:
        began = time.perf_counter()
        caller.result("tasks/cancel", taskId=task_id)
        until(server, lambda health: not health["searches"])
        milliseconds.append((time.perf_counter() - began) * 1e3)

    benchmark.pedantic(cancel, setup=start, rounds=ROUNDS)  # type: ignore[no-untyped-call]
    hashes = server.health()["hashes"]
    assert hashes > 0
    assert server.health()["hashes"] == hashes, "it hashes although nothing is searched"
    slowest = max(milliseconds)
    report.add(
        CANCEL,
        "cancel",
        {
            "measured": f"{ROUNDS} tasks at work",
            "median ms": significant(statistics.median(milliseconds)),
            "slowest ms": significant(slowest),
            "target": f"{TARGET_MILLISECONDS:.0f} ms {'met' if slowest <= TARGET_MILLISECONDS else 'missed'}",
        },
    )


def until(server: ServerProcess, reached: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the server's health is as wanted."""
    deadline = time.monotonic() + HANG_SECONDS
    while not reached(health := server.health()):
        assert time.monotonic() < deadline, health
