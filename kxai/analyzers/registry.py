"""Methods by name: the one place where text becomes an analyzer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kxai.analyzers.analyzer import Analyzer
from kxai.analyzers.attention import AttentionRelevance, AttentionRollout
from kxai.analyzers.backward import LRP, DeepTaylor
from kxai.analyzers.cam import (
    CAM,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    GuidedGradCAM,
    HiResCAM,
    LayerCAM,
    OptiCAM,
    ScoreCAM,
    XGradCAM,
)
from kxai.analyzers.deeplift import DeepLIFT, DeepSHAP
from kxai.analyzers.fullgrad import FullGrad
from kxai.analyzers.gradient import Deconvnet, Gradient, GradientTimesInput, GuidedBackprop, Sensitivity
from kxai.analyzers.pattern.methods import PatternAttribution, PatternNet
from kxai.analyzers.sampling.influence import InternalInfluence, LayerConductance
from kxai.analyzers.sampling.noise import SmoothGrad, SmoothGradSquared, VarGrad
from kxai.analyzers.sampling.path import ExpectedGradients, IntegratedGradients
from kxai.composites import PRESETS, Composite, Plan
from kxai.composites.presets import call_with
from kxai.errors import ArgumentError, UnknownNameError
from kxai.explanation import Explanation


def _described(factory: Any) -> str:
    """First line of the docstring; what a short name fixes is added."""
    fixed = {}
    if isinstance(factory, partial):
        fixed, factory = factory.keywords, factory.func
    words = (inspect.getdoc(factory) or "").splitlines()[0].rstrip(".")
    words = words if "LRP" in words else f"LRP: {words}"
    return words + "".join(f"; {key}={value}" for key, value in fixed.items())


# name -> (factory, one-line description)
METHODS: dict[str, tuple[Callable[..., Analyzer], str]] = {
    "gradient": (Gradient, "gradient of the logit"),
    "gradient_x_input": (GradientTimesInput, "gradient times input"),
    "sensitivity": (Sensitivity, "squared gradient"),
    "fullgrad": (FullGrad, "gradient times input and the bias of every layer, as one map"),
    "guided_backprop": (GuidedBackprop, "gradient with ReLUs that pass positive signals only, where active"),
    "deconvnet": (Deconvnet, "gradient with ReLUs that pass positive signals only"),
    "pattern_net": (PatternNet, "the signal in the input, by patterns fitted to data"),
    "pattern_attribution": (PatternAttribution, "what the signal contributes, by patterns fitted to data"),
    "cam": (CAM, "class activation map of global average pooling and a dense layer"),
    "grad_cam": (GradCAM, "Grad-CAM: feature maps weighted by their mean gradient"),
    "grad_cam_plus_plus": (GradCAMPlusPlus, "Grad-CAM++: weighted by positive gradients, pixel by pixel"),
    "xgrad_cam": (XGradCAM, "XGrad-CAM: weighted by gradients, averaged where channels are active"),
    "hires_cam": (HiResCAM, "HiResCAM: feature maps times their gradient at every position"),
    "layer_cam": (LayerCAM, "LayerCAM: feature maps times their positive gradient; also for early layers"),
    "eigen_cam": (EigenCAM, "Eigen-CAM: first principal component of the feature maps, whatever the target"),
    "score_cam": (ScoreCAM, "Score-CAM: weighted by the score behind each channel as a mask; no gradients"),
    "ablation_cam": (AblationCAM, "Ablation-CAM: weighted by the fall of the score without each channel"),
    "opti_cam": (OptiCAM, "Opti-CAM: weights that make the masked input score highest"),
    "guided_grad_cam": (GuidedGradCAM, "guided backprop times Grad-CAM"),
    "deep_taylor": (DeepTaylor, "deep Taylor decomposition: z+, first layer by the inputs' domain"),
    "attention_rollout": (AttentionRollout, "attention rollout: products of attention weights, whatever the target"),
    "attention_relevance": (AttentionRelevance, "attention weights times their gradients, layer by layer"),
    "integrated_gradients": (IntegratedGradients, "gradients on the path from a baseline, times the way"),
    "expected_gradients": (ExpectedGradients, "integrated gradients over many baselines, at random points"),
    "internal_influence": (InternalInfluence, "gradient at a layer, averaged over inputs; needs layer"),
    "layer_conductance": (LayerConductance, "integrated gradients through a layer's units; needs layer"),
    "deeplift": (DeepLIFT, "DeepLIFT: contributions to the difference from a reference, Rescale rule"),
    "deeplift.reveal_cancel": (
        partial(DeepLIFT, rule="reveal_cancel"),
        "DeepLIFT with RevealCancel: positive and negative parts apart",
    ),
    "deeplift.genomics_default": (
        partial(DeepLIFT, rule="genomics_default"),
        "DeepLIFT with RevealCancel after dense layers",
    ),
    "deepshap": (DeepSHAP, "DeepLIFT averaged over background samples"),
    **{f"lrp.{name}": (partial(LRP, composite=name), _described(factory)) for name, factory in PRESETS.items()},
}


def _bounded(model: Any, low: Any, high: Any, max_pooling: str = "winner", jit: bool = False) -> Analyzer:
    return DeepTaylor(model, low, high, max_pooling, jit=jit)


# iNNvestigate's names for the same methods.
METHODS["input_t_gradient"] = (GradientTimesInput, "gradient times input (iNNvestigate's name)")
METHODS["pattern.net"] = (PatternNet, "PatternNet (iNNvestigate's name)")
METHODS["pattern.attribution"] = (PatternAttribution, "PatternAttribution (iNNvestigate's name)")
METHODS["deep_taylor.bounded"] = (_bounded, "deep Taylor with z^B on the first layer; needs low and high")
METHODS["gradient_shap"] = (ExpectedGradients, "expected gradients (captum's and SHAP's name)")


def _on(method: Callable[..., Analyzer], model: Any, base: Any = None, **hyperparameters: Any) -> Analyzer:
    """A method whose base is given by name; hyperparameters that it does not take are the base's."""
    if isinstance(base, Analyzer):
        raise ArgumentError(
            "base names a method.",
            expected='a name such as "lrp.epsilon_plus", or a Composite',
            received=repr(base),
            fix=f"kxai.{method.__name__}(analyzer, ...) takes an analyzer itself.",
        )
    taken = inspect.signature(method).parameters
    others = {} if base is None else {key: value for key, value in hyperparameters.items() if key not in taken}
    source = model if base is None else create_analyzer(base, model, **others)
    own = {key: value for key, value in hyperparameters.items() if key not in others}
    analyzer: Analyzer = call_with(partial(method, source), method.__name__, own)
    return analyzer


METHODS["smoothgrad"] = (partial(_on, SmoothGrad), "mean of the gradient or base at noisy inputs")
METHODS["smoothgrad_squared"] = (
    partial(_on, SmoothGradSquared),
    "mean square of the same",
)
METHODS["vargrad"] = (partial(_on, VarGrad), "variance of the gradient or base at noisy inputs")


def methods() -> dict[str, str]:
    """Every method's name with a one-line description.

    Example:
        >>> methods()["gradient"]
        'gradient of the logit'
    """
    return {name: description for name, (_, description) in METHODS.items()}


def create_analyzer(name: str | Composite, model: Any, **hyperparameters: Any) -> Analyzer:
    """An analyzer by name.

    Args:
        name: as listed by :func:`methods`, such as "lrp.epsilon_plus"; or a :class:`Composite`.
        model: a built Keras model.
        hyperparameters: of the method, such as ``epsilon=1e-6``. The noise methods take ``base``, the name of the
            method that they smooth, and that method's hyperparameters.

    Raises:
        UnknownNameError: no such method; the message lists near matches.
        ArgumentError: the method does not take a hyperparameter, or misses one.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> create_analyzer("lrp.epsilon", model, epsilon=0.1).name
        'lrp.epsilon'
    """
    if isinstance(name, Composite):
        return LRP(model, name, **hyperparameters)
    if not isinstance(name, str) or name not in METHODS:
        fix = "kxai.methods() describes all of them; kxai.ActivationMaximization, which explains no input, is none."
        raise UnknownNameError("method", str(name), METHODS, fix=fix)
    factory = METHODS[name][0]
    if name.startswith("lrp.") or (isinstance(factory, partial) and factory.func is _on):
        return factory(model, **hyperparameters)
    analyzer: Analyzer = call_with(partial(factory, model), f"method {name!r}", hyperparameters)
    return analyzer


def explain(
    model: Any, x: Any, method: str | Composite = "lrp.epsilon_plus", target: Any = None, batch_size: int = 32, *,
    layers: str | Sequence[str] = (), audit: bool = False, verbose: bool | None = None, **hyperparameters: Any,
) -> Explanation:  # fmt: skip
    """Explain a model's outputs once. To explain often, keep an analyzer: it compiles once.

    Args:
        model: a built Keras model.
        x: inputs with a batch axis, see :meth:`Analyzer.explain`.
        method: name of a method, or a Composite. Default "lrp.epsilon_plus".
        target: what is explained, see :meth:`Analyzer.explain`. Default: the predicted class.
        batch_size: samples computed at once. Default 32.
        layers, audit, verbose: see :meth:`Analyzer.explain`.
        hyperparameters: of the method.

    Example:
        >>> import keras, numpy as np
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.], [3.]]), np.array([0.])])
        >>> explain(model, np.array([[5., 7.]]), "lrp.epsilon", epsilon=0.0).relevance
        array([[10., 21.]], dtype=float32)
    """
    analyzer = create_analyzer(method, model, **hyperparameters)
    return analyzer.explain(x, target, batch_size, layers=layers, audit=audit, verbose=verbose)


def plan(model: Any, method: str | Composite = "lrp.epsilon_plus", inputs: Any = None, **hyperparameters: Any) -> Plan:
    """The table node | kind | rule of a method on a model; ``print`` shows it.

    Args:
        model: a built Keras model.
        method: name of a method, or a Composite.
        inputs: an example batch. Needed for subclassed models, which do not say what their inputs look like, and for
            layers that compute with a size that the model leaves open, such as the length of a text.
        hyperparameters: of the method.

    Raises:
        RuleError: a node has no rule; the message says which and what to do.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="sigmoid", name="score")])
        >>> print(plan(model, "lrp.epsilon"))
        node           kind         rule
        score          affine       Epsilon(epsilon=1e-06, relative=None, clip=False, bias=True)
        score/sigmoid  elementwise  -
        note: output 'score': its sigmoid is left out, the logit before it is explained
    """
    return create_analyzer(method, model, **hyperparameters).plan(inputs)
