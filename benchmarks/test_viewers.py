"""What viewers of the dashboard cost: the hash rate of many running workflows with them, against without.

The server is in a process of its own, as are its viewers, so what is measured is what the server does
for them; the two share the machine's cores all the same. On Linux there is a second ratio, of nonces for
each second of CPU time that the server got, which other programs on the machine disturb less.
"""

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from python_process import HANG_SECONDS
from server_process import ServerProcess

from benchmarks.comparison import Measure, Pair, Report, Section, rate_cells

WORKFLOWS, VIEWERS = 100, 50
# None of them ends meanwhile.
DIFFICULTY = 40
SECONDS = 5.0
ROUNDS = 5
TARGET = 0.95

DASHBOARD = Section(f"viewers: the rate of {WORKFLOWS} running workflows with {VIEWERS} viewers, against without")

# One process for all of them: it takes what comes and looks at none of it.
_LOOK_ON = """
import selectors, socket, sys
host, port, viewers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
waiting, selector = set(range(viewers)), selectors.DefaultSelector()
for number in range(viewers):
    viewer = socket.create_connection((host, port))
    viewer.sendall(f"GET /dashboard/events HTTP/1.1\\r\\nHost: {host}:{port}\\r\\n\\r\\n".encode())
    selector.register(viewer, selectors.EVENT_READ, number)
while True:
    for key, _ in selector.select():
        content = key.fileobj.recv(1 << 20)
        if not content:
            sys.exit("the server ended a stream")
        if key.data in waiting and b"data: " in content:
            waiting.remove(key.data)
            if not waiting:
                print("all look on", flush=True)
"""


@pytest.fixture(scope="module")
def busy_server() -> Iterator[ServerProcess]:
    """A server with that many workflows, all running."""
    with ServerProcess() as server:
        for number in range(WORKFLOWS):
            job = {"difficulty": DIFFICULTY, "genesis": f"viewed {number}"}
            request = urllib.request.Request(
                f"{server.url}/dashboard/start",
                json.dumps(job).encode(),
                {"Content-Type": "application/json", "Origin": server.url},
            )
            with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
                assert response.status == 200
        yield server


@contextmanager
def looked_at(server: ServerProcess) -> Iterator[None]:
    """So many viewers look at the server's dashboard, each of whom has got a snapshot."""
    host, port = server.url.removeprefix("http://").split(":")
    process = subprocess.Popen(
        [sys.executable, "-c", _LOOK_ON, host, port, str(VIEWERS)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "all look on\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Miner:
    """Counts what the server's pool does in some seconds, and for how much of the server's CPU time."""

    server: ServerProcess
    per_cpu_second: list[float] = field(default_factory=list)

    def alone(self) -> int:
        """How many nonces it tries."""
        with self._counting() as hashes:
            time.sleep(SECONDS)
        return hashes()

    def looked_at(self) -> int:
        """The same with viewers; from before they come until after they have gone, since all of that is timed."""
        with self._counting() as hashes, looked_at(self.server):
            time.sleep(SECONDS)
        return hashes()

    @contextmanager
    def _counting(self) -> Iterator[Callable[[], int]]:
        before, cpu_before = self._hashes(), self._cpu_seconds()
        counted = 0
        yield lambda: counted
        counted = self._hashes() - before
        assert counted
        if cpu_before is not None:
            self.per_cpu_second.append(counted / ((self._cpu_seconds() or 0.0) - cpu_before))

    def _hashes(self) -> int:
        hashes: int = self.server.health()["hashes"]
        return hashes

    def _cpu_seconds(self) -> float | None:
        stat = Path(f"/proc/{self.server.pid}/stat")
        if not stat.exists():
            return None
        # The name, in brackets, may hold blanks; utime and stime are the fields 14 and 15.
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.benchmark(group="viewers")
def test_viewers(busy_server: ServerProcess, measure: Measure, report: Report) -> None:
    with_viewers, without = Miner(busy_server), Miner(busy_server)
    pair = Pair(
        f"{WORKFLOWS} workflows, {VIEWERS} viewers",
        with_viewers.looked_at,
        f"{WORKFLOWS} workflows, no viewers",
        without.alone,
        TARGET,
    )
    found = measure(pair, ROUNDS)
    # Its cores are those of this process, which mines nothing.
    cells = {name: cell for name, cell in rate_cells(found).items() if "cores" not in name}
    ratios = [one / other for one, other in zip(with_viewers.per_cpu_second, without.per_cpu_second, strict=True)]
    if ratios:
        cells["ratio per CPU second"] = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    report.add(DASHBOARD, pair.subject, cells)
