"""Trained models from elsewhere are explained without custom code: load the file, name the method.

The files lie in ``../shared``, beside the repository; the tests skip where they are absent.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest

import kxai
from kxai.composites import PRESETS, gated
from kxai.errors import NumericalError, RuleError
from tests.beside import existing

BOX = {"low": -1.0, "high": 1.0}
GRADIENTS = {"gradient": {}, "gradient_x_input": {}, "sensitivity": {}}
SIGNALS = {"guided_backprop": {}, "deconvnet": {}}
HYPERPARAMETERS = {"epsilon_gamma_box": BOX, "sequential_preset_b_flat_until_idx": {"idx": 1}}
# One preset knows VGG-16's layers by name.
LRP = {f"lrp.{name}": HYPERPARAMETERS.get(name, {}) for name in PRESETS if name != "vgg16_tutorial"}
EVERY = GRADIENTS | SIGNALS | LRP | {"deep_taylor": {}, "deep_taylor.bounded": BOX}
QUICK = ("gradient", "guided_backprop", "lrp.epsilon_plus", "lrp.epsilon_gamma_box", "deep_taylor")
every_method = pytest.mark.parametrize("method", EVERY)


@cache
def load(name: str):
    return kxai.load(existing("models", name))


def explain(model, x, method, target=None, **more):
    return kxai.create_analyzer(method, model, **EVERY[method], **more).explain(x, target)


def smooth(*shape: int) -> np.ndarray:
    """Blurred noise that fills [-1, 1], the range of all image models here."""
    noise = np.random.default_rng(0).uniform(-1, 1, shape)
    for axis in (1, 2):
        noise = sum(np.roll(noise, shift, axis) for shift in range(8)) / 8
    return (noise / np.abs(noise).max()).astype("float32")


def check(explanation: kxai.Explanation, model, x: np.ndarray) -> None:
    """Relevance has the input's shape, and every sample has some; the outputs are the model's own."""
    assert explanation.relevance.shape == x.shape
    assert (np.abs(explanation.relevance).reshape(len(x), -1).max(axis=1) > 0).all()
    np.testing.assert_allclose(explanation.outputs, model.predict(x, verbose=0), atol=1e-5)


# Without the biases that batch normalisation leaves, sums are near 0 somewhere in a deep network, and shares explode.
ILL_CONDITIONED = ("lrp.z_IB", "lrp.epsilon_IB")


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=() if m in QUICK else pytest.mark.slow) for m in EVERY if m not in ILL_CONDITIONED],
)
def test_image_classifier(method):
    model, x = load("efficientnet_lite0.keras"), smooth(1, 224, 224, 3)
    check(explain(model, x, method), model, x)


@every_method
def test_separable_and_residual_network(method):
    model, x = load("fer_mini_xception.keras"), smooth(2, 64, 64, 1)
    check(explain(model, x, method), model, x)


@cache
def adults() -> np.ndarray:
    """People whom the model gives more than an even chance, because deep Taylor explains positive logits."""
    with np.load(existing("data", "adult29_5k.npz")) as data:
        x = data["x"]
    return x[load("dice_adult_mlp.keras").predict(x, verbose=0)[:, 0] > 0.5][:50]


@every_method
def test_table(method):
    model, x = load("dice_adult_mlp.keras"), adults()
    check(explain(model, x, method), model, x)


def test_zero_rule_is_gradient_times_input():
    """True of every network of ReLUs, maxima and averages, so that two independent computations must agree."""
    for name, x in (("dice_adult_mlp.keras", adults()), ("fer_mini_xception.keras", smooth(2, 64, 64, 1))):
        zero, product = (explain(load(name), x, method).relevance for method in ("lrp.zero", "gradient_x_input"))
        assert np.abs(zero - product).max() <= 1e-3 * np.abs(product).max(), name


@every_method
def test_fully_convolutional_network(method):
    """The unit at the first place sees the first 12 x 12 pixels: they alone, and alike, in an image of any size."""
    model, large = load("mtcnn_pnet.keras"), smooth(2, 40, 56, 3)
    small = large[:, :12, :12]
    more = {"other_activations": "gradient"} if method in SIGNALS else {}  # its activations are PReLUs
    target = {"conv4-2": (0, 0, 0)}
    seen = explain(model, small, method, target, **more)
    relevance = np.array(explain(model, large, method, target, **more).relevance)
    assert np.abs(seen.relevance).max() > 0
    np.testing.assert_allclose(relevance[:, :12, :12], seen.relevance, atol=1e-4 * np.abs(seen.relevance).max())
    relevance[:, :12, :12] = 0
    assert not relevance.any()


def test_several_outputs():
    model, x = load("mtcnn_pnet.keras"), smooth(2, 12, 12, 3)
    parts = [explain(model, x, "gradient", {name: 0}).relevance for name in ("conv4-1", "conv4-2")]
    both = explain(model, x, "gradient", {"conv4-1": 0, "conv4-2": 0}).relevance
    np.testing.assert_allclose(both, parts[0] + parts[1], atol=1e-5 * np.abs(both).max())
    with pytest.raises(kxai.KxaiError, match=r"2 outputs.*\n.*conv4-1, conv4-2"):
        explain(model, x, "gradient")


def test_guided_backprop_names_the_activation_it_is_not_defined_for():
    with pytest.raises(RuleError, match=r"prelu\d(.|\n)*other_activations"):
        kxai.GuidedBackprop(load("mtcnn_pnet.keras")).plan()


TOXIC = "you are a stupid idiot"


def tokens(text: str) -> np.ndarray:
    """Ids of lower-cased words, padded on the left to length 100."""
    vocabulary = json.loads(existing("models", "tox_block_vocab.json").read_text(encoding="utf-8"))
    ids = [vocabulary[word] for word in text.split()]
    return np.array([[0] * (100 - len(ids)) + ids], "float32")


@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=() if m in (*QUICK, "lrp.epsilon", "lrp.attn") else pytest.mark.slow) for m in EVERY],
)
def test_text_per_token(method):
    model, x = load("tox_block_bilstm.keras"), tokens(TOXIC)
    more = {"other_activations": "gradient"} if method in SIGNALS else {}  # its gates are sigmoids
    explanation = explain(model, x, method, target=0, **more)
    check(explanation, model, x)
    assert explanation.outputs[0, 0] > 0.9  # toxic


@pytest.mark.parametrize("method", ["gradient_x_input", "lrp.epsilon", "lrp.gamma", "lrp.attn", "lrp.cp"])
def test_insults_make_a_text_toxic(method):
    explanation = explain(load("tox_block_bilstm.keras"), tokens(TOXIC), method, target=0)
    words = dict(zip(TOXIC.split(), explanation.relevance[0, -5:], strict=True))
    assert set(sorted(words, key=words.get)[-2:]) == {"stupid", "idiot"}


def test_exploding_relevance_is_an_error():
    """Half of the relevance for each gate: over 100 steps, shares of sums near 0 multiply."""
    model, x = load("tox_block_bilstm.keras"), tokens(TOXIC)
    halves = (gated, kxai.rules.Uniform())
    with pytest.raises(NumericalError, match="a larger epsilon"):
        kxai.LRP(model, kxai.preset("epsilon", epsilon=1e-9).but(halves)).explain(x, target=0)
    damped = kxai.LRP(model, kxai.preset("epsilon", epsilon=0.1).but(halves)).explain(x, target=0)
    assert np.abs(damped.relevance).max() < 10


def test_relevance_of_a_text_adds_up():
    """Up to the biases of two directions of 100 steps, and the stabilizers."""
    model, x = load("tox_block_bilstm.keras"), tokens(TOXIC)
    explanation = kxai.LRP(model, "epsilon").explain(x, target=0, audit=True)
    total = explanation.relevance.sum() + sum(absorbed.sum() for absorbed in explanation.absorbed.values())
    np.testing.assert_allclose(total, explanation.score[0], rtol=1e-3)
