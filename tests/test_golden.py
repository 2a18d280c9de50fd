"""kxai's numbers are those of other libraries, wherever the definitions agree; where they do not, the table says why.

Each row of ``TABLE`` names a reference key, the kxai method that computes the same, and how far apart the two may be,
max|difference| / max|reference|, in float64. Where a peer defines a rule differently, the row builds the peer's
definition from kxai's parts, and the note says what kxai does itself. ``SKIPPED`` lists the keys that are not compared.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from keras import ops

import kxai
from kxai.composites.composite import convolution, first
from kxai.rules import AlphaBeta, Epsilon, Flat, Gradient, Pass, Rule, Stabilizer, TermRule, WSquare, ZBox, ZPlus
from tests.golden import MODELS, golden

# Both compute in float64. Measured: 3e-12 at most, rounding amplified by sums that nearly cancel.
EXACT = 1e-9
# One side adds 1e-6 to a denominator and the other does not. Measured: 1e-5 at most.
STABILIZER = 1e-4
# The peer computes in float32. Measured: 3e-7 at most.
SINGLE = 1e-5
# The peer's batch normalisation was folded into float32 weights. Measured: 3e-5 at most.
FOLDED = 1e-4

CHAINS = ("mlp_relu", "cnn_plain", "conv1d_seq")  # no BatchNormalization, no average
BN = ("cnn_bn",)
NO_SEQUENCE = ("mlp_relu", "cnn_plain", "cnn_bn")


# The peers' own definitions, where they are not kxai's.


@dataclass(frozen=True)
class SquaredBias(TermRule):
    """zennit's w^2 rule: b^2 stands in the denominator."""

    epsilon: float = 1e-6

    def terms(self, step):
        return WSquare().terms(step)

    def offset(self, step):
        return None if step.bias is None else ops.square(step.bias)


@dataclass(frozen=True)
class _Half(TermRule):
    """Contributions of one sign, with the whole bias in the denominator."""

    positive: bool
    epsilon: float = 0.0

    def terms(self, step):
        x, w = step.inputs[0], step.kernel
        one, other = ops.relu(w), ops.minimum(w, 0.0)
        above, below = (one, other) if self.positive else (other, one)
        return [(ops.relu(x), above), (ops.minimum(x, 0.0), below)]

    def offset(self, step):
        return step.bias


@dataclass(frozen=True)
class WholeBias(Rule):
    """iNNvestigate's alpha-beta: the whole bias stands in both denominators, not its positive and negative part."""

    alpha: float
    beta: float
    kinds: ClassVar = TermRule.kinds

    def propagate(self, step, relevance):
        (activating,) = _Half(True).propagate(step, relevance)
        (inhibiting,) = _Half(False).propagate(step, relevance)
        return [self.alpha * activating - self.beta * inhibiting]


@dataclass(frozen=True)
class BatchNormRule(Rule):
    """iNNvestigate's rule for unmerged BatchNormalization, R x (y - beta) / stab((x - mean) y)."""

    kinds: ClassVar = frozenset({kxai.Kind.SCALE})

    def propagate(self, step, relevance):
        x, y, layer = step.inputs[0], step.outputs[0], step.node.layer
        denominator = Stabilizer(1e-7)((x - layer.moving_mean) * y)
        return [relevance * x * (y - layer.beta) / denominator]


@dataclass(frozen=True)
class ZPlusFast(TermRule):
    """iNNvestigate's short cut for inputs >= 0: only positive weights count, whatever the sign of the input."""

    epsilon: float = 0.0

    def terms(self, step):
        return [(step.inputs[0], ops.relu(step.kernel))]


BATCH_NORM = (kxai.Kind.SCALE, BatchNormRule())
Make = Callable[[Any], kxai.Analyzer]


def lrp(name: str, *rows: Any, merge: bool = True, **hyperparameters: Any) -> Make:
    """LRP by a preset, with rows put before it."""
    composite = replace(kxai.preset(name, **hyperparameters), merge=merge)
    return lambda model: kxai.LRP(model, composite.but(*rows) if rows else composite)


def everywhere(rule: Rule, *rows: Any) -> Make:
    """LRP with one rule at all affine nodes; zero sums are the only ones that iNNvestigate stabilizes."""
    return lrp("zero", *rows, (kxai.Kind.AFFINE, rule), (kxai.Kind.SUM, Epsilon(0.0)))


def unmerged(rule: Rule) -> Make:
    """One rule at all affine nodes, iNNvestigate's own at BatchNormalization."""
    return lrp("zero", (kxai.Kind.AFFINE, rule), BATCH_NORM, (kxai.Kind.SUM, Epsilon(0.0)), merge=False)


def deep_taylor(**bounds: float) -> Make:
    return lambda model: kxai.DeepTaylor(model, **bounds)


@dataclass(frozen=True)
class Row:
    """A reference key, how kxai computes it, and how far apart they may be."""

    key: str
    make: Make
    tolerance: float = EXACT
    models: tuple[str, ...] = MODELS
    times_logit: bool = False
    factor: float = 1.0
    note: str = ""


GRADIENTS = [
    Row("gradient", kxai.Gradient),
    Row("innvestigate/gradient", kxai.Gradient),
    Row("deeplift/gradient", kxai.Gradient, SINGLE),
    Row("input_x_gradient", kxai.GradientTimesInput),
    Row("innvestigate/input_t_gradient", kxai.GradientTimesInput),
    Row("captum/guided_backprop", kxai.GuidedBackprop),
    Row("zennit/guided_backprop", kxai.GuidedBackprop),
    Row("deeplift/guided_backprop", kxai.GuidedBackprop, SINGLE),
    Row("innvestigate/guided_backprop", kxai.GuidedBackprop, times_logit=True, note="starts at the logit, kxai at 1"),
    Row("captum/deconvnet", kxai.Deconvnet),
    Row("zennit/deconvnet", kxai.Deconvnet),
    Row("deeplift/deconvnet", kxai.Deconvnet, SINGLE),
    Row("innvestigate/deconvnet", kxai.Deconvnet, times_logit=True, note="starts at the logit, kxai at 1"),
]

BN_PASSES = (kxai.Kind.SCALE, Pass())
BOX = ZBox(-1.0, 1.0, epsilon=1e-6)
ZENNIT = [
    Row("captum/lrp_epsilon_1e-9", lrp("epsilon", epsilon=1e-9), STABILIZER, NO_SEQUENCE, note="1e-9 also at pooling"),
    Row("zennit/epsilon_1e-6", lrp("epsilon")),
    Row("zennit/epsilon_0.25", lrp("epsilon", epsilon=0.25)),
    Row("zennit/epsilon_1e-6_nobias", lrp("epsilon", bias=False)),
    Row(
        "zennit/epsilon_1e-6_nocanonizer",
        lrp("epsilon", BN_PASSES, merge=False),
        models=BN,
        note="BN passes relevance on, unmerged",
    ),
    Row("zennit/zplus", lrp("z_plus", bias=True), note="kxai's z+ has no bias unless asked for"),
    Row("zennit/zplus_nobias", lrp("z_plus")),
    Row("zennit/alpha1_beta0", lrp("alpha1_beta0")),
    Row("zennit/alpha1_beta0_nobias", lrp("alpha1_beta0", bias=False)),
    Row("zennit/alpha2_beta1", lrp("alpha_beta")),
    Row("zennit/alpha2_beta1_nobias", lrp("alpha_beta", bias=False)),
    Row("zennit/gamma_0.25", lrp("gamma")),
    Row("zennit/gamma_0.25_nobias", lrp("gamma", bias=False)),
    Row(
        "zennit/wsquare", lrp("w_square", (kxai.Kind.AFFINE, SquaredBias())), note="b^2 in the denominator; kxai: none"
    ),
    Row("zennit/wsquare_nobias", lrp("w_square", epsilon=1e-6)),
    Row("zennit/wsquare_first_zplus", lrp("z_plus", (first, SquaredBias()), bias=True), note="b^2, as above"),
    Row("zennit/wsquare_nobias_first_zplus", lrp("z_plus", (first, WSquare(1e-6)), bias=True)),
    Row("zennit/flat", lrp("flat", epsilon=1e-6)),
    Row("zennit/flat_first_zplus", lrp("z_plus", (first, Flat(1e-6)), bias=True)),
    Row("zennit/zbox_-1_1_first_zplus", lrp("z_plus", (first, BOX), bias=True)),
    Row("zennit/zbox_-1_1_first_zplus_nobias", lrp("z_plus", (first, BOX))),
    Row("zennit/EpsilonPlus", lrp("epsilon_plus")),
    Row(
        "zennit/EpsilonPlus_nocanonizer",
        lrp("epsilon_plus", BN_PASSES, merge=False),
        models=BN,
        note="BN passes relevance on, unmerged",
    ),
    Row("zennit/EpsilonPlusFlat", lrp("epsilon_plus_flat"), STABILIZER, note="kxai's flat needs no stabilizer"),
    Row("zennit/EpsilonAlpha2Beta1", lrp("epsilon_alpha2_beta1")),
    Row("zennit/EpsilonAlpha2Beta1Flat", lrp("epsilon_alpha2_beta1_flat"), STABILIZER, note="as EpsilonPlusFlat"),
    Row("zennit/EpsilonGammaBox_-1_1", lrp("epsilon_gamma_box", low=-1.0, high=1.0), STABILIZER, note="as for flat"),
    Row("zennit/ExcitationBackprop", lrp("excitation_backprop"), note="starts at the logit, as here"),
]

# Without the prefix "innvestigate/" or "innvestigate_folded/".
ALPHA1, ALPHA2 = WholeBias(1.0, 0.0), WholeBias(2.0, 1.0)
WHOLE = "whole bias in both denominators; kxai: pos(b) and neg(b)"
AVERAGE, RELU = (kxai.Kind.SUM, Gradient()), (kxai.Kind.ELEMENTWISE, Gradient())
INNVESTIGATE = [
    Row("lrp.z", everywhere(Epsilon(0.0))),
    Row("lrp.epsilon_1e-7", everywhere(Epsilon(1e-7))),
    Row("lrp.epsilon_1e-6", everywhere(Epsilon(1e-6))),
    Row("lrp.epsilon_1e-6_nobias", everywhere(Epsilon(1e-6, bias=False))),
    Row("lrp.epsilon_0.25", everywhere(Epsilon(0.25))),
    Row("lrp.alpha_2_beta_1_IB", everywhere(AlphaBeta(2, 1, epsilon=0, bias=False))),
    Row("lrp.alpha_1_beta_0_IB", everywhere(AlphaBeta(1, 0, epsilon=0, bias=False))),
    Row("lrp.alpha_2_beta_1", everywhere(ALPHA2), note=WHOLE),
    Row("lrp.alpha_1_beta_0", everywhere(ALPHA1), note=WHOLE),
    Row("lrp.z_plus", everywhere(ZPlus(epsilon=0))),
    Row("lrp.z_plus_fast", everywhere(ZPlusFast()), note="right for inputs >= 0 only; kxai's z+ always is"),
    Row("lrp.w_square", everywhere(WSquare())),
    Row("lrp.flat", everywhere(Flat())),
    Row("lrp.sequential_preset_a", everywhere(Epsilon(0.1), (convolution, ALPHA1)), note=WHOLE),
    Row("lrp.sequential_preset_b", everywhere(Epsilon(0.1), (convolution, ALPHA2)), note=WHOLE),
    Row("lrp.sequential_preset_a_flat", everywhere(Epsilon(0.1), (first, Flat()), (convolution, ALPHA1)), note=WHOLE),
    Row("lrp.sequential_preset_b_flat", everywhere(Epsilon(0.1), (first, Flat()), (convolution, ALPHA2)), note=WHOLE),
    Row("lrp.z_plus_first_bounded_-1_1", everywhere(ZPlus(epsilon=0), (first, ZBox(-1.0, 1.0)))),
    Row("lrp.z_plus_first_w_square", everywhere(ZPlus(epsilon=0), (first, WSquare()))),
    Row("lrp.z_plus_first_w_square", deep_taylor(), STABILIZER, note="what kxai calls deep Taylor without bounds"),
    Row("deep_taylor", everywhere(ZPlus(epsilon=0), AVERAGE, RELU), note="first layer z+, gradient at averages"),
    Row("deep_taylor.bounded_-1_1", everywhere(ZPlus(epsilon=0), AVERAGE, RELU, (first, ZBox(-1.0, 1.0)))),
    Row("deep_taylor.bounded_-1_1", deep_taylor(low=-1.0, high=1.0), STABILIZER, CHAINS),
]
UNMERGED = [
    Row("innvestigate/lrp.flat", everywhere(Flat()), models=BN, note="BN's factors play no part"),
    Row("innvestigate/lrp.w_square", everywhere(WSquare()), models=BN, note="nor do they here"),
    Row("innvestigate/lrp_Z_bnrule_none", unmerged(Epsilon(0.0)), models=BN, note="BN's own rule; kxai merges BN"),
    Row("innvestigate/lrp_Epsilon_bnrule_none", unmerged(Epsilon(1e-7)), models=BN, note="BN's own rule, as above"),
]


def _innvestigate() -> Iterator[Row]:
    """Its rules on BN models are compared where BN was folded into the weights beforehand."""
    for row in INNVESTIGATE:
        yield replace(row, key=f"innvestigate/{row.key}", models=CHAINS)
        if set(BN) <= set(row.models):
            yield replace(row, key=f"innvestigate_folded/{row.key}", models=BN, tolerance=max(row.tolerance, FOLDED))


def path(grid: str, own_baseline: bool = False) -> Make:
    """Integrated gradients with 64 points, from zero or from the model's own baseline."""
    return lambda model: kxai.IntegratedGradients(model, golden(model.name).baseline if own_baseline else 0.0, 64, grid)


# captum rounds the weights of its points to float32. Measured: 2e-8 at most.
WEIGHTS = 1e-7
SHORT = {"factor": 63 / 64, "note": "its weights add up to 63/64, kxai's to 1"}
PATHS = [
    Row("captum/ig64_gausslegendre_zero", path("gauss_legendre"), WEIGHTS),
    Row("captum/ig64_gausslegendre_base", path("gauss_legendre", True), WEIGHTS),
    Row("captum/ig64_riemann_trapezoid_zero", path("trapezoid"), WEIGHTS, NO_SEQUENCE, **SHORT),
    Row("captum/ig64_riemann_trapezoid_base", path("trapezoid", True), WEIGHTS, NO_SEQUENCE, **SHORT),
    Row("innvestigate/integrated_gradients_64", path("left")),
]

TABLE = [*GRADIENTS, *PATHS, *ZENNIT, *_innvestigate(), *UNMERGED]

# (keys, models, why they are not compared)
WRONG_BN = "its fused BN uses sqrt(variance^2 + eps) and leaves gamma out of the shift; see innvestigate_folded"
TIES = "at the baseline itself all positions are equal, and which of them wins a max-pooling is a matter of taste"
SKIPPED = [
    ("captum/ig64_riemann_trapezoid_*", ("conv1d_seq",), TIES),
    ("innvestigate/lrp.*", BN, WRONG_BN),
    ("innvestigate/deep_taylor*", BN, WRONG_BN),
]
# Keys of methods that are neither LRP, deep Taylor nor gradients.
OTHER_METHODS = """
    logits deeplift_logits captum/deeplift_* captum/occlusion_* captum/feature_ablation_*
    deeplift/rescale* deeplift/revealcancel* deeplift/genomics_default_*
    gradcam/* shap/* shapley/*
""".split()

CASES = [(name, row) for row in TABLE for name in row.models]


def difference(values: np.ndarray, reference: np.ndarray) -> float:
    assert values.shape == reference.shape
    return float(np.abs(values - reference).max() / np.abs(reference).max())


@pytest.mark.parametrize(("name", "row"), [pytest.param(n, row, id=f"{n}-{row.key}") for n, row in CASES])
def test_equals_the_peer(name, row):
    reference = golden(name)
    explanation = row.make(reference.model).explain(reference.x, reference.target)
    relevance = row.factor * explanation.relevance
    if row.times_logit:
        relevance = relevance * reference.logits.reshape(-1, *[1] * (relevance.ndim - 1))
    # Where the peer's own float32 run is further away from its float64 run, float32 weights do not fix the result.
    tolerance = max(row.tolerance, reference.noise(row.key)) if row.tolerance == FOLDED else row.tolerance
    assert explanation.score == pytest.approx(reference.logits, rel=1e-12)
    assert difference(relevance, reference[row.key]) <= tolerance


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_rebuilt(name):
    reference = golden(name)
    assert difference(reference.model(reference.x).numpy(), reference["logits"]) < 1e-13


@pytest.mark.parametrize("name", MODELS)
def test_every_key_is_in_the_table(name):
    compared = {row.key for row in TABLE if name in row.models}
    skipped = [pattern for pattern, models, _ in SKIPPED if name in models] + OTHER_METHODS
    forgotten = [
        key for key in golden(name).keys
        if key not in compared and not any(fnmatch.fnmatchcase(key, pattern) for pattern in skipped)
    ]  # fmt: skip
    assert forgotten == []


def test_the_notes_on_definitions_are_true():
    """Where a row says that kxai differs from the peer, kxai's own rule gives something else."""
    own = {
        "zennit/wsquare": lrp("w_square"),
        "zennit/zplus": lrp("z_plus"),
        "innvestigate/lrp.alpha_2_beta_1": lrp("alpha_beta"),
        "innvestigate/lrp.z_plus_fast": lrp("z_plus"),
        "innvestigate/lrp.sequential_preset_a": lrp("sequential_preset_a"),
        "innvestigate/deep_taylor": deep_taylor(),
    }
    reference = golden("cnn_plain")
    for key, make in own.items():
        relevance = make(reference.model).explain(reference.x, reference.target).relevance
        assert difference(relevance, reference[key]) > 10 * STABILIZER, key
