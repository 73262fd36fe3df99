"""How many cores the process may use, and how many threads a pool makes of them."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pow.errors import BackendError, InvalidArgument
from pow.mining import cores
from pow.mining import pool as pool_module
from pow.mining.cores import cgroup_quota, usable_cores
from pow.mining.pool import MinerPool
from pow.scanning.backends import supported_backends

each_backend = pytest.mark.parametrize("backend", supported_backends())


class Cgroups:
    """Control groups made of plain files, and the file that says which one the process is in."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.root.mkdir()
        self.process = folder / "self-cgroup"

    def quota(self) -> float | None:
        return cgroup_quota(self.process, self.root)

    def v2(self, group: str, cpu_max: str) -> None:
        self._write(f"{group}/cpu.max", cpu_max)

    def v1(self, group: str, quota: int, period: int) -> None:
        self._write(f"cpu/{group}/cpu.cfs_quota_us", f"{quota}\n")
        self._write(f"cpu/{group}/cpu.cfs_period_us", f"{period}\n")

    def _write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def cgroups(tmp_path: Path) -> Cgroups:
    return Cgroups(tmp_path)


# --- version 2


@pytest.mark.parametrize(
    ("cpu_max", "quota"),
    [("200000 100000\n", 2.0), ("50000 100000\n", 0.5), ("150000 100000\n", 1.5), ("1000 1000000\n", 0.001)],
)
def test_a_quota_of_version_2_is_cores(cgroups: Cgroups, cpu_max: str, quota: float) -> None:
    cgroups.process.write_text("0::/app\n")
    cgroups.v2("app", cpu_max)
    assert cgroups.quota() == pytest.approx(quota)


def test_max_of_version_2_is_no_quota(cgroups: Cgroups) -> None:
    cgroups.process.write_text("0::/app\n")
    cgroups.v2("app", "max 100000\n")
    assert cgroups.quota() is None


@pytest.mark.parametrize(
    ("outer", "inner", "quota"),
    [
        ("100000 100000", "400000 100000", 1.0),
        ("400000 100000", "100000 100000", 1.0),
        ("100000 100000", "max 100000", 1.0),
        ("max 100000", "300000 100000", 3.0),
        ("max 100000", "max 100000", None),
    ],
)
def test_the_tightest_quota_of_a_group_and_those_above_it_counts(
    cgroups: Cgroups, outer: str, inner: str, quota: float | None
) -> None:
    cgroups.process.write_text("0::/outer/middle/inner\n")
    cgroups.v2("outer", outer)
    cgroups.v2("outer/middle/inner", inner)
    assert cgroups.quota() == quota


def test_a_container_s_quota_lies_at_the_mount_itself(cgroups: Cgroups) -> None:
    # The path is the host's, and isn't mounted here.
    cgroups.process.write_text("0::/kubepods/pod12/abc\n")
    cgroups.v2(".", "250000 100000\n")
    assert cgroups.quota() == 2.5
    cgroups.process.write_text("0::/\n")
    assert cgroups.quota() == 2.5


def test_groups_beside_and_below_the_process_s_do_not_count(cgroups: Cgroups) -> None:
    cgroups.process.write_text("0::/app\n")
    cgroups.v2("app", "400000 100000\n")
    cgroups.v2("app/worker", "100000 100000\n")
    cgroups.v2("other", "100000 100000\n")
    assert cgroups.quota() == 4.0


# --- version 1


@pytest.mark.parametrize("controllers", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_a_quota_of_version_1_is_cores(cgroups: Cgroups, controllers: str) -> None:
    cgroups.process.write_text(f"11:memory:/docker/abc\n4:{controllers}:/docker/abc\n1:name=systemd:/x:y\n")
    cgroups.v1("docker/abc", 150_000, 100_000)
    assert cgroups.quota() == 1.5


def test_the_tightest_quota_of_version_1_counts(cgroups: Cgroups) -> None:
    cgroups.process.write_text("4:cpu,cpuacct:/docker/abc\n")
    cgroups.v1("docker/abc", 400_000, 100_000)
    cgroups.v1("docker", 50_000, 100_000)
    cgroups.v1(".", -1, 100_000)
    assert cgroups.quota() == 0.5


def test_minus_one_of_version_1_is_no_quota(cgroups: Cgroups) -> None:
    cgroups.process.write_text("4:cpu:/docker/abc\n")
    cgroups.v1("docker/abc", -1, 100_000)
    assert cgroups.quota() is None


def test_other_controllers_of_version_1_say_nothing(cgroups: Cgroups) -> None:
    cgroups.process.write_text("5:cpuset:/app\n6:cpuacct:/app\n")
    cgroups.v1("app", 100_000, 100_000)
    assert cgroups.quota() is None


def test_on_a_machine_with_both_versions_the_tighter_quota_counts(cgroups: Cgroups) -> None:
    cgroups.process.write_text("4:cpu:/app\n0::/app\n")
    cgroups.v1("app", 300_000, 100_000)
    cgroups.v2("app", "200000 100000")
    assert cgroups.quota() == 2.0


# --- none


def test_without_control_groups_there_is_no_quota(cgroups: Cgroups) -> None:
    assert cgroups.quota() is None
    cgroups.process.write_text("")
    assert cgroups.quota() is None
    cgroups.process.write_text("0::/app\n")
    assert cgroups.quota() is None


@pytest.mark.parametrize("cpu_max", ["", "max", "100000\n", "1 2 3"])
def test_a_quota_that_cannot_be_read_is_none(cgroups: Cgroups, cpu_max: str) -> None:
    cgroups.process.write_text("0::/app\n")
    cgroups.v2("app", cpu_max)
    assert cgroups.quota() is None


# --- usable cores


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("1000 100000", 1),
        ("250000 100000", 3),
        ("800000 100000", 8),
        ("9000000 100000", 8),
    ],
)
def test_usable_cores_are_the_quota_rounded_up_and_at_most_the_affinity(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, cpu_max: str, expected: int
) -> None:
    cgroups.process.write_text("0::/app\n")
    cgroups.v2("app", cpu_max)
    monkeypatch.setattr(cores, "_PROCESS_CGROUP", cgroups.process)
    monkeypatch.setattr(cores, "_CGROUP_ROOT", cgroups.root)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    assert usable_cores() == expected


@pytest.mark.parametrize(("machine", "expected"), [(12, 12), (None, 1)])
def test_where_there_is_no_affinity_the_machine_s_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: int | None, expected: int
) -> None:
    monkeypatch.setattr(cores, "_PROCESS_CGROUP", tmp_path / "missing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    assert usable_cores() == expected


def test_this_machine_has_at_least_one_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_bound_to_one_core_has_one() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from pow.mining.cores import usable_cores; print(usable_cores())"
    )
    bound = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert bound.stdout == "1\n"


# --- a pool's threads


@pytest.mark.parametrize("threads", [0, -1, 1025, True, 2.0, "2"], ids=repr)
def test_a_number_of_threads_out_of_range_is_refused(threads: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        MinerPool(threads)
    assert str(caught.value) == f"threads must be an integer from 1 to 1024, not {threads!r}"


@pytest.mark.parametrize("threads", [1, 1024])
def test_threads_start_with_the_first_search_only(threads: int) -> None:
    before = set(threading.enumerate())
    with MinerPool(threads) as pool:
        assert pool.threads == threads
        assert set(threading.enumerate()) <= before


@each_backend
def test_without_a_number_there_is_a_thread_per_usable_core_where_they_can_run_side_by_side(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 7)
    assert MinerPool(backend=backend).threads == (1 if backend == "hashlib" else 7)
    assert MinerPool(3, backend).threads == 3


@each_backend
def test_pow_backend_chooses_the_pool_s_backend(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POW_BACKEND", backend)
    assert MinerPool().backend == backend


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendError, match=r"^backend 'avx9' is not known; valid here: auto, "):
        MinerPool(1, "avx9")
