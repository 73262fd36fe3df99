"""What many workflows and viewers of the dashboard cost: the hash rate with them, against one workflow's.

There are two servers in processes of their own, and whichever isn't measured is paused. The viewers are in
one more process, so what is measured is what the server does for them; it shares the machine's cores all
the same. On Linux there is a second ratio, of the CPU time that the mining threads got, which a machine
whose speed changes from second to second disturbs less.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from python_process import HANG_SECONDS
from server_process import ServerProcess

from benchmarks.comparison import Measure, Pair, Report, Section, rate_cells
from pow.mining.cores import usable_cores

WORKFLOWS, VIEWERS = 100, 50
# None of them ends meanwhile.
DIFFICULTY = 40
# About as long as slices are in such a crowd: those that the pause has made late all end at its beginning.
SECONDS = 20.0
ROUNDS = 3
TARGET = 0.95

CROWD = Section("crowd: the hash rate with many running workflows and viewers, against one workflow and none")

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


@contextmanager
def paused_server(workflows: int) -> Iterator[ServerProcess]:
    """A server with that many workflows, all running as soon as it goes on."""
    with ServerProcess() as server:
        for number in range(workflows):
            job = {"difficulty": DIFFICULTY, "genesis": f"viewed {number}"}
            request = urllib.request.Request(
                f"{server.url}/dashboard/start",
                json.dumps(job).encode(),
                {"Content-Type": "application/json", "Origin": server.url},
            )
            with urllib.request.urlopen(request, timeout=HANG_SECONDS) as response:
                assert response.status == 200
        os.kill(server.pid, signal.SIGSTOP)
        yield server


@contextmanager
def at_work(server: ServerProcess) -> Iterator[None]:
    """The server goes on, for so long."""
    os.kill(server.pid, signal.SIGCONT)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGSTOP)


@contextmanager
def looked_at(server: ServerProcess) -> Iterator[None]:
    """So many viewers look at the paused server's dashboard, each of whom has got a snapshot before."""
    host, port = server.url.removeprefix("http://").split(":")
    process = subprocess.Popen(
        [sys.executable, "-c", _LOOK_ON, host, port, str(VIEWERS)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        with at_work(server):
            assert process.stdout.readline() == "all look on\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Miner:
    """Counts what a server's pool does in some seconds, and how much CPU time its threads get."""

    server: ServerProcess
    cpu_seconds: list[float] = field(default_factory=list)

    def work(self) -> int:
        """How many nonces it tries."""
        with at_work(self.server):
            hashes, cpu_before = self._hashes(), self._threads_cpu_seconds()
            time.sleep(SECONDS)
            hashes, cpu = self._hashes() - hashes, self._threads_cpu_seconds()
        assert hashes
        used = sorted(seconds - cpu_before.get(thread, 0.0) for thread, seconds in cpu.items())
        # The threads that do next to nothing else.
        self.cpu_seconds.append(sum(used[-usable_cores() :]))
        return hashes

    def _hashes(self) -> int:
        hashes: int = self.server.health()["hashes"]
        return hashes

    def _threads_cpu_seconds(self) -> dict[str, float]:
        """By thread; empty where the system doesn't tell."""
        tasks = Path(f"/proc/{self.server.pid}/task")
        if not tasks.exists():
            return {}
        return {task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks.iterdir()}


@pytest.mark.benchmark(group="crowd")
@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process can't be paused here")
def test_crowd(measure: Measure, report: Report) -> None:
    with paused_server(1) as lonely, paused_server(WORKFLOWS) as crowded, looked_at(crowded):
        crowd, alone = Miner(crowded), Miner(lonely)
        pair = Pair(
            f"{WORKFLOWS} workflows, {VIEWERS} viewers", crowd.work, "1 workflow, no viewers", alone.work, TARGET
        )
        found = measure(pair, ROUNDS)
    # Its cores are those of this process, which mines nothing.
    cells = {name: cell for name, cell in rate_cells(found).items() if "cores" not in name}
    if all(alone.cpu_seconds):
        ratios = [one / other for one, other in zip(crowd.cpu_seconds, alone.cpu_seconds, strict=True)]
        cells["ratio of CPU time"] = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    report.add(CROWD, pair.subject, cells)
