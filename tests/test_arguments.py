"""Arguments that are no switch, no known text or no name are refused, not guessed at."""

from __future__ import annotations

import numpy as np
import pytest

import kxai
from kxai.arguments import check_choice, check_flags, check_integer, check_number
from kxai.errors import ArgumentError, UnknownNameError
from kxai.testing import models

SWITCHES = [
    ("grad_cam", "relu"),
    ("grad_cam", "resize"),
    ("score_cam", "strip_softmax"),
    ("guided_grad_cam", "strip_softmax"),
    ("attention_relevance", "strip_softmax"),
    ("integrated_gradients", "strip_softmax"),
    ("smoothgrad", "absolute"),
    ("pattern_net", "normalize"),
    ("deeplift", "multipliers"),
    ("gradient", "jit"),
    ("lrp.epsilon", "jit"),
]


@pytest.mark.parametrize(("method", "name"), SWITCHES)
def test_switches_are_true_or_false(method, name):
    model = models.pooled().model
    with pytest.raises(ArgumentError, match=rf"{name} is a switch(.|\n)*True or False(.|\n)*'no'"):
        kxai.create_analyzer(method, model, **{name: "no"})
    with pytest.raises(ArgumentError, match=f"{name} is a switch"):
        kxai.create_analyzer(method, model, **{name: None})


def test_checks():
    check_flags(one=True, two=False)
    with pytest.raises(ArgumentError, match=r"two is a switch(.|\n)*Received: 1"):
        check_flags(one=True, two=1)
    check_choice("psi", "layer", ["channel", "layer"])
    for wrong in ("layers", ["layer"], None):
        with pytest.raises(ArgumentError, match=r"psi is out of range(.|\n)*'channel', 'layer' or None"):
            check_choice("psi", wrong, ["channel", "layer"], also="None")


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "expected"),
    [
        ({}, (1, np.int64(7), 10**400), (0, -1, 1.0, "1", None, True, np.True_), "an integer >= 1"),
        ({"least": 0}, (0,), (-1,), "an integer >= 0"),
        ({"least": 0, "most": 3, "also": "None"}, (0, 3), (4, -1), r"an integer in \[0, 3\] or None"),
    ],
)
def test_integers(bounds, good, bad, expected):
    for value in good:
        found = check_integer("n", value, **bounds)
        assert found == value
        assert type(found) is int
    for value in bad:
        with pytest.raises(ArgumentError, match=rf"^n is out of range\.\n  Expected: {expected}\n  Received: "):
            check_integer("n", value, **bounds)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "expected"),
    [
        ({"above": 0}, (1, 1e-300, np.float32(0.5), np.int8(1)), (0, -1.0), "a finite number > 0"),
        ({"least": 0, "unit": "inches"}, (0, 2.5), (-1e-300,), "inches >= 0"),
        ({"least": 0, "most": 1}, (0, 1.0), (-0.1, 1.1), r"a number in \[0, 1\]"),
        ({"least": 0, "below": 1, "also": "None"}, (0,), (1,), r"a number in \[0, 1\) or None"),
        ({"above": 0, "most": 100, "unit": "a percentile"}, (100,), (0, 100.5), r"a percentile in \(0, 100\]"),
    ],
)
def test_numbers(bounds, good, bad, expected):
    for value in good:
        found = check_number("x", value, **bounds)
        assert found == value
        assert type(found) is float
    for value in (*bad, np.nan, np.inf, -np.inf, 10**400, True, "1", None, 1j, np.ones(1)):
        with pytest.raises(ArgumentError, match=rf"^x is out of range\.\n  Expected: {expected}\n  Received: "):
            check_number("x", value, **bounds)


def test_names_are_texts():
    model = models.mlp().model
    with pytest.raises(UnknownNameError, match="Unknown grid"):
        kxai.IntegratedGradients(model, grid=["left"])
    with pytest.raises(UnknownNameError, match="Unknown method"):
        kxai.create_analyzer(["gradient"], model)
    with pytest.raises(UnknownNameError, match=r"Unknown method 'Grad-CAM'(.|\n)*did you mean grad_cam,"):
        kxai.create_analyzer("Grad-CAM", model)
    with pytest.raises(ArgumentError, match=r"base names a method(.|\n)*SmoothGrad\(analyzer, \.\.\.\)"):
        kxai.create_analyzer("smoothgrad", model, base=kxai.LRP(model))


def test_hyperparameters_are_listed_as_they_are_written():
    with pytest.raises(ArgumentError, match=r"layer: Any, baseline: Any = 0\.0, num_steps: int = 50, grid: str = 'mid"):
        kxai.create_analyzer("layer_conductance", models.mlp().model)


def double(x):
    return 2 * x


def test_arrays_and_functions_are_shown_briefly():
    case = models.mlp()
    assert "baseline=array of shape (4, 6)" in repr(kxai.IntegratedGradients(case.model, np.zeros((4, 6))))
    assert "baseline=array(2.)" in repr(kxai.IntegratedGradients(case.model, np.array(2.0)))
    explanation = kxai.IntegratedGradients(case.model, double, 2).explain(case.inputs)
    assert explanation.config["hyperparameters"]["baseline"] == "function double"


def test_explaining_once_takes_what_an_analyzer_takes():
    case = models.mlp()
    once = kxai.explain(case.model, case.inputs, "lrp.epsilon", layers="*", audit=True, verbose=False, epsilon=0.1)
    kept = kxai.LRP(case.model, "epsilon", epsilon=0.1).explain(case.inputs, layers="*", audit=True)
    assert list(once.layers) == list(kept.layers)
    assert list(once.absorbed) == list(kept.absorbed)
    assert once.layers
    assert once.absorbed
    with pytest.raises(ArgumentError, match="verbose is out of range"):
        kxai.explain(case.model, case.inputs, "gradient", verbose="yes")
