"""How the benchmarks run and report: the fixtures that measure, and the summary at the end.

Nothing here fails because it was slow: targets are reported, and only work that wasn't done is an error.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.comparison import ROUNDS, Comparison, Measure, MeasureAll, Pair, Report
from pow.mining.cores import usable_cores
from pow.mining.pool import MinerPool
from pow.scanning.backends import active_backend

_REPORT = pytest.StashKey[Report]()


def pytest_configure(config: pytest.Config) -> None:
    """Every run has one report."""
    config.stash[_REPORT] = Report()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Where benchmarks put what they found, for the summary."""
    return request.config.stash[_REPORT]


@pytest.fixture
def measure(benchmark: BenchmarkFixture) -> Measure:
    """Measures one pair; to be called once."""

    def run(pair: Pair, rounds: int = ROUNDS, warm_ups: int = 1) -> Comparison:
        # Unmeasured, so that no pair pays for starting threads or for memory touched for the first time.
        for _ in range(warm_ups):
            pair.reference_work()
            pair.work()
        found = Comparison(pair)
        # The set-up runs before every round and outside its time: that puts the reference in between.
        benchmark.pedantic(found.run_subject, setup=found.run_reference, rounds=rounds)  # type: ignore[no-untyped-call]
        benchmark.extra_info["comparisons"] = [found.to_dict()]
        return found

    return run


@pytest.fixture
def measure_all(benchmark: BenchmarkFixture) -> MeasureAll:
    """Measures many pairs; to be called once.

    Every pair runs in every round, so that whatever slows a part of the time down falls on all of them.
    """

    def run(pairs: Sequence[Pair], rounds: int = ROUNDS) -> list[Comparison]:
        found = [Comparison(pair) for pair in pairs]

        def one_round() -> None:
            for comparison in found:
                comparison.run_reference()
                comparison.run_subject()

        benchmark.pedantic(one_round, rounds=rounds)  # type: ignore[no-untyped-call]
        benchmark.extra_info["comparisons"] = [comparison.to_dict() for comparison in found]
        return found

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """What a rate depends on and pytest-benchmark doesn't know goes into the JSON."""
    machine_info["pow"] = {"compiler": _compiler(), "backend": active_backend().name, "threads": _threads()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The tables, under what they were measured on."""
    lines = config.stash[_REPORT].lines()
    if not lines:
        return
    machine = config.hook.pytest_benchmark_generate_machine_info(config=config)
    terminalreporter.section("ratios: medians of pairs measured in turn")
    terminalreporter.write_line(
        f"CPU       {machine['cpu'].get('brand_raw', 'unknown')}, {usable_cores()} usable cores"
    )
    terminalreporter.write_line(f"compiler  {_compiler()}")
    terminalreporter.write_line(f"backend   {active_backend().name}, threads: {_threads()}")
    if config.getoption("benchmark_json"):
        terminalreporter.write_line(f"JSON      {config.getoption('benchmark_json')}")
    terminalreporter.write_line(
        "Mn/s: million nonces a second. Cores: CPU seconds per second; fewer than threads where others run too."
    )
    for line in lines:
        terminalreporter.write_line(line)


def _threads() -> int:
    return MinerPool().threads


def _compiler() -> str:
    """What compiled the extension, by its own mark; else the compiler that setuptools would call."""
    extension = importlib.util.find_spec("pow._native")
    if extension is None or extension.origin is None:
        return "none: the native extension is not built"
    binary = Path(extension.origin).read_bytes()
    # gcc's start-up objects leave its mark beside clang's, never the other way round.
    for mark in (rb"clang version [\d.]+", rb"GCC: \([^)]*\) [\d.]+"):
        if found := re.search(mark, binary):
            return found[0].decode()
    command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "")
    if not command or shutil.which(command[0]) is None:
        return "unknown"
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=False).stdout
    return f"{version.splitlines()[0] if version else command[0]} (by sysconfig)"
