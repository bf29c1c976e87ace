"""Frames that every worker reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from flows.bench.frames import atom_energies, frames_of, labelled, read_graphs, set_file, spread_batches
from flows.bench.peers.workers import frames as plain
from gnn.errors import InputError
from gnn.graphs.graph import Graph, graph_of_atoms

OWN = {1: -1.0, 8: -10.0, 14: -5.0}


def graph(atoms: Atoms, excess: float = 0.25) -> Graph:
    """A graph whose energy is that of its atoms and `excess`, with forces."""
    found = graph_of_atoms(atoms, 4.0)
    energy = sum(OWN[int(z)] for z in atoms.numbers) + excess
    return dataclasses.replace(found, energy=energy, forces=np.full((len(atoms), 3), 0.5))


@pytest.fixture
def graphs() -> list[Graph]:
    return [graph(molecule("H2O"), 0.1), graph(bulk("Si"), 0.2), graph(molecule("H2"), 0.3)]


def test_energies_are_relative_to_the_atoms(graphs: list[Graph]) -> None:
    assert [frame.energy for frame in frames_of(graphs, OWN)] == pytest.approx([0.1, 0.2, 0.3])


def test_fitted_energies_of_atoms() -> None:
    found = atom_energies([graph(molecule("H2O"), 0.0), graph(molecule("H2"), 0.0), graph(bulk("Si"), 0.0)])
    assert found == pytest.approx(OWN)


def test_missing_labels_are_refused(graphs: list[Graph]) -> None:
    with pytest.raises(InputError, match="no forces"):
        frames_of([dataclasses.replace(graphs[0], forces=None)], OWN)
    with pytest.raises(InputError, match="no energy"):
        frames_of([dataclasses.replace(graphs[0], energy=None)])


def test_file_goes_there_and_back(graphs: list[Graph], tmp_path: Path) -> None:
    frames = frames_of(graphs, OWN)
    again = plain.load_frames(plain.save_frames(tmp_path / "frames.npz", frames))
    assert len(again) == len(frames)
    for before, after in zip(frames, again, strict=True):
        for field in dataclasses.fields(plain.Frame):
            assert np.array_equal(getattr(before, field.name), getattr(after, field.name)), field.name


def test_edges_of_joined_frames_are_ours(graphs: list[Graph]) -> None:
    frames = frames_of(graphs, OWN)
    senders, receivers, shifts = plain.joined_edges(frames)
    positions = np.concatenate([frame.positions for frame in frames])
    lengths = np.linalg.norm(positions[senders] - positions[receivers] + shifts, axis=1)
    assert lengths.max() <= 4.0
    assert len(lengths) == sum(len(frame.senders) for frame in frames)
    assert (receivers[1:] >= receivers[:-1]).all()


def test_statistics(graphs: list[Graph]) -> None:
    frames = frames_of(graphs, OWN)
    assert plain.elements_of(frames) == [1, 8, 14]
    assert plain.force_rms(frames) == pytest.approx(0.5)
    assert plain.mean_neighbours(frames) == pytest.approx(sum(g.n_edges for g in graphs) / 7)


def test_targets(graphs: list[Graph]) -> None:
    targets = plain.targets_of(frames_of(graphs, OWN))
    assert targets.energy.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert targets.forces.shape == (7, 3)
    assert targets.n_atoms.tolist() == [3, 2, 2]


def test_atoms_are_the_structure(graphs: list[Graph]) -> None:
    atoms = frames_of(graphs, OWN)[1].atoms()
    assert atoms.pbc.all()
    assert atoms.get_chemical_formula() == "Si2"


def test_isolated_atoms_are_left_out(graphs: list[Graph]) -> None:
    assert labelled([*graphs, graph(Atoms("H"))]) == graphs


def test_batches_are_spread_over_the_set() -> None:
    assert spread_batches(100, 2, 2) == [[0, 50], [25, 75]]
    assert spread_batches(3, 4, 1) == [[0, 0, 1, 2]]
    with pytest.raises(InputError, match="no structures"):
        spread_batches(0, 2, 1)


def test_unknown_set_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose of 3bpa, si"):
        set_file(tmp_path, "qm9")
    with pytest.raises(InputError, match="--data names the folder"):
        set_file(tmp_path, "3bpa")


@pytest.mark.data
def test_real_sets_are_read(real_data: Path) -> None:
    found = read_graphs(real_data, "si", 3.0)
    assert len(found) == 214
    assert all(g.energy is not None and g.forces is not None for g in found)
