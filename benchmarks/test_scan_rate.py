"""The rate of `scan` on one thread, for each backend of this machine, and what a call of it costs.

The work is that of a block after the ninth: SHA-256("12:" + 64 hex digits + ":" + 10-digit nonce), at a
difficulty that never hits. hashlib is measured against itself too: how far that is from 1 is the noise.
"""

import pytest

from benchmarks.comparison import Measure, MeasureAll, Pair, Report, Section, rate_cells, significant
from benchmarks.scans import DIGITS, FIRST_NONCE, NATIVE_BACKENDS, PREFIX, needs_native, nonces_of, vain_scan
from pow.scanning.backends import HASHLIB, supported_backends

# Long enough that the call itself costs nothing, short enough that a pair sees the same machine.
SECONDS = 0.25
# The ratio to hashlib; portable's is what the readable C has to reach to be worth building.
TARGETS = {"shani_avx512": 34.0, "shani": 26.0, "avx512": 27.0, "avx2": 12.0, "portable": 4.0}

SHORT_SECONDS = 0.02
SHORT_ROUNDS = 5
SHORT_RANGES = tuple(10**power for power in range(7))

SCAN = Section(
    "scan: one thread, 10-digit nonces, against hashlib with a copied midstate",
    notes=("Targets are meant for a Zen 4 core.",),
)
SHORT = Section(
    "short ranges: microseconds a call, and the rate as a percentage of a long scan's",
    notes=("One nonce shows what a call costs.",),
)


@pytest.mark.benchmark(group="scan")
@pytest.mark.parametrize("backend", supported_backends())
def test_scan(backend: str, measure: Measure, report: Report) -> None:
    nonces = nonces_of(DIGITS)
    pair = Pair(
        f"scan, {backend}",
        vain_scan(backend, PREFIX, nonces, SECONDS),
        f"scan, {HASHLIB}",
        vain_scan(HASHLIB, PREFIX, nonces, SECONDS),
        TARGETS.get(backend),
    )
    report.add(SCAN, pair.subject, rate_cells(measure(pair)))


@needs_native
@pytest.mark.benchmark(group="short ranges")
@pytest.mark.parametrize("backend", NATIVE_BACKENDS)
def test_short_ranges(backend: str, measure_all: MeasureAll, report: Report) -> None:
    long_scan = vain_scan(backend, PREFIX, nonces_of(DIGITS), SHORT_SECONDS)
    ranges = [range(FIRST_NONCE, FIRST_NONCE + length) for length in SHORT_RANGES]
    pairs = [
        Pair(
            f"scan, {backend}, calls of {len(nonces):,}",
            vain_scan(backend, PREFIX, nonces, SHORT_SECONDS),
            f"scan, {backend}, long calls",
            long_scan,
        )
        for nonces in ranges
    ]
    for nonces, found in zip(ranges, measure_all(pairs, SHORT_ROUNDS), strict=True):
        microseconds = len(nonces) / found.rate * 1e6
        length = f"{len(nonces):,}"
        cells = {
            "nonces": length,
            f"{backend}, µs": significant(microseconds),
            f"{backend}, rate": f"{found.ratio:.0%}",
        }
        report.add(SHORT, length, cells)
