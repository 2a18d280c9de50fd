from __future__ import annotations

import numpy as np
import pytest

from kxai import nest
from kxai.errors import ArgumentError

NEST = {"b": [np.arange(3.0), (np.ones((3, 2)),)], "a": np.zeros(3, np.int64), "none": []}


def test_json_and_back_restores_structure_order_and_dtypes():
    arrays = {}
    structure = nest.to_json(NEST, arrays, "x")
    back = nest.from_json(structure, arrays)
    assert list(back) == ["b", "a", "none"]
    assert isinstance(back["b"], list)
    assert isinstance(back["b"][1], tuple)
    assert back["none"] == []
    assert [leaf.dtype for leaf in nest.leaves(back)] == [leaf.dtype for leaf in nest.leaves(NEST)]
    assert nest.describe(back) == "{b: [(3,), <(3, 2)>], a: (3,), none: []}"


def test_prefixes_do_not_collide():
    arrays = {}
    nest.to_json([np.zeros(1)], arrays, "x")
    nest.to_json([np.zeros(1)], arrays, "x.0")
    nest.to_json([np.zeros(1)], arrays, "x")
    assert sorted(arrays) == ["x.0", "x.0.0", "x.1"]


def test_keys_must_be_text():
    with pytest.raises(ArgumentError, match=r"key that is not a string.\n  Expected: str\n  Received: 3"):
        nest.to_json({3: np.zeros(1)}, {}, "x")


@pytest.mark.parametrize("other", [[1], [1, 2, 3], (1, 2), {"a": 1, "b": 2}, 1])
def test_structures_must_agree(other):
    with pytest.raises(ArgumentError, match="Nests of different structure"):
        nest.map_leaves(lambda a, b: a, [1, 2], other)


def test_dicts_match_by_key():
    assert nest.map_leaves(lambda a, b: a - b, {"x": 5, "y": 7}, {"y": 2, "x": 1}) == {"x": 4, "y": 5}


def test_concatenate_names_the_shapes():
    with pytest.raises(ArgumentError, match=r"\(batch, \*\(3,\)\) throughout\n  Received: \(2, 3\), \(2, 4\)"):
        nest.concatenate([np.zeros((2, 3)), np.zeros((2, 4))])


def test_frozen_copies_what_can_be_written_and_shares_the_rest():
    array = np.zeros(3)
    first = nest.frozen(array)
    array[0] = 1
    assert first[0] == 0
    assert nest.frozen(first) is first


def test_frozen_widens_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    wide = nest.frozen(np.array([1.5, -2.0], dtype=ml_dtypes.bfloat16))
    assert wide.dtype == np.float32
    assert wide.tolist() == [1.5, -2.0]
