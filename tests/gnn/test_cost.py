import time

import numpy as np

from gnn.cost import Meter, peak_memory_mb


def test_cpu_and_wall() -> None:
    with Meter() as busy:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    with Meter() as idle:
        time.sleep(0.05)
    assert busy.cpu_s >= 0.03
    assert idle.wall_s >= 0.05
    assert idle.cpu_s < busy.cpu_s
    assert busy.gpu_s == 0.0


def test_a_gpu_counts_from_its_first_use() -> None:
    with Meter() as meter:
        meter.uses("cpu")
        time.sleep(0.02)
        meter.uses("cuda")
        meter.uses("cuda")
        time.sleep(0.01)
    assert 0.01 <= meter.gpu_s < meter.wall_s


def test_the_peak_of_memory() -> None:
    with Meter() as small:
        pass
    with Meter() as large:
        block = np.ones(30_000_000)
    assert block.nbytes == 240_000_000
    assert large.peak_memory_mb >= small.peak_memory_mb + 150
    assert peak_memory_mb() > 0


def test_costs_by_name() -> None:
    with Meter() as meter:
        pass
    assert set(meter.costs()) == {"cpu_s", "wall_s", "gpu_s", "peak_memory_mb"}
