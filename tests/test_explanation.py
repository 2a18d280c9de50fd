from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from kxai.errors import ArgumentError, LoadError, NumericalError, UnknownNameError
from kxai.explanation import Explanation
from kxai.files import read_archive, write_archive

RNG = np.random.default_rng(0)


def image(batch=4, **changes):
    relevance = RNG.normal(size=(batch, 5, 6, 3)).astype(np.float32)
    fields = {
        "relevance": relevance,
        "outputs": RNG.normal(size=(batch, 10)).astype(np.float32),
        "target": np.arange(batch),
        "score": relevance.sum(axis=(1, 2, 3)) + np.float32(0.25),
        "layers": {"block/conv#2": RNG.normal(size=(batch, 2, 2, 8)).astype(np.float32)},
        "absorbed": {"block/conv#2": np.full(batch, 0.25, np.float32)},
        "config": {"method": "lrp.epsilon", "epsilon": 1e-6, "notes": ["softmax removed"]},
    }
    return Explanation(**{**fields, **changes})


def several(batch=3):
    return Explanation(
        {"ids": np.full((batch, 7), 0.5, np.float32), "rest": [np.ones((batch, 2)), (np.ones((batch, 1)),)]},
        [np.zeros((batch, 1)), {"b": np.zeros((batch, 2))}],
        "the mean of both outputs",
        np.full(batch, 7.0),
    )


def same(left, right):
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return left == right


def assert_same(left, right):
    for name in ("relevance", "outputs", "target", "score"):
        assert same(getattr(left, name), getattr(right, name)), name
    for name in ("layers", "absorbed", "config"):
        assert same(dict(getattr(left, name)), dict(getattr(right, name))), name


def test_residual_is_score_minus_relevance_of_all_inputs():
    np.testing.assert_allclose(image().residual, 0.25, atol=1e-5)
    assert several().residual.tolist() == [0.5, 0.5, 0.5]


def test_residual_sums_in_float64():
    # In float32 the ones vanish beside 1e8.
    relevance = np.concatenate([[1e8], np.ones(7), [-1e8]]).astype(np.float32)[np.newaxis]
    assert Explanation(relevance, np.zeros((1, 1)), "x", np.array([7.0], np.float32)).residual.tolist() == [0.0]


def test_values_are_frozen_and_independent_of_the_caller():
    relevance, config = np.ones((2, 3)), {"notes": ["a"]}
    e = Explanation(relevance, np.zeros((2, 1)), "x", np.array([3.0, 3.0]), config=config)
    relevance[:] = 7
    config["notes"].append("b")
    assert e.residual.tolist() == [0, 0]
    assert e.config["notes"] == ["a"]
    with pytest.raises(ValueError, match="read-only"):
        e.relevance[0] = 1
    with pytest.raises(AttributeError):
        e.score = np.zeros(2)
    with pytest.raises(TypeError):
        e.config["method"] = "other"
    with pytest.raises(TypeError):
        e.layers["x"] = np.zeros(2)


def test_indexing():
    e = image()
    assert len(e) == 4
    assert_same(e[1:3][1], e[2])
    assert_same(e[-1], e[3:])
    assert e[np.int64(1)].target.tolist() == [1]
    assert e[0].layers["block/conv#2"].shape == (1, 2, 2, 8)
    assert e[::-1].target.tolist() == [3, 2, 1, 0]
    assert [part.target[0] for part in e] == [0, 1, 2, 3]
    with pytest.raises(IndexError, match="sample 4 is out of range for an explanation of 4 samples"):
        e[4]
    with pytest.raises(ArgumentError, match=r"an integer .one sample. or a slice\n  Received: 'a'"):
        e["a"]


def test_array_protocol():
    e = image()
    assert np.asarray(e) is e.relevance
    assert np.asarray(e, dtype=np.float64).dtype == np.float64
    assert np.array(e).flags.writeable
    assert np.asarray(Explanation([np.ones((1, 2))], np.zeros((1, 1)), "x", np.array([2.0]))).shape == (1, 2)
    with pytest.raises(ArgumentError, match=r"not one array[\s\S]*ids: \(3, 7\)"):
        np.asarray(several())


def test_repr_is_one_short_line():
    assert repr(image(2)) == (
        "Explanation(method='lrp.epsilon', samples=2, relevance=(2, 5, 6, 3), outputs=(2, 10), max|residual|=0.25)"
    )
    assert "samples=0" in repr(image()[:0])


def test_heatmap_reductions():
    e = image()
    r = e.relevance.astype(np.float64)
    np.testing.assert_allclose(e.heatmap(), r.sum(-1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(e.heatmap(reduce="abs_max"), np.abs(r).max(-1), rtol=1e-6)
    np.testing.assert_allclose(e.heatmap(reduce="l2"), np.sqrt((r**2).sum(-1)), rtol=1e-6)
    assert e.heatmap().dtype == np.float32
    np.testing.assert_allclose(e.heatmap().sum((1, 2)), r.sum((1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, 7), (2, 7)), ((2, 7, 4), (2, 7)), ((2, 3, 4, 5, 6), (2, 3, 4, 5))]
)
def test_heatmap_shapes(shape, expected):
    e = Explanation(-np.ones(shape), np.zeros((2, 1)), "x", np.zeros(2))
    assert e.heatmap().shape == expected
    assert (e.heatmap() < 0).all()
    assert (e.heatmap(reduce="l2") > 0).all()


def test_heatmap_of_one_of_several_inputs():
    e = several()
    assert e.heatmap(input="ids").shape == (3, 7)
    with pytest.raises(ArgumentError, match="several inputs, and none was chosen"):
        e.heatmap()
    with pytest.raises(UnknownNameError, match=r"Unknown input 'idz'.\n  Expected: did you mean ids"):
        e.heatmap(input="idz")
    with pytest.raises(ArgumentError, match="The input 'rest' is itself a structure"):
        e.heatmap(input="rest")
    with pytest.raises(UnknownNameError, match="Unknown input '1'"):
        image().heatmap(input=1)
    with pytest.raises(ArgumentError, match="'sum', 'abs_max', 'l2'\n  Received: 'mean'"):
        image().heatmap(reduce="mean")


@pytest.mark.parametrize("make", [image, several, lambda: image()[:0], lambda: image(target=np.ones((4, 10)))])
@pytest.mark.parametrize("way", ["file", "pickle", "deepcopy"])
def test_round_trips_are_exact(make, way, tmp_path):
    e = make()
    if way == "file":
        e.save(tmp_path / "e.npz")
        back = Explanation.load(tmp_path / "e.npz")
    else:
        back = pickle.loads(pickle.dumps(e)) if way == "pickle" else copy.deepcopy(e)
    assert_same(e, back)
    assert not back.score.flags.writeable


def test_load_refuses_foreign_archives(tmp_path):
    np.savez(tmp_path / "foreign.npz", x=np.zeros(3))
    with pytest.raises(LoadError, match="is no explanation that can be read"):
        Explanation.load(tmp_path / "foreign.npz")
    write_archive(tmp_path / "other.npz", '{"format": "something", "version": 1}', {})
    with pytest.raises(LoadError, match="Received: ValueError: format 'something' version 1"):
        Explanation.load(tmp_path / "other.npz")
    write_archive(tmp_path / "new.npz", '{"format": "kxai.explanation", "version": 99}', {})
    with pytest.raises(LoadError, match="version 99"):
        Explanation.load(tmp_path / "new.npz")
    write_archive(tmp_path / "deep.npz", "[" * 100_000 + "]" * 100_000, {})
    with pytest.raises(LoadError, match="holds no explanation"):
        Explanation.load(tmp_path / "deep.npz")
    # An array in a million places would be checked a million times.
    fields = {"relevance": {"list": [{"array": "x"}] * 2}}
    text = json.dumps({"format": "kxai.explanation", "version": 2, "fields": fields, "config": {}})
    write_archive(tmp_path / "again.npz", text, {"x": np.ones((1, 2))})
    with pytest.raises(LoadError, match="KeyError: 'x'"):
        Explanation.load(tmp_path / "again.npz")
    write_archive(tmp_path / "list.npz", "[1]", {})
    with pytest.raises(LoadError, match="holds no explanation"):
        Explanation.load(tmp_path / "list.npz")


def test_load_refuses_a_truncated_file(tmp_path):
    image().save(tmp_path / "e.npz")
    whole = (tmp_path / "e.npz").read_bytes()
    (tmp_path / "e.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LoadError, match="not a complete zip archive"):
        Explanation.load(tmp_path / "e.npz")


def test_concatenate_undoes_slicing():
    e = image()
    assert_same(Explanation.concatenate([e[:1], e[1:3], e[3:]]), e)
    parts = several()
    assert_same(Explanation.concatenate([parts[:2], parts[2:]]), parts)


def test_concatenate_unites_notes_and_refuses_the_rest():
    a, b = image(config={"epsilon": 1, "notes": ["x"]}), image(config={"epsilon": 1, "notes": ["y", "x"]})
    assert Explanation.concatenate([a, b]).config == {"epsilon": 1, "notes": ["x", "y"]}
    with pytest.raises(ArgumentError, match=r"the same epsilon throughout\n  Received: \[1\] and \[2\]"):
        Explanation.concatenate([a, image(config={"epsilon": 2})])
    with pytest.raises(ArgumentError, match="different targets"):
        Explanation.concatenate([image(target="a", config={}), image(target="b", config={})])
    with pytest.raises(ArgumentError, match="different targets"):
        Explanation.concatenate([image(target="a"), image()])
    with pytest.raises(ArgumentError, match="different structure"):
        Explanation.concatenate([image(), image(layers={})])
    with pytest.raises(ArgumentError, match="at least one explanation"):
        Explanation.concatenate([])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"score": np.zeros((4, 1))}, ArgumentError, "score has the wrong shape"),
        ({"score": np.zeros(3)}, ArgumentError, r"relevance does not have one entry per sample[\s\S]*\(4, 5, 6, 3\)"),
        ({"outputs": np.zeros((3, 1))}, ArgumentError, "outputs does not have one entry per sample"),
        ({"target": np.zeros(5, int)}, ArgumentError, "target does not have one entry per sample"),
        ({"target": np.int64(3)}, ArgumentError, "target does not have one entry per sample"),
        ({"layers": {"a": np.zeros((2, 1))}}, ArgumentError, r"layers\['a'\] does not have one entry"),
        ({"absorbed": {"a": np.zeros((4, 1))}}, ArgumentError, r"absorbed\['a'\] has the wrong shape"),
        ({"relevance": np.zeros((4, 2), int)}, ArgumentError, "relevance has the wrong dtype"),
        ({"config": {"f": print}}, ArgumentError, "config cannot be written as JSON"),
        ({"score": np.array([0, np.inf, 0, 0])}, NumericalError, "score is not finite[^$]*first in sample 1"),
    ],
)
def test_constructor_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        image(**changes)


def test_nan_is_not_passed_on():
    relevance = np.zeros((4, 2, 2, 1))
    relevance[2, 1] = np.nan
    with pytest.raises(NumericalError, match=r"relevance is not finite[^$]*first in sample 2"):
        image(relevance=relevance)


def test_plot_draws_what_the_shape_asks_for():
    e = image()
    panels = e.plot(images=np.zeros((4, 5, 6, 3), np.uint8), clip=100, scale="panel").axes
    assert len(panels) == 4 * 2 + 1
    assert panels[0].get_ylabel() == f"score {e.score[0]:.4g}".replace("-", "−")
    assert panels[1].get_title() == "lrp.epsilon"
    words = several().plot(input="ids", tokens=[["a", "b"]] * 3)
    assert [text.get_text() for text in words.axes[0].texts] == ["a", "b"]
    table = several().plot(input="ids", top=2)
    assert len(table.axes) == 3
    with pytest.raises(ArgumentError, match="The option tokens does not apply"):
        e.plot(tokens=[])
    with pytest.raises(ArgumentError, match="images does not apply"):
        several().plot(input="ids", images=np.zeros((3, 2, 2)))


def test_heatmap_in_patches():
    relevance = np.random.default_rng(0).normal(size=(2, 4, 6, 3))
    explanation = Explanation(relevance, np.zeros((2, 1)), "any", relevance.sum((1, 2, 3)))
    for reduce, function in (("sum", np.sum), ("abs_max", lambda x: np.abs(x).max()), ("l2", np.linalg.norm)):
        heatmap = explanation.heatmap(reduce=reduce, patch=2)
        assert heatmap.shape == (2, 2, 3)
        expected = function(relevance[1, 2:4, 4:6].ravel())
        np.testing.assert_allclose(heatmap[1, 1, 2], expected, rtol=1e-12)
    tokens = Explanation(relevance[:, :, 0, 0], np.zeros((2, 1)), "any", np.zeros(2))
    np.testing.assert_allclose(tokens.heatmap(patch=2)[:, 1], relevance[:, 2:4, 0, 0].sum(1))
    for patch in (4, 0, 1.5, True, (2, 2)):
        with pytest.raises(ArgumentError, match="do not tile the input") as caught:
            explanation.heatmap(patch=patch)
        assert "divides every one of (4, 6)" in str(caught.value)


def test_base_counts_in_the_residual_and_is_kept(tmp_path):
    relevance = np.array([[1.0, 2.0], [3.0, 4.0]])
    e = Explanation(relevance, np.zeros((2, 1)), "x", np.array([5.0, 8.0]), base=np.array([2.0, 1.0]))
    assert e.residual.tolist() == [0.0, 0.0]
    assert e[1].base.tolist() == [1.0]
    assert Explanation.concatenate([e, e[:1]]).base.tolist() == [2.0, 1.0, 2.0]
    assert pickle.loads(pickle.dumps(e)).base.tolist() == [2.0, 1.0]
    e.save(tmp_path / "e.npz")
    assert Explanation.load(tmp_path / "e.npz").base.tolist() == [2.0, 1.0]
    assert Explanation(relevance, np.zeros((2, 1)), "x", np.zeros(2)).base.tolist() == [0.0, 0.0]
    with pytest.raises(ArgumentError, match="base does not have one entry per sample"):
        Explanation(relevance, np.zeros((2, 1)), "x", np.zeros(2), base=np.zeros(3))
    with pytest.raises(NumericalError, match="base is not finite"):
        Explanation(relevance, np.zeros((2, 1)), "x", np.zeros(2), base=np.full(2, np.nan))


def test_explanations_of_version_1_had_no_base(tmp_path):
    e = Explanation(np.ones((1, 2)), np.zeros((1, 1)), "x", np.array([2.0]))
    e.save(tmp_path / "e.npz")
    text, arrays = read_archive(tmp_path / "e.npz", "explanation")
    stored = json.loads(text) | {"version": 1}
    del stored["fields"]["base"]
    old = {name: array for name, array in arrays.items() if not name.startswith("base")}
    write_archive(tmp_path / "old.npz", json.dumps(stored), old)
    assert Explanation.load(tmp_path / "old.npz").base.tolist() == [0.0]
