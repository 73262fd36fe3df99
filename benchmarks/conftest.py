"""How the benchmarks measure and report: pairs run in turn, the median of their ratios, one table at the end.

A machine's speed drifts (heat, turbo, other guests), so two rates that were measured one after the
other don't compare. Each benchmark therefore runs what it measures and what it measures against in
turn, A B A B, and takes each pair's ratio. Nothing here fails because it was slow: targets are
reported, and only work that wasn't done is an error.
"""

import importlib.util
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pow.cores import usable_cores
from pow.pool import MinerPool
from pow.scanning import active_backend

PAIRS = 7

Work = Callable[[], int]
"""Does a fixed piece of work, asserts that it was done, and returns how many nonces it came to."""

Compare = Callable[[str, Work, str, Work, float | None], None]
"""(what is measured, its work, what against, its work, the ratio to reach if any) -> a row of the table."""


@dataclass(frozen=True, slots=True)
class Run:
    """One timed run: its rate in nonces a second, and how many cores this process used meanwhile.

    Fewer cores than threads mean that other programs had them, or that threads waited.
    """

    rate: float
    cores: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the table: the runs of what was measured and of the reference, pair by pair."""

    subject: str
    runs: list[Run]
    reference: str
    reference_runs: list[Run]
    target: float | None

    @property
    def ratios(self) -> list[float]:
        """Each pair's own ratio of the rates."""
        return [run.rate / other.rate for run, other in zip(self.runs, self.reference_runs, strict=True)]

    def cells(self) -> tuple[str, ...]:
        """The row under `_HEADINGS`."""
        ratios = self.ratios
        ratio = statistics.median(ratios)
        verdict = "" if self.target is None else f"{self.target:.2f} {'met' if ratio >= self.target else 'missed'}"
        return (
            self.subject,
            f"{_median_rate(self.runs) / 1e6:.2f}",
            f"{_median_cores(self.runs):.2f}",
            self.reference,
            f"{_median_rate(self.reference_runs) / 1e6:.2f}",
            f"{_median_cores(self.reference_runs):.2f}",
            f"{ratio:.2f}",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            verdict,
        )


_HEADINGS = ("measured", "Mn/s", "cores", "against", "Mn/s", "cores", "ratio", "lowest, highest", "target")
_COMPARISONS = pytest.StashKey[list[Comparison]]()


@pytest.fixture
def compare(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Compare:
    """Measures one piece of work against another, in turn; call it once."""

    def run(subject: str, work: Work, reference: str, reference_work: Work, target: float | None) -> None:
        # Unmeasured, so that no pair pays for starting threads or for memory touched for the first time.
        reference_work()
        work()
        found = Comparison(subject, [], reference, [], target)

        def measure() -> None:
            found.runs.append(_timed(work))

        def measure_reference() -> None:
            found.reference_runs.append(_timed(reference_work))

        # The set-up runs before every round and outside its time: that puts the reference in between.
        benchmark.pedantic(measure, setup=measure_reference, rounds=PAIRS)  # type: ignore[no-untyped-call]
        request.config.stash.setdefault(_COMPARISONS, []).append(found)
        benchmark.extra_info |= {
            "hashes_per_second": round(_median_rate(found.runs)),
            "cores": _median_cores(found.runs),
            "reference": reference,
            "reference_hashes_per_second": round(_median_rate(found.reference_runs)),
            "reference_cores": _median_cores(found.reference_runs),
            "ratio": statistics.median(found.ratios),
            "ratios": found.ratios,
            "target": target,
        }

    return run


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """What a rate depends on and pytest-benchmark doesn't know goes into the JSON."""
    machine_info["pow"] = {"compiler": _compiler(), "backend": active_backend().name, "threads": _threads()}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of the ratios, under what they were measured on."""
    comparisons = config.stash.get(_COMPARISONS, [])
    if not comparisons:
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
    terminalreporter.write_line("")
    for line in _table([_HEADINGS, *(comparison.cells() for comparison in comparisons)]):
        terminalreporter.write_line(line)


def _timed(work: Work) -> Run:
    began, began_cpu = time.perf_counter(), time.process_time()
    nonces = work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return Run(nonces / seconds, cpu_seconds / seconds)


def _median_rate(runs: list[Run]) -> float:
    return statistics.median(run.rate for run in runs)


def _median_cores(runs: list[Run]) -> float:
    return statistics.median(run.cores for run in runs)


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


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
