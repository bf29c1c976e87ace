"""The arithmetic floor of a piece of work: what its matrix products alone would take on this core.

FLOPs are counted with the formulae of torch's FlopCounterMode (its own hooks cannot pass a derivative inside a step);
products are timed one shape after the other, alone, in warm caches. What the
other operators read and write is counted as they stand (nothing fused), and timed as copies of the same sizes.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

PRODUCTS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2)}
"""Operators that are matrix products, and which of their arguments are multiplied."""
LEAST_S, REPEATS = 0.004, 3
"""CPU seconds and repeats that one shape is timed for."""


@dataclass(frozen=True)
class Product:
    """One matrix product: the shapes and strides of its two factors."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    left_strides: tuple[int, ...]
    right_strides: tuple[int, ...]
    double: bool = False

    @property
    def flops(self) -> int:
        """Additions and multiplications."""
        return 2 * math.prod(self.left) * self.right[-1]


@dataclass
class Work:
    """What was done: calls of products by shape, bytes of the other operators by the size of their tensors, FLOPs.

    Sizes are powers of two, in bytes.
    """

    products: Counter[Product] = field(default_factory=Counter)
    moved: Counter[int] = field(default_factory=Counter)
    flops: int = 0

    @property
    def moved_bytes(self) -> float:
        """Bytes read and written by everything that is not a matrix product."""
        return float(self.moved.total())


@dataclass(frozen=True)
class Floor:
    """FLOPs of the products and the seconds they take alone; bytes of the rest and the seconds copies of them take."""

    flops: int
    products_s: float
    moved_bytes: float
    moved_s: float

    @property
    def gflop_rate(self) -> float:
        """GFLOP/s of the products at the used sizes."""
        return self.flops / self.products_s / 1e9 if self.products_s else 0.0

    @property
    def gbyte_rate(self) -> float:
        """GB/s of copies at the used sizes."""
        return self.moved_bytes / self.moved_s / 1e9 if self.moved_s else 0.0


def count_work(job: Callable[[], object]) -> Work:
    """Run `job` once and record what its operators do."""
    from torch.utils._python_dispatch import TorchDispatchMode

    work = Work()

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            del types
            out = func(*args, **(kwargs or {}))
            record(work, func, args, kwargs or {}, out)
            return out

    with Recorder():
        job()
    return work


def record(work: Work, func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """Add one operator's call."""
    from torch.utils.flop_counter import flop_registry

    name = func.overloadpacket.__name__
    if func.overloadpacket in flop_registry:
        work.flops += int(flop_registry[func.overloadpacket](*args, **kwargs, out_val=out))
    if name in PRODUCTS:
        left, right = (args[k] for k in PRODUCTS[name])
        double = left.element_size() == 8
        work.products[Product(tuple(left.shape), tuple(right.shape), left.stride(), right.stride(), double)] += 1
        return
    if is_view(func):
        return
    for size in map(nbytes, (*tensors(args), *tensors(out))):
        if size:
            work.moved[size_class(size)] += size


def is_view(func: Any) -> bool:
    """Whether an operator returns its argument's memory and writes nothing."""
    aliases = [returned.alias_info for returned in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def tensors(value: Any) -> Iterator[Any]:
    """Every tensor in nested lists and tuples."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def nbytes(tensor: Any) -> int:
    """Bytes that a tensor's values take, broadcast ones once."""
    used = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return math.prod(used) * int(tensor.element_size()) if tensor.numel() else 0


def size_class(size: int) -> int:
    """The power of two at or below `size`."""
    return 1 << (size.bit_length() - 1)


def floor_of(
    work: Work,
    product_s: Callable[[Product], float] | None = None,
    copy_s: Callable[[int], float] | None = None,
) -> Floor:
    """The floor, with seconds of one product and of one copy measured here unless they are given."""
    of_product, of_copy = product_s or time_product, copy_s or time_copy
    products = weighted_sum(work.products, of_product)
    moved = weighted_sum(work.moved, lambda size: of_copy(size) / (2 * size))
    return Floor(work.flops, products, work.moved_bytes, moved)


def weighted_sum(counts: Mapping[Any, float], seconds: Callable[[Any], float]) -> float:
    """Sum of count times seconds."""
    return sum(count * seconds(item) for item, count in counts.items())


def time_product(product: Product) -> float:
    """CPU seconds of one matrix product alone."""
    import torch

    dtype = torch.float64 if product.double else torch.float32
    left, right = (
        strided(shape, strides, dtype)
        for shape, strides in ((product.left, product.left_strides), (product.right, product.right_strides))
    )
    return time_call(lambda: torch.matmul(left, right))


def strided(shape: tuple[int, ...], strides: tuple[int, ...], dtype: Any) -> Any:
    """A tensor of random numbers of this shape and these strides, which may overlap."""
    import torch

    if not math.prod(shape):
        return torch.empty(shape, dtype=dtype)
    size = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    return torch.randn(size, dtype=dtype).as_strided(shape, strides)


def time_copy(size: int) -> float:
    """CPU seconds of copying `size` bytes, that is of reading them and writing them."""
    import torch

    source = torch.zeros(max(1, size // 4))
    target = torch.empty_like(source)
    return time_call(lambda: target.copy_(source))


def time_call(job: Callable[[], object]) -> float:
    """CPU seconds of one call: the median over repeats of as many calls as last long enough."""
    job()
    calls = 1
    while (taken := _repeated(job, calls)) < LEAST_S:
        calls = max(2 * calls, int(calls * 1.2 * LEAST_S / max(taken, 1e-6)))
    return median([taken, *(_repeated(job, calls) for _ in range(REPEATS - 1))]) / calls


def _repeated(job: Callable[[], object], calls: int) -> float:
    started = time.process_time()
    for _ in range(calls):
        job()
    return time.process_time() - started
