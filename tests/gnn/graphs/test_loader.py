"""The loader: every structure once an epoch, within limits, the same for the same seed, in bounded memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.graphs import loader
from gnn.graphs.loader import GraphData, pack


@pytest.fixture(scope="module")
def data(toy_set):
    return GraphData(*toy_set)


def seen(batches):
    """A fingerprint of every structure of each batch, in order."""
    return [tuple(batch.labels.stress[:, 0].tolist()) for batch in batches]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120), st.integers(1, 500) | st.none())
def test_packs_hold_everything_in_order_within_limits(sizes, max_atoms, max_edges):
    n_atoms = np.array(sizes, dtype=np.int32)
    n_edges = n_atoms * 7
    runs = pack(n_atoms, n_edges, max_atoms, max_edges)
    assert [index for start, stop in runs for index in range(start, stop)] == list(range(len(sizes)))
    for start, stop in runs:
        fits = n_atoms[start:stop].sum() <= max_atoms and (max_edges is None or n_edges[start:stop].sum() <= max_edges)
        assert fits or stop - start == 1


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_structure_comes_once(data, split, shuffle):
    batches = list(data.batches(split, max_atoms=40, seed=3, epoch=1, shuffle=shuffle))
    assert sum(batch.n_structures for batch in batches) == data.count(split) == data.graph_set.split_counts[split]
    assert len({value for batch in seen(batches) for value in batch}) == data.count(split)
    assert all(batch.n_atoms.sum() <= 40 for batch in batches)


def test_limits_on_edges_hold(data):
    for batch in data.batches("train", max_atoms=1000, max_edges=300):
        assert len(batch.senders) <= 300 or batch.n_structures == 1


def test_the_same_seed_and_epoch_give_the_same_bits(toy_set):
    one, other = (list(GraphData(*toy_set).batches("train", 64, seed=5, epoch=2)) for _ in range(2))
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.positions, b.positions)
        assert torch.equal(a.senders, b.senders)
        assert torch.equal(a.labels.forces, b.labels.forces)


def test_epochs_and_seeds_differ(data):
    orders = [seen(data.batches("train", 64, seed=s, epoch=e)) for s, e in [(0, 0), (0, 1), (1, 0)]]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_without_shuffling_the_order_is_that_of_the_set(data):
    batches = data.batches("valid", 64, shuffle=False)
    energies = [energy for batch in batches for energy in batch.labels.energy.tolist()]
    assert energies == [graph.energy for graph in data.graphs("valid")]


def test_a_start_skips_what_was_seen(data):
    whole = seen(data.batches("train", 64, seed=1, epoch=4))
    assert seen(data.batches("train", 64, seed=1, epoch=4, start=3)) == whole[3:]
    assert len(data.plan("train", 64, seed=1, epoch=4)) == len(whole)


def test_neither_cache_nor_window_change_what_comes(toy_set, monkeypatch):
    rich = seen(GraphData(*toy_set).batches("train", 64, seed=7))
    poor_data = GraphData(*toy_set, cache_bytes=1)
    assert seen(poor_data.batches("train", 64, seed=7)) == rich
    assert len(poor_data._blocks._blocks) == 1
    monkeypatch.setattr(loader, "WINDOW_EDGES", 500)
    windowed = list(GraphData(*toy_set).batches("train", 64, seed=7))
    assert sum(batch.n_structures for batch in windowed) == poor_data.count("train")


def test_a_small_set_is_read_once(toy_set, monkeypatch):
    data = GraphData(*toy_set)
    list(data.batches("train", 64))
    monkeypatch.setattr(loader.ShardReader, "batch", lambda *_: pytest.fail("read again"))
    list(data.batches("train", 64, epoch=1))


def test_an_empty_split_has_no_batches(workshop, record):
    workshop.append("toy", [record(seed) for seed in range(20)])
    _, folder = workshop.preprocess("toy", cutoff=3.0, split={"train": 1.0})
    data = GraphData(workshop.graphs_root, folder)
    assert list(data.batches("test", 64)) == []
    assert list(data.graphs("valid")) == []


def test_a_missing_shard_or_set_is_said(workshop, record):
    with pytest.raises(InputError, match="sluice preprocess"):
        GraphData(workshop.graphs_root, workshop.graphs_root / "none")
    workshop.append("toy", [record(seed) for seed in range(20)])
    graph_set, folder = workshop.preprocess("toy", cutoff=3.0)
    (workshop.graphs_root / graph_set.shards[0].path).unlink()
    with pytest.raises(InputError, match="is missing"):
        GraphData(workshop.graphs_root, folder)


@pytest.mark.parametrize("limits", [{"max_atoms": 0}, {"max_atoms": 5, "max_edges": 0}])
def test_limits_that_hold_nothing_are_refused(data, limits):
    with pytest.raises(InputError, match="holds nothing"):
        list(data.batches("train", **limits))


def test_the_chosen_kind_of_energy_is_what_comes(workshop, record):
    rows = [record(seed, free_energy=-100.0 - seed) for seed in range(30)] + [record(seed) for seed in range(30, 40)]
    workshop.append("toy", rows)
    graph_set, folder = workshop.preprocess("toy", cutoff=3.0, split={"train": 1.0}, outliers={"max_force": None})
    assert graph_set.energy_kinds == {"pbe/toy": "energy"}
    data = GraphData(workshop.graphs_root, folder)
    assert all(graph.energy == graph.kinds["energy"] for graph in data.graphs("train"))


def test_a_pass_of_training_shows_what_no_helper_brings_more_often(workshop, record):
    workshop.append("own", [record(seed, group=None) for seed in range(30)])
    workshop.append("xtb", [record(seed, group=None, theory="xtb/toy") for seed in range(100, 220)])
    graph_set, folder = workshop.preprocess(
        "own", helpers=("xtb",), helper_share=0.6, split={"train": 20, "valid": 5, "test": 5}, cutoff=4.0
    )
    data = GraphData(workshop.graphs_root, folder)
    of_xtb = graph_set.theories.index("xtb/toy")

    def shown(**options):
        theories = [batch.theory for batch in data.batches("train", 60, seed=1, **options)]
        return Counter(int(theory) for batch in theories for theory in batch)

    assert graph_set.repeats == 4  # 120 helpers are 60 % beside 80 of our own
    once = shown(shuffle=False)
    often = shown(epoch=3)
    assert often[of_xtb] == once[of_xtb]
    assert often[1 - of_xtb] == 4 * once[1 - of_xtb]
    batches = list(data.batches("train", 60, seed=1, epoch=3))
    assert sum(batch.n_structures for batch in batches) == graph_set.pass_size == 200
    fingerprints = Counter(value for batch in seen(batches) for value in batch)
    assert sorted(Counter(fingerprints.values()).items()) == [(1, 120), (4, 20)]
    assert sum(batch.n_structures for batch in data.batches("valid", 60)) == 5
    assert shown(epoch=3, helpers=False) == {1 - of_xtb: 200}  # as long a pass, of the 20 alone
