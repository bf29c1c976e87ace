"""Which products of the density to form: a complete, independent set of couplings to order 3, only non-zero terms."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import block_array, coo_array
from scipy.sparse.csgraph import connected_components

from gnn.models.coupling import clebsch_gordan, slots

SMALL_BLOCK = 6
"""Blocks with fewer products than this are multiplied as one."""
Polynomial = dict[tuple[int, ...], float]
"""Coefficients of monomials, a monomial being its sorted component indices."""


@dataclass(frozen=True)
class PairTerms:
    """Bilinear forms: out = matrix @ (x[left] * y[right]); left, right (P,) int64, matrix (O, P).

    Rows and products are sorted so that the matrix is block diagonal: `blocks` are its (rows, columns).
    """

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    matrix: NDArray[np.float64]
    blocks: tuple[tuple[slice, slice], ...]


@dataclass(frozen=True)
class ProductPlan:
    """Couplings of a density with components (l, m) to features of some degrees from 0.

    pairs: the density with itself to the rows of order 2 (None for order 1); triples: those rows (`left`) with the
    density (`right`) to the rows of order 3 (None below order 3).
    ways[nu - 1][L]: how many independent couplings of order nu give degree L.
    used[nu - 1]: their rows among the density, the pair rows or the triple rows, ordered (L, coupling, m).
    """

    pairs: PairTerms | None
    triples: PairTerms | None
    ways: tuple[tuple[int, ...], ...]
    used: tuple[NDArray[np.int64], ...]

    @property
    def n_ways(self) -> int:
        """Independent couplings of all orders and degrees: the weights a channel has."""
        return sum(sum(order) for order in self.ways)


@dataclass(frozen=True)
class _Pair:
    """Density degrees a <= b coupled to degree `out`."""

    a: int
    b: int
    out: int


@dataclass(frozen=True)
class _Triple:
    """A pair coupled with density degree c to degree `out`."""

    pair: _Pair
    c: int
    out: int


def _pair_candidates(l_max: int) -> list[_Pair]:
    """All non-zero couplings of the density with itself; of equal degrees only the symmetric ones."""
    return [
        _Pair(a, b, out)
        for a in range(l_max + 1)
        for b in range(a, l_max + 1)
        for out in range(b - a, min(l_max, a + b) + 1)
        if a != b or out % 2 == 0
    ]


def _pair_rows(pair: _Pair) -> list[Polynomial]:
    """The 2·out + 1 quadratic polynomials of a coupling."""
    table = clebsch_gordan(pair.a, pair.b, pair.out)
    rows: list[Polynomial] = []
    for m in range(2 * pair.out + 1):
        row: Polynomial = defaultdict(float)
        for i, j in zip(*np.nonzero(table[:, :, m]), strict=True):
            first, second = sorted((slots(pair.a)[int(i)], slots(pair.b)[int(j)]))
            row[(first, second)] += float(table[i, j, m])
        rows.append({key: value for key, value in row.items() if abs(value) > 1e-12})
    return rows


def _triple_polynomial(triple: _Triple) -> Polynomial:
    """The m = 0 component as a cubic polynomial: by Schur's lemma it decides independence."""
    rows = _pair_rows(triple.pair)
    table = clebsch_gordan(triple.pair.out, triple.c, triple.out)[:, :, triple.out]
    total: Polynomial = defaultdict(float)
    for i, j in zip(*np.nonzero(table), strict=True):
        for key, value in rows[int(i)].items():
            total[tuple(sorted((*key, slots(triple.c)[int(j)])))] += value * float(table[i, j])
    return total


def _cost(triple: _Triple, hidden_l_max: int) -> tuple[bool, int]:
    """Cheap first: pairs that order 2 forms anyway, then few products."""
    pair = triple.pair
    reused = pair.out <= hidden_l_max and (pair.a + pair.b + pair.out) % 2 == 0
    products = int(np.count_nonzero(clebsch_gordan(pair.out, triple.c, triple.out)))
    return not reused, products + int(np.count_nonzero(clebsch_gordan(pair.a, pair.b, pair.out)))


def _independent(candidates: list[_Triple]) -> list[_Triple]:
    """The first maximal set of candidates with linearly independent polynomials."""
    polynomials = [_triple_polynomial(candidate) for candidate in candidates]
    monomials = {key: index for index, key in enumerate(sorted({k for p in polynomials for k in p}))}
    basis = np.zeros((0, len(monomials)))
    chosen = []
    for candidate, polynomial in zip(candidates, polynomials, strict=True):
        vector = np.zeros(len(monomials))
        for key, value in polynomial.items():
            vector[monomials[key]] = value
        rest = vector - basis.T @ (basis @ vector)
        if np.linalg.norm(rest) > 1e-8 * max(1.0, float(np.linalg.norm(vector))):
            basis = np.vstack([basis, rest / np.linalg.norm(rest)])
            chosen.append(candidate)
    return chosen


def _triples(l_max: int, hidden_l_max: int) -> list[_Triple]:
    """Independent couplings of three densities to true tensors of degree 0..hidden_l_max."""
    chosen = []
    for out in range(hidden_l_max + 1):
        candidates = [
            _Triple(pair, c, out)
            for pair in _pair_candidates(l_max)
            for c in range(abs(pair.out - out), min(l_max, pair.out + out) + 1)
            if (pair.a + pair.b + c + out) % 2 == 0
        ]
        chosen += _independent(sorted(candidates, key=lambda t: _cost(t, hidden_l_max)))
    return chosen


def _components(matrix: NDArray[np.float64]) -> list[tuple[list[int], list[int]]]:
    """Rows and columns of each block that the matrix falls into; blocks of few columns are put together."""
    n_rows = matrix.shape[0]
    links = coo_array((np.ones(np.count_nonzero(matrix)), np.nonzero(matrix)), shape=matrix.shape)
    graph = block_array([[None, links], [links.T, None]])
    number, label = connected_components(graph, directed=False)
    found = [
        (np.flatnonzero(label[:n_rows] == k).tolist(), np.flatnonzero(label[n_rows:] == k).tolist())
        for k in range(number)
    ]
    small = [block for block in found if len(block[1]) < SMALL_BLOCK]
    joined = [(sorted(i for b in small for i in b[0]), sorted(i for b in small for i in b[1]))] if small else []
    return joined + [block for block in found if len(block[1]) >= SMALL_BLOCK]


def _sorted_terms(rows: list[Polynomial]) -> tuple[PairTerms, NDArray[np.int64]]:
    """Bilinear rows as block-diagonal terms, and where each row has gone."""
    left, right, matrix = _terms(rows)
    components = _components(matrix)
    row_order = np.array([row for block, _ in components for row in block])
    order = np.array([column for _, block in components for column in block])
    starts = np.cumsum([(0, 0)] + [(len(a), len(b)) for a, b in components], axis=0)
    blocks = tuple(
        (slice(*r), slice(*c))
        for r, c in zip(pairwise(starts[:, 0].tolist()), pairwise(starts[:, 1].tolist()), strict=True)
    )
    return PairTerms(left[order], right[order], matrix[np.ix_(row_order, order)], blocks), np.argsort(row_order)


def _terms(rows: list[Polynomial]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Bilinear rows as one list of distinct products (left, right) and a matrix."""
    keys = sorted({key for row in rows for key in row})
    position = {key: index for index, key in enumerate(keys)}
    matrix = np.zeros((len(rows), len(keys)))
    for number, row in enumerate(rows):
        for key, value in row.items():
            matrix[number, position[key]] = value
    left, right = (np.array([key[side] for key in keys], dtype=np.int64) for side in (0, 1))
    return left, right, matrix


def _triple_rows(triple: _Triple, pair_rows: list[int]) -> list[Polynomial]:
    """A coupling as products of its pair's rows with density components."""
    table = clebsch_gordan(triple.pair.out, triple.c, triple.out)
    return [
        {
            (pair_rows[int(i)], slots(triple.c)[int(j)]): float(table[i, j, m])
            for i, j in zip(*np.nonzero(table[:, :, m]), strict=True)
        }
        for m in range(2 * triple.out + 1)
    ]


@lru_cache
def product_plan(l_max: int, hidden_l_max: int, correlation: int) -> ProductPlan:
    """The plan of all products to order `correlation` (1, 2, 3)."""
    degrees = range(hidden_l_max + 1)
    ways, used = [tuple(1 for _ in degrees)], [np.arange((hidden_l_max + 1) ** 2)]
    if correlation == 1:
        return ProductPlan(None, None, tuple(ways), tuple(used))
    even = [p for p in _pair_candidates(l_max) if p.out <= hidden_l_max and (p.a + p.b + p.out) % 2 == 0]
    kept = sorted(even, key=lambda pair: pair.out)
    triples = _triples(l_max, hidden_l_max) if correlation == 3 else []
    pairs = list(dict.fromkeys(kept + [triple.pair for triple in triples]))
    quadratic, place = _sorted_terms([row for pair in pairs for row in _pair_rows(pair)])
    ways.append(tuple(sum(pair.out == degree for pair in kept) for degree in degrees))
    used.append(place[: sum(2 * pair.out + 1 for pair in kept)])
    if correlation == 2:
        return ProductPlan(quadratic, None, tuple(ways), tuple(used))
    ends = np.cumsum([2 * pair.out + 1 for pair in pairs])
    rows_of = dict(zip(pairs, np.split(place, ends[:-1]), strict=True))
    cubic, place = _sorted_terms([row for t in triples for row in _triple_rows(t, rows_of[t.pair].tolist())])
    ways.append(tuple(sum(triple.out == degree for triple in triples) for degree in degrees))
    return ProductPlan(quadratic, cubic, tuple(ways), (*used, place))
