"""What work costs: CPU and wall seconds, seconds for which a GPU was held, and the peak of memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"


class Meter:
    """A context manager that measures the process while it is open.

    cpu_s counts this process and the children it has waited for; gpu_s is the wall time after `uses("cuda")`;
    peak_memory_mb is the largest resident set since the meter was opened, or of the whole process where the kernel
    does not let the peak be reset.
    """

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = self.gpu_s = self.peak_memory_mb = 0.0
        self._gpu_since: float | None = None

    def __enter__(self) -> Meter:
        _reset_peak()
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def uses(self, device: str) -> None:
        """Say on which kind of device the work runs from now on."""
        if device == "cuda" and self._gpu_since is None:
            self._gpu_since = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter()
        self.wall_s, self.cpu_s = now - self._wall, _cpu_seconds() - self._cpu
        self.gpu_s = 0.0 if self._gpu_since is None else now - self._gpu_since
        self.peak_memory_mb = peak_memory_mb()

    def costs(self) -> dict[str, float]:
        """The figures by name, rounded."""
        names = ("cpu_s", "wall_s", "gpu_s", "peak_memory_mb")
        return {name: round(getattr(self, name), 3) for name in names}


def _cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _reset_peak() -> None:
    """Ask the kernel to forget the peak so far; where it does not, the peak is the process's."""
    try:
        CLEAR.write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return


def peak_memory_mb() -> float:
    """The largest resident set of this process since the peak was last reset, in MB."""
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
