"""Any structure with any labels, written by ASE and read here: the same numbers, whatever the format."""

from __future__ import annotations

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gnn.structures.cards import Card, Columns, StressRule, Units, generic_card
from gnn.structures.readers import read_records
from gnn.structures.units import ENERGY_UNITS, LENGTH_UNITS, STRESS_UNITS, VOIGT_ORDERS

moderate = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
numbers = st.floats(-20, 20)


@st.composite
def labelled(draw):
    n = draw(st.integers(1, 5))
    cell = draw(arrays(float, (3, 3), elements=st.floats(-1, 1))) + np.diag([5.0, 6.0, 7.0])
    periodic = draw(st.booleans())
    atoms = Atoms(
        draw(st.lists(st.integers(1, 90), min_size=n, max_size=n)),
        positions=draw(arrays(float, (n, 3), elements=numbers)),
        cell=cell if periodic else None,
        pbc=periodic,
    )
    results = {"energy": draw(numbers), "forces": draw(arrays(float, (n, 3), elements=numbers))}
    if periodic and draw(st.booleans()):
        results["stress"] = draw(arrays(float, 6, elements=st.floats(-1, 1)))
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@moderate
@given(atoms=labelled(), form=st.sampled_from(["extxyz", "traj", "db"]), data=st.data())
def test_formats_of_ase(tmp_path_factory, atoms, form, data):
    suffix = "xyz" if form == "extxyz" else form
    path = tmp_path_factory.mktemp("round") / f"a.{suffix}"
    ase.io.write(path, atoms, format=form)
    (record,) = read_records(path, generic_card("x", "t"))
    assert record.numbers.tolist() == atoms.numbers.tolist()
    assert np.allclose(record.positions, atoms.positions, atol=1e-7)
    assert np.allclose(record.cell, atoms.cell[:], atol=1e-7) and record.pbc.tolist() == atoms.pbc.tolist()
    assert np.isclose(record.energy, atoms.calc.results["energy"])
    assert np.allclose(record.forces, atoms.calc.results["forces"], atol=1e-7)
    stress = atoms.calc.results.get("stress")
    assert (record.stress is None) == (stress is None)
    if stress is not None:
        assert np.allclose(record.stress, stress, atol=1e-7)


@moderate
@given(
    atoms=labelled(),
    energy=st.sampled_from(sorted(ENERGY_UNITS)),
    length=st.sampled_from(sorted(LENGTH_UNITS)),
    stress=st.sampled_from(sorted(STRESS_UNITS)),
    sign=st.sampled_from(["tension", "compression"]),
    order=st.sampled_from(sorted(VOIGT_ORDERS)),
    per_atom=st.booleans(),
)
def test_any_units_sign_and_order(tmp_path_factory, atoms, energy, length, stress, sign, order, per_atom):
    """The same atoms told in other units, by a card that says so, are the same record."""
    import json

    results, scale = atoms.calc.results, LENGTH_UNITS[length]
    ase_order = VOIGT_ORDERS["ase"]
    entry = {
        "atoms": {
            "cell": (atoms.cell[:] / scale).tolist(),
            "symbols": atoms.get_chemical_symbols(),
            "positions": (atoms.positions / scale).tolist(),
            "pbc": atoms.pbc.tolist(),
        },
        "e": results["energy"] / ENERGY_UNITS[energy] / (len(atoms) if per_atom else 1),
        "f": (results["forces"] / ENERGY_UNITS[energy] * scale).tolist(),
    }
    if "stress" in results:
        told = results["stress"] / STRESS_UNITS[stress] * (-1 if sign == "compression" else 1)
        entry["s"] = [told[ase_order.index(name)] for name in VOIGT_ORDERS[order]]
    path = tmp_path_factory.mktemp("units") / "a.json"
    path.write_text(json.dumps([entry]))
    card = Card(
        name="x",
        theory="t",
        energy_is="per_atom" if per_atom else "total",
        units=Units(energy=energy, length=length, forces=f"{energy}/{length}", stress=stress),
        stress=StressRule(sign=sign, order=order),
        columns=Columns(energy="e", forces="f", stress="s"),
    )
    (record,) = read_records(path, card)
    assert np.allclose(record.positions, atoms.positions, atol=1e-9)
    assert np.allclose(record.cell, atoms.cell[:], atol=1e-9)
    assert np.isclose(record.energy, results["energy"])
    assert np.allclose(record.forces, results["forces"], atol=1e-9)
    if "stress" in results:
        assert np.allclose(record.stress, results["stress"], atol=1e-9)
