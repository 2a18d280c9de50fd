"""SmoothGrad, SmoothGrad-squared and VarGrad: limits, seeds, and any method as base."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

import kxai
from kxai.errors import ArgumentError, InputError, UnknownNameError
from kxai.testing import models
from tests.analyzers import paths

METHODS = (kxai.SmoothGrad, kxai.SmoothGradSquared, kxai.VarGrad)


def square():
    x = keras.Input((1,), dtype="float64")
    return keras.Model(x, x * x)


# f = x^2 at 3, standard deviation 1/2: g = 6 + e, e of variance 1: 6, 37, 1. Variance of one draw of each:
# e: 1; (6 + e)^2 = 36 + 12 e + e^2: 144 + 2; (e - mean)^2: 2.
@pytest.mark.parametrize(
    ("method", "limit", "variance"), [(METHODS[0], 6, 1), (METHODS[1], 37, 146), (METHODS[2], 1, 2)]
)
def test_the_limits(method, limit, variance):
    count = 20000
    values = [
        method(square(), 0.5, count, absolute=True, seed=s).explain(np.array([[3.0]]), 0, 4096).relevance[0, 0]
        for s in range(3)
    ]
    assert len(set(values)) == 3
    for value in values:
        assert abs(value - limit) < 4 * (variance / count) ** 0.5


@pytest.mark.parametrize("make", [kxai.Gradient, kxai.LRP, kxai.GradientTimesInput], ids=lambda make: make.__name__)
def test_without_noise_it_is_the_base(make):
    case = models.cnn()
    base = make(case.model)
    plain = base.explain(case.inputs).relevance
    found = kxai.SmoothGrad(base, 0.0, 3).explain(case.inputs)
    np.testing.assert_allclose(found.relevance, plain, rtol=1e-4, atol=1e-6)
    squared = kxai.SmoothGradSquared(base, 0.0, 3).explain(case.inputs)
    np.testing.assert_allclose(squared.relevance, plain**2, rtol=1e-4, atol=1e-6)
    # float32 rounds a little differently in batches of another size.
    assert np.abs(kxai.VarGrad(base, 0.0, 3).explain(case.inputs).relevance).max() < 1e-10


def test_noise_is_a_fraction_of_each_sample_s_range():
    model = square()
    x = keras.Input((2,), dtype="float64")
    model = keras.Model(x, x[:, :1] ** 2 + x[:, 1:] ** 2)
    inputs = np.array([[1.0, 3.0], [0.0, 20.0], [5.0, 5.0]])
    count = 4000
    found = kxai.VarGrad(model, 0.25, count).explain(inputs).relevance
    # g = 2 (x + e): variance 4 sigma^2, sigma = 0.25 (max - min); the spread of a variance is sqrt(2 / count) of it.
    expected = 4 * (0.25 * np.array([2.0, 20.0, 0.0])) ** 2
    assert np.all(np.abs(found - expected[:, None]) <= 4 * (2 / count) ** 0.5 * expected[:, None])
    absolute = kxai.VarGrad(model, 0.25, count, absolute=True).explain(inputs).relevance
    assert np.all(np.abs(absolute - 0.25) < 4 * (2 / count) ** 0.5 * 0.25)


@pytest.mark.parametrize("method", METHODS)
def test_equals_the_statistics_of_the_base_at_the_same_points(method):
    """The points are read off a linear base: relevance = input."""
    model = paths.dense([[1.0], [1.0], [1.0]], [0.0])
    curved = paths.dense(np.eye(3), np.zeros(3), [[1.0], [2.0], [-1.0]], [0.0], activation="tanh")
    x = np.array([[0.5, -1.0, 2.0]])
    points = []

    class Spy(kxai.Analyzer):
        name = "spy"

        def _prepare(self, *arguments):
            run, resolved = kxai.GradientTimesInput(self.model)._prepare(*arguments)

            def spying(batch, data, rows):
                points.append(np.array(batch[0]))
                return run(batch, data, rows)

            return spying, resolved

    kxai.SmoothGrad(Spy(model), num_samples=5).explain(x)
    noisy = np.concatenate(points[1:])
    assert noisy.shape == (5, 3)
    g = paths.gradients(curved, noisy, 0)
    expected = {"smoothgrad": g.mean(0), "smoothgrad_squared": (g**2).mean(0), "vargrad": g.var(0)}
    analyzer = method(curved, num_samples=5)
    np.testing.assert_allclose(analyzer.explain(x).relevance[0], expected[analyzer.name], rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_numbers_depend_on_seed_and_sample_alone(method, batch_size):
    import tensorflow as tf

    case = models.list_inputs()
    analyzer = method(case.model, num_samples=5)
    whole = analyzer.explain(case.inputs, 0)
    dataset = tf.data.Dataset.from_tensor_slices(tuple(case.inputs)).map(lambda a, b: ((a, b),)).batch(3)
    for found in (analyzer.explain(case.inputs, 0, batch_size), analyzer.explain(dataset, 0, batch_size)):
        for one, two in zip(found.relevance, whole.relevance, strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)
    # The inputs of a sample have noise of their own, and so have samples.
    assert not np.array_equal(*(method(models.mlp().model, seed=s, num_samples=3).explain(models.mlp().inputs).relevance
                                for s in (0, 1)))  # fmt: skip


def test_the_target_is_that_of_the_clean_input():
    model = paths.dense([[1.0, 0.0]], [0.0, 0.01])  # class 1 just below 0.01
    for base in (model, kxai.Gradient(model), kxai.GradientTimesInput(model)):
        found = kxai.SmoothGrad(base, 5.0, 20, absolute=True).explain(np.array([[0.0], [0.1]]))
        np.testing.assert_array_equal(found.target, [1, 0])
        np.testing.assert_array_equal(found.score, [0.01, 0.1])
        assert found.relevance[0, 0] == 0  # class 1 depends on nothing
        assert found.relevance[1, 0] != 0


@pytest.mark.parametrize("target", [None, 2, [0, 1, 2, 0], kxai.Contrast(0, 2), lambda y: y[:, 1] ** 2, np.ones(3)])
def test_targets_of_every_kind(target):
    case = models.mlp()
    one = kxai.SmoothGrad(case.model, num_samples=4).explain(case.inputs, target)
    two = kxai.SmoothGrad(kxai.Gradient(case.model), num_samples=4).explain(case.inputs, target)
    np.testing.assert_allclose(one.relevance, two.relevance, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(one.score, two.score, rtol=1e-6)
    np.testing.assert_array_equal(one.target, two.target)


def test_targets_of_several_outputs_and_of_outputs_with_axes():
    for case, targets in (
        (models.multi_output(), ({"value": 0, "label": None}, "label", {"label": [0, 1, 2, 0]})),
        (models.transposed(), ((2, 3, 1), None)),
    ):
        for target in targets:
            one = kxai.SmoothGrad(case.model, num_samples=3).explain(case.inputs, target)
            two = kxai.SmoothGrad(kxai.Gradient(case.model), num_samples=3).explain(case.inputs, target)
            np.testing.assert_allclose(one.relevance, two.relevance, rtol=1e-4, atol=1e-6)


def test_smoothed_integrated_gradients():
    model = paths.product()
    ig = kxai.IntegratedGradients(model, np.array([1.0, 1.0]), 4)
    x = np.array([[3.0, 4.0]])
    found = kxai.SmoothGrad(ig, 0.1, 2000, absolute=True).explain(x, None, 64)
    # (6.5 - 1 ...): IG of x1 x2 from (1, 1) is (x - 1) times the other's mean, (2 * 2.5, 3 * 2).
    np.testing.assert_allclose(ig.explain(x).relevance, [[5, 6]], rtol=1e-12)
    assert np.abs(found.relevance - [[5, 6]]).max() < 4 * 0.1 * 3 / 2000**0.5
    np.testing.assert_allclose(found.base, [1.0])


def test_bases_with_something_of_their_own_for_each_sample():
    case = models.mlp()
    own = case.inputs[::-1] / 2
    ig = kxai.IntegratedGradients(case.model, own, 3)
    found = kxai.SmoothGrad(ig, num_samples=4).explain(case.inputs, 1, 3)
    for i in range(4):
        alone = kxai.SmoothGrad(kxai.IntegratedGradients(case.model, own[i], 3), num_samples=4)
        expected = alone.explain(case.inputs[i : i + 1], 1)
        np.testing.assert_allclose(found.relevance[i], expected.relevance[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.base[i], expected.base[0], rtol=1e-5)


def test_the_base_warns():
    case = models.mlp()
    with pytest.warns(kxai.KxaiWarning, match="Deep Taylor explains positive logits"):
        kxai.SmoothGrad(kxai.DeepTaylor(case.model), num_samples=2).explain(case.inputs, np.array([-1.0, -1.0, -1.0]))


def test_at_the_embedding():
    case = models.tokens()
    found = kxai.SmoothGrad(case.model, num_samples=4, layer="embedding*").explain(case.inputs)
    assert found.relevance.shape == (4, 7, 5)
    silent = kxai.SmoothGrad(case.model, 0.0, 2, layer="embedding*").explain(case.inputs)
    gradient = kxai.Gradient(case.model).explain(case.inputs)
    np.testing.assert_allclose(silent.heatmap(), gradient.relevance, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=r'smoothgrad needs values in between(.|\n)*layer="embedding'):
        kxai.SmoothGrad(case.model).explain(case.inputs)
    with pytest.raises(InputError, match=r"noise would make them something else(.|\n)*SmoothGrad\(model, layer="):
        kxai.SmoothGrad(kxai.LRP(case.model)).explain(case.inputs)


def test_bind_repr_and_what_results_say():
    case = models.mlp()
    smooth = kxai.SmoothGrad(kxai.LRP(case.model, "epsilon", epsilon=0.1), 0.2, 3, seed=5)
    found = smooth.explain(case.inputs)
    assert repr(smooth).startswith("SmoothGrad(LRP('mlp', composite='epsilon'")
    assert "noise=0.2, num_samples=3, absolute=False, seed=5" in repr(smooth)
    assert repr(kxai.VarGrad(case.model)).startswith("VarGrad('mlp', noise=0.15")
    assert found.config["base"]["method"] == "lrp.epsilon"
    assert found.config["base"]["hyperparameters"]["epsilon"] == 0.1
    assert "Epsilon" in str(smooth.plan())
    other = models.mlp()
    other.model.set_weights([2 * w for w in other.model.get_weights()])
    bound = smooth.bind(other.model)
    assert bound.model is other.model
    assert bound.hyperparameters() == smooth.hyperparameters()
    expected = kxai.SmoothGrad(kxai.LRP(other.model, "epsilon", epsilon=0.1), 0.2, 3, seed=5).explain(case.inputs)
    np.testing.assert_array_equal(bound.explain(case.inputs).relevance, expected.relevance)
    kxai.SmoothGrad(case.model, num_samples=2).bind(other.model).explain(case.inputs)


def test_the_base_by_name():
    case = models.mlp()
    named = kxai.explain(case.model, case.inputs, "smoothgrad", base="lrp.epsilon", num_samples=3)
    made = kxai.SmoothGrad(kxai.LRP(case.model, "epsilon"), num_samples=3).explain(case.inputs)
    np.testing.assert_array_equal(named.relevance, made.relevance)
    assert named.config["base"]["method"] == "lrp.epsilon"
    strong = kxai.create_analyzer("smoothgrad", case.model, base="lrp.epsilon", epsilon=0.5, noise=0.1, num_samples=3)
    direct = kxai.SmoothGrad(kxai.LRP(case.model, "epsilon", epsilon=0.5), 0.1, 3)
    assert repr(strong) == repr(direct)
    with pytest.raises(ArgumentError, match=r"does not take epsilon(.|\n)*noise"):
        kxai.create_analyzer("smoothgrad", case.model, epsilon=0.5)
    with pytest.raises(ArgumentError, match=r"gradient.* does not take epsilon"):
        kxai.create_analyzer("smoothgrad", case.model, base="gradient", epsilon=0.5)
    with pytest.raises(UnknownNameError, match=r"Unknown method 'lrp\.epsilom'"):
        kxai.explain(case.model, case.inputs, "vargrad", base="lrp.epsilom")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, r"noise is out of range(.|\n)*a finite number >= 0(.|\n)*-0\.1"),
        ({"noise": np.nan}, "noise is out of range"),
        ({"noise": "much"}, "noise is out of range"),
        ({"num_samples": 0}, r"num_samples is out of range(.|\n)*an integer >= 1"),
        ({"num_samples": 1.5}, "num_samples is out of range"),
        ({"seed": -1}, "seed is out of range"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_bad_arguments(method, options, message):
    with pytest.raises(ArgumentError, match=message):
        method(models.mlp().model, **options)


def test_layer_is_for_models():
    case = models.mlp()
    with pytest.raises(ArgumentError, match="Another analyzer explains the inputs"):
        kxai.SmoothGrad(kxai.LRP(case.model), layer="dense")
    assert isinstance(case.model.layers[0], layers.Layer)


def test_no_more_rows_than_asked_for():
    sizes = []

    class Spy(kxai.Analyzer):
        name = "spy"

        def _prepare(self, *arguments):
            run, resolved = kxai.Gradient(self.model)._prepare(*arguments)

            def spying(batch, data, rows):
                sizes.append(len(batch[0]))
                return run(batch, data, rows)

            return spying, resolved

    case = models.mlp()
    kxai.SmoothGrad(Spy(case.model), num_samples=11).explain(case.inputs, batch_size=3)
    # Three samples and their 33 noisy ones, then one and its 11.
    assert sizes == [3, *[3] * 11, 1, 3, 3, 3, 2]


BASES = ("fullgrad", "deep_taylor", "deeplift", "guided_backprop", "score_cam", "guided_grad_cam", "expected_gradients")


@pytest.mark.parametrize("name", BASES)
@pytest.mark.filterwarnings("ignore::kxai.KxaiWarning")
def test_any_method_is_a_base(name):
    case = models.cnn()
    options = {"baselines": 0.5, "num_samples": 3} if name == "expected_gradients" else {}
    base = kxai.create_analyzer(name, case.model, **options)
    smooth = kxai.SmoothGrad(base, num_samples=4)
    found = smooth.explain(case.inputs)
    plain = base.explain(case.inputs)
    assert found.relevance.shape == plain.relevance.shape
    np.testing.assert_array_equal(found.target, plain.target)
    np.testing.assert_array_equal(found.score, plain.score)
    parts = smooth.explain(case.inputs, batch_size=3)
    np.testing.assert_allclose(found.relevance, parts.relevance, rtol=1e-3, atol=1e-5 * np.abs(found.relevance).max())
    still = kxai.SmoothGrad(base, 0.0, 2).explain(case.inputs)
    np.testing.assert_allclose(still.relevance, plain.relevance, rtol=1e-3, atol=1e-5 * np.abs(plain.relevance).max())


@pytest.mark.parametrize("method", [kxai.SmoothGrad, kxai.SmoothGradSquared, kxai.VarGrad])
def test_granularity_is_that_of_the_base(method):
    case = models.pooled()
    assert method(case.model).granularity == "value"
    assert method(kxai.LRP(case.model)).granularity == "value"
    assert method(kxai.GradCAM(case.model)).granularity == "position"
    assert method(kxai.GradCAM(case.model, resize=False)).granularity == "feature"
