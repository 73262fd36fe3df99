"""A calibration as people read it: text with a table, JSON, and a plot.

The plot needs matplotlib, the extra "plot". It is imported only when one is drawn: it takes a second.
"""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pow.errors import InvalidArgument
from pow.mining.calibration import Calibration, Measurement
from pow.mining.odds import chance_within_seconds, quantile_seconds
from pow.units import DAY, HOUR, MINUTE, YEAR, duration, percentage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each with the metadata that leave out when it was drawn: equal plots are equal files.
_PLOT_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}

_CURVE_POINTS = 400
# Of the time axis: its units, each with the last tick before the next unit takes over, and how much
# text fits below it.
_TICK_UNITS = (
    *(("ns", 1e-9, 500), ("µs", 1e-6, 500), ("ms", 1e-3, 500), ("s", 1.0, 20)),
    *(("min", MINUTE, 20), ("h", HOUR, 10), ("day", DAY, 200)),
)
_TICK_CHARACTERS = 75


def as_dict(measurement: Measurement, calibration: Calibration) -> dict[str, Any]:
    """The calibration as JSON has it: seconds, chances from 0 to 1, null where there is no answer."""
    return {
        "hashes_per_second": measurement.hashes_per_second,
        "measured_seconds": measurement.seconds,
        "threads": measurement.threads,
        "backend": measurement.backend,
        "processor": measurement.processor,
        "budget_seconds": calibration.budget_seconds,
        "blocks": calibration.blocks,
        "wanted_chance": calibration.wanted_chance,
        "recommended_difficulty": calibration.recommended,
        "difficulties": [asdict(row) for row in calibration.rows],
    }


def as_text(measurement: Measurement, calibration: Calibration, max_difficulty: int) -> str:
    """The calibration for people: what was measured, the table, and the setting to make.

    Args:
        measurement: what the rate was measured on.
        calibration: what came of it.
        max_difficulty: the setting MaxDifficulty, which may stand in the recommendation's way.
    """
    return "\n".join(
        (
            f"{_rate(measurement)}, measured for {_given_duration(measurement.seconds)}: {_machine(measurement)}",
            f"The time to mine {_count(calibration.blocks, 'block')}, and the chance to be done within "
            f"{_given_duration(calibration.budget_seconds)}:",
            "",
            *_table(calibration),
            "",
            *_answer(calibration, max_difficulty),
        )
    )


def _table(calibration: Calibration) -> list[str]:
    budget = _given_duration(calibration.budget_seconds)
    cells = [("difficulty", "expected", "median", "95th percentile", f"within {budget}")]
    cells += [
        (
            str(row.difficulty),
            duration(row.expected_seconds),
            duration(row.median_seconds),
            duration(row.percentile_95_seconds),
            percentage(row.chance),
        )
        for row in calibration.rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    marks = [" ", *("*" if row.difficulty == calibration.recommended else " " for row in calibration.rows)]
    return [
        f"{mark} " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for mark, line in zip(marks, cells, strict=True)
    ]


def _answer(calibration: Calibration, max_difficulty: int) -> list[str]:
    best = calibration.recommended
    wanted = _given_percentage(calibration.wanted_chance)
    if best is None:
        return [
            f"No difficulty has a chance of at least {wanted}: even that of difficulty 1 is "
            f"{percentage(calibration.rows[0].chance)}. Allow a larger budget, fewer blocks or a smaller chance."
        ]
    lines = [f"Difficulty {best} is the largest with a chance of at least {wanted}. To set it:", ""]
    lines.append(f"MiningDifficulty={best}")
    if best > max_difficulty:
        # Alone, the first line would stop the server's start.
        lines.append(f"MaxDifficulty={best}")
    return lines


def check_plot_file(path: Path) -> None:
    """Let a plot's path pass if it can be drawn and written there; nothing is left behind.

    Raises:
        InvalidArgument: matplotlib is missing, the path's ending is no format's, or it can't be written.
    """
    if _plot_format(path) not in _PLOT_METADATA:
        endings = ", ".join(f".{name}" for name in _PLOT_METADATA)
        raise InvalidArgument(f"the plot's file name must end with one of {endings}, not {path.name!r}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise InvalidArgument(
            f"a plot needs matplotlib, which can't be imported ({error}); to install it: pip install 'pow-mcp[plot]'"
        ) from error
    # What a link points to, lest it is the link that is removed again.
    target = Path(os.path.realpath(path))
    existed = target.exists()
    try:
        with target.open("ab"):
            pass
        if not existed:
            target.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def write_plot(path: Path, measurement: Measurement, calibration: Calibration) -> None:
    """Draw the chance to have finished against the time, a curve per difficulty, in the format of the ending.

    Raises:
        InvalidArgument: the file can't be written.
        ImportError: matplotlib is missing; `check_plot_file` says so in a sentence.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text that stays text can be searched, and read aloud; the salt takes the place of a random one.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pow-mcp"}):
        figure = Figure(figsize=(10, 5.6), layout="constrained")
        _draw(figure, measurement, calibration)
        try:
            figure.savefig(path, dpi=150, metadata=_PLOT_METADATA[_plot_format(path)])
        except OSError as error:
            raise _unwritable(path, error) from error


def _plot_format(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")


def _draw(figure: "Figure", measurement: Measurement, calibration: Calibration) -> None:
    axes = figure.add_subplot()
    budget = calibration.budget_seconds
    # From where the easiest job is hardly ever done to where the hardest one mostly is.
    easiest = quantile_seconds(0.01, calibration.rows[0].difficulty, calibration.blocks, calibration.hashes_per_second)
    shortest, longest = min(easiest, budget / 2), max(calibration.rows[-1].percentile_95_seconds, budget * 2)
    axes.set_xscale("log")
    axes.set_xlim(shortest, longest)
    times = [shortest * (longest / shortest) ** (step / _CURVE_POINTS) for step in range(_CURVE_POINTS + 1)]
    _draw_curves(axes, calibration, times)
    axes.axvline(budget, color="black", linestyle="--", linewidth=1.4, label=f"budget: {_given_duration(budget)}")
    wanted = calibration.wanted_chance
    axes.axhline(100 * wanted, color="0.5", linestyle=":", linewidth=1.4, label=f"wanted: {_given_percentage(wanted)}")
    _label(axes, measurement, calibration)


def _draw_curves(axes: "Axes", calibration: Calibration, times: list[float]) -> None:
    from matplotlib import colormaps

    colours = colormaps["viridis"]
    for position, row in enumerate(calibration.rows):
        best = row.difficulty == calibration.recommended
        chances = (
            chance_within_seconds(time, row.difficulty, calibration.blocks, calibration.hashes_per_second)
            for time in times
        )
        axes.plot(
            times,
            [100 * chance for chance in chances],
            color="crimson" if best else colours(0.9 * position / len(calibration.rows)),
            linewidth=3 if best else 1.4,
            zorder=3 if best else 2,
            label=f"{row.difficulty}: {percentage(row.chance)}{', recommended' if best else ''}",
        )


def _label(axes: "Axes", measurement: Measurement, calibration: Calibration) -> None:
    blocks, budget = _count(calibration.blocks, "block"), _given_duration(calibration.budget_seconds)
    low, high = axes.get_xlim()
    ticks = _ticks(low, high)
    axes.set_xticks(list(ticks.values()), list(ticks))
    axes.minorticks_off()
    axes.set_ylim(0, 102)
    axes.grid(color="0.9")
    axes.set_xlabel(f"time to mine {blocks} (logarithmic; units at the marks)")
    axes.set_ylabel("chance to be done (%)")
    axes.set_title(f"Chance to mine {blocks} in time, by difficulty", pad=24, fontsize=14)
    axes.text(
        *(0.5, 1.02, f"{_rate(measurement)}: {_machine(measurement)}"),
        transform=axes.transAxes,
        horizontalalignment="center",
        color="0.35",
        fontsize=9,
        parse_math=False,
    )
    axes.legend(
        title=f"difficulty: chance within {budget}", loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False
    )


def _ticks(low: float, high: float) -> dict[str, float]:
    """Times that people know by name between two others, in seconds; as many as their names leave room for."""
    for steps in ((1, 2, 5), (1,)):
        ticks = {name: time for name, time in _round_times(steps).items() if low <= time <= high}
        if sum(len(name) + 2 for name in ticks) <= _TICK_CHARACTERS:
            return ticks
    # A span beyond all imagination.
    names = list(ticks)
    return {name: ticks[name] for name in names[:: 1 + len(names) // 10]}


def _round_times(steps: tuple[int, ...]) -> dict[str, float]:
    times = {
        f"{step * decade} {unit}{'s' if unit == 'day' and step * decade > 1 else ''}": step * decade * size
        for unit, size, last in _TICK_UNITS
        for decade in (1, 10, 100)
        for step in steps
        if step * decade <= last
    }
    for power in range(80):
        for step in steps:
            number = f"{step * 10**power:,}" if power < 6 else f"{step}e{power}"
            times[f"{number} year{'' if number == '1' else 's'}"] = step * 10.0**power * YEAR
    return times


def _machine(measurement: Measurement) -> str:
    parts = (f"backend {measurement.backend}", _count(measurement.threads, "thread"), measurement.processor)
    return ", ".join(part for part in parts if part)


def _rate(measurement: Measurement) -> str:
    rate = measurement.hashes_per_second
    for name, size in (("billion", 1e9), ("million", 1e6), ("thousand", 1e3)):
        if rate >= size:
            return f"{rate / size:.3g} {name} hashes/s"
    return f"{rate:.3g} hashes/s"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _given_duration(seconds: float) -> str:
    """Like `duration`, but a round one stays round: "20 s"."""
    number, unit = duration(seconds).split()
    return f"{number.rstrip('0').rstrip('.') if '.' in number and 'e' not in number else number} {unit}"


def _given_percentage(chance: float) -> str:
    """As it was asked for: 99.99 % isn't "> 99.9 %"."""
    return f"{100 * chance:.10g} %"


def _unwritable(path: Path, error: OSError) -> InvalidArgument:
    return InvalidArgument(f"can't write the plot to {path}: {error.strerror or error}")
