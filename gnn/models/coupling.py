"""Real Clebsch–Gordan coefficients, and the sparse tables of products that are not zero."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial, sqrt

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _racah(l1: int, m1: int, l2: int, m2: int, l3: int, m3: int) -> float:
    """<l1 m1 l2 m2 | l3 m3> of complex harmonics by Racah's formula (Edmonds 1957, eq. 3.6.11)."""
    if m3 != m1 + m2:
        return 0.0
    f = factorial
    triangle = f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(-l1 + l2 + l3) / f(l1 + l2 + l3 + 1)
    states = f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(l3 + m3) * f(l3 - m3)
    total = 0.0
    for k in range(max(0, l2 - l3 - m1, l1 - l3 + m2), min(l1 + l2 - l3, l1 - m1, l2 + m2) + 1):
        terms = f(k) * f(l1 + l2 - l3 - k) * f(l1 - m1 - k) * f(l2 + m2 - k) * f(l3 - l2 + m1 + k) * f(l3 - l1 - m2 + k)
        total += (-1) ** k / terms
    return sqrt((2 * l3 + 1) * triangle * states) * total


def _to_complex(degree: int) -> NDArray[np.complex128]:
    """U with Y_complex[m] = sum_k U[m, k] Y_real[k]; Condon–Shortley phase, real order m = -l..l (sin, 0, cos)."""
    matrix = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    matrix[degree, degree] = 1.0
    for m in range(1, degree + 1):
        sign = (-1) ** m
        matrix[degree + m, degree + m], matrix[degree + m, degree - m] = sign / sqrt(2), 1j * sign / sqrt(2)
        matrix[degree - m, degree + m], matrix[degree - m, degree - m] = 1 / sqrt(2), -1j / sqrt(2)
    return matrix


@lru_cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> Floats:
    """Real coupling C[m1, m2, m3]: x_m1 y_m2 C is of degree l3; sum over all of C² is 2·l3 + 1.

    Racah's coefficients in the basis of real harmonics, times the phase that makes them real (i where l1 + l2 + l3 is
    odd). With unit-variance x and y every component of the result has unit variance. Shape (2l1+1, 2l2+1, 2l3+1).

    Raises:
        ValueError: the degrees break the triangle rule.
    """
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(f"degrees {l1}, {l2}, {l3} do not form a triangle")
    size = tuple(2 * d + 1 for d in (l1, l2, l3))
    table = np.zeros(size)
    for i, j, k in np.ndindex(*size):
        table[i, j, k] = _racah(l1, i - l1, l2, j - l2, l3, k - l3)
    u1, u2, u3 = (_to_complex(degree) for degree in (l1, l2, l3))
    real = np.einsum("abc,ai,bj,ck->ijk", table, u1, u2, u3.conj())
    picked: Floats = (real.imag if (l1 + l2 + l3) % 2 else real.real).copy()
    picked[abs(picked) < 1e-12] = 0.0
    return picked


def slots(degree: int) -> range:
    """Rows of a degree in a tensor whose components are ordered (l, m)."""
    return range(degree**2, (degree + 1) ** 2)


@dataclass(frozen=True)
class MessagePath:
    """Bond harmonics of degree `edge` with sender features of degree `sender` into a density of degree `out`."""

    edge: int
    sender: int
    out: int


def message_paths(edge_l_max: int, sender_l: int) -> list[MessagePath]:
    """All couplings of true tensors (even l1 + l2 + l3) for one sender degree, ordered by output degree."""
    return [
        MessagePath(edge, sender_l, out)
        for out in range(edge_l_max + 1)
        for edge in range(abs(out - sender_l), min(edge_l_max, out + sender_l) + 1)
        if (edge + sender_l + out) % 2 == 0
    ]


@lru_cache
def geometry_matrix(edge_l_max: int, sender_l: int) -> Floats:
    """G with Y @ G = sum_m1 C[m1, m2, m3] Y_m1 for every path, columns ordered (m2, out degree, m3, path).

    Channel-free: the geometry of all messages of one sender degree. Shape ((edge_l_max+1)², (2·sender_l+1)·rows).
    """
    paths = message_paths(edge_l_max, sender_l)
    blocks = []
    for out in range(edge_l_max + 1):
        ways = [p for p in paths if p.out == out]
        block = np.zeros(((edge_l_max + 1) ** 2, 2 * sender_l + 1, 2 * out + 1, len(ways)))
        for index, path in enumerate(ways):
            block[slots(path.edge), :, :, index] = clebsch_gordan(path.edge, sender_l, out)
        blocks.append(block.reshape(block.shape[0], block.shape[1], -1))
    return np.concatenate(blocks, axis=2).reshape((edge_l_max + 1) ** 2, -1)
