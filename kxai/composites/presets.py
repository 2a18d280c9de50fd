"""The named composites of the literature: one dict of factories, hyperparameters as their arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from kxai.arguments import check_choice, check_integer
from kxai.composites.composite import (
    Composite,
    Row,
    anything,
    attending,
    convolution,
    first,
    first_convolution,
    gated,
    preprocessing,
    shifting,
    switched,
)
from kxai.errors import ArgumentError, UnknownNameError
from kxai.graph.black_box import is_black_box
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules import (
    AlphaBeta,
    Bilinear,
    DeconvReLU,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedReLU,
    Pass,
    Proportional,
    Rule,
    SignalTakesAll,
    SoftmaxTaylor,
    Uniform,
    ValuesTakeAll,
    WinnerTakesAll,
    WSquare,
    ZBox,
    ZPlus,
)

# What every propagation method does at nodes without weights.
_COMMON: tuple[Row, ...] = (
    (Kind.ELEMENTWISE, Pass()),
    (Kind.NORM, Epsilon()),
    (Kind.SUM, Proportional()),
    (Kind.MAX, WinnerTakesAll()),
    (Kind.ROUTE, Gradient()),
    (gated, SignalTakesAll()),
    (Kind.PRODUCT, Uniform()),
)


# A batch normalisation that cannot be merged is an affine map like any other. If relevance passed its shift unchanged,
# some would be left at values near 0 of the sum or layer below, whose shares x / z then explode.
_SCALES: tuple[Row, ...] = ((preprocessing, Pass()), (Kind.SCALE, Epsilon()))
# The same, where relevance has to stay non-negative: the positive part of the shift absorbs its share.
_POSITIVE_SCALES: tuple[Row, ...] = ((preprocessing, Pass()), (shifting, ZPlus(bias=True)), (Kind.SCALE, Pass()))


def _layers(name: str, conv: Rule, dense: Rule, *before: Row, scales: tuple[Row, ...] = _SCALES) -> Composite:
    """The usual table: one rule for convolutions, one for other affine layers, ``before`` for exceptions."""
    return Composite(name, (*before, *scales, (convolution, conv), (Kind.AFFINE, dense), *_COMMON))


def _all_epsilon(name: str, rule: Epsilon) -> Composite:
    # Sums and norms are stabilised no more than the layers, so that LRP-0 is exact throughout.
    small = min(rule.epsilon, 1e-6)
    rows = (preprocessing, Pass()), (Kind.SCALE, rule), (Kind.SUM, Proportional(small)), (Kind.NORM, Epsilon(small))
    return _layers(name, rule, rule, scales=rows)


def epsilon(epsilon: float = 1e-6, bias: bool = True) -> Composite:
    """LRP-epsilon everywhere."""
    return _all_epsilon("epsilon", Epsilon(epsilon, bias=bias))


def zero(bias: bool = True) -> Composite:
    """LRP-0 everywhere: no stabilizer, equal to gradient x input on ReLU networks."""
    return _all_epsilon("zero", Epsilon(0.0, bias=bias))


def gamma(gamma: float = 0.25, epsilon: float = 1e-6, bias: bool = True) -> Composite:
    """LRP-gamma everywhere."""
    rule = Gamma(gamma, epsilon, bias)
    return _layers("gamma", rule, rule)


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6, bias: bool = True) -> Composite:
    """LRP-alpha-beta everywhere."""
    rule = AlphaBeta(alpha, beta, epsilon, bias)
    return _layers("alpha_beta", rule, rule)


def alpha1_beta0(epsilon: float = 1e-6, bias: bool = True) -> Composite:
    """LRP-alpha1-beta0 everywhere."""
    return alpha_beta(1.0, 0.0, epsilon, bias)


def z_plus(epsilon: float = 1e-6, bias: bool = False) -> Composite:
    """The z+ rule everywhere."""
    rule = ZPlus(epsilon, bias)
    return _layers("z_plus", rule, rule, scales=_POSITIVE_SCALES)


def w_square(epsilon: float = 0.0) -> Composite:
    """The w^2 rule everywhere."""
    return _layers("w_square", WSquare(epsilon), WSquare(epsilon))


def flat(epsilon: float = 0.0) -> Composite:
    """The flat rule everywhere."""
    return _layers("flat", Flat(epsilon), Flat(epsilon))


def epsilon_plus(epsilon: float = 1e-6) -> Composite:
    """z+ on convolutions, epsilon on dense layers: the usual choice for CNNs."""
    return _layers("epsilon_plus", ZPlus(bias=True), Epsilon(epsilon))


def epsilon_plus_flat(epsilon: float = 1e-6) -> Composite:
    """epsilon_plus with the flat rule on the first layer."""
    return _layers("epsilon_plus_flat", ZPlus(bias=True), Epsilon(epsilon), (first, Flat()))


def epsilon_alpha2_beta1(epsilon: float = 1e-6) -> Composite:
    """alpha2-beta1 on convolutions, epsilon on dense layers."""
    return _layers("epsilon_alpha2_beta1", AlphaBeta(2.0, 1.0), Epsilon(epsilon))


def epsilon_alpha2_beta1_flat(epsilon: float = 1e-6) -> Composite:
    """epsilon_alpha2_beta1 with the flat rule on the first layer."""
    return _layers("epsilon_alpha2_beta1_flat", AlphaBeta(2.0, 1.0), Epsilon(epsilon), (first, Flat()))


def epsilon_gamma_box(low: Any, high: Any, gamma: float = 0.25, epsilon: float = 1e-6) -> Composite:
    """gamma on convolutions, epsilon on dense layers, z^B on a first convolution; needs the inputs' bounds."""
    box = (first_convolution, ZBox(low, high))
    return _layers("epsilon_gamma_box", Gamma(gamma), Epsilon(epsilon), box)


def excitation_backprop() -> Composite:
    """z+ with bias on all affine layers, proportional on sums."""
    return _layers("excitation_backprop", ZPlus(bias=True), ZPlus(bias=True), scales=_POSITIVE_SCALES)


def sequential_preset_a(epsilon: float = 0.1) -> Composite:
    """alpha1-beta0 on convolutions, epsilon 0.1 on dense layers."""
    return _layers("sequential_preset_a", AlphaBeta(1.0, 0.0), Epsilon(epsilon))


def sequential_preset_a_flat(epsilon: float = 0.1) -> Composite:
    """sequential_preset_a with the flat rule on the first layer."""
    return _layers("sequential_preset_a_flat", AlphaBeta(1.0, 0.0), Epsilon(epsilon), (first, Flat()))


def sequential_preset_b(epsilon: float = 0.1) -> Composite:
    """alpha2-beta1 on convolutions, epsilon 0.1 on dense layers."""
    return _layers("sequential_preset_b", AlphaBeta(2.0, 1.0), Epsilon(epsilon))


def sequential_preset_b_flat(epsilon: float = 0.1) -> Composite:
    """sequential_preset_b with the flat rule on the first layer."""
    return _layers("sequential_preset_b_flat", AlphaBeta(2.0, 1.0), Epsilon(epsilon), (first, Flat()))


def sequential_preset_b_flat_until_idx(idx: int, epsilon: float = 0.1) -> Composite:
    """sequential_preset_b with the flat rule on the affine layers number 0 to idx, in order of computation."""
    check_integer("idx", idx, least=0)

    def until(node: Node, facts: Facts) -> bool:
        affine = [other for other in facts.graph.nodes if other.kind is Kind.AFFINE]
        return node in affine[: idx + 1]

    name = "sequential_preset_b_flat_until_idx"
    return _layers(name, AlphaBeta(2.0, 1.0), Epsilon(epsilon), (until, Flat()))


def vgg16_tutorial(low: Any, high: Any) -> Composite:
    """The tutorial's assignment for VGG-16: z^B, gamma, epsilon 0.25 rms, LRP-0 from input to output."""
    lower = ("block1_conv*", "block2_conv*", "block3_conv*")
    upper = ("block4_conv*", "block5_conv*")
    relative = Epsilon(0.25, relative="rms")
    rows: list[Row] = [("block1_conv1", ZBox(low, high))]
    rows += [(glob, Gamma(0.25, epsilon=1e-9)) for glob in lower]
    rows += [(f"block{stage}_pool", Proportional(1e-9)) for stage in (1, 2, 3)]
    rows += [(glob, relative) for glob in upper]
    rows += [(f"block{stage}_pool", Proportional(0.25, relative="rms")) for stage in (4, 5)]
    activations: Row = (Kind.ELEMENTWISE, Pass())
    return Composite("vgg16_tutorial", (activations, *rows, *_SCALES, (Kind.AFFINE, Epsilon(1e-9)), *_COMMON))


def deep_taylor(low: Any = None, high: Any = None, max_pooling: str = "winner") -> Composite:
    """Deep Taylor: z+ inside; first layer z^B if bounded, z+ if low is 0 and high is open, w^2 if unbounded."""
    check_choice("max_pooling", max_pooling, ["winner", "proportional"])
    rows: list[Row] = [(first, _first_rule(low, high))]
    if max_pooling == "proportional":
        rows.append((Kind.MAX, Proportional()))
    return _layers("deep_taylor", ZPlus(), ZPlus(), *rows, scales=_POSITIVE_SCALES)


def _first_rule(low: Any, high: Any) -> Rule:
    if low is None and high is None:
        return WSquare()
    if low is not None and high is not None:
        return ZBox(low, high)
    if high is None and not np.any(low):
        return ZPlus()
    raise ArgumentError(
        "The input domain of deep Taylor is not one of the three it is defined for.",
        expected="no bounds (w^2), low=0 alone (z+), or low and high (z^B)",
        received=f"low={low}, high={high}",
    )


def attn(epsilon: float = 1e-9, gamma: float = 0.0, conv_gamma: float = 0.0) -> Composite:
    """AttnLRP: softmax by deep Taylor, products split evenly, norms and activations pass; gamma 0 is LRP-epsilon.

    Gates of recurrent cells, of squeeze-and-excitation and of routers (sigmoid, softmax, broadcast) take nothing: their
    pre-activations pass 0, where an even split explodes.
    """
    rows: tuple[Row, ...] = (
        (switched, SignalTakesAll()),
        (Kind.PRODUCT, Uniform()),
        (Kind.SOFTMAX, SoftmaxTaylor()),
        (Kind.BILINEAR, Bilinear(epsilon)),
    )
    return _transformer("attn", epsilon, gamma, conv_gamma, rows)


def cp(epsilon: float = 1e-9, gamma: float = 0.0, conv_gamma: float = 0.0, gates: str = "signal") -> Composite:
    """CP-LRP: attention weights, norms' statistics and gates are constants; gates="uniform" splits gated products."""
    check_choice("gates", gates, ["signal", "uniform"])
    rows: tuple[Row, ...] = (
        (switched, SignalTakesAll()),
        *(((gated, SignalTakesAll()),) if gates == "signal" else ()),
        (Kind.PRODUCT, Uniform()),
        (attending, ValuesTakeAll(epsilon)),
        (Kind.BILINEAR, Bilinear(epsilon)),
    )
    return _transformer("cp", epsilon, gamma, conv_gamma, rows)


def _transformer(name: str, epsilon: float, gamma: float, conv_gamma: float, rows: tuple[Row, ...]) -> Composite:
    conv, dense = (Gamma(g, epsilon) if g else Epsilon(epsilon) for g in (conv_gamma, gamma))
    scales: tuple[Row, ...] = (
        (preprocessing, Pass()),
        (Kind.SCALE, Epsilon(epsilon)),
        (Kind.SUM, Proportional(epsilon)),
        (Kind.NORM, Epsilon(epsilon)),
    )
    return _layers(name, conv, dense, *rows, scales=scales)


def gradient() -> Composite:
    """The plain gradient: every node's vector-Jacobian product."""
    return Composite("gradient", ((anything, Gradient()),), merge=False)


def guided_backprop(other_activations: str = "error") -> Composite:
    """Guided backprop: at ReLUs only positive signals pass, where the unit was active."""
    return _gradient_but("guided_backprop", GuidedReLU(other_activations))


def deconvnet(other_activations: str = "error") -> Composite:
    """Deconvnet: at ReLUs only positive signals pass, whether the unit was active or not."""
    return _gradient_but("deconvnet", DeconvReLU(other_activations))


def _gradient_but(name: str, rule: Rule) -> Composite:
    return Composite(name, ((Kind.ELEMENTWISE, rule), (_visible, Gradient())), merge=False)


def _visible(node: Node, facts: Facts) -> bool:
    # In a black box there may be activations that the rule would have changed.
    return anything(node, facts) and not is_black_box(node)


# The LRP family, by name.
PRESETS: dict[str, Callable[..., Composite]] = {
    function.__name__: function
    for function in (
        epsilon, zero, gamma, alpha_beta, alpha1_beta0, z_plus, w_square, flat, epsilon_plus, epsilon_plus_flat,
        epsilon_alpha2_beta1, epsilon_alpha2_beta1_flat, epsilon_gamma_box, excitation_backprop, sequential_preset_a,
        sequential_preset_a_flat, sequential_preset_b, sequential_preset_b_flat, sequential_preset_b_flat_until_idx,
        vgg16_tutorial, attn, cp,
    )
}  # fmt: skip
# iNNvestigate's names for the same; "IB" ignores biases.
PRESETS |= {
    "z": zero,
    "z_IB": partial(zero, bias=False),
    "epsilon_IB": partial(epsilon, bias=False),
    "alpha_2_beta_1": alpha_beta,
    "alpha_2_beta_1_IB": partial(alpha_beta, bias=False),
    "alpha_1_beta_0": alpha1_beta0,
    "alpha_1_beta_0_IB": partial(alpha1_beta0, bias=False),
}


def preset(name: str, **hyperparameters: Any) -> Composite:
    """A named composite.

    Args:
        name: a key of ``PRESETS``, such as "epsilon_plus".
        hyperparameters: of that composite, such as ``epsilon=1e-6``.

    Raises:
        UnknownNameError: no such composite. ArgumentError: no such hyperparameter, or one is missing.

    Example:
        >>> preset("epsilon_gamma_box", low=-1.0, high=1.0).name
        'epsilon_gamma_box'
    """
    if name not in PRESETS:
        raise UnknownNameError("composite", name, PRESETS, fix="kxai.methods() lists all names.")
    return call_with(PRESETS[name], f"composite {name!r}", hyperparameters)


def call_with(function: Callable[..., Any], what: str, hyperparameters: dict[str, Any]) -> Any:
    """Call ``function``; hyperparameters that it does not take, or misses, raise ArgumentError."""
    parameters = inspect.signature(function).parameters
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in hyperparameters]
    unknown = [name for name in hyperparameters if name not in parameters]
    if missing or unknown:
        accepted = ", ".join(_parameter(p) for p in parameters.values()) or "none"
        problem = f"does not take {', '.join(unknown)}" if unknown else f"needs {', '.join(missing)}"
        raise ArgumentError(
            f"The {what} {problem}.", expected=f"hyperparameters: {accepted}", received=f"{hyperparameters}"
        )
    return function(**hyperparameters)


def _parameter(parameter: inspect.Parameter) -> str:
    """name: type = default, the type without the quotes that postponed annotations have."""
    return str(parameter).replace(f": {parameter.annotation!r}", f": {parameter.annotation}")
