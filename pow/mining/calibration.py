"""Which difficulty fits a budget of seconds on this machine, and with which odds.

Measuring and reckoning are apart: `measure_rate` takes its time on the cores, `calibrate` is a pure
function of the rate.
"""

import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pow.errors import InvalidArgument, MiningStopped
from pow.limits import MAX_DIFFICULTY
from pow.mining.chain import block_prefix
from pow.mining.odds import chance_within_seconds, expected_seconds, median_seconds, percentile_95_seconds
from pow.mining.pool import MinerPool

DEFAULT_CHANCE = 0.95
DEFAULT_MEASURE_SECONDS = 2.0
# As many as the setting MaxBlocks may allow; the reckoning takes time in proportion.
MAX_BLOCKS = 1000

# From less than one nonce takes to a human life's third: beyond, nobody waits, and durations lose their names.
MIN_BUDGET_SECONDS = 1e-9
MAX_BUDGET_SECONDS = 1e9

# What any block after the first looks like, with nonces as long as those of a search of some seconds.
_PREFIX = block_prefix(2, "0123456789ABCDEF" * 4)
_FIRST_NONCE = 10**9

# Rows of the table: some below the recommended difficulty, and above it until the chance is gone. One
# block's chance goes so slowly, and a thousand blocks' so fast, that their number needs limits.
_ROWS_BELOW = 4
_ROWS_ABOVE = range(4, 8)
_NO_CHANCE = 0.001


@dataclass(frozen=True, slots=True)
class Measurement:
    """A rate, and what it was measured on: `hashes_per_second` of all threads together over `seconds`.

    `processor` is the model's name, None where the system doesn't say.
    """

    hashes_per_second: float
    seconds: float
    threads: int
    backend: str
    processor: str | None


@dataclass(frozen=True, slots=True)
class DifficultyOdds:
    """What a job takes at one difficulty, in seconds, and its chance (0 to 1) to end within the budget."""

    difficulty: int
    expected_seconds: float
    median_seconds: float
    percentile_95_seconds: float
    chance: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The odds of jobs of `blocks` blocks at several difficulties, the lowest first.

    `recommended` is the largest difficulty whose chance to end within `budget_seconds` is at least
    `wanted_chance`; None when not even difficulty 1 has it.
    """

    hashes_per_second: float
    budget_seconds: float
    blocks: int
    wanted_chance: float
    recommended: int | None
    rows: tuple[DifficultyOdds, ...]


def measure_rate(
    pool: MinerPool, seconds: float = DEFAULT_MEASURE_SECONDS, progress: Callable[[int], None] | None = None
) -> Measurement:
    """Measure how fast a pool searches; one that other searches don't use meanwhile.

    Args:
        pool: the pool, with its threads and backend.
        seconds: how long; some 20 ms more, since chunks that have begun are ended.
        progress: called every tenth of a second, in the calling thread, with the nonces tried so far.

    Raises:
        InvalidArgument: the seconds aren't a number above 0.
        MiningStopped: the pool was closed meanwhile.
    """
    _check_positive("seconds", seconds)
    # A rough measurement first, so that the chunks have their length from the start.
    _ = pool.rate
    began = time.perf_counter()
    result = pool.search(
        _PREFIX,
        _FIRST_NONCE,
        MAX_DIFFICULTY,
        until=lambda: time.perf_counter() - began >= seconds,
        progress=None if progress is None else lambda reached: progress(reached.tried),
    )
    took = time.perf_counter() - began
    if result.stopped:
        raise MiningStopped("the rate was not measured: the pool was closed")
    rate = (result.next_nonce - _FIRST_NONCE) / took
    return Measurement(rate, took, pool.threads, pool.backend, processor_name())


def calibrate(
    hashes_per_second: float, budget_seconds: float, blocks: int, wanted_chance: float = DEFAULT_CHANCE
) -> Calibration:
    """Find the largest difficulty that fits a budget, and the odds of it and of those around it.

    Args:
        hashes_per_second: the rate of the machine, in nonces.
        budget_seconds: what the whole job may take, 1e-9 to 1e9.
        blocks: of the job, 1 to 1000.
        wanted_chance: to end within the budget, above 0 and below 1.

    Raises:
        InvalidArgument: an argument is out of range or of the wrong kind.
    """
    _check_positive("hashes_per_second", hashes_per_second)
    if not MIN_BUDGET_SECONDS <= budget_seconds <= MAX_BUDGET_SECONDS:
        allowed = f"{MIN_BUDGET_SECONDS:g} to {MAX_BUDGET_SECONDS:g}"
        raise InvalidArgument(f"budget_seconds must be a number from {allowed}, not {budget_seconds!r}")
    if isinstance(blocks, bool) or not isinstance(blocks, int) or not 1 <= blocks <= MAX_BLOCKS:
        raise InvalidArgument(f"blocks must be an integer from 1 to {MAX_BLOCKS}, not {blocks!r}")
    if not 0 < wanted_chance < 1:
        raise InvalidArgument(f"wanted_chance must be a number above 0 and below 1, not {wanted_chance!r}")

    def chance(difficulty: int) -> float:
        return chance_within_seconds(budget_seconds, difficulty, blocks, hashes_per_second)

    recommended = None
    for difficulty in range(1, MAX_DIFFICULTY + 1):
        if chance(difficulty) < wanted_chance:
            break
        recommended = difficulty
    centre = recommended or 0
    last = centre + _ROWS_ABOVE[0]
    while last < centre + _ROWS_ABOVE[-1] and last < MAX_DIFFICULTY and chance(last) >= _NO_CHANCE:
        last += 1
    shown = range(max(1, centre - _ROWS_BELOW), min(last, MAX_DIFFICULTY) + 1)
    rows = tuple(
        DifficultyOdds(
            difficulty,
            expected_seconds(difficulty, blocks, hashes_per_second),
            median_seconds(difficulty, blocks, hashes_per_second),
            percentile_95_seconds(difficulty, blocks, hashes_per_second),
            chance(difficulty),
        )
        for difficulty in shown
    )
    return Calibration(hashes_per_second, budget_seconds, blocks, wanted_chance, recommended, rows)


def processor_name() -> str | None:
    """The processor's model, as the system calls it; None where it doesn't say."""
    name = ""
    if sys.platform == "linux":
        name = cpuinfo_name(Path("/proc/cpuinfo"))
    elif sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            name = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            name = ""
    # Some systems have "" or only the architecture here, which is still better than nothing.
    return " ".join((name or platform.processor()).split()) or None


def cpuinfo_name(cpuinfo: Path) -> str:
    """The first "model name" of Linux's table; Arm's kernels have none."""
    try:
        lines = cpuinfo.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    entries = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in entries if key.strip() == "model name"), "")


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise InvalidArgument(f"{name} must be a finite number above 0, not {value!r}")
