"""How many cores this process may really use: its affinity and its cgroup's quota, not the machine's count."""

import math
import os
from collections.abc import Callable
from os import PathLike

# Plain paths: pathlib would take longer to import than all the rest of the package.
_CGROUP_ROOT = "/sys/fs/cgroup"
_PROCESS_CGROUP = "/proc/self/cgroup"


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


def cgroup_quota(process_cgroup: str | PathLike[str], root: str | PathLike[str]) -> float | None:
    """The tightest CPU quota, in cores, of the process's control group and those above it.

    Args:
        process_cgroup: the file that names the process's groups (/proc/self/cgroup).
        root: where the control groups are mounted (/sys/fs/cgroup).

    Returns:
        None without a quota, and where there are no control groups.
    """
    try:
        with open(process_cgroup) as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        # "hierarchy:controllers:path"; version 2 has one line, with no controllers.
        _, controllers, path = line.split(":", 2)
        if not controllers:
            quotas += _quotas_above(os.fspath(root), path, _quota_v2)
        elif "cpu" in controllers.split(","):
            quotas += _quotas_above(os.path.join(root, "cpu"), path, _quota_v1)
    return min(quotas, default=None)


def _quotas_above(mount: str, path: str, read: Callable[[str], float | None]) -> list[float]:
    # Inside a container the path may name a group of the host's that isn't mounted here; then the
    # mount itself is the container's own group.
    names = [name for name in path.split("/") if name]
    groups = [os.path.join(mount, *names[:depth]) for depth in range(len(names) + 1)]
    found = (read(group) for group in groups)
    return [quota for quota in found if quota is not None]


def _quota_v2(group: str) -> float | None:
    try:
        quota, period = _read(group, "cpu.max").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(group: str) -> float | None:
    try:
        quota = int(_read(group, "cpu.cfs_quota_us"))
        period = int(_read(group, "cpu.cfs_period_us"))
    except (OSError, ValueError):
        return None
    return None if quota < 0 else quota / period


def _read(group: str, name: str) -> str:
    with open(os.path.join(group, name)) as file:
        return file.read()
