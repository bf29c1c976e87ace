"""What is said of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gnn.machine import processor, threads_of_torch

CORE = """processor\t: {core}
model name\t: AMD EPYC
flags\t\t: fpu sse4_2 {flags}

"""


@pytest.mark.parametrize(
    ("flags", "said"),
    [("avx avx2", "AMD EPYC, AVX2"), ("avx avx2 avx512f", "AMD EPYC, AVX-512"), ("ssse3", "AMD EPYC")],
)
def test_processors_of_one_name_are_told_apart(tmp_path: Path, flags: str, said: str) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("".join(CORE.format(core=core, flags=flags) for core in range(2)))
    assert processor(info) == said


def test_elsewhere_the_platform_is_asked(tmp_path: Path) -> None:
    assert processor(tmp_path / "none")
    (tmp_path / "cpuinfo").write_text("Hardware : some board\n")
    assert processor(tmp_path / "cpuinfo")


@pytest.mark.parametrize("threads", [None, 2])
def test_threads_are_given_back(threads: int | None) -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with threads_of_torch(threads):
            assert torch.get_num_threads() == (threads or before)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
