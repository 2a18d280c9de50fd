"""Expected gradients: the expectation, its standard error, and that numbers depend on seed and sample alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import kxai
from kxai.errors import ArgumentError, InputError
from kxai.references import Background, Inputs
from kxai.testing import models
from tests.analyzers import paths

EG = kxai.ExpectedGradients
TWO = np.array([[0.0, 0.0], [2.0, 0.0]])
X = np.array([[3.0, 4.0]])


def test_the_expectation():
    """f = x1 x2, x = (3, 4), baselines (0, 0) and (2, 0): (4, 8), which adds up to 12 = f(x) - E f(b)."""
    count = 40000
    found = EG(paths.product(), TWO, count).explain(X)
    # One draw is (3 - b) 4 a and 4 (b + a (3 - b)), b in {0, 2}: E R1^2 = (48 + 16/3) / 2, E R2^2 = 16 (3 + 19/3) / 2.
    deviation = np.sqrt([(48 + 16 / 3) / 2 - 16, 8 * (3 + 19 / 3) - 64])
    assert np.all(np.abs(found.relevance[0] - [4, 8]) < 4 * deviation / count**0.5)
    np.testing.assert_allclose(found.base, [0.0])
    assert np.abs(found.residual[0]) < 4 * deviation.sum() / count**0.5
    # Another seed is another draw, of that spread.
    other = EG(paths.product(), TWO, count, seed=1).explain(X)
    assert np.all(other.relevance != found.relevance)
    assert np.all(np.abs(other.relevance[0] - [4, 8]) < 4 * deviation / count**0.5)


def test_without_randomness_it_is_integrated_gradients_of_a_background():
    exact = kxai.IntegratedGradients(paths.product(), Background(TWO), 4).explain(X)
    np.testing.assert_allclose(exact.relevance, [[4, 8]], rtol=1e-14)
    np.testing.assert_allclose(exact.residual, [0], atol=1e-13)


def test_linear_functions_have_no_variance_but_that_of_the_baselines():
    model = paths.dense([[2.0], [-3.0]], [1.0])
    found = EG(model, np.array([[0.5, -1.0]]), 3).explain(X)
    np.testing.assert_allclose(found.relevance, [[5.0, -15.0]], rtol=1e-14)
    np.testing.assert_allclose(found.residual, [0], atol=1e-13)
    several = EG(model, TWO, 500).explain(X)
    share = (6 - several.relevance[0, 0]) / 4  # how often the second baseline was drawn
    assert abs(share - 0.5) < 4 * 0.5 / 500**0.5
    np.testing.assert_allclose(several.base, [3.0])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_the_batch_size_does_not_matter(batch_size):
    case = models.cnn()
    eg = EG(case.model, case.inputs[:3] / 2, 10)
    whole = eg.explain(case.inputs, 1)
    found = eg.explain(case.inputs, 1, batch_size)
    np.testing.assert_allclose(found.relevance, whole.relevance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.base, whole.base, rtol=1e-5)
    alone = eg.explain(case.inputs[2:3], 1)
    np.testing.assert_allclose(alone.relevance[0], whole.relevance[2], rtol=1e-4, atol=1e-6)


def test_a_dataset_and_an_array_give_the_same():
    import tensorflow as tf

    case = models.mlp()
    eg = EG(case.model, case.inputs / 2, 10)
    dataset = tf.data.Dataset.from_tensor_slices(case.inputs).batch(3)
    np.testing.assert_allclose(eg.explain(dataset).relevance, eg.explain(case.inputs).relevance, rtol=1e-5, atol=1e-6)


def test_baselines_of_several_inputs_belong_together():
    case = models.list_inputs()
    baselines = [models.numbers(4, seed=7), models.numbers(3, seed=8)]
    found = EG(case.model, baselines, 4000).explain(case.inputs, 0)
    exact = kxai.IntegratedGradients(case.model, Background(baselines), 200).explain(case.inputs, 0)
    np.testing.assert_allclose(found.base, exact.base, rtol=1e-5)
    # 4000 draws of numbers of order 1.
    assert max(np.abs(a - b).max() for a, b in zip(found.relevance, exact.relevance, strict=True)) < 4 / 4000**0.5


def test_tokens():
    case = models.tokens()
    padding = Inputs(Background(case.inputs))
    found = EG(case.model, padding, 2000, layer="embedding*").explain(case.inputs, 0)
    exact = kxai.IntegratedGradients(case.model, padding, 100, layer="embedding*").explain(case.inputs, 0)
    assert found.relevance.shape == (4, 7, 5)
    np.testing.assert_allclose(found.base, exact.base, rtol=1e-5)
    assert np.abs(found.relevance - exact.relevance).max() < 4 / 2000**0.5
    # As elsewhere plain arrays are several baselines, though here they are as many as the samples.
    plain = EG(case.model, Inputs(case.inputs), 2000, layer="embedding*").explain(case.inputs, 0)
    np.testing.assert_array_equal(plain.relevance, found.relevance)


def test_names_and_bad_arguments():
    case = models.mlp()
    shap = kxai.create_analyzer("gradient_shap", case.model, baselines=case.inputs, num_samples=2)
    assert shap.name == "expected_gradients"
    with pytest.raises(ArgumentError, match="needs baselines"):
        kxai.create_analyzer("expected_gradients", case.model)
    with pytest.raises(ArgumentError, match=r"num_samples is out of range(.|\n)*-1"):
        EG(case.model, case.inputs, -1)
    with pytest.raises(ArgumentError, match=r"seed is out of range(.|\n)*an integer >= 0(.|\n)*None"):
        EG(case.model, case.inputs, seed=None)
    with pytest.raises(ArgumentError, match=r"The background for input .* has the wrong shape"):
        EG(case.model, case.inputs[0]).explain(case.inputs)
    with pytest.raises(InputError, match="holds token ids"):
        EG(models.tokens().model, 0).explain(models.tokens().inputs)
    assert isinstance(EG(case.model, case.inputs).model, keras.Model)
