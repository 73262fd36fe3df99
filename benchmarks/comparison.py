"""What the benchmarks measure and show: pairs of runs in turn, each pair's ratio, and tables of them.

A machine's speed drifts (heat, turbo, other guests), so two rates that were measured one after the
other don't compare. What is measured and what it is measured against therefore run in turn, A B A B,
and each pair gives its own ratio. Standard library only: comparing saved runs needs nothing else.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# Enough for a median that one interrupted pair doesn't move.
ROUNDS = 7

Work = Callable[[], int]
"""Does a fixed piece of work, asserts that it was done, and returns how many nonces or calls it came to."""


@dataclass(frozen=True, slots=True)
class Pair:
    """What to measure, and what against; `target` is in the sense of the section that will show it."""

    subject: str
    work: Work
    reference: str
    reference_work: Work
    target: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One timed run: its rate in nonces or calls a second, and how many cores this process used meanwhile.

    Fewer cores than threads mean that other programs had them, or that threads waited.
    """

    rate: float
    cores: float


def timed(work: Work) -> Run:
    """Run the work once."""
    began, began_cpu = time.perf_counter(), time.process_time()
    units = work()
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return Run(units / seconds, cpu_seconds / seconds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The runs of a pair. A ratio is always that of the rates: more than 1 is faster than the reference."""

    pair: Pair
    runs: list[Run] = field(default_factory=list)
    reference_runs: list[Run] = field(default_factory=list)

    def run_reference(self) -> None:
        """The first half of a pair of runs."""
        self.reference_runs.append(timed(self.pair.reference_work))

    def run_subject(self) -> None:
        """The second half."""
        self.runs.append(timed(self.pair.work))

    @property
    def ratios(self) -> list[float]:
        """Each pair's own ratio."""
        return [run.rate / other.rate for run, other in zip(self.runs, self.reference_runs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def rate(self) -> float:
        """The median rate of what was measured."""
        return _median_rate(self.runs)

    def to_dict(self) -> dict[str, Any]:
        """What pytest-benchmark's JSON keeps, as `extra_info.comparisons`."""
        return {
            "subject": self.pair.subject,
            "reference": self.pair.reference,
            "per_second": self.rate,
            "cores": _median_cores(self.runs),
            "reference_per_second": _median_rate(self.reference_runs),
            "reference_cores": _median_cores(self.reference_runs),
            "ratio": self.ratio,
            "ratios": self.ratios,
            "target": self.pair.target,
        }


class Measure(Protocol):
    """The fixture `measure`: measures one pair."""

    def __call__(self, pair: Pair, rounds: int = ROUNDS, warm_ups: int = 1) -> Comparison: ...


class MeasureAll(Protocol):
    """The fixture `measure_all`: measures many pairs, every one in every round."""

    def __call__(self, pairs: Sequence[Pair], rounds: int = ROUNDS) -> list[Comparison]: ...


Cells = dict[str, str]
"""A row of a table, by column."""


def rate_cells(found: Comparison) -> Cells:
    """The row of a comparison of rates in nonces a second; the target is a ratio to reach."""
    return {
        "measured": found.pair.subject,
        "Mn/s": f"{found.rate / 1e6:.2f}",
        "cores": f"{_median_cores(found.runs):.2f}",
        "against": found.pair.reference,
        "its Mn/s": f"{_median_rate(found.reference_runs) / 1e6:.2f}",
        "its cores": f"{_median_cores(found.reference_runs):.2f}",
        **_ratio_cells(found.ratios),
        "target": _verdict(found.pair.target, "", met=found.ratio >= (found.pair.target or 0)),
    }


def call_cells(found: Comparison) -> Cells:
    """The row of a comparison of calls; the target is a number of milliseconds not to exceed."""
    milliseconds = 1e3 / found.rate
    return {
        "measured": found.pair.subject,
        "ms a call": significant(milliseconds),
        "against": found.pair.reference,
        "its ms": significant(1e3 / _median_rate(found.reference_runs)),
        **_ratio_cells(found.ratios),
        "target": _verdict(found.pair.target, " ms", met=milliseconds <= (found.pair.target or 0)),
    }


@dataclass(frozen=True, slots=True)
class Section:
    """A table of the summary: its title, and what to know of it."""

    title: str
    notes: tuple[str, ...] = ()


class Report:
    """The tables of the summary. Sections, rows and columns stand in the order in which they came."""

    def __init__(self) -> None:
        self._rows: dict[Section, dict[str, Cells]] = {}
        self._remarks: dict[Section, list[str]] = {}

    def add(self, section: Section, row: str, cells: Mapping[str, str]) -> None:
        """Fill cells of the row of that name, which doesn't show; those that others have filled stay."""
        self._rows.setdefault(section, {}).setdefault(row, {}).update(cells)

    def remark(self, section: Section, line: str) -> None:
        """Put a line under the section's table."""
        self._remarks.setdefault(section, []).append(line)

    def lines(self) -> list[str]:
        """The whole summary."""
        found: list[str] = []
        for section, rows in self._rows.items():
            found += ["", f"== {section.title}", *section.notes, *_grid(list(rows.values()))]
            found += self._remarks.get(section, [])
        return found


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns; the rows are equally long."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def significant(value: float) -> str:
    """A positive number with at least three significant digits, and never with an exponent."""
    decimals = max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{decimals}f}"


def target_met(target: float, reached: float) -> str:
    """The cell for a target that is to be reached."""
    return _verdict(target, "", met=reached >= target)


def _grid(rows: Sequence[Cells]) -> list[str]:
    # A column that has nothing to say, as targets where there are none, is left out.
    columns = list(dict.fromkeys(column for cells in rows for column, cell in cells.items() if cell))
    return table([columns, *([cells.get(column, "") for column in columns] for cells in rows)])


def _ratio_cells(ratios: Iterable[float]) -> Cells:
    found = sorted(ratios)
    return {"ratio": f"{statistics.median(found):.2f}", "lowest, highest": f"{found[0]:.2f} to {found[-1]:.2f}"}


def _verdict(target: float | None, unit: str, *, met: bool) -> str:
    return "" if target is None else f"{target:.2f}{unit} {'met' if met else 'missed'}"


def _median_rate(runs: Iterable[Run]) -> float:
    return statistics.median(run.rate for run in runs)


def _median_cores(runs: Iterable[Run]) -> float:
    return statistics.median(run.cores for run in runs)
