"""Memory that a network frees is kept for its next batch.

glibc hands large freed blocks back to the kernel, which must clear pages again for the next batch of the same size; the
page faults cost up to half of an inference on a CPU.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3), from malloc.h."""
KEPT_BYTES = 2**31 - 1
PAD_BYTES = 64 << 20
DASK_DEFAULTS = {"MALLOC_TRIM_THRESHOLD_": "65536"}
"""What Dask's nanny gives every worker unasked: memory goes back at once, which makes a training 2.3 times as slow."""


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in this process; True if it does.

    Nothing is done on other systems, or where the user has set one of glibc's own MALLOC_ variables, among which
    Dask's default is not counted.
    """
    if not sys.platform.startswith("linux") or _is_set_by_user():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, PAD_BYTES))
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)


def _is_set_by_user() -> bool:
    chosen = {name: value for name, value in os.environ.items() if name.startswith("MALLOC_")}
    return bool(chosen.items() - DASK_DEFAULTS.items())
