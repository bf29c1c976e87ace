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


@cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory in this process; True if it does.

    Nothing is done on other systems, or where the user has set one of glibc's own MALLOC_ variables.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_TOP_PAD, PAD_BYTES))
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)
