"""Splits: deterministic, disjoint by group, close to what was asked."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.errors import InputError
from gnn.graphs.graph_set import SPLITS
from gnn.graphs.splits import DEFAULT_SHARES, assign_splits, keep_frozen, parse_shares


def keys_of(groups):
    return [f"k{i}" for i in range(len(groups))]


def sizes_to_groups(sizes):
    return [f"g{number}" for number, size in enumerate(sizes) for _ in range(size)]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=3, max_size=60), st.integers(0, 10**6))
def test_groups_stay_together_and_every_split_gets_something(sizes, seed):
    groups = sizes_to_groups(sizes)
    found = assign_splits(keys_of(groups), groups, DEFAULT_SHARES, seed)
    if found.split_by == "group":
        sides = {}
        for group, split in zip(groups, found.splits, strict=True):
            sides.setdefault(group, set()).add(split)
        assert all(len(side) == 1 for side in sides.values())
        assert all(found.counts().values())
    assert sum(found.counts().values()) == len(groups)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=20, max_size=80), st.integers(0, 10**6))
def test_counts_are_near_the_shares(sizes, seed):
    groups = sizes_to_groups(sizes)
    counts = assign_splits(keys_of(groups), groups, DEFAULT_SHARES, seed).counts()
    assert abs(counts["test"] - 0.1 * len(groups)) <= 5
    assert abs(counts["valid"] - 0.1 * len(groups)) <= 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=3, max_size=30), st.integers(0, 99), st.randoms())
def test_the_order_of_the_rows_does_not_matter(sizes, seed, shuffler: random.Random):
    groups = sizes_to_groups(sizes)
    keys = keys_of(groups)
    one = dict(zip(keys, assign_splits(keys, groups, DEFAULT_SHARES, seed).splits, strict=True))
    order = list(range(len(keys)))
    shuffler.shuffle(order)
    other = assign_splits([keys[i] for i in order], [groups[i] for i in order], DEFAULT_SHARES, seed)
    assert {keys[i]: split for i, split in zip(order, other.splits, strict=True)} == one


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 300), st.data())
def test_counts_of_single_structures_are_exact(n, data):
    test = data.draw(st.integers(0, n // 3))
    valid = data.draw(st.integers(0, n // 3))
    train = data.draw(st.integers(2, max(2, n - test - valid)))
    if train + test + valid > n:
        train = n - test - valid
    shares = {"train": train, "valid": valid, "test": test}
    found = assign_splits([f"k{i}" for i in range(n)], [None] * n, shares if max(shares.values()) > 1 else {"train": 1})
    if max(shares.values()) > 1:
        assert found.counts() == shares
        assert found.splits.count(None) == n - train - valid - test


def test_counts_by_group_are_exact_where_a_rest_may_be_left_out():
    groups = sizes_to_groups([10] * 20)
    found = assign_splits(keys_of(groups), groups, {"train": 100, "valid": 25, "test": 25})
    assert found.counts() == {"train": 100, "valid": 25, "test": 25}
    assert found.note is None
    sides = {
        group: {s for g, s in zip(groups, found.splits, strict=True) if g == group} - {None} for group in set(groups)
    }
    assert all(len(side) <= 1 for side in sides.values())


def test_counts_by_group_that_cannot_be_met_are_told():
    groups = sizes_to_groups([7] * 10)
    found = assign_splits(keys_of(groups), groups, {"train": 50, "valid": 10, "test": 10})
    assert sum(found.counts().values()) >= 50
    assert "structure" in found.note


def test_a_part_of_the_data_may_be_asked_for():
    found = assign_splits(list(range(1000)), [None] * 1000, {"train": 0.2, "test": 0.1})
    assert found.counts() == {"train": 200, "valid": 0, "test": 100}


def test_one_trajectory_is_split_by_structure_and_said_so():
    found = assign_splits(list(range(50)), ["one"] * 50)
    assert found.split_by == "structure"
    assert "1 group" in found.note
    assert found.counts() == {"train": 40, "valid": 5, "test": 5}


def test_no_groups_fall_back_to_structures_and_say_so():
    found = assign_splits(list(range(50)), [None] * 50)
    assert found.split_by == "structure"
    assert "no groups" in found.note


def test_three_groups_fill_three_splits():
    groups = sizes_to_groups([60, 30, 10])
    found = assign_splits(keys_of(groups), groups)
    assert found.split_by == "group"
    assert all(found.counts().values())
    assert found.counts()["train"] >= 30


def test_the_seed_draws_other_splits():
    one, other = (assign_splits(list(range(200)), [None] * 200, seed=seed).splits for seed in (0, 1))
    assert one != other
    assert one == assign_splits(list(range(200)), [None] * 200, seed=0).splits


def test_more_data_move_few_old_structures():
    before = assign_splits(list(range(1000)), [None] * 1000).splits
    after = assign_splits(list(range(1010)), [None] * 1010).splits[:1000]
    assert sum(one != other for one, other in zip(before, after, strict=True)) < 20


def test_nothing_gives_nothing():
    assert assign_splits([], []).splits == []


@pytest.mark.parametrize(
    ("text", "shares"),
    [("train=450,valid=50", {"train": 450, "valid": 50}), ("train=0.9, test=0.1", {"train": 0.9, "test": 0.1})],
)
def test_shares_are_parsed(text, shares):
    assert parse_shares(text) == shares
    assert set(shares) <= set(SPLITS)


def test_one_of_each_is_a_count_and_one_alone_is_all():
    three = parse_shares("train=1,valid=1,test=1")
    assert sorted(assign_splits([1, 2, 3], [None] * 3, three).splits) == ["test", "train", "valid"]
    assert assign_splits([1, 2, 3], [None] * 3, parse_shares("train=1")).splits == ["train"] * 3


@pytest.mark.parametrize(
    "text",
    ["train", "train=a", "train=0.9,train=0.1", "training=0.9", "train=0.9,valid=0.2", "valid=0.5", "train=-1",
     "train=100,valid=0.1", "train=nan"],
)  # fmt: skip
def test_bad_shares_are_refused(text):
    with pytest.raises(InputError):
        parse_shares(text)


def test_asking_for_more_than_there_is_is_refused():
    with pytest.raises(InputError, match=r"asks for 60 .* have 50"):
        assign_splits(list(range(50)), [None] * 50, {"train": 50, "valid": 10})


def test_a_group_that_alone_holds_an_element_is_trained_on():
    groups = sizes_to_groups([5] * 12)
    contents = [["Si"] + (["Xe"] if group == "g3" else []) + (["Kr"] if group == "g7" else []) for group in groups]
    for seed in range(20):
        found = assign_splits(
            keys_of(groups), groups, {"train": 0.5, "valid": 0.25, "test": 0.25}, seed, "group", contents
        )
        assert {s for g, s in zip(groups, found.splits, strict=True) if g in ("g3", "g7")} == {"train"}


def test_where_every_group_is_alone_with_something_the_splits_are_filled_all_the_same():
    groups = sizes_to_groups([5] * 10)
    found = assign_splits(keys_of(groups), groups, DEFAULT_SHARES, 0, "group", [[group] for group in groups])
    assert found.counts() == {"train": 40, "valid": 5, "test": 5}


def test_the_last_holder_of_an_element_stays_in_training():
    groups = sizes_to_groups([5] * 12)
    contents = [["Si", "Xe"] if group in ("g1", "g4") else ["Si"] for group in groups]
    for seed in range(20):
        found = assign_splits(
            keys_of(groups), groups, {"train": 0.4, "valid": 0.3, "test": 0.3}, seed, "group", contents
        )
        assert "train" in {s for g, s in zip(groups, found.splits, strict=True) if g in ("g1", "g4")}


def test_counts_are_exact_even_of_last_holders():
    found = assign_splits(list(range(10)), [None] * 10, {"train": 5, "valid": 5}, contents=[[i] for i in range(10)])
    assert found.counts() == {"train": 5, "valid": 5, "test": 0}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=4, max_size=40), st.integers(0, 10**6), st.data())
def test_what_is_to_be_trained_on_is_with_its_groups(sizes, seed, data):
    groups = sizes_to_groups(sizes)
    keys = keys_of(groups)
    trained = frozenset(data.draw(st.lists(st.sampled_from(keys), max_size=len(sizes) - 3)))
    stay = {group for key, group in zip(keys, groups, strict=True) if key in trained}
    found = assign_splits(keys, groups, seed=seed, trained=trained)
    if found.split_by == "group":
        assert all(s == "train" for group, s in zip(groups, found.splits, strict=True) if group in stay)
    assert all(s == "train" for key, s in zip(keys, found.splits, strict=True) if key in trained)
    assert all(found.counts().values())


def test_what_stays_in_training_leaves_groups_for_both_other_splits():
    groups = sizes_to_groups([1] * 8 + [9, 9])
    keys = keys_of(groups)
    trained = frozenset(keys[i] for i in (0, 1, 2, 3, 4, 8, 17))
    for seed in range(20):
        counts = assign_splits(keys, groups, seed=seed, trained=trained).counts()
        assert counts["train"] >= 23
        assert counts["valid"] > 0
        assert counts["test"] > 0


def test_where_all_is_to_be_trained_on_nothing_is_held_out():
    keys = keys_of(["a", "a", "b", "c"])
    assert assign_splits(keys, ["a", "a", "b", "c"], trained=frozenset(keys)).counts()["train"] == 4


def test_exact_counts_cut_what_need_not_stay():
    groups = sizes_to_groups([3, 3, 3, 3])
    keys = keys_of(groups)
    shares = {"train": 4, "valid": 3, "test": 3}
    found = assign_splits(keys, groups, shares, trained=frozenset(keys[9:]))
    assert [found.splits[index] for index in (9, 10, 11)] == ["train"] * 3


def test_many_structures_of_one_element_are_split():
    n = 30_000
    found = assign_splits(list(range(n)), [None] * n, contents=[("Si",)] * n)
    assert sum(found.counts().values()) == n


MARKS = st.lists(st.one_of(st.none(), st.integers(0, 30)), min_size=30, max_size=120)


@settings(max_examples=60, deadline=None)
@given(MARKS, st.integers(0, 10**6), st.sampled_from(["group", "structure"]), st.randoms())
def test_twins_and_their_groups_stay_together_whatever_the_order(twins, seed, split_by, shuffler: random.Random):
    groups = [None if i % 3 else f"g{i // 12}" for i in range(len(twins))]
    keys = keys_of(groups)
    found = assign_splits(keys, groups, DEFAULT_SHARES, seed, split_by, twins=twins)
    together = [(twin, split) for twin, split in zip(twins, found.splits, strict=True) if twin is not None]
    if found.split_by == "group":
        together += [(group, split) for group, split in zip(groups, found.splits, strict=True) if group is not None]
    assert len(set(together)) == len({name for name, _ in together})
    order = list(range(len(keys)))
    shuffler.shuffle(order)
    other = assign_splits(
        [keys[i] for i in order], [groups[i] for i in order], DEFAULT_SHARES, seed, split_by,
        twins=[twins[i] for i in order],
    )  # fmt: skip
    assert [found.splits[i] for i in order] == other.splits


def test_twins_tie_groups_over_others():
    groups = ["a", "a", "b", "b", "c", *[f"d{i}" for i in range(20)]]
    twins = [None, 1, 1, 2, 2, *[None] * 20]
    for seed in range(20):
        assert len(set(assign_splits(keys_of(groups), groups, seed=seed, twins=twins).splits[:5])) == 1


def test_no_twin_of_what_is_frozen_is_trained_on():
    keys = keys_of([None] * 40)
    twins = [i % 20 for i in range(40)]
    before = assign_splits(keys, [None] * 40, split_by="structure", twins=twins)
    frozen = frozenset(key for key, split in zip(keys[:20], before.splits, strict=False) if split == "train")
    after = keep_frozen(before, keys, [None] * 40, frozen, twins)
    assert all(after.splits[i] == "test" for i in range(40) if keys[i % 20] in frozen)
    assert keep_frozen(before, keys, [None] * 40, frozenset(), twins) == before
