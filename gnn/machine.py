"""The machine that a program runs on."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
"""Vector instructions by the flag that tells of them, the widest first: models of one name differ threefold by them."""


def processor(info: Path = CPU_INFO) -> str:
    """The processor's name and its vector instructions as the system tells them, "AMD EPYC, AVX2"."""
    if not info.is_file():
        return platform.processor() or platform.machine()
    fields = _first_fields(info.read_text())
    name = fields.get("model name") or platform.machine()
    flags = fields.get("flags", "").split()
    return ", ".join([name, *[vectors for flag, vectors in VECTORS.items() if flag in flags][:1]])


@contextmanager
def threads_of_torch(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads for the time being (None: as many as it does); the caller's process has its own."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if threads is None else threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _first_fields(text: str) -> dict[str, str]:
    """What is said of the first core."""
    lines = [line.partition(":") for line in text.split("\n\n")[0].splitlines()]
    return {name.strip(): value.strip() for name, _, value in lines}
