"""Peak memory of this process, and of one stretch of its work."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): sets the high-water mark of resident memory back to what is resident now


def peak_rss_gb() -> float:
    """The most memory that was resident at once since the last reset, in 10^9 bytes.

    From /proc where there is one: getrusage's figure cannot be reset, and starts in a child from its parent's peak.
    """
    if _STATUS.exists():
        (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e9
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def reset_peak_rss() -> None:
    """Starts a new stretch; without effect where the system cannot (not Linux, or not allowed)."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return
