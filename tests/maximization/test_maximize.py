"""Activation maximisation: every step by the formulas, and what it leaves alone."""

from __future__ import annotations

import pickle
import re
import sys
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

import kxai
from kxai import ActivationMaximization, Contrast
from kxai.errors import (
    ArgumentError,
    InputError,
    KxaiWarning,
    MissingDependencyError,
    ModelError,
    NumericalError,
    TargetError,
    UnknownNameError,
)
from kxai.testing import models
from kxai.testing.models import seeded
from kxai.testing.snapshot import Snapshot, name_counters

pytest.importorskip("tf_keras_vis", reason="tf-keras-vis is not installed (pip install 'kxai[actmax]')")

RNG = np.random.default_rng(0)


def linear(shape=(4, 3, 2), units=3):
    return seeded(keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(units, name="logits")]), 5)


def cnn(head=None):
    rows = [layers.Conv2D(4, 3, activation="tanh", name="conv"), layers.Flatten(), layers.Dense(3, head, name="logits")]
    return seeded(keras.Sequential([keras.Input((6, 6, 1)), *rows]), 2)


def climb(weights, start, steps, rate, low, high, variation, norm):
    """Adam on ``-(w.x) + variation TV(u) + norm mean(u^2)`` in float64, by hand: x = middle + half u."""
    middle, half = (low + high) / 2, (high - low) / 2
    u, m, v = ((start - middle) / half), 0.0, 0.0
    scores = []
    for t in range(1, steps + 1):
        u = np.clip(u, -1, 1)
        scores.append((weights * (middle + half * u)).sum(axis=(1, 2, 3)))
        slope = np.zeros_like(u)
        for axis in (1, 2):
            signs = np.sign(np.diff(u, axis=axis))
            pad = [(0, 0)] * 4
            pad[axis] = (1, 0)
            slope += np.pad(signs, pad)
            pad[axis] = (0, 1)
            slope -= np.pad(signs, pad)
        size = u[0].size
        g = -half * weights + variation * slope / size + norm * 2 * u / size
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        u = u - 2 * rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-7)
    x = middle + half * np.clip(u, -1, 1)
    return x, (weights * x).sum(axis=(1, 2, 3)), np.stack(scores)


@pytest.mark.parametrize(("variation", "norm"), [(0.0, 0.0), (3.0, 0.0), (0.0, 5.0), (2.0, 4.0)])
def test_every_step_is_adam_with_these_regularisers(variation, norm):
    model = linear()
    low, high = np.array([-1.0, 0.0]), np.array([1.0, 4.0])
    start = RNG.uniform(low, high, (2, 4, 3, 2)).astype("float32")
    maximizer = ActivationMaximization(
        model, num_steps=25, learning_rate=0.013, input_range=(low, high), total_variation=variation, l2_norm=norm
    )
    found = maximizer.maximize([2, 0], start=start)
    kernel, bias = model.layers[1].kernel.numpy(), model.layers[1].bias.numpy()
    weights = kernel.T[[2, 0]].reshape(2, 4, 3, 2).astype("float64")
    x, score, history = climb(weights, start.astype("float64"), 25, 0.013, low, high, variation, norm)
    # In float32 Adam's 1 - 0.999^t is known to 6e-8 / 1e-3 at first, and a pixel moves by 25 * 0.052 at most.
    np.testing.assert_allclose(found.images, x, atol=3e-4)
    np.testing.assert_allclose(found.score, score + bias[[2, 0]], atol=1e-3)
    np.testing.assert_allclose(found.history, history + bias[[2, 0]], atol=1e-3)


def test_a_linear_model_is_maximal_in_a_corner_of_its_range():
    model = linear()
    low, high = np.array([-2.0, 1.0], "float32"), np.array([0.0, 7.0], "float32")
    found = ActivationMaximization(
        model, num_steps=120, input_range=(low, high), total_variation=0, l2_norm=0, seed=3
    ).maximize(1)
    kernel = model.layers[1].kernel.numpy()[:, 1].reshape(4, 3, 2)
    np.testing.assert_allclose(found.images[0], np.where(kernel > 0, high, low), atol=1e-6)
    np.testing.assert_array_equal(found.low, low)
    np.testing.assert_array_equal(found.high, high)


def test_the_start_is_the_middle_of_the_range_with_noise():
    model = linear()
    maximizer = ActivationMaximization(
        model, num_steps=1, learning_rate=1e-5, input_range=(2.0, 6.0), total_variation=0, l2_norm=0, seed=4
    )
    noise = np.random.default_rng(4).uniform(-0.1, 0.1, (2, 4, 3, 2))
    # One step moves by 1e-5 of a width of 4.
    np.testing.assert_allclose(maximizer.maximize(0, 2).images, 4 + 2 * noise, atol=5e-5)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", None])
def test_the_logit_is_maximised(head):
    found = ActivationMaximization(cnn(head), num_steps=15).maximize(1)
    np.testing.assert_allclose(found.score, cnn()(found.images).numpy()[:, 1], rtol=1e-5)
    plain = ActivationMaximization(cnn(), num_steps=15).maximize(1)
    np.testing.assert_array_equal(found.images, plain.images)
    assert found.score > found.history[0]
    assert ("left out" in str(found.config["notes"])) == (head is not None)


def test_targets():
    model = cnn()
    maximizer = ActivationMaximization(model, num_steps=10)

    def score(target, **options):
        found = maximizer.maximize(target, **options)
        return found.score, model(found.images).numpy()

    for target, of in [
        (2, lambda y: y[:, 2]),
        ([0, 2], lambda y: y[[0, 1], [0, 2]]),
        (Contrast(0, 1), lambda y: y[:, 0] - y[:, 1]),
        ([0.5, -1.0, 0.0], lambda y: 0.5 * y[:, 0] - y[:, 1]),
        ({"logits": 1}, lambda y: y[:, 1]),
        (lambda y: y[:, 0] * y[:, 1], lambda y: y[:, 0] * y[:, 1]),
    ]:
        value, outputs = score(target)
        np.testing.assert_allclose(value, of(outputs), rtol=1e-5, atol=1e-6)
    from tf_keras_vis.utils.scores import CategoricalScore

    np.testing.assert_array_equal(
        maximizer.maximize(CategoricalScore([0, 2])).images, maximizer.maximize([0, 2]).images
    )


def test_units_of_inner_layers():
    model = cnn("softmax")
    conv = model.layers[0]

    def found(layer, target):
        result = ActivationMaximization(model, layer=layer, num_steps=10).maximize(target)
        return result, conv(result.images).numpy()

    channel, values = found("conv", 3)
    np.testing.assert_allclose(channel.score, values[..., 3].mean(axis=(1, 2)), rtol=1e-5)
    for same in (conv, "con?/tanh", "conv/tanh"):
        np.testing.assert_array_equal(found(same, 3)[0].images, channel.images)
    unit, values = found("conv", (1, 2, 0))
    np.testing.assert_allclose(unit.score, values[:, 1, 2, 0], rtol=1e-5)
    # Pixels that the unit does not see stay where the noise and the regularisers have them.
    chosen, values = found(conv, lambda y: ops.max(y[..., 1], axis=(1, 2)))
    np.testing.assert_allclose(chosen.score, values[..., 1].max(axis=(1, 2)), rtol=1e-5)
    probability, _ = found("logits/softmax", 0)
    np.testing.assert_allclose(probability.score, model(probability.images).numpy()[:, 0], rtol=1e-5)


def test_nested_models_and_their_layers():
    case = models.nested()
    found = ActivationMaximization(case.model, num_steps=10).maximize(1)
    np.testing.assert_allclose(found.score, case.model(found.images).numpy()[:, 1], rtol=1e-5)
    inner = ActivationMaximization(case.model, layer="outer/inner/inner_b", num_steps=10).maximize(0)
    assert inner.score > inner.history[0]


def test_outputs_with_positions_count_with_their_mean():
    model = seeded(keras.Sequential([keras.Input((5, 5, 1)), layers.Conv2D(2, 3)]), 1)
    found = ActivationMaximization(model, num_steps=5).maximize(1)
    np.testing.assert_allclose(found.score, model(found.images).numpy()[..., 1].mean(axis=(1, 2)), rtol=1e-5)


def test_tables_and_sequences():
    table = seeded(keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)]))
    found = ActivationMaximization(table, input_range=([0, -1, 5], [1, 1, 9])).maximize(1)
    assert (found.images >= [0, -1, 5]).all()
    assert (found.images <= [1, 1, 9]).all()
    rows = [layers.Conv1D(3, 2, activation="relu"), layers.GlobalMaxPooling1D(), layers.Dense(2)]
    sequence = seeded(keras.Sequential([keras.Input((6, 2)), *rows]))
    found = ActivationMaximization(sequence, num_steps=20, jitter=1).maximize(0, 2)
    assert found.images.shape == (2, 6, 2)
    assert (found.score > found.history[0]).all()
    volume = seeded(keras.Sequential([keras.Input((3, 3, 3, 1)), layers.Conv3D(2, 2), layers.GlobalAveragePooling3D()]))
    assert ActivationMaximization(volume, num_steps=20).maximize(0).images.shape == (1, 3, 3, 3, 1)
    with pytest.raises(ArgumentError, match=r"no image(.|\n)*\(n, height, width"):
        found.plot()


def two_inputs():
    picture, numbers = keras.Input((4, 4, 1), name="picture"), keras.Input((3,), name="numbers")
    y = layers.Dense(2)(layers.Concatenate()([layers.Flatten()(picture), numbers]))
    return seeded(keras.Model({"picture": picture, "numbers": numbers}, y))


def test_several_inputs_are_optimised_together():
    model = two_inputs()
    maximizer = ActivationMaximization(
        model, num_steps=120, total_variation=0, l2_norm=0, input_range={"picture": (0.0, 1.0), "numbers": (-3.0, 3.0)}
    )
    found = maximizer.maximize(1, 2)
    assert {key: value.shape for key, value in found.images.items()} == {"picture": (2, 4, 4, 1), "numbers": (2, 3)}
    np.testing.assert_allclose(found.score, model(found.images).numpy()[:, 1], rtol=1e-5)
    kernel = model.layers[-1].kernel.numpy()[:, 1]
    np.testing.assert_allclose(found.images["picture"][0].ravel(), (kernel[:16] > 0), atol=1e-6)
    np.testing.assert_allclose(found.images["numbers"][0], np.where(kernel[16:] > 0, 3, -3), atol=1e-6)
    assert found.pixels("picture").shape == (2, 4, 4, 1)
    with pytest.raises(ArgumentError, match=r"several inputs(.|\n)*picture: "):
        found.plot()
    with pytest.raises(UnknownNameError, match="Unknown input 'c'"):
        found.plot("c")
    case = models.list_inputs()
    found = ActivationMaximization(case.model, num_steps=3).maximize(0)
    assert len(found.images) == len(case.inputs)


def test_an_input_without_influence_stays():
    model = two_inputs()
    flat = next(layer for layer in model.layers if isinstance(layer, layers.Flatten))
    maximizer = ActivationMaximization(model, layer=flat, num_steps=5, total_variation=0, l2_norm=0)
    found = maximizer.maximize(3)
    begin = ActivationMaximization(model, layer=flat, num_steps=5, learning_rate=1e-6, l2_norm=0).maximize(3)
    np.testing.assert_allclose(found.images["numbers"], begin.images["numbers"], atol=1e-7)
    assert np.abs(found.images["picture"] - begin.images["picture"]).max() > 0.05


def test_sizes_that_are_open_come_from_the_start():
    rows = [layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()]
    model = seeded(keras.Sequential([keras.Input((None, None, 1)), *rows]))
    maximizer = ActivationMaximization(model, num_steps=3)
    with pytest.raises(InputError, match=r"leaves open(.|\n)*start="):
        maximizer.maximize(0)
    assert maximizer.maximize(0, start=np.full((2, 5, 7, 1), 0.5)).images.shape == (2, 5, 7, 1)
    case = models.subclassed()
    x = np.asarray(case.inputs)
    low, high = x.min() - 1, x.max() + 1
    found = ActivationMaximization(case.model, num_steps=3, input_range=(float(low), float(high))).maximize(0, start=x)
    assert found.images.shape == x.shape


def optimizer_count():
    return int(re.search(r"\d*$", keras.optimizers.Adam().name)[0] or 0)


CASES = {
    "cnn": (models.cnn, {}),
    "nested": (models.nested, {}),
    "shared": (models.shared, {}),
    "several outputs": (models.multi_output, {}),
    "residual": (models.residual, {}),
    "gated": (models.gated, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_model_stays_as_it_was(name):
    case = CASES[name][0]()
    before, earlier, counters = Snapshot.of(case), name_counters(), name_counters()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    earlier_optimizers, optimizers = optimizer_count(), optimizer_count()
    target = {case.model.output_names[0]: 0} if name == "several outputs" else 0
    maximizer = ActivationMaximization(case.model, num_steps=3)
    maximizer.maximize(target)

    def fails(y):
        raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        maximizer.maximize(fails)
    # Asking counts further, too.
    assert {key: now - counters[key] for key, now in name_counters().items()} == {
        key: now - earlier[key] for key, now in counters.items()
    }
    before.check(case)
    # Keras 3.12 does not number optimizers.
    assert optimizer_count() - optimizers == optimizers - earlier_optimizers
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_a_seed_gives_the_same_images():
    model = cnn()
    options = {"num_steps": 10, "jitter": 2}
    first = ActivationMaximization(model, **options).maximize([0, 0, 1])
    again = ActivationMaximization(model, **options).maximize([0, 0, 1])
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.history, again.history)
    assert np.abs(first.images[0] - first.images[1]).max() > 0.01
    # An image does not depend on what else is computed; sums may run in another order.
    alone = ActivationMaximization(model, **options).maximize(0)
    np.testing.assert_allclose(alone.images[0], first.images[0], atol=1e-4)


@pytest.mark.parametrize(
    "changed",
    [
        {"layer": "conv"},
        {"num_steps": 9},
        {"learning_rate": 0.03},
        {"input_range": (0.0, 2.0)},
        {"total_variation": 4.0},
        {"l2_norm": 0.3},
        {"jitter": 1},
        {"seed": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_argument_matters(changed):
    model = cnn()
    plain = ActivationMaximization(model, num_steps=8)
    other = ActivationMaximization(model, **{"num_steps": 8, **changed})
    assert np.abs(plain.maximize(0).images - other.maximize(0).images).max() > 1e-3
    assert other.hyperparameters()[next(iter(changed))] == next(iter(changed.values()))
    assert repr(next(iter(changed.values()))) in repr(other)


def test_compiled_once_for_all_numbers_and_weights():
    model = cnn()
    maximizer = ActivationMaximization(model, num_steps=3)
    first = maximizer.maximize(0)
    maximizer.maximize([1, 2, 0])
    model.set_weights([2 * w for w in model.get_weights()])
    assert np.abs(maximizer.maximize(0).score - first.score) > 1e-3
    assert maximizer.traces == 1
    maximizer.maximize([0.0, 1.0, 0.0])
    assert maximizer.traces == 2


def test_threads_share_a_maximizer():
    maximizer = ActivationMaximization(cnn(), num_steps=10, jitter=1)
    want = [maximizer.maximize(k).images for k in range(3)]
    got = [None] * 3

    def work(k):
        got[k] = maximizer.maximize(k).images

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(got, want)


def test_a_score_that_never_moves_is_said():
    model = seeded(keras.Sequential([keras.Input((3,)), layers.Dense(2, "relu", name="off"), layers.Dense(1)]))
    model.layers[0].bias.assign([-100.0, -100.0])
    with pytest.warns(KxaiWarning, match=r"score of 1 of 1 images never moved \(the first: image 0, 0\)"):
        ActivationMaximization(model, layer="off", num_steps=3).maximize(0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_steps": 0}, r"num_steps is out of range(.|\n)*an integer >= 1(.|\n)*0"),
        ({"num_steps": 2.0}, "num_steps is out of range"),
        ({"learning_rate": 0}, r"learning_rate is out of range(.|\n)*> 0"),
        ({"learning_rate": float("nan")}, "learning_rate is out of range"),
        ({"total_variation": -1.0}, r"total_variation is out of range(.|\n)*or None"),
        ({"l2_norm": "1"}, "l2_norm is out of range"),
        ({"jitter": 0.5}, r"jitter is out of range(.|\n)*an integer >= 0"),
        ({"seed": -1}, "seed is out of range"),
    ],
)
def test_bad_arguments(options, text):
    with pytest.raises(ArgumentError, match=text):
        ActivationMaximization(cnn(), **options)


@pytest.mark.parametrize(
    ("options", "call", "error", "text"),
    [
        ({"input_range": (1.0, 1.0)}, {}, ArgumentError, r"input_range does not fit(.|\n)*low < high"),
        ({"input_range": (0.0, np.inf)}, {}, ArgumentError, "input_range does not fit"),
        ({"input_range": 1.0}, {}, ArgumentError, "input_range does not fit"),
        ({"input_range": (np.zeros(5), np.ones(5))}, {}, ArgumentError, r"broadcast to \(6, 6, 1\)"),
        ({"input_range": {"other": (0.0, 1.0)}}, {}, ArgumentError, "dict of such pairs by input name"),
        ({"input_range": ("a", "b")}, {}, ArgumentError, "input_range does not fit"),
        ({"layer": "cnov"}, {}, UnknownNameError, "did you mean conv"),
        ({}, {"target": None}, TargetError, r"must be named(.|\n)*target=3"),
        ({}, {"target": "logits"}, TargetError, "must be named"),
        ({}, {"target": 3}, TargetError, r"not a unit(.|\n)*from 0 to 2"),
        ({}, {"target": lambda y: y}, TargetError, "one number per sample"),
        ({}, {"num_images": 0}, ArgumentError, r"num_images is out of range(.|\n)*>= 1"),
        ({}, {"target": [0, 1], "num_images": 3}, ArgumentError, "num_images says 3, target says 2"),
        ({}, {"start": np.full((1, 6, 6, 1), 2.0)}, InputError, r"outside of input_range(.|\n)*from 2 to 2"),
        ({}, {"start": np.zeros((6, 6, 1))}, InputError, "wrong shape"),
    ],
)
def test_bad_calls(options, call, error, text):
    with pytest.raises(error, match=text):
        ActivationMaximization(cnn(), **{"num_steps": 2, **options}).maximize(**{"target": 0, **call})


def test_it_is_no_analyzer():
    with pytest.raises(UnknownNameError, match=r"Unknown method 'activation(.|\n)*kxai.ActivationMaximization"):
        kxai.create_analyzer("activation_maximization", cnn())
    assert "activation_maximization" not in kxai.methods()


def test_what_cannot_be_climbed_is_refused():
    table = seeded(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))
    with pytest.raises(ArgumentError, match=r"total_variation does not apply(.|\n)*total_variation=0"):
        ActivationMaximization(table, total_variation=1.0).maximize(0)
    with pytest.raises(ArgumentError, match=r"jitter does not apply(.|\n)*axes besides its channels"):
        ActivationMaximization(table, jitter=1).maximize(0)
    case = models.tokens()
    with pytest.raises(InputError, match=r"takes int32(.|\n)*floating point(.|\n)*behind the embedding"):
        ActivationMaximization(case.model).maximize(0)
    with pytest.raises(ModelError, match="Only Keras models"):
        ActivationMaximization("model")
    stepped = keras.Sequential([keras.Input((3,)), layers.Lambda(ops.sign, name="step")])
    with pytest.raises(TargetError, match=r"does not depend on the model's inputs"):
        ActivationMaximization(stepped).maximize(0)


def test_models_that_are_not_finite_are_said():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.set_weights([np.full((2, 1), np.nan), np.zeros(1)])
    with pytest.raises(NumericalError, match=r"did not come to an end(.|\n)*NaN or infinity"):
        ActivationMaximization(model, num_steps=2).maximize(0)


def test_fewer_steps_than_asked_for_are_said(monkeypatch):
    monkeypatch.setenv("TF_KERAS_VIS_MAX_STEPS", "1")
    with pytest.raises(NumericalError, match=r"3 steps(.|\n)*1 steps(.|\n)*TF_KERAS_VIS_MAX_STEPS"):
        ActivationMaximization(cnn(), num_steps=3).maximize(0)


def test_a_missing_package_is_said(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "tf_keras_vis"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r'tf-keras-vis(.|\n)*pip install "kxai\[actmax\]"'):
        ActivationMaximization(cnn())


def test_the_result():
    found = ActivationMaximization(cnn(), num_steps=4, input_range=(-1.0, 1.0)).maximize([0, 1, 2])
    assert len(found) == 3
    assert repr(found).startswith("Maximization(images=(3, 6, 6, 1), score=[")
    assert found.history.shape == (4, 3)
    for array in (found.images, found.score, found.history, found.low, found.high):
        assert not array.flags.writeable
    np.testing.assert_array_equal(found.pixels(), np.rint(127.5 * (found.images.astype("float64") + 1)).astype("uint8"))
    figure = found.plot(columns=2)
    assert [axes.get_title() for axes in figure.axes] == [f"score {value:.4g}" for value in found.score]
    assert found.plot(titles=["a", "b", "c"]).axes[2].get_title() == "c"
    assert found.config["method"] == "activation_maximization"
    assert found.config["target"] == "[0, 1, 2]"
    assert found.config["versions"]["tf-keras-vis"]
    copy = pickle.loads(pickle.dumps(found))
    np.testing.assert_array_equal(copy.images, found.images)
    assert copy.config == found.config


def test_pictures_are_laid_out():
    with pytest.raises(ArgumentError, match=r"titles do not fit(.|\n)*3, one per image(.|\n)*2"):
        kxai.plots.pictures(np.ones((3, 4, 4, 1)), ["a", "b"])
    with pytest.raises(ArgumentError, match="columns is out of range"):
        kxai.plots.pictures(np.ones((1, 4, 4, 1)), ["a"], columns=0)
    with pytest.raises(ArgumentError, match="size is out of range"):
        kxai.plots.pictures(np.ones((1, 4, 4, 1)), ["a"], size=0.0)
    boxes = [axes.get_position() for axes in kxai.plots.pictures(np.ones((3, 4, 4, 1)), list("abc"), columns=2).axes]
    assert boxes[0].x1 < boxes[1].x0
    assert boxes[2].y1 < boxes[0].y0
    assert boxes[2].x0 == pytest.approx(boxes[0].x0)
