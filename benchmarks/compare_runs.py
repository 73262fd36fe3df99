"""Compares two runs of the benchmarks by their ratios: `python -m benchmarks.compare_runs [saved] [new]`.

Ratios and not rates, since each was measured against something in its own run: that survives a machine
that is slower today, rates don't. Standard library only.
"""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison import table

SAVED = Path(".benchmarks/saved.json")
LATEST = Path(".benchmarks/latest.json")

_HEADINGS = ("measured", "against", "saved", "new", "change", "")
_UNKNOWN = "unknown"


class NotARun(Exception):
    """A file that isn't what `make bench` writes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The ratios of one comparison, pair by pair; `alone` when its benchmark made no other."""

    ratios: tuple[float, ...]
    alone: bool

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)


Name = tuple[str, str]
"""(what was measured, what against)"""


@dataclass(frozen=True, slots=True)
class BenchmarkRun:
    """What a file says: when and on what it was measured, and the comparisons."""

    when: str
    machine: dict[str, str]
    measured: dict[Name, Measured]


@dataclass(frozen=True, slots=True)
class Change:
    """One comparison in both runs."""

    name: Name
    saved: Measured
    new: Measured

    @property
    def verdict(self) -> str:
        """Faster or slower when even the lowest of one run is above the highest of the other; else nothing."""
        if min(self.new.ratios) > max(self.saved.ratios):
            return "faster"
        if max(self.new.ratios) < min(self.saved.ratios):
            return "slower"
        return ""

    def row(self) -> tuple[str, ...]:
        """The row under `_HEADINGS`."""
        change = self.new.ratio / self.saved.ratio - 1
        return (*self.name, f"{self.saved.ratio:.3g}", f"{self.new.ratio:.3g}", f"{change:+.1%}", self.verdict)


def read_run(path: Path) -> BenchmarkRun:
    """Read what `make bench` wrote.

    Raises:
        NotARun: there is no such file, or it is something else.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        hint = f"make bench writes {LATEST}, make bench-save keeps it as {SAVED}"
        raise NotARun(f"can't read {path}: {error.strerror}; {hint}") from error
    except ValueError as error:
        raise NotARun(f"{path} is not JSON: {error}") from error
    try:
        measured = _measured(document["benchmarks"])
        when, machine = document["datetime"], _machine(document["machine_info"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise NotARun(f"{path} is not a benchmark run of this project: {type(error).__name__}: {error}") from error
    if not measured:
        raise NotARun(f"{path} has no comparisons: none of its benchmarks measured pairs")
    return BenchmarkRun(when, machine, measured)


def warnings(saved: BenchmarkRun, new: BenchmarkRun) -> list[str]:
    """What was different about the machines, so that other ratios are no surprise."""
    found = []
    for what in saved.machine:
        before, now = saved.machine[what], new.machine[what]
        if before != now:
            found.append(f"warning: {what}: saved {before}, new {now}")
    return found


def changes(saved: BenchmarkRun, new: BenchmarkRun) -> list[Change]:
    """What is in both runs, in the order of the new one."""
    return [Change(name, saved.measured[name], found) for name, found in new.measured.items() if name in saved.measured]


def notable(change: Change) -> bool:
    """Whether to show it even where it is one of many that a benchmark compares."""
    return change.new.alone or bool(change.verdict)


def unmatched(saved: BenchmarkRun, new: BenchmarkRun) -> list[str]:
    """What is in one run only."""
    found = []
    for which, run, other in (("saved", saved, new), ("new", new, saved)):
        names = [" against ".join(name) for name in run.measured if name not in other.measured]
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            found.append(f"only in the {which} run: {names[0]}{more}")
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_runs", description="Compare two runs of the benchmarks by their ratios."
    )
    parser.add_argument("saved", nargs="?", type=Path, default=SAVED, help="the older run (default: %(default)s)")
    parser.add_argument("new", nargs="?", type=Path, default=LATEST, help="the newer run (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="show what didn't change in tables with many figures too")
    options = parser.parse_args(arguments)
    try:
        saved, new = read_run(options.saved), read_run(options.new)
    except NotARun as error:
        parser.error(str(error))
    found = changes(saved, new)
    shown = found if options.all else [change for change in found if notable(change)]
    print(f"saved {saved.when}, new {new.when}")
    for line in (*warnings(saved, new), "", *table([_HEADINGS, *(change.row() for change in shown)]), ""):
        print(line)
    verdicts = Counter(change.verdict for change in found)
    faster, slower = verdicts["faster"], verdicts["slower"]
    print(f"{len(found)} ratios: {faster} faster and {slower} slower, by pairs that don't overlap")
    if len(shown) < len(found):
        print(f"not shown: {len(found) - len(shown)} others, of benchmarks that compare many (--all shows them)")
    for line in unmatched(saved, new):
        print(line)


def _measured(benchmarks: list[dict[str, Any]]) -> dict[Name, Measured]:
    found = {}
    for benchmark in benchmarks:
        # Benchmarks that measure something else than pairs have none.
        comparisons = benchmark["extra_info"].get("comparisons", [])
        for one in comparisons:
            ratios = tuple(float(ratio) for ratio in one["ratios"])
            if not ratios or min(ratios) <= 0:
                raise ValueError(f"ratios of {one['subject']!r} must be positive numbers, not {one['ratios']!r}")
            found[(str(one["subject"]), str(one["reference"]))] = Measured(ratios, alone=len(comparisons) == 1)
    return found


def _machine(info: dict[str, Any]) -> dict[str, str]:
    ours = info.get("pow", {})
    return {
        "CPU": str(info.get("cpu", {}).get("brand_raw", _UNKNOWN)),
        **{what: str(ours.get(what, _UNKNOWN)) for what in ("compiler", "backend", "threads")},
    }


if __name__ == "__main__":
    main()
