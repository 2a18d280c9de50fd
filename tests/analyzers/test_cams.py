"""Class activation maps are what their papers say: by numbers, by slow definitions, and by their properties."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import backend
from kxai.errors import ArgumentError, InputError, NumericalError, RuleError
from kxai.testing import models
from tests import naive_cams

# Both compute in float64; 1e-6 in a denominator is in both.
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def build(rank, activation="tanh", head="hidden", bias=True):
    """Maps of 3 channels, half the size of the input, and a head; in float64."""
    sizes = {1: (9,), 2: (9, 8), 3: (5, 6, 4)}[rank]
    conv = getattr(layers, f"Conv{rank}D")
    stack = [conv(3, 3, strides=2, padding="same", activation=activation, name="maps", dtype="float64")]
    if head == "hidden":
        stack += [layers.Flatten(dtype="float64"), layers.Dense(4, "relu", dtype="float64")]
    else:
        stack += [getattr(layers, f"GlobalAveragePooling{rank}D")(dtype="float64")]
    stack += [layers.Dense(3, "softmax", use_bias=bias, dtype="float64")]
    model = models.seeded(keras.Sequential([keras.Input((*sizes, 2), dtype="float64"), *stack]), 3)
    return model, np.random.default_rng(rank).uniform(-1, 1, (4, *sizes, 2))


def activations(model, x):
    return np.asarray(model.get_layer("maps")(x))


def tail(model, c):
    """One sample's activations -> (logit, its gradient), by hand, for the head "hidden"."""
    w1, b1, w2, b2 = (np.asarray(w) for w in model.get_weights()[-4:])

    def run(a):
        hidden = a.ravel() @ w1 + b1
        return np.maximum(hidden, 0) @ w2[:, c] + b2[c], (w1 @ (w2[:, c] * (hidden > 0))).reshape(a.shape)

    return run


def raw(analyzer, x, target=None, **options):
    """The one map in the layer's size, (batch, *sizes)."""
    (found,) = analyzer.explain(x, target, **options).layers.values()
    return found[..., 0]


GRADIENTS = {
    kxai.GradCAM: naive_cams.grad_cam,
    kxai.GradCAMPlusPlus: naive_cams.grad_cam_plus_plus,
    kxai.XGradCAM: naive_cams.xgrad_cam,
    kxai.HiResCAM: naive_cams.hires_cam,
    kxai.LayerCAM: naive_cams.layer_cam,
}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("method", GRADIENTS)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradient_methods_are_their_formulas(method, rank, activation):
    model, x = build(rank, activation)
    target = [1, 0, 2, 1]
    a = activations(model, x)
    expected = np.stack([GRADIENTS[method](one, tail(model, c)(one)[1]) for one, c in zip(a, target, strict=True)])
    assert expected.min() < 0 or activation == "relu"
    np.testing.assert_allclose(raw(method(model, relu=False), x, target), expected, **EXACT)
    np.testing.assert_allclose(raw(method(model, relu=True), x, target), np.maximum(expected, 0), **EXACT)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_eigen_cam_is_the_first_component(rank):
    model, x = build(rank)
    expected = np.stack([naive_cams.eigen_cam(one) for one in activations(model, x)])
    # Squared singular values in double precision: half of the digits at worst.
    np.testing.assert_allclose(raw(kxai.EigenCAM(model), x), expected, rtol=1e-7, atol=1e-9)


def test_eigen_cam_of_more_channels_than_positions():
    conv = layers.Conv2D(20, 3, strides=3, name="maps")
    model = models.seeded(keras.Sequential([keras.Input((9, 9, 2)), conv, layers.Flatten(), layers.Dense(2)]))
    x = models.numbers(9, 9, 2)
    expected = np.stack([naive_cams.eigen_cam(one) for one in np.asarray(conv(x), "float64")])
    # The activations are in float32.
    np.testing.assert_allclose(raw(kxai.EigenCAM(model), x), expected, rtol=1e-5, atol=1e-5)


def test_the_sign_of_a_component_is_that_of_the_activations_where_two_are_possible():
    """Two positions: the projection is (p, -p), and either sign has the largest magnitude."""
    model = keras.Sequential([keras.Input((2, 1)), layers.Conv1D(1, 1, name="maps"), layers.Flatten(), layers.Dense(1)])
    model.get_layer("maps").set_weights([np.ones((1, 1, 1)), np.zeros(1)])
    x = np.array([[[1.0], [3.0]], [[5.0], [2.0]]], "float32")
    np.testing.assert_allclose(raw(kxai.EigenCAM(model), x), [[-1, 1], [1.5, -1.5]], rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_score_cam_is_its_formula(rank):
    model, x = build(rank)
    a = activations(model, x)
    target = [1, 0, 2, 1]
    run = [tail(model, c) for c in target]
    score = [lambda one, f=f: f(activations(model, one[None])[0])[0] for f in run]
    expected = np.stack([naive_cams.score_cam(*case) for case in zip(a, x, score, strict=True)])
    for batch_size in (1, 2, 5, 32):
        found = raw(kxai.ScoreCAM(model, relu=False), x, target, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_ablation_cam_is_its_formula(rank):
    model, x = build(rank)
    target = [1, 0, 2, 1]
    pairs = zip(activations(model, x), target, strict=True)
    expected = np.stack([naive_cams.ablation_cam(a, lambda one, c=c: tail(model, c)(one)[0]) for a, c in pairs])
    for batch_size in (1, 2, 5, 32):
        found = raw(kxai.AblationCAM(model, relu=False), x, target, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("steps", [3, 30])
def test_opti_cam_is_its_optimisation(steps):
    model, x = build(1)
    x = x[:2]
    score = [lambda one, c=c: tail(model, c)(activations(model, one[None])[0])[0] for c in (1, 0)]
    expected = [naive_cams.opti_cam(*case, steps=steps) for case in zip(activations(model, x), x, score, strict=True)]
    # Central differences are exact to about 1e-10, and Adam divides by their size.
    np.testing.assert_allclose(raw(kxai.OptiCAM(model, num_steps=steps), x, [1, 0]), expected, rtol=1e-5, atol=1e-7)


def test_opti_cam_raises_the_score_of_the_masked_input():
    model, x = build(2, activation="relu")
    maps = [kxai.OptiCAM(model, num_steps=steps).explain(x, 1).relevance for steps in (1, 100)]
    scores = []
    for found in maps:
        low, high = found.min(axis=(1, 2, 3), keepdims=True), found.max(axis=(1, 2, 3), keepdims=True)
        scores.append(kxai.Gradient(model).explain(x * (found - low) / (high - low), 1).score)
    assert (scores[1] >= scores[0] - 1e-9).all()
    assert (scores[1] > scores[0] + 1e-3).any()


NUMBERS = {
    "cam": [[2, 3], [-3, 2]],
    "grad_cam": [[0.5, 0.75], [-0.75, 0.5]],
    "xgrad_cam": [[0.5, 0.75], [-0.75, 0.5]],
    "hires_cam": [[0.5, 0.75], [-0.75, 0.5]],
    "grad_cam_plus_plus": [[0.5, 1], [0, 0.5]],
    "layer_cam": [[0.5, 1], [0, 0.5]],
    "ablation_cam": [[2, 3], [-3, 2]],
    "eigen_cam": [[-0.923880, -0.382683], [2.230442, -0.923880]],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    case = models.pooled()
    found = kxai.create_analyzer(name, case.model, relu=False).explain(case.inputs, 0)
    # 1e-6 in the denominator of Grad-CAM++.
    np.testing.assert_allclose(found.relevance[0, :, :, 0], NUMBERS[name], atol=2e-6)
    np.testing.assert_allclose(found.layers["maps"], found.relevance)
    rectified = kxai.create_analyzer(name, case.model, relu=True).explain(case.inputs, 0)
    np.testing.assert_allclose(rectified.relevance, np.maximum(found.relevance, 0))


# Properties.


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_cam_is_the_kernel_and_grad_cam_its_share(rank):
    model, x = build(rank, head="pooled")
    kernel = np.asarray(model.layers[-1].kernel)
    cam = raw(kxai.CAM(model), x, 2)
    np.testing.assert_allclose(cam, activations(model, x) @ kernel[:, 2], **EXACT)
    grad_cam = raw(kxai.GradCAM(model, relu=False), x, 2)
    np.testing.assert_allclose(grad_cam * cam[0].size, cam, **EXACT)


def test_hires_cam_adds_up_to_the_logit_without_its_bias():
    model, x = build(2, head="pooled")
    found = kxai.HiResCAM(model).explain(x, 1)
    total = found.layers["maps/tanh"].sum(axis=(1, 2, 3))
    np.testing.assert_allclose(total, found.score - np.asarray(model.layers[-1].bias)[1], **EXACT)


def test_xgrad_cam_adds_up_to_gradient_times_activation():
    model, x = build(2, activation="relu")
    one, two = raw(kxai.XGradCAM(model, relu=False), x, 1), raw(kxai.HiResCAM(model), x, 1)
    # 1e-7 in the denominator, which is about 1.
    np.testing.assert_allclose(one.sum(axis=(1, 2)), two.sum(axis=(1, 2)), rtol=1e-5)


def test_layer_cam_is_not_negative_behind_a_relu():
    model, x = build(2, activation="relu")
    found = raw(kxai.LayerCAM(model, relu=False), x, 1)
    assert found.min() >= 0
    assert found.max() > 0


def test_ablation_cam_on_averages_has_a_closed_form():
    model, x = build(2, head="pooled", bias=False)
    a, kernel = activations(model, x), np.asarray(model.layers[-1].kernel)[:, 1]
    means = a.mean(axis=(1, 2))
    weights = means * kernel / np.abs(means @ kernel)[:, None]
    found = raw(kxai.AblationCAM(model, relu=False), x, 1)
    np.testing.assert_allclose(found, (a * weights[:, None, None]).sum(axis=-1), **EXACT)


def test_weights_of_score_cam_add_up_to_one():
    """Equal channels: whatever the weights, the map is the channel if they add up to 1."""
    model, x = build(2)
    kernel, bias, *rest = model.get_weights()
    model.set_weights([np.repeat(kernel[..., :1], 3, axis=-1), np.repeat(bias[:1], 3), *rest])
    np.testing.assert_allclose(raw(kxai.ScoreCAM(model, relu=False), x, 1), activations(model, x)[..., 0], **EXACT)


def test_constant_channels_do_no_harm():
    model, x = build(2)
    kernel, bias, *rest = model.get_weights()
    kernel[..., 1] = 0
    model.set_weights([kernel, bias, *rest])
    for name in ("score_cam", "opti_cam", "eigen_cam", "xgrad_cam"):
        assert np.isfinite(raw(kxai.create_analyzer(name, model), x, 1)).all()
    model.set_weights([0 * kernel, 0 * bias, *rest])
    for name in ("score_cam", "opti_cam", "eigen_cam", "xgrad_cam", "ablation_cam"):
        np.testing.assert_array_equal(raw(kxai.create_analyzer(name, model), x, 1), 0)


@pytest.mark.parametrize("name", ["grad_cam_plus_plus", "grad_cam", "score_cam", "opti_cam"])
def test_logits_of_a_thousand(name):
    case = models.averaged()
    *rest, kernel, bias = case.model.get_weights()
    case.model.set_weights([*rest, 3e5 * kernel, bias])
    found = kxai.create_analyzer(name, case.model).explain(case.inputs)
    assert np.abs(found.score).min() > 1000
    assert found.score.max() > 1000
    assert np.isfinite(found.relevance).all()
    assert found.relevance.max() > 0


def test_guided_grad_cam_is_the_product():
    case = models.cnn()
    found = kxai.GuidedGradCAM(case.model).explain(case.inputs, 1)
    guided = kxai.GuidedBackprop(case.model).explain(case.inputs, 1).relevance
    shown = kxai.GradCAM(case.model).explain(case.inputs, 1)
    np.testing.assert_allclose(found.relevance, guided * shown.relevance, rtol=1e-6)
    assert np.abs(found.relevance).max() > 0
    for path, array in shown.layers.items():
        np.testing.assert_array_equal(found.layers[path], array)
    assert shown.config["notes"] == found.config["notes"]


def test_maps_are_resized_linearly():
    model, x = build(2)
    found = kxai.GradCAM(model).explain(x, 1)
    expected = [naive_cams.resize(one[..., 0], (9, 8)) for one in found.layers["maps/tanh"]]
    np.testing.assert_allclose(found.relevance[..., 0], expected, **EXACT)
    left = kxai.GradCAM(model, resize=False).explain(x, 1)
    np.testing.assert_array_equal(left.relevance, found.layers["maps/tanh"])
    assert left.heatmap().shape == (4, 5, 4)


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "ablation_cam", "opti_cam"])
@pytest.mark.parametrize("target", [[1, 0, 2, 1], np.array([0.5, -1.0, 0.25]), lambda y: ops.tanh(y[:, 1]) - y[:, 2]])
def test_a_batch_is_its_samples(name, target):
    model, x = build(2)
    analyzer = kxai.create_analyzer(name, model, **({"num_steps": 10} if name == "opti_cam" else {}))
    whole = analyzer.explain(x, target, batch_size=3).relevance
    for i in range(4):
        own = target[i] if isinstance(target, list) else target
        np.testing.assert_allclose(analyzer.explain(x[i : i + 1], own).relevance[0], whole[i], rtol=1e-7, atol=1e-10)


def test_the_target_is_that_of_the_clean_input():
    model, x = build(2)
    predicted = model.predict(x, verbose=0).argmax(axis=-1)
    for name in ("score_cam", "ablation_cam", "opti_cam"):
        analyzer = kxai.create_analyzer(name, model)
        np.testing.assert_array_equal(analyzer.explain(x).relevance, analyzer.explain(x, predicted).relevance)


def test_one_evaluation_per_channel(monkeypatch):
    """In rows of the batch size, whatever the number of samples."""
    rows = []
    monkeypatch.setattr(backend, "compile", lambda function, signature, jit=False: counting(function, rows))
    case = models.averaged()
    kxai.ScoreCAM(case.model).explain(case.inputs, 1, batch_size=3)
    # Per batch of at most 3 samples one clean pass, and 4 channels each.
    assert rows == [3, 3, 3, 3, 3, 1, 3, 1]


def counting(function, rows):
    def run(*arguments):
        result = function(*keras.tree.map_structure(ops.convert_to_tensor, arguments))
        rows.append(len(keras.tree.flatten(result)[0]))
        return result

    return run


@pytest.mark.parametrize("name", ["grad_cam", "score_cam", "ablation_cam", "opti_cam", "eigen_cam"])
def test_mixed_precision(name):
    """The graph computes it in single precision."""

    def build(policy):
        maps = layers.Conv2D(4, 3, strides=2, activation="tanh", name="maps", dtype=policy)
        head = [layers.GlobalAveragePooling2D(dtype=policy), layers.Dense(3, "softmax", dtype="float32")]
        return models.seeded(keras.Sequential([keras.Input((9, 9, 2)), maps, *head]))

    x = models.numbers(9, 9, 2)
    found, expected = (kxai.create_analyzer(name, build(p)).explain(x, 1) for p in ("mixed_float16", "float32"))
    assert found.relevance.dtype == np.float32
    np.testing.assert_allclose(found.relevance, expected.relevance, rtol=1e-5, atol=1e-6)


# Errors.


def test_a_score_of_zero_cannot_be_divided_by():
    case = models.pooled()
    analyzer = kxai.AblationCAM(case.model)
    x = np.array(case.inputs)
    x[1] = [[[1, 2], [0, 0]], [[0, 0], [0, 0]]]  # means 0.25 and 0.5, weights 2 and -1
    with pytest.raises(NumericalError, match=r"divides by the score, which is 0(.|\n)*1 of 2 samples"):
        analyzer.explain(x, 0)


@pytest.mark.parametrize("name", ["score_cam", "opti_cam"])
def test_token_ids_cannot_be_masked(name):
    case = models.tokens()
    with pytest.raises(InputError, match=f"{name} multiplies the input with masks(.|\n)*grad_cam or ablation_cam"):
        kxai.create_analyzer(name, case.model).explain(case.inputs)


def test_cam_says_what_it_is_defined_for():
    model, x = build(2)
    with pytest.raises(RuleError, match=r"pooling and one dense layer(.|\n)*'maps/tanh': flatten(.|\n)*grad_cam"):
        kxai.CAM(model).explain(x)
    pooled, x = build(2, head="pooled")
    two = keras.Sequential([pooled, layers.Dense(2)])
    with pytest.raises(RuleError, match=r"behind '[^']*': [^']*/softmax"):
        kxai.CAM(two).explain(x)


def test_the_mean_of_channels_is_no_pooling():
    """As many positions as channels: the shape alone does not tell."""
    x = keras.Input((4, 2))
    maps = layers.Conv1D(4, 1, name="maps")(x)
    model = keras.Model(x, layers.Dense(2)(ops.mean(maps, axis=-1)))
    with pytest.raises(RuleError, match="behind 'maps': mean"):
        kxai.CAM(model).explain(models.numbers(4, 2))
    right = keras.Model(x, layers.Dense(2)(ops.mean(maps, axis=1)))
    assert raw(kxai.CAM(right), models.numbers(4, 2)).shape == (4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, "This is no layer"),
        ({"epsilon": 0}, "epsilon is out of range"),
        ({"num_steps": 0}, "num_steps is out of range"),
        ({"num_steps": 1.5}, "num_steps is out of range"),
        ({"learning_rate": -1}, "learning_rate is out of range"),
    ],
)
def test_arguments(options, message):
    name = "opti_cam" if "num_steps" in options or "learning_rate" in options else "grad_cam_plus_plus"
    with pytest.raises(ArgumentError, match=message):
        kxai.create_analyzer(name, models.pooled().model, **options)


def test_relevance_of_other_layers_is_not_asked_for():
    case = models.pooled()
    with pytest.raises(ArgumentError, match=r"explains by one layer(.|\n)*GradCAM\(model, layer=...\)"):
        kxai.GradCAM(case.model).explain(case.inputs, 0, layers="maps")
    with pytest.raises(ArgumentError, match="nothing to account for"):
        kxai.ScoreCAM(case.model).explain(case.inputs, 0, audit=True)
