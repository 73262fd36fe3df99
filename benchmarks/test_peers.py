"""The active backend against other solvers, each on one thread; see peers.py for what they hash."""

import pytest

from benchmarks.comparison import Measure, Pair, Report, Section, rate_cells
from benchmarks.peers import PEERS, PeerMissing
from benchmarks.scans import DIGITS, PREFIX, nonces_of, vain_scan
from pow.scanning.backends import active_backend

SECONDS = 0.25

PEER = Section(
    "peers: the active backend against other solvers, one thread each",
    notes=(
        "altcha hashes our bytes and compares digests with the one that it looks for; pow-wasm hashes a text of its",
        "own, as long but for nonces of 1 to 6 digits, in another process: its cores don't show.",
    ),
)


@pytest.mark.benchmark(group="peers")
@pytest.mark.parametrize("name", PEERS)
def test_peer(name: str, measure: Measure, report: Report) -> None:
    backend = active_backend().name
    try:
        with PEERS[name]() as peer:
            scan = vain_scan(backend, PREFIX, nonces_of(DIGITS), SECONDS)
            found = measure(Pair(f"scan, {backend}", scan, peer.name, peer.search))
    except PeerMissing as missing:
        pytest.skip(str(missing))
    report.add(PEER, peer.name, rate_cells(found))
