"""Graph sets: every row has one role, and the manifest adds up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.files import file_sha256
from gnn.graphs.assembly import own_repeats
from gnn.graphs.graph_set import MANIFEST_NAME, GraphSet
from gnn.graphs.loader import GraphData
from gnn.graphs.preprocess import PreprocessSpec
from gnn.structures.cards import Card, CardProperty


def assert_adds_up(graph_set: GraphSet, n: int):
    assert graph_set.rows_in == n
    assert sum(graph_set.split_counts.values()) + graph_set.reference_rows + sum(graph_set.dropped.values()) == n


def table_of(graph_set, folder):
    return pq.read_table(folder / graph_set.splits_path).to_pandas()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"schema_version": 1', '"schema_version": 2, "more": 1', "has schema version 2, this code reads 1"),
        ('"cutoff"', '"cutof"', "is no graph set"),
        ("}", "", "is no graph set"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_made_anew(workshop, record, old, new, said):
    workshop.append("toy", [record(seed) for seed in range(6)], Card(name="toy", licence="CC0"))
    _, folder = workshop.preprocess("toy", cutoff=4.0)
    manifest = folder / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace(old, new))
    with pytest.raises(InputError, match=f"{said}.*preprocess again") as refused:
        GraphSet.read(folder)
    assert "\n" not in str(refused.value)


def test_the_manifest_of_plain_data(workshop, record):
    records = [record(seed) for seed in range(120)]
    workshop.append("toy", records, Card(name="toy", licence="CC0"))
    graph_set, folder = workshop.preprocess("toy", cutoff=4.0)
    assert_adds_up(graph_set, 120)
    assert graph_set.split_by == "group"
    assert graph_set.inputs[0].licence == "CC0"
    assert graph_set.theories == ["pbe/toy"]
    assert graph_set.elements == ["Ag", "Li", "Mg", "Si"]
    assert graph_set.references["pbe/toy"].energies == pytest.approx({"Li": -2.0, "Mg": -1.5, "Si": -5.5, "Ag": -2.5})
    assert graph_set.statistics.energy_rms == pytest.approx(0.0, abs=1e-9)
    assert GraphSet.read(folder) == graph_set


def test_groups_of_a_split_are_counted(workshop, record):
    """Ten groups of six, and six structures that have none."""
    grouped = [record(seed, group=f"run {seed % 10}") for seed in range(60)]
    workshop.append("toy", grouped + [record(seed) for seed in range(60, 66)])
    by_group, folder = workshop.preprocess("toy", cutoff=4.0)
    assert sum(by_group.split_groups.values()) == 16
    held_out = list(GraphData(workshop.graphs_root, folder).graphs("valid"))
    assert by_group.independent("valid") == len({graph.group or graph.structure_id for graph in held_out})
    by_structure, _ = workshop.preprocess("toy", cutoff=4.0, split_by="structure")
    assert by_structure.split_groups == {}
    assert by_structure.independent("valid") == by_structure.split_counts["valid"]


def test_statistics_are_those_of_the_training_split(workshop, record):
    fixed = np.array([True, False, False])
    records = [record(seed, n_atoms=3, fixed=fixed if seed % 2 else None) for seed in range(60)]
    workshop.append("toy", records)
    graph_set, folder = workshop.preprocess("toy", cutoff=4.0)
    graphs = list(GraphData(workshop.graphs_root, folder).graphs("train"))
    forces = [g.forces if g.fixed is None else g.forces[~g.fixed] for g in graphs]
    found = graph_set.statistics
    assert found.n_structures == len(graphs)
    assert found.force_rms == pytest.approx(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
    assert found.stress_rms == pytest.approx(np.sqrt(np.mean(np.stack([g.stress for g in graphs]) ** 2)))
    assert found.mean_neighbours == pytest.approx(sum(g.n_edges for g in graphs) / sum(g.n_atoms for g in graphs))


def test_the_same_input_gives_the_same_bytes(workshop, record):
    workshop.append("toy", [record(seed) for seed in range(50)])
    one, folder = workshop.preprocess("toy", cutoff=4.0)
    digests = [file_sha256(folder / name) for name in ("graph_set.json", "splits.parquet")]
    other, again = workshop.preprocess("toy", cutoff=4.0)
    assert folder == again
    assert one == other
    assert digests == [file_sha256(folder / name) for name in ("graph_set.json", "splits.parquet")]


@pytest.mark.parametrize("change", [{"seed": 1}, {"cutoff": 4.5}, {"split_by": "structure"}, {"split": {"train": 0.5}}])
def test_another_spec_is_another_set(workshop, record, change):
    workshop.append("toy", [record(seed) for seed in range(50)])
    one, _ = workshop.preprocess("toy", cutoff=4.0)
    other, _ = workshop.preprocess("toy", **{"cutoff": 4.0, **change})
    assert one.graph_set_id != other.graph_set_id


def test_groups_are_on_one_side(workshop, record):
    workshop.append("toy", [record(seed) for seed in range(150)])
    table = table_of(*workshop.preprocess("toy", cutoff=4.0))
    assert (table.groupby("group").role.nunique() == 1).all()
    assert set(table.role) == {"train", "valid", "test"}


def test_free_atoms_are_references_and_never_split(workshop, record, free_atom):
    atoms = [free_atom(3, -0.5), free_atom(14, -0.8), free_atom(14, -0.9, multiplicity=3)]
    workshop.append("toy", [record(seed) for seed in range(40)] + atoms)
    graph_set, folder = workshop.preprocess("toy", cutoff=4.0)
    assert_adds_up(graph_set, 43)
    assert graph_set.reference_rows == 3
    found = graph_set.references["pbe/toy"]
    assert found.energies["Li"] == -0.5
    assert found.energies["Si"] == -0.9
    assert found.source == {"Ag": "fitted", "Li": "isolated", "Mg": "fitted", "Si": "isolated"}
    assert set(found.bonding) == {"Li", "Si"}
    table = table_of(graph_set, folder)
    assert (table[table.role == "reference"].n_atoms == 1).all()


def test_a_periodic_cell_of_one_atom_is_an_ordinary_structure(workshop, record):
    workshop.append("toy", [record(seed, n_atoms=1) for seed in range(30)])
    graph_set, _ = workshop.preprocess("toy", cutoff=6.0)
    assert graph_set.reference_rows == 0
    assert sum(graph_set.split_counts.values()) == 30


def test_wild_forces_and_flags_are_dropped_and_counted(workshop, record):
    wild = [record(100 + i, forces=np.full((2, 3), 200.0), n_atoms=2) for i in range(3)]
    flagged = [record(200, flags=("scf-unconverged",)), record(201, flags=("implausible:gap",))]
    workshop.append("toy", [record(seed) for seed in range(40)] + wild + flagged)
    graph_set, folder = workshop.preprocess("toy", cutoff=4.0)
    assert_adds_up(graph_set, 45)
    assert graph_set.dropped == {"large-force": 3, "scf-unconverged": 1, "implausible": 1}
    assert GraphData(workshop.graphs_root, folder).graph_set.statistics.force_rms < 2


def test_the_outlier_rule_can_be_changed(workshop, record):
    wild = [record(100, forces=np.full((2, 3), 200.0), n_atoms=2)]
    workshop.append("toy", [record(seed) for seed in range(40)] + wild)
    kept, _ = workshop.preprocess("toy", cutoff=4.0, outliers={"max_force": 0, "drop_flags": ()})
    assert kept.dropped == {}
    strict, _ = workshop.preprocess("toy", cutoff=4.0, outliers={"max_force": 0.5})
    assert strict.dropped["large-force"] > 1


def test_rows_without_labels_are_dropped(workshop, record):
    bare = [record(100 + i, energy=None, forces=None, stress=None) for i in range(4)]
    workshop.append("toy", [record(seed) for seed in range(40)] + bare)
    graph_set, _ = workshop.preprocess("toy", cutoff=4.0)
    assert_adds_up(graph_set, 44)
    assert graph_set.dropped == {"unlabelled": 4}


def test_duplicates_across_data_sets_keep_the_first(workshop, record):
    workshop.append("one", [record(seed) for seed in range(30)])
    workshop.append("two", [record(seed, energy=0.0) for seed in range(20, 50)])
    graph_set, folder = workshop.preprocess("one", "two", cutoff=4.0)
    assert_adds_up(graph_set, 60)
    assert graph_set.dropped == {"duplicate-in-other-dataset": 10}
    table = table_of(graph_set, folder)
    assert set(table[table.role == "dropped"].dataset) == {"two"}
    swapped, _ = workshop.preprocess("two", "one", cutoff=4.0)
    assert swapped.graph_set_id != graph_set.graph_set_id


def test_groups_hold_across_data_sets(workshop, record):
    workshop.append("one", [record(seed) for seed in range(60)])
    workshop.append("two", [record(seed) for seed in range(60, 120)])
    table = table_of(*workshop.preprocess("one", "two", cutoff=4.0))
    assert (table.groupby("group").role.nunique() == 1).all()


def test_each_theory_has_its_own_references(workshop, record):
    shift = {"pbe/toy": 0.0, "r2scan/toy": -3.0}
    records = [
        replace(r, theory=theory, energy=r.energy + shift[theory] * r.n_atoms)
        for theory in shift
        for r in (record(seed) for seed in range(40))
    ]
    workshop.append("toy", records)
    graph_set, _ = workshop.preprocess("toy", cutoff=4.0)
    assert graph_set.theories == ["pbe/toy", "r2scan/toy"]
    energies = {theory: found.energies["Si"] for theory, found in graph_set.references.items()}
    assert energies == pytest.approx({"pbe/toy": -5.5, "r2scan/toy": -8.5})
    assert graph_set.statistics.energy_rms == pytest.approx(0.0, abs=1e-9)


def test_free_energies_are_used_where_all_rows_have_them(workshop, record):
    workshop.append("toy", [replace(r, free_energy=r.energy - r.n_atoms) for r in (record(s) for s in range(40))])
    graph_set, _ = workshop.preprocess("toy", cutoff=4.0)
    assert graph_set.energy_kinds == {"pbe/toy": "free_energy"}
    assert graph_set.masked_energies == {}
    assert graph_set.references["pbe/toy"].energies["Si"] == pytest.approx(-6.5)


def test_kinds_of_energy_are_never_mixed_within_a_theory(workshop, record):
    free = [replace(r, free_energy=r.energy - 1, energy=None) for r in (record(seed) for seed in range(40))]
    plain = [record(seed) for seed in range(40, 50)]
    energy_only = [record(seed, forces=None, stress=None) for seed in range(50, 53)]
    workshop.append("toy", free + plain + energy_only)
    graph_set, folder = workshop.preprocess("toy", cutoff=4.0)
    assert_adds_up(graph_set, 53)
    assert graph_set.energy_kinds == {"pbe/toy": "free_energy"}
    assert graph_set.masked_energies == {"pbe/toy": 13}
    assert graph_set.dropped == {"other-energy-kind": 3}
    assert any("10" in note or "13" in note for note in graph_set.notes)
    graphs = [g for split in ("train", "valid", "test") for g in GraphData(workshop.graphs_root, folder).graphs(split)]
    assert sum(graph.energy is None for graph in graphs) == 10
    assert all(graph.forces is not None for graph in graphs)


def test_properties_alone_need_no_energies(workshop, record):
    card = Card(
        name="gaps", properties={"gap": CardProperty(unit="eV"), "mass": CardProperty(unit="u", extensive=True)}
    )
    rows = [
        record(s, energy=None, forces=None, stress=None, n_atoms=4, properties={"gap": s / 10.0, "mass": 8.0})
        for s in range(50)
    ]
    workshop.append("gaps", rows, card)
    graph_set, folder = workshop.preprocess("gaps", cutoff=4.0)
    assert_adds_up(graph_set, 50)
    assert graph_set.references == {}
    assert graph_set.energy_kinds == {}
    assert graph_set.statistics.energy_rms is None
    assert graph_set.statistics.force_rms is None
    assert graph_set.statistics.properties["mass"].mean == 2.0
    assert graph_set.statistics.properties["gap"].n == graph_set.split_counts["train"]
    batch = next(GraphData(workshop.graphs_root, folder).batches("train", 100))
    assert bool(batch.labels.property_masks["gap"].all())
    assert not bool(batch.labels.energy_mask.any())


def test_properties_per_atom(workshop, record):
    card = Card(name="spins", properties={"spin": CardProperty(unit="µB", level="atom")})
    rows = [record(s, n_atoms=3, properties={"spin": [0.0, 1.0, 2.0]} if s % 2 else {}) for s in range(40)]
    workshop.append("spins", rows, card)
    graph_set, _ = workshop.preprocess("spins", cutoff=4.0)
    assert graph_set.statistics.properties["spin"].mean == pytest.approx(1.0)
    assert graph_set.statistics.properties["spin"].n % 3 == 0


def test_undeclared_properties_are_left_out(workshop, record):
    workshop.append("toy", [record(s, properties={"secret": 1.0}) for s in range(40)])
    assert workshop.preprocess("toy", cutoff=4.0)[0].properties == {}


def test_held_out_elements_without_reference_are_dropped(workshop, record):
    one_element = [record(s, numbers=np.full(2, 14), n_atoms=2, group=f"si{s}") for s in range(3)]
    xenon = [record(10 + s, numbers=np.full(2, 54), n_atoms=2, group=f"xe{s}", energy=-1.0) for s in range(2)]
    workshop.append("toy", one_element + xenon)
    dropped = 0
    for seed in range(12):
        graph_set, _ = workshop.preprocess("toy", cutoff=4.0, split={"train": 1, "valid": 2, "test": 2}, seed=seed)
        assert_adds_up(graph_set, 5)
        dropped += graph_set.dropped.get("element-without-reference", 0)
        assert set(graph_set.elements) <= set(graph_set.references["pbe/toy"].energies)
    assert dropped > 0


def test_a_theory_that_is_not_selected_leaves_no_trace(workshop, record):
    other = [record(100, theory="r2scan/toy"), record(101, theory="r2scan/toy", energy=None, free_energy=-1.0)]
    workshop.append("toy", [record(s) for s in range(30)] + other)
    split = {"train": 5, "valid": 2, "test": 2}
    sets = [workshop.preprocess("toy", cutoff=4.0, split=split, split_by="structure", seed=s)[0] for s in range(6)]
    absent = [graph_set for graph_set in sets if "r2scan/toy" not in graph_set.theories]
    assert absent
    for graph_set in absent:
        assert_adds_up(graph_set, 32)
        assert set(graph_set.references) == set(graph_set.energy_kinds) == {"pbe/toy"}
        assert graph_set.masked_energies == {}
        assert graph_set.notes == []


def test_a_theory_whose_only_energy_is_held_out_has_no_references(workshop, record):
    slopes = [record(100 + s, theory="r2scan/toy", energy=None) for s in range(6)]
    workshop.append("toy", [record(s) for s in range(20)] + slopes + [record(200, theory="r2scan/toy")])
    sets = [workshop.preprocess("toy", cutoff=4.0, split_by="structure", seed=s)[0] for s in range(8)]
    held_out = [graph_set for graph_set in sets if graph_set.dropped]
    assert held_out
    for graph_set in held_out:
        assert_adds_up(graph_set, 27)
        assert graph_set.dropped == {"element-without-reference": 1}
        assert graph_set.references["r2scan/toy"].energies == {}


def test_counts_leave_the_rest_out(workshop, record):
    workshop.append("toy", [record(s) for s in range(100)])
    graph_set, _ = workshop.preprocess(
        "toy", cutoff=4.0, split={"train": 50, "valid": 10, "test": 10}, split_by="structure"
    )
    assert graph_set.split_counts == {"train": 50, "valid": 10, "test": 10}
    assert graph_set.dropped == {"not-selected": 30}


def test_nothing_to_train_on_is_said(workshop, free_atom):
    workshop.append("atoms", [free_atom(3, -0.5)])
    with pytest.raises(InputError, match="only references"):
        workshop.preprocess("atoms")


def test_all_elements_from_hydrogen_to_the_actinides(workshop, record):
    rows = [
        record(z, numbers=np.array([z, (z * 7) % 94 + 1]), n_atoms=2, energy=-float(z), group=f"{z % 11}")
        for z in range(1, 95)
    ]
    workshop.append("toy", rows)
    graph_set, _ = workshop.preprocess("toy", cutoff=5.0, split={"train": 1.0})
    assert len(graph_set.elements) == 94
    assert len(graph_set.references["pbe/toy"].energies) == 94


def test_more_data_keep_old_shards(workshop, record, monkeypatch):
    from gnn.graphs import plan

    monkeypatch.setattr(plan, "TARGET_ATOMS", 100)
    monkeypatch.setattr(plan, "LEAST_ATOMS", 25)
    workshop.append("toy", [record(seed) for seed in range(300)])
    workshop.preprocess("toy", cutoff=3.0)
    before = set(workshop.built)
    workshop.append("toy", [record(seed) for seed in range(303)])
    graph_set, _ = workshop.preprocess("toy", cutoff=3.0)
    assert_adds_up(graph_set, 303)
    assert len(before) > 10
    assert len(set(workshop.built) - before) <= 2


def test_a_data_set_named_twice_is_refused():
    with pytest.raises(InputError, match="twice"):
        PreprocessSpec(datasets=("a", "a@3")).checked()


@pytest.mark.parametrize("split_by", ["group", "structure"])
def test_a_structure_at_two_levels_of_theory_is_on_one_side(workshop, record, split_by):
    one = [record(seed, group=f"one-{seed % 12}") for seed in range(40)]
    other = [replace(r, theory="r2scan/toy", energy=r.energy + 1.0, group=f"other-{i}") for i, r in enumerate(one[:30])]
    workshop.append("one", one)
    workshop.append("other", other + [record(seed, group=None, theory="r2scan/toy") for seed in range(50, 60)])
    graph_set, folder = workshop.preprocess("one", "other", split_by=split_by, cutoff=4.0)
    assert_adds_up(graph_set, 80)
    assert all(graph_set.split_counts.values())
    role = table_of(graph_set, folder).set_index("structure_id").role
    assert all(role[a.structure_id] == role[b.structure_id] for a, b in zip(one, other, strict=False))


@pytest.mark.parametrize("split_by", ["group", "structure"])
def test_a_structure_with_two_charges_is_on_one_side_and_told(workshop, record, split_by):
    neutral = [replace(record(seed, group=f"neutral-{seed % 12}"), total_charge=0) for seed in range(40)]
    cations = [replace(r, total_charge=1, energy=r.energy + 7.0, group=f"cation-{i}") for i, r in enumerate(neutral)]
    workshop.append("ions", neutral + cations)
    graph_set, folder = workshop.preprocess("ions", split_by=split_by, cutoff=4.0)
    assert all(graph_set.split_counts.values())
    role = table_of(graph_set, folder).set_index("structure_id").role
    assert all(role[a.structure_id] == role[b.structure_id] for a, b in zip(neutral, cations, strict=True))
    assert "40 of 80 structures are charged, of which networks know nothing" in graph_set.notes


def test_an_ion_is_no_reference(workshop, record, free_atom):
    atoms = [free_atom(14, -0.5), free_atom(14, -1.9, total_charge=-1)]
    workshop.append("toy", [record(seed) for seed in range(40)] + atoms)
    graph_set, _ = workshop.preprocess("toy", cutoff=4.0)
    assert_adds_up(graph_set, 42)
    assert graph_set.references["pbe/toy"].energies["Si"] == pytest.approx(-0.5)
    assert (graph_set.reference_rows, graph_set.dropped) == (1, {"charged-atom": 1})


def test_helpers_are_only_trained_on_and_do_not_move_the_split(workshop, record):
    own = [record(seed, group=None) for seed in range(40)]
    workshop.append("own", own)
    split = {"train": 25, "valid": 5, "test": 10}
    alone, folder = workshop.preprocess("own", split=split, cutoff=4.0)
    roles = table_of(alone, folder).set_index("structure_id").role
    copies = [replace(r, theory="xtb/toy", energy=r.energy + 1.0) for r in own[:20]]
    near = [record(seed, group=None, theory="xtb/toy") for seed in range(100, 160)]
    workshop.append("xtb", copies + near)
    helped, folder = workshop.preprocess("own", helpers=("xtb",), helper_share=0.7, split=split, cutoff=4.0)
    assert_adds_up(helped, 120)
    table = table_of(helped, folder)
    with_help = table[table.dataset == "own"].set_index("structure_id").role
    assert with_help.to_dict() == roles.to_dict()
    assert set(table[(table.dataset == "xtb") & (table.role != "dropped")].role) == {"train"}
    held_out = sum(roles[r.structure_id] in ("valid", "test") for r in own[:20])
    assert helped.dropped == {"shows-what-is-held-out": held_out}
    assert held_out > 0
    assert helped.helpers == {"xtb": 80 - held_out}
    assert (helped.n_own, helped.repeats, helped.pass_size) == (25, 2, 130 - held_out)
    assert helped.theories == ["pbe/toy", "xtb/toy"]
    assert helped.helper_theories == ["xtb/toy"]
    assert helped.graph_set_id != alone.graph_set_id


def test_what_a_helper_knows_of_groups_that_are_held_out_is_dropped(workshop, record):
    workshop.append("own", [record(seed, group=f"g{seed % 8}") for seed in range(40)])
    workshop.append("xtb", [record(seed, group=f"g{seed % 9}", theory="xtb/toy") for seed in range(100, 190)])
    graph_set, folder = workshop.preprocess("own", helpers=("xtb",), cutoff=4.0)
    table = table_of(graph_set, folder)
    held_out = set(table[table.role.isin(["valid", "test"])].group)
    assert held_out
    helping = table[(table.dataset == "xtb") & (table.role == "train")]
    assert not held_out & set(helping.group)
    assert graph_set.dropped == {"shows-what-is-held-out": 10 * len(held_out)}
    assert graph_set.helpers == {"xtb": len(helping)}


def test_a_data_set_is_not_its_own_helper(workshop):
    with pytest.raises(InputError, match="toy, toy@1: a data set is named twice"):
        PreprocessSpec(datasets=("toy",), helpers=("toy@1",)).checked()


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 500), st.integers(0, 20_000), st.floats(0.05, 0.95))
def test_helpers_make_no_more_than_their_share(n_own, n_helping, share):
    repeats = own_repeats(n_own, n_helping, share)
    part = n_helping / (n_helping + repeats * n_own)
    assert part <= share + 1e-9
    if repeats > 1:
        assert n_helping / (n_helping + (repeats - 1) * n_own) > share - 1e-9
