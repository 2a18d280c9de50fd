"""Every rule, composite and method passes the public checks of ``kxai.testing``."""

from __future__ import annotations

import inspect
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

import kxai
from kxai import rules
from kxai.analyzers import METHODS, cam
from kxai.composites import PRESETS, anything
from kxai.testing import check_analyzer, check_composite, check_rule, models
from tests import naive

SIGNAL = {"linear": False, "alternatives": {"other_activations": "gradient"}}
RELATIVE = {"alternatives": {"relative": "rms"}}
ABSOLUTE = {"alternatives": {"relative": None}}
THRESHOLD = {"alternatives": {"threshold": 10.0}}
BOX = {"conserves": True, "domain": (-1.0, 1.0), "alternatives": {"low": -3.0, "high": 2.0}}


def like(definition, **hyperparameters):
    """A naive definition in the form that check_rule takes."""

    def run(x, W, b, R):
        m = SimpleNamespace(W=W, b=b, connected=(W != 0).astype(float), shape=x.shape)
        return definition(x, m, R, **hyperparameters)

    return run


RULES = [
    (rules.Epsilon(), {"naive": like(naive.epsilon), "conserves": True, **RELATIVE}),
    (rules.Epsilon(0.3, clip=True), {"naive": like(naive.epsilon, epsilon=0.3, clip=True), **RELATIVE}),
    (rules.Epsilon(0.3, "rms"), {"naive": like(naive.epsilon, epsilon=0.3, relative="rms"), **ABSOLUTE}),
    (rules.Epsilon(bias=False), {"naive": like(naive.epsilon, bias=False), "conserves": True, **RELATIVE}),
    (rules.Gamma(), {"naive": like(naive.gamma), "conserves": True}),
    (rules.Gamma(0.5, bias=False), {"naive": like(naive.gamma, gamma=0.5, bias=False)}),
    (rules.GammaOriginal(), {"naive": like(naive.gamma_original)}),
    (rules.AlphaBeta(), {"naive": like(naive.alpha_beta), "conserves": True}),
    (rules.AlphaBeta(1.0, 0.0, bias=False), {"naive": like(naive.alpha_beta, alpha=1.0, beta=0.0, bias=False)}),
    (rules.ZPlus(), {"naive": like(naive.z_plus), "conserves": True}),
    (rules.ZPlus(bias=True), {"naive": like(naive.z_plus, bias=True)}),
    (rules.WSquare(), {"naive": like(naive.w_square), "conserves": True}),
    (rules.Flat(), {"naive": like(naive.flat), "conserves": True}),
    (rules.ZBox(-1.0, 1.0), {"naive": like(naive.z_box, low=-1.0, high=1.0), **BOX}),
    (rules.ZBox(np.array(-2.0), np.array(1.5)), {"naive": like(naive.z_box, low=-2.0, high=1.5), **BOX}),
    (rules.Gradient(), {"naive": like(lambda x, m, R: m.W @ R)}),
    (rules.Pass(), {}),
    (rules.GuidedReLU(), SIGNAL),
    (rules.DeconvReLU(), SIGNAL),
    (rules.Proportional(), RELATIVE),
    (rules.WinnerTakesAll(), {}),
    (rules.SignalTakesAll(), {}),
    (rules.Uniform(), {}),
    (rules.Bilinear(), RELATIVE),
    (rules.ValuesTakeAll(), RELATIVE),
    (rules.SoftmaxTaylor(), {}),
    (rules.Linear(), {"naive": like(lambda x, m, R: m.W @ R)}),
    (rules.Rescale(), THRESHOLD),
    (rules.RevealCancel(), THRESHOLD),
    (rules.CrossMax(), THRESHOLD),
    (rules.ShapleyMax(), THRESHOLD),
    (rules.ShapleyProduct(), {}),
    (rules.RescaleSoftmax(), {}),
    (rules.RescaleNorm(), {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "options"), RULES, ids=lambda value: repr(value) if isinstance(value, rules.Rule) else ""
)
def test_rule(rule, options):
    check_rule(rule, **options)


def test_every_rule_is_checked():
    every = {thing for thing in vars(rules).values() if isinstance(thing, type) and issubclass(thing, rules.Rule)}
    concrete = {rule for rule in every if not rule.__abstractmethods__}
    # A network in which nothing reaches the inputs cannot be explained: Stop is tested where it stands.
    assert concrete == {type(rule) for rule, _ in RULES} | {rules.Stop}


# What methods need, and a second value of each hyperparameter.
NEEDED = {
    "lrp.epsilon_gamma_box": {"low": -1.0, "high": 1.0},
    "lrp.sequential_preset_b_flat_until_idx": {"idx": 0},
    "lrp.vgg16_tutorial": {"low": -1.0, "high": 1.0},
    "guided_grad_cam": {"other_activations": "gradient"},
    "opti_cam": {"num_steps": 5},
    "deep_taylor.bounded": {"low": -1.0, "high": 1.0},
    # Few points: what is checked here does not depend on their number.
    "integrated_gradients": {"num_steps": 3},
    "expected_gradients": {"baselines": 0.25, "num_samples": 3},
    "internal_influence": {"layer": None, "num_steps": 3},
    "layer_conductance": {"layer": None, "num_steps": 3},
    "smoothgrad": {"num_samples": 3},
    "smoothgrad_squared": {"num_samples": 3},
    "vargrad": {"num_samples": 3},
    "deepshap": {"background": 0.25},
}
SECOND = {
    "composite": kxai.Composite("gradient", ((anything, rules.Gradient()),)),
    "epsilon": 0.5, "gamma": 0.7, "alpha": 3.0, "beta": 2.0, "low": -2.0, "high": 2.0, "idx": 1,
    "max_pooling": "proportional", "gates": "uniform", "conv_gamma": 0.7, "other_activations": "gradient",
    "heads": "max", "row": "first", "per": "token", "psi": "layer",
    "learning_rate": 0.5,
    "baseline": 0.5, "baselines": 0.5, "num_steps": 4, "grid": "left", "layer": "*/relu", "distribution": "point",
    "reference": 0.5, "threshold": 10.0, "background": 0.5, "estimator": "linear",
}  # fmt: skip

TRANSFORMERS = ("lrp.attn", "lrp.cp")
# Methods whose hyperparameters need models of their own.
CAMS = {name for name, (factory, _) in METHODS.items() if factory in vars(cam).values()}
SPECIAL = (*TRANSFORMERS, *CAMS, "lrp.vgg16_tutorial", "attention_rollout", "attention_relevance")
ORDINARY = (models.mlp, models.cnn)
MAPS = ("fullgrad",)
# Methods that are fitted to data.
FITTED = ("pattern.net", "pattern.attribution")
CHAINS = (models.mlp, models.cnn, models.sequence)
PICTURES = (models.cnn, models.residual, models.transposed, models.sequence)
FULL = {"gradient", "lrp.epsilon_plus", "deep_taylor", "lrp.alpha_beta", "deeplift"}


def cases_for(name):
    if name in TRANSFORMERS:
        return (*ORDINARY, models.decoder)
    if name == "lrp.vgg16_tutorial":
        return (models.vgg,)
    if name in MAPS:
        return PICTURES
    if name in FITTED:
        return CHAINS
    if name.startswith("attention_"):
        return models.ATTENTION
    if name in CAMS:
        several = (models.averaged, models.cnn, models.residual, models.transposed, models.sequence)
        return several if name == "grad_cam" else (models.averaged,)
    return models.ALL if name in FULL else ORDINARY


def distinct(table, factory):
    """Names in a table, without those that are second names for the same thing."""
    return sorted({factory(table[name]): name for name in sorted(table, reverse=True)}.values())


COMPOSITES = distinct(PRESETS, lambda preset: preset)
METHOD_NAMES = [
    name
    for name in distinct(METHODS, lambda entry: entry[0])
    if not name.startswith("lrp.") or name.removeprefix("lrp.") in COMPOSITES
]

# Presets are tables of the same rules; these are checked whenever tests run, the others with the slow tests.
CORE = {f"lrp.{name}" for name in ("epsilon", "epsilon_plus", "gamma", "attn", "cp", "epsilon_gamma_box")}


def core_first(names, prefix=""):
    """The names; presets that are not of the core are marked slow."""
    full = {name: f"{prefix}{name}" for name in names}
    slow = {name for name, long in full.items() if long.startswith("lrp.") and long not in CORE}
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


@pytest.mark.parametrize("name", core_first(COMPOSITES, "lrp."))
def test_composite(name):
    name = f"lrp.{name}"
    gated = (models.gated,) if name in FULL else ()
    check_composite(kxai.preset(name.removeprefix("lrp."), **NEEDED.get(name, {})), cases=(*cases_for(name), *gated))


def second_values(name, analyzer):
    """A second value of every hyperparameter of a method, those of its preset included."""
    values = dict(analyzer.hyperparameters())
    if name.startswith("lrp."):
        parameters = inspect.signature(PRESETS[name.removeprefix("lrp.")]).parameters.values()
        values |= {p.name: p.default for p in parameters}
    second = {key: SECOND.get(key, not value) for key, value in values.items()}
    # Guided Grad-CAM runs on signed maps, where it has to be told what to do.
    own = {"other_activations": "error"} if name == "guided_grad_cam" else {}
    if name.startswith(("deeplift", "deepshap")):
        own = {"max_pooling": "gradient", "rule": "reveal_cancel" if name == "deeplift" else "rescale"}
    return {**second, **{key: value for key, value in own.items() if key in second}}


def fit(analyzer):
    """To numbers like the cases' own."""
    shapes = [[9 if size is None else size for size in x.shape[1:]] for x in analyzer.model.inputs]
    analyzer.fit([models.numbers(*shape, seed=7, samples=64) for shape in shapes])


@pytest.mark.parametrize("name", core_first(METHOD_NAMES))
def test_method(name):
    factory = partial(kxai.create_analyzer, name, **NEEDED.get(name, {}))
    cases = cases_for(name)
    check_analyzer(
        factory,
        cases=cases,
        twins=() if name in CAMS or cases in ((models.vgg,), models.ATTENTION, PICTURES) else models.TWINS,
        alternatives=second_values(name, factory(cases[0]().model)),
        argument_cases=cases if name in (*SPECIAL, *MAPS, *FITTED) else (*ORDINARY, models.gated),
        fit=fit if name in FITTED else None,
    )
