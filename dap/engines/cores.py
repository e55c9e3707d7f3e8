"""How many processor cores this process may really use."""

import math
import os
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that the scheduler's affinity mask and the control group's CPU quota leave to this process, at least 1.

    A container limited to 2 CPUs on a 64-core node still sees 64 cores; a thread pool of 64 there is throttled to a
    crawl. A fractional quota rounds up.
    """
    cores = len(os.sched_getaffinity(0))
    quota = _quota_v2() or _quota_v1()
    return max(1, min(cores, math.ceil(quota))) if quota else cores


def _quota_v2() -> float | None:
    """Cores of the least `cpu.max` of the group and its parents (docs.kernel.org/admin-guide/cgroup-v2.html)."""
    group = next((line[3:] for line in _read(_MEMBERSHIP).splitlines() if line.startswith("0::")), "/")
    folder = _CGROUP_ROOT / group.strip().lstrip("/")
    quotas = []
    for level in (folder, *folder.parents):
        if not level.is_relative_to(_CGROUP_ROOT):
            break
        fields = _read(level / "cpu.max").split()
        if len(fields) == 2 and fields[0] != "max":
            quotas.append(int(fields[0]) / int(fields[1]))
    return min(quotas, default=None)


def _quota_v1() -> float | None:
    quota = _read(_CGROUP_ROOT / "cpu" / "cpu.cfs_quota_us").strip()
    period = _read(_CGROUP_ROOT / "cpu" / "cpu.cfs_period_us").strip()
    if not quota or not period or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
