"""Real chains against the law that `pow.mining.odds` predicts them by: their attempts, and their times at the rate.

Chains from many genesis texts are independent samples of the law, and the same ones in every run: their
attempts depend on nothing but the texts. So the test of their distribution can't fail by chance from one
run to the next; it fails when the miner doesn't find the smallest nonces, or when the law is wrong. The
times are only reported. POW_BENCH_CHAINS sets how many chains are mined at each difficulty.
"""

import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.comparison import Cells, Report, Section, significant
from pow.limits import DEFAULT_BLOCKS
from pow.mining.calibration import measure_rate, processor_name
from pow.mining.chain import Chain, verify_chain
from pow.mining.miner import mine_chain, shared_pool
from pow.mining.odds import chance_within, expected_hashes, quantile_hashes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter

# The highest takes 35 ms a chain at 15 million hashes a second.
DIFFICULTIES = (10, 14, 17)
CHAINS = int(os.environ.get("POW_BENCH_CHAINS") or 250)
BLOCKS = DEFAULT_BLOCKS
# The rate is measured in turn with the chains, since the machine's speed drifts; each time long enough
# that the threads' last chunks, which don't end together, hardly count.
CHAINS_PER_MEASUREMENT = 25
MEASURE_SECONDS = 0.25
# Below, the attempts don't follow the law: among a million sets of genesis texts one would by chance.
LEAST_P_VALUE = 1e-6
PLOT = "difficulty.svg"

ATTEMPTS = Section(
    f"difficulty: attempts of {CHAINS} chains of {BLOCKS} blocks, the law's and the observed ones",
    notes=(
        "KS: the largest distance between the two distributions. p: the chance of that one or a larger one by the law; "
        f"{LEAST_P_VALUE:g} is needed.",
    ),
)
SECONDS = Section(
    "difficulty: milliseconds of the same chains, the law's at the rate measured in turn with them",
    notes=("What exceeds the law's mean more than the attempts did is what starting and ending a block costs.",),
)


@dataclass(frozen=True, slots=True)
class Samples:
    """What the chains of one difficulty took, chain by chain, while the pool made `hashes_per_second`."""

    attempts: list[int]
    seconds: list[float]
    hashes_per_second: float


@pytest.fixture(scope="module")
def samples() -> dict[int, Samples]:
    """By difficulty, what the tests before have mined."""
    return {}


@pytest.mark.benchmark(group="difficulty")
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_difficulty(difficulty: int, samples: dict[int, Samples], benchmark: BenchmarkFixture, report: Report) -> None:
    chains, found = mine_chains(difficulty, benchmark)
    samples[difficulty] = found
    for chain in chains:
        verification = verify_chain(chain)
        assert verification, f"{chain.genesis!r} at difficulty {difficulty}: {verification.message}"

    distance = kolmogorov_smirnov(found.attempts, lambda hashes: chance_within(hashes, difficulty, BLOCKS))
    p_value = kolmogorov_p_value(distance, CHAINS)
    row = str(difficulty)
    report.add(ATTEMPTS, row, {"difficulty": row, **cells(difficulty, found.attempts, 1)})
    report.add(ATTEMPTS, row, {"KS": f"{distance:.3f}", "p": f"{p_value:.2g}"})
    milliseconds = [1e3 * seconds for seconds in found.seconds]
    rate = found.hashes_per_second
    report.add(SECONDS, row, {"difficulty": row, "Mn/s": f"{rate / 1e6:.2f}"})
    report.add(SECONDS, row, cells(difficulty, milliseconds, rate / 1e3))
    benchmark.extra_info |= {"attempts": found.attempts, "ks": distance, "p_value": p_value}
    assert p_value >= LEAST_P_VALUE, f"the attempts at difficulty {difficulty} don't follow the law"


def test_the_statistic_knows_the_law_from_another() -> None:
    def law(hashes: int) -> float:
        return chance_within(hashes, DIFFICULTIES[0], BLOCKS)

    count = 250
    shares = [(number + 0.5) / count for number in range(count)]
    by_the_law, by_another = (
        [quantile_hashes(share, DIFFICULTIES[0], blocks) for share in shares] for blocks in (BLOCKS, 2 * BLOCKS)
    )

    assert kolmogorov_smirnov(by_the_law, law) < 1 / count
    assert kolmogorov_p_value(kolmogorov_smirnov(by_another, law), count) < LEAST_P_VALUE
    # The table that every textbook has: 1.358 / sqrt(n) for five percent.
    assert kolmogorov_p_value(1.358e-4, 10**8) == pytest.approx(0.05, rel=0.01)


def test_plot(samples: dict[int, Samples], report: Report, pytestconfig: pytest.Config) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib, which is not installed")
    if not samples:
        pytest.skip("nothing was mined in this run, so there is nothing to draw")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    path = pytestconfig.rootpath / ".benchmarks" / PLOT
    path.parent.mkdir(exist_ok=True)
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=(12, 6), layout="constrained")
        attempts_axes, seconds_axes = figure.subplots(1, 2, sharey=True)
        draw_attempts(attempts_axes, samples)
        draw_seconds(seconds_axes, samples)
        attempts_axes.set_ylabel("share of the chains that were done")
        pool = shared_pool()
        figure.suptitle(
            f"{CHAINS} chains of {BLOCKS} blocks at each difficulty, against the law (dashed)\n"
            f"backend {pool.backend}, {pool.threads} thread(s), {processor_name() or 'unknown processor'}"
        )
        figure.savefig(path)
    report.remark(SECONDS, f"plot: .benchmarks/{PLOT}")


def mine_chains(difficulty: int, benchmark: BenchmarkFixture) -> tuple[list[Chain], Samples]:
    """Mine CHAINS chains on every core, each of a genesis text that no other difficulty has."""
    # Other texts at each difficulty, since a text's nonces at two difficulties depend on each other.
    chains: list[Chain] = []
    seconds: list[float] = []
    rates: list[float] = []

    def measure_now_and_then() -> None:
        if len(chains) % CHAINS_PER_MEASUREMENT == 0:
            rates.append(measure_rate(shared_pool(), MEASURE_SECONDS).hashes_per_second)

    def mine_next() -> None:
        genesis = f"difficulty {difficulty}, chain {len(chains)}"
        began = time.perf_counter()
        chains.append(mine_chain(genesis, difficulty=difficulty, blocks=BLOCKS))
        seconds.append(time.perf_counter() - began)

    benchmark.pedantic(mine_next, setup=measure_now_and_then, rounds=CHAINS)  # type: ignore[no-untyped-call]
    attempts = [sum(block.attempts for block in chain.blocks) for chain in chains]
    return chains, Samples(attempts, seconds, statistics.mean(rates))


def cells(difficulty: int, observed: Sequence[float], rate: float) -> Cells:
    """The law's mean, median and 95th percentile over `rate`, beside the observed ones."""
    law = {
        "mean": expected_hashes(difficulty, BLOCKS) / rate,
        "median": quantile_hashes(0.5, difficulty, BLOCKS) / rate,
        "p95": quantile_hashes(0.95, difficulty, BLOCKS) / rate,
    }
    seen = {
        "mean": statistics.mean(observed),
        "median": statistics.median(observed),
        "p95": statistics.quantiles(observed, n=20)[-1],
    }
    found: Cells = {}
    for name, expected in law.items():
        found |= {f"law's {name}": significant(expected), name: significant(seen[name])}
    return {**found, "mean / law's": f"{seen['mean'] / law['mean']:.2f}"}


def kolmogorov_smirnov(observed: Sequence[int], chance_within: Callable[[int], float]) -> float:
    """The largest distance between the observed distribution of integers and a law's.

    Both are steps at the integers: the distance is looked for at each observed value and right before it.
    """
    ordered = sorted(observed)
    distance = 0.0
    for value, group in itertools.groupby(enumerate(ordered), key=lambda item: item[1]):
        positions = [position for position, _ in group]
        before, after = positions[0] / len(ordered), (positions[-1] + 1) / len(ordered)
        distance = max(distance, abs(chance_within(value) - after), abs(chance_within(value - 1) - before))
    return distance


def kolmogorov_p_value(distance: float, count: int) -> float:
    """The chance that so many samples of the law are as far from it as that, or farther.

    Kolmogorov's limit with Stephens' correction for finite counts (1970). For a law of integers it is an
    upper bound, so that what fails here would fail by an exact test too.
    """
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    if scaled < 0.2:  # the series converges too slowly there, and its sum is 1 to twelve digits
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))


def draw_attempts(axes: "Axes", samples: dict[int, Samples]) -> None:
    """The attempts as multiples of their expected number, in which all difficulties have nearly one law."""
    from matplotlib.ticker import FormatStrFormatter

    for difficulty, found in samples.items():
        expected = expected_hashes(difficulty, BLOCKS)
        axes.ecdf([attempts / expected for attempts in found.attempts], label=f"difficulty {difficulty}")
    hardest = max(samples)
    axes.plot(*law_curve(hardest, expected_hashes(hardest, BLOCKS)), "--", color="black", label="law")
    axes.set_xlabel("attempts, as a multiple of the expected ones (logarithmic)")
    finish(axes, FormatStrFormatter("%g"), len(samples) + 1)


def draw_seconds(axes: "Axes", samples: dict[int, Samples]) -> None:
    """The times, beside what the law makes of the measured rate."""
    from matplotlib.ticker import EngFormatter

    for difficulty, found in samples.items():
        rate = found.hashes_per_second
        observed = axes.ecdf(found.seconds, label=f"difficulty {difficulty}")
        law = f"law at {rate / 1e6:.1f} Mn/s"
        axes.plot(*law_curve(difficulty, rate), "--", color=observed.get_color(), label=law)
    axes.set_xlabel("time (logarithmic; units at the marks)")
    finish(axes, EngFormatter("s"), len(samples))


def law_curve(difficulty: int, per_unit: float) -> tuple[list[float], list[float]]:
    """The law's distribution function, over hashes divided by `per_unit`."""
    shares = [0.0005, *(step / 200 for step in range(1, 200)), 0.9995]
    return [quantile_hashes(share, difficulty, BLOCKS) / per_unit for share in shares], shares


def finish(axes: "Axes", marks: "Formatter", columns: int) -> None:
    """What both parts of the plot share."""
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(marks)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, 1.02)
    axes.grid(color="0.9")
    # Below, where it covers no curve.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=columns, fontsize="small")
