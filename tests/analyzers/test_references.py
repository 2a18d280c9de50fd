"""References in every form that a user may give them, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from keras import ops

import kxai
from kxai.analyzers.references import resolve_references
from kxai.errors import ArgumentError, InputError
from kxai.graph.trace import InputSpec
from kxai.references import Background, Inputs
from kxai.testing import models

IMAGE = InputSpec((None, 4, 4, 3), "float32", "image")
TABLE = InputSpec((None, 5), "float32", "table")
IDS = InputSpec((None, 7), "int32", "ids")
BATCH = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")


def of(value, spec=IMAGE, samples=6, batch=BATCH, rows=(3, 1)):
    (found,) = resolve_references(value, spec, samples).of([batch], np.asarray(rows))
    return found


def test_numbers_arrays_and_channels():
    assert of(0.5).shape == (1, 1, 4, 4, 3)
    assert np.all(of(0.5) == 0.5)
    np.testing.assert_array_equal(of(BATCH[0])[0, 0], BATCH[0])
    np.testing.assert_array_equal(of(BATCH[:1])[0, 0], BATCH[0])
    np.testing.assert_array_equal(of(np.array([1.0, 2.0, 3.0]))[0, 0, 2, 1], [1, 2, 3])
    assert of(0.5).dtype == np.float32


def test_one_per_sample_follows_the_rows():
    each = np.arange(6, dtype="float32")[:, None, None, None] * np.ones((6, 4, 4, 3), "float32")
    found = of(each)
    assert found.shape == (1, 2, 4, 4, 3)
    np.testing.assert_array_equal(found[0, :, 0, 0, 0], [3, 1])
    assert not resolve_references(each, IMAGE, 6).single
    assert resolve_references(0.0, IMAGE, 6).single


def test_a_background_is_the_same_for_all():
    data = np.arange(3, dtype="float32")[:, None, None, None] * np.ones((3, 4, 4, 3), "float32")
    assert of(Background(data)).shape == (3, 1, 4, 4, 3)
    assert not resolve_references(Background(data), IMAGE, 6).single
    assert repr(Background(data)) == "Background(3 samples)"


def test_results_say_which_reference_was_used(tmp_path):
    case = models.mlp()
    zeros, ones = (np.full((5, 6), value, "float32") for value in (0, 1))

    def told(reference):
        analyzer = kxai.DeepLIFT(case.model, reference)
        explanation = analyzer.explain(case.inputs)
        explanation.save(tmp_path / "e.npz")
        assert kxai.Explanation.load(tmp_path / "e.npz").config == explanation.config
        assert analyzer.config()["hyperparameters"] == explanation.config["hyperparameters"]
        return explanation.config["hyperparameters"]["reference"]

    assert re.fullmatch(r"Background\(5 samples\), fingerprint [0-9a-f]{12}", told(Background(zeros)))
    assert told(Background(zeros)) == told(Background(zeros.copy())) == told(Background([zeros]))
    assert told(Background(zeros)) != told(Background(ones))
    assert told(Background(zeros)) != told(Background(zeros.astype("float64")))
    # One per sample, too large to be written out.
    many = np.zeros((200, 6), "float32")
    wide = kxai.DeepLIFT(case.model, many).config()["hyperparameters"]["reference"]
    assert re.fullmatch(r"array of shape \(200, 6\), fingerprint [0-9a-f]{12}", wide)
    assert kxai.DeepLIFT(case.model, many + 1).config()["hyperparameters"]["reference"] != wide


def test_parts_of_a_reference_are_told_one_by_one():
    model = models.mlp().model
    parts = {"a": np.zeros(2), "b": Background(np.zeros((3, 2000)))}
    told = kxai.IntegratedGradients(model, parts).config()["hyperparameters"]["baseline"]
    assert told["a"] == [0.0, 0.0]
    assert told["b"].startswith("Background(3 samples), fingerprint ")
    told = kxai.IntegratedGradients(model, Inputs(ops.zeros(2)), layer="*").config()["hyperparameters"]["baseline"]
    assert told == "Inputs([0.0, 0.0])"


def test_callables_return_one_or_several_per_sample():
    np.testing.assert_array_equal(of(lambda x: x / 2)[0], BATCH / 2)
    several = of(lambda x: np.stack([x, 2 * x, 3 * x], axis=1))
    assert several.shape == (3, 2, 4, 4, 3)
    np.testing.assert_array_equal(several[2], 3 * BATCH)

    def spoil(x):
        x[:] = 0
        return x

    before = BATCH.copy()
    of(spoil)
    np.testing.assert_array_equal(BATCH, before)


def test_structures():
    specs = {"image": IMAGE, "table": TABLE}
    table = np.zeros((2, 5), "float32")
    found = resolve_references({"image": 1.0, "table": np.arange(5.0)}, specs, 2).of([BATCH, table], np.arange(2))
    assert [part.shape for part in found] == [(1, 1, 4, 4, 3), (1, 1, 5)]
    assert all(np.all(part == 0) for part in resolve_references(0.0, specs, 2).of([BATCH, table], np.arange(2)))
    both = resolve_references(lambda x: {"image": x["image"] + 1, "table": x["table"] + 2}, specs, 2)
    found = both.of([BATCH, table], np.arange(2))
    np.testing.assert_array_equal(found[1][0], table + 2)
    background = Background({"image": np.zeros((3, 4, 4, 3)), "table": np.zeros((3, 5))})
    assert len(resolve_references(background, specs, 2).of([BATCH, table], np.arange(2))[1]) == 3


def test_token_ids_stay_integers():
    found = of(np.array([1, 2, 3, 4, 5, 6, 7]), IDS, batch=np.zeros((2, 7), "int32"))
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    ("value", "spec", "message"),
    [
        (np.zeros((5, 4, 4, 3)), IMAGE, r"a number, \(4, 4, 3\), or \(6, \.\.\.\), one each"),
        (np.zeros((4, 4, 2)), IMAGE, "has the wrong shape"),
        (np.zeros((2, 6, 4, 4, 3)), IMAGE, r"kxai\.references\.Background"),
        (np.full((4, 4, 3), np.nan), IMAGE, "is not finite"),
        ("black", IMAGE, "does not hold numbers"),
        (0.5, IDS, "must be integers, as the input is"),
        (Background(np.zeros((3, 4, 4))), IMAGE, r"\(count, 4, 4, 3\), count >= 1"),
        (Background(np.zeros((0, 4, 4, 3))), IMAGE, r"count >= 1"),
        (lambda x: x[:1], IMAGE, "a function returned for input 'image' has the wrong shape"),
        (lambda x: x + np.nan, IMAGE, "is not finite"),
    ],
    ids=["count", "channels", "axes", "nan", "text", "fractions", "background", "empty", "function", "function nan"],
)
def test_bad_references(value, spec, message):
    with pytest.raises(ArgumentError, match=message):
        of(value, spec, batch=BATCH if spec is IMAGE else np.zeros((2, 7), "int32"))


def test_one_per_sample_needs_a_known_number_of_samples():
    with pytest.raises(ArgumentError, match="one per sample of the dataset cannot be given"):
        of(np.zeros((6, 4, 4, 3)), samples=None)


def test_backgrounds_of_several_inputs_belong_together():
    specs = [IMAGE, TABLE]
    with pytest.raises(ArgumentError, match=r"not equally many(.|\n)*image: 3, table: 2"):
        resolve_references(Background([np.zeros((3, 4, 4, 3)), np.zeros((2, 5))]), specs, 2)
    with pytest.raises(InputError, match="The model has 2 inputs"):
        resolve_references(np.zeros(5), specs, 2)
