"""How many cores this process may really use: its affinity and its cgroup's quota, not the machine's count."""

import math
import os
from collections.abc import Callable
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROCESS_CGROUP = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Cores that the scheduler and the container's CPU quota leave to this process, at least 1.

    A quota of a fraction of a core counts as a whole one: fewer threads would leave the rest unused.
    """
    quota = cgroup_quota(_PROCESS_CGROUP, _CGROUP_ROOT)
    affine = _affinity()
    return affine if quota is None else max(1, min(affine, math.ceil(quota)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_quota(process_cgroup: Path, root: Path) -> float | None:
    """The tightest CPU quota, in cores, of the process's control group and those above it.

    Args:
        process_cgroup: the file that names the process's groups (/proc/self/cgroup).
        root: where the control groups are mounted (/sys/fs/cgroup).

    Returns:
        None without a quota, and where there are no control groups.
    """
    try:
        lines = process_cgroup.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        # "hierarchy:controllers:path"; version 2 has one line, with no controllers.
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += _quotas_above(root, path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas_above(root / "cpu", path, _quota_v1)
    return min(quotas, default=None)


def _quotas_above(mount: Path, path: str, read: Callable[[Path], float | None]) -> list[float]:
    # Inside a container the path may name a group of the host's that isn't mounted here; then the
    # mount itself is the container's own group.
    group = mount / path.lstrip("/")
    groups = [group, *group.parents]
    found = (read(folder) for folder in groups[: groups.index(mount) + 1])
    return [quota for quota in found if quota is not None]


def _quota_v2(group: Path) -> float | None:
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: Path) -> float | None:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if quota < 0 else quota / period
