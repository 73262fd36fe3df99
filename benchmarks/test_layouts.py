"""How the rate depends on the layout: where in the last SHA-256 block the digits lie, and how many they are.

A kernel computes once per batch what the digits don't touch, so the layout decides how much that is.
Blocks of a chain have indices of 1 to 5 digits and nonces of mostly 8 to 12; none of these layouts may
be much slower than the others. The native backends only: hashlib hashes bytes, and has no layouts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from benchmarks.comparison import Comparison, MeasureAll, Pair, Report, Section, Work, significant, target_met
from benchmarks.scans import DIGITS, NATIVE_BACKENDS, PREFIX, PREVIOUS_HASH, needs_native, nonces_of, vain_scan
from pow.mining.chain import DEFAULT_GENESIS, block_prefix

pytestmark = needs_native

# Of each scan. A round takes some seconds: it sees one machine, and every layout sees every round.
SECONDS = 0.02
ROUNDS = 7
# Where no target hangs on it.
FEWER_ROUNDS = 5
# The share of a backend's best rate that each layout of a usual block has to keep.
TARGET = 0.9

PREFIXES = {
    f"block 1, {DEFAULT_GENESIS}": block_prefix(1, DEFAULT_GENESIS),
    **{f"index {index}": block_prefix(index, PREVIOUS_HASH) for index in (2, 12, 123, 1234, 12345)},
}
NONCE_DIGITS = range(8, 13)
ALL_NONCE_DIGITS = range(1, 20)

# What SHA-256 appends to a message at least: a one bit and the length.
PADDING_BYTES = 9
BLOCK_BYTES = 64
# Around the lengths from which on the tail takes two blocks, or the digits begin in the next one.
EDGES = (45, 46, 54, 55, 63, 109, 110, 118, 119, 127)
PREFIX_LENGTHS = sorted({*range(0, 129, 8), *EDGES})

DIGIT_COUNTS = Section(
    "nonce digits: million nonces a second",
    notes=("ns: a call that tries all nonces of so many digits, where there are few.",),
)
LENGTHS = Section(
    f"prefix lengths: rate of {DIGITS}-digit nonces as a percentage of the backend's best",
    notes=(
        "Tail: SHA-256 blocks that hold digits or what follows them. Two mean half of the best rate, unless the first",
        "one has leading digits only, which seldom change.",
    ),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """A prefix, and how many digits follow it."""

    name: str
    prefix: bytes
    digits: int


# What all others are measured against, in turn.
REFERENCE = Layout("usual layout", PREFIX, DIGITS)


@pytest.mark.benchmark(group="layouts")
@pytest.mark.parametrize("backend", NATIVE_BACKENDS)
def test_layouts(backend: str, measure_all: MeasureAll, report: Report) -> None:
    section = Section(f"layouts, {backend}: rate as a percentage of its best, by digits of the nonce")
    layouts = [Layout(name, prefix, digits) for name, prefix in PREFIXES.items() for digits in NONCE_DIGITS]
    ratios = [found.ratio for found in compare(backend, layouts, measure_all, ROUNDS)]
    for layout, ratio in zip(layouts, ratios, strict=True):
        cells = {"layout": layout.name, str(layout.digits): f"{ratio / max(ratios):.0%}"}
        report.add(section, layout.name, cells)
    lowest = min(ratios) / max(ratios)
    report.remark(section, f"lowest {lowest:.2f}, target {target_met(TARGET, lowest)}")


@pytest.mark.benchmark(group="nonce digits")
@pytest.mark.parametrize("backend", NATIVE_BACKENDS)
def test_nonce_digits(backend: str, measure_all: MeasureAll, report: Report) -> None:
    layouts = [Layout("index 12", PREFIX, digits) for digits in ALL_NONCE_DIGITS]
    for layout, found in zip(layouts, compare(backend, layouts, measure_all, FEWER_ROUNDS), strict=True):
        seconds_for_all = len(nonces_of(layout.digits)) / found.rate
        cells = {
            "digits": str(layout.digits),
            backend: significant(found.rate / 1e6),
            f"{backend}, ns": significant(seconds_for_all * 1e9) if seconds_for_all < SECONDS else "",
        }
        report.add(DIGIT_COUNTS, cells["digits"], cells)


@pytest.mark.benchmark(group="prefix lengths")
@pytest.mark.parametrize("backend", NATIVE_BACKENDS)
def test_prefix_lengths(backend: str, measure_all: MeasureAll, report: Report) -> None:
    layouts = [Layout(f"prefix of {length} bytes", (2 * PREFIX)[:length], DIGITS) for length in PREFIX_LENGTHS]
    ratios = [found.ratio for found in compare(backend, layouts, measure_all, FEWER_ROUNDS)]
    for length, ratio in zip(PREFIX_LENGTHS, ratios, strict=True):
        cells = {
            "bytes": str(length),
            "tail": str(tail_blocks(length, DIGITS)),
            backend: f"{ratio / max(ratios):.0%}",
        }
        report.add(LENGTHS, cells["bytes"], cells)


def compare(backend: str, layouts: Sequence[Layout], measure_all: MeasureAll, rounds: int) -> list[Comparison]:
    """Each layout's scans against those of the reference layout, on the same backend."""
    reference = scan_of(backend, REFERENCE)
    pairs = [
        Pair(
            f"scan, {backend}, {layout.name}, {layout.digits}-digit nonces",
            scan_of(backend, layout),
            f"scan, {backend}, {REFERENCE.name}",
            reference,
        )
        for layout in layouts
    ]
    return measure_all(pairs, rounds)


def scan_of(backend: str, layout: Layout) -> Work:
    """Scans of the layout's nonces."""
    return vain_scan(backend, layout.prefix, nonces_of(layout.digits), SECONDS)


def tail_blocks(prefix_length: int, digits: int) -> int:
    """How many SHA-256 blocks depend on the nonce."""
    return math.ceil((prefix_length % BLOCK_BYTES + digits + PADDING_BYTES) / BLOCK_BYTES)
