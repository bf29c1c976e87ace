"""The key index: finds what was put in, and gives one digest for one content."""

from __future__ import annotations

import hashlib

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from gnn.lake import keys
from gnn.lake.keys import KeyIndex

digests = st.binary(min_size=32, max_size=32) | st.binary(min_size=30, max_size=30).map(lambda b: b + b"\0\0")
contents = st.dictionaries(digests, digests, max_size=30)


@settings(deadline=None)
@given(contents, contents, st.integers(1, 10))
def test_index_is_a_dictionary(first, second, merge_at):
    keys.MERGE_AT = merge_at
    try:
        index = KeyIndex()
        for key, label in {**first, **second}.items():
            index.add(key.hex(), label.hex())
    finally:
        keys.MERGE_AT = 50_000
    both = {**first, **second}
    assert len(index) == len(both)
    for key, label in both.items():
        assert index.label_of(key.hex()) == label.hex()
    assert index.label_of("ab" * 32) == (both.get(b"\xab" * 32).hex() if b"\xab" * 32 in both else None)


@settings(deadline=None)
@given(contents, st.randoms())
def test_digest_does_not_know_the_order(content, random):
    items = list(content.items())
    index = KeyIndex()
    for key, label in items:
        index.add(key.hex(), label.hex())
    random.shuffle(items)
    columns = [pa.chunked_array([[pair[side].hex() for pair in items]], type=pa.string()) for side in (0, 1)]
    expected = hashlib.sha256(b"".join(key + label for key, label in sorted(content.items()))).hexdigest()
    assert index.content_digest() == KeyIndex.of_columns(*columns).content_digest() == expected


def test_digest_knows_labels():
    first, second = KeyIndex(), KeyIndex()
    first.add("aa" * 32, "bb" * 32)
    second.add("aa" * 32, "cc" * 32)
    assert first.content_digest() != second.content_digest() != KeyIndex().content_digest()
