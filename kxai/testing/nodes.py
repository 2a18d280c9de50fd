"""The smallest models that have a node of each kind: what a rule is checked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, final

import keras
import numpy as np
from keras import layers, ops

from kxai import backend
from kxai.composites import Composite, Plan, anything, make_plan
from kxai.errors import RuleError
from kxai.graph.facts import Facts
from kxai.graph.graph import Graph, Node
from kxai.graph.trace import input_specs, trace
from kxai.reverse import Forward, compared, forward
from kxai.rules import DifferenceRule, Gradient, Rule, Step
from kxai.testing.models import seeded

SAMPLES = 3
Shape = tuple[int, ...]

# name -> (layer, shape of its input); every rank, stride, padding, dilation, grouping and multiplier once.
AFFINE: dict[str, tuple[Callable[..., Any], Shape]] = {
    "Dense": (lambda **k: layers.Dense(3, **k), (4,)),
    "Dense without bias": (lambda **k: layers.Dense(3, use_bias=False, **k), (4,)),
    "Dense on a sequence": (lambda **k: layers.Dense(3, **k), (2, 4)),
    "EinsumDense": (lambda **k: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", **k), (2, 4)),
    "Conv1D same stride 2": (lambda **k: layers.Conv1D(3, 3, strides=2, padding="same", **k), (6, 2)),
    "Conv1D causal dilated": (lambda **k: layers.Conv1D(2, 2, padding="causal", dilation_rate=2, **k), (6, 2)),
    "Conv2D valid strides 2, 1": (lambda **k: layers.Conv2D(3, (3, 2), strides=(2, 1), **k), (5, 4, 2)),
    "Conv2D same dilated": (lambda **k: layers.Conv2D(2, 3, padding="same", dilation_rate=2, **k), (4, 5, 2)),
    "Conv2D groups": (lambda **k: layers.Conv2D(4, 2, groups=2, **k), (4, 3, 4)),
    "Conv3D same stride 2": (lambda **k: layers.Conv3D(2, 2, strides=2, padding="same", **k), (3, 3, 2, 2)),
    "DepthwiseConv1D stride 2": (lambda **k: layers.DepthwiseConv1D(3, strides=2, depth_multiplier=2, **k), (6, 2)),
    "DepthwiseConv2D same": (lambda **k: layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, **k), (3, 4, 2)),
    "Conv1DTranspose stride 2": (lambda **k: layers.Conv1DTranspose(2, 3, strides=2, **k), (4, 3)),
    "Conv2DTranspose same": (lambda **k: layers.Conv2DTranspose(2, 3, strides=2, padding="same", **k), (3, 2, 2)),
    "Conv3DTranspose": (lambda **k: layers.Conv3DTranspose(2, 2, **k), (2, 2, 2, 2)),
}
# Keras compiles a grouped convolution anew in every call outside a compiled function: fewer checks there.
SLOW = frozenset({"Conv2D groups"})


def _gate(x: Any, y: Any) -> Any:
    return layers.Multiply()([x, layers.Activation("sigmoid")(y)])


def _attend(q: Any, k: Any, v: Any) -> Any:
    return ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, -1, -2))), v)


# name -> (function of symbolic inputs, shapes of the inputs)
OTHER: dict[str, tuple[Callable[..., Any], tuple[Shape, ...]]] = {
    "BatchNormalization": (lambda x: layers.BatchNormalization()(x), ((3, 2),)),
    "ReLU": (lambda x: layers.ReLU()(x), ((5,),)),
    "tanh": (lambda x: layers.Activation("tanh")(x), ((5,),)),
    "Flatten": (lambda x: layers.Flatten()(x), ((2, 3),)),
    "Cropping1D": (lambda x: layers.Cropping1D(1)(x), ((4, 2),)),
    "Concatenate": (lambda x, y: layers.Concatenate()([x, y]), ((3,), (2,))),
    "MaxPooling1D": (lambda x: layers.MaxPooling1D(2)(x), ((6, 2),)),
    "MaxPooling2D overlapping": (lambda x: layers.MaxPooling2D(3, 1, padding="same")(x), ((4, 4, 2),)),
    "Maximum": (lambda x, y: layers.Maximum()([x, y]), ((4,), (4,))),
    "Add": (lambda x, y: layers.Add()([x, y]), ((4,), (4,))),
    "Add broadcast": (lambda x, y: layers.Add()([x, y]), ((3, 2), (1, 2))),
    "Subtract": (lambda x, y: layers.Subtract()([x, y]), ((4,), (4,))),
    "AveragePooling2D same": (lambda x: layers.AveragePooling2D(2, padding="same")(x), ((3, 3, 2),)),
    "GlobalAveragePooling1D": (lambda x: layers.GlobalAveragePooling1D()(x), ((3, 2),)),
    "gated Multiply": (_gate, ((4,), (4,))),
    "Multiply broadcast": (lambda x, y: layers.Multiply()([x, y]), ((3, 2), (1, 2))),
    "Dot": (lambda x, y: layers.Dot(-1)([x, y]), ((2, 3), (2, 3))),
    "Softmax": (lambda x: ops.softmax(x), ((4,),)),
    "attention": (_attend, ((3, 2), (4, 2), (4, 3))),
    "RMSNormalization": (lambda x: ops.rms_normalization(x), ((4,),)),
}


@final
@dataclass(frozen=True, eq=False)
class Tiny:
    """A model of one node of interest, and its graph."""

    name: str
    model: keras.Model
    graph: Graph

    @property
    def shapes(self) -> list[Shape]:
        """Shapes of the inputs, without the batch axis."""
        return [tuple(size or 1 for size in edge.shape[1:]) for edge in self.graph.inputs]


@cache
def tiny(name: str, dtype: str = "float32") -> Tiny:
    """The tiny model of that name, built once.

    Args:
        name: a key of ``AFFINE`` or ``OTHER``.
        dtype: of everything in it.

    Example:
        >>> tiny("Dense").graph.nodes[-1].op
        'dense'
    """
    if name in AFFINE:
        layer, shape = AFFINE[name]
        inputs = [keras.Input(shape, dtype=dtype)]
        outputs = layer(dtype=dtype)(inputs[0])
    else:
        function, shapes = OTHER[name]
        inputs = [keras.Input(shape, dtype=dtype) for shape in shapes]
        outputs = function(*inputs)
    model = seeded(keras.Model(inputs[0] if len(inputs) == 1 else inputs, outputs, name="tiny"))
    return Tiny(name, model, trace(model, input_specs(model)))


def values(model: Tiny, low: float, high: float, seed: int = 0) -> list[np.ndarray]:
    """Fixed inputs of a tiny model, of both signs where the domain allows it.

    Args:
        model: the tiny model.
        low, high: domain of the inputs.
        seed: of the random numbers.

    Example:
        >>> values(tiny("Add"), -1, 1)[1].shape
        (3, 4)
    """
    random = np.random.default_rng(seed)
    return [
        random.uniform(low, high, (SAMPLES, *shape)).astype(edge.dtype)
        for shape, edge in zip(model.shapes, model.graph.inputs, strict=True)
    ]


def plan_of(rule: Rule, model: Tiny) -> Plan:
    """The plan in which ``rule`` serves every node that it is defined for, the plain derivative all others.

    Args:
        rule: the rule.
        model: the tiny model.

    Example:
        >>> print(plan_of(Gradient(), tiny("Flatten")).rows[0][2])
        Gradient()
    """
    rows = ((lambda node, facts: applies(rule, node, facts), rule), (anything, Gradient()))
    return make_plan(model.graph, Composite("checked rule", rows, merge=False), strip=False)


def applies(rule: Rule, node: Node, facts: Facts) -> bool:
    """Whether a rule is defined for a node.

    Args:
        rule: the rule.
        node: the node.
        facts: of its graph.

    Example:
        >>> graph = tiny("Flatten").graph
        >>> applies(Gradient(), graph.nodes[0], Facts(graph))
        True
    """
    try:
        rule.check(node, facts)
    except RuleError:
        return False
    return True


def steps(rule: Rule, plan: Plan, inputs: list[np.ndarray]) -> Iterator[Step]:
    """Run a plan; yield the steps that ``rule`` serves.

    Args:
        rule: the rule.
        plan: from :func:`plan_of`.
        inputs: arrays.

    Example:
        >>> rule, model = Gradient(), tiny("Flatten")
        >>> [step.outputs[0].shape[1] for step in steps(rule, plan_of(rule, model), values(model, -1, 1))]
        [6]
    """
    run = run_of(rule, plan, inputs)
    for node, step in run.steps.items():
        if plan.rules[node] is rule:
            yield step


def run_of(rule: Rule, plan: Plan, tensors: list[Any]) -> Forward:
    """A forward run, beside that of a fixed reference if the rule compares.

    Args:
        rule: the rule.
        plan: from :func:`plan_of`.
        tensors: inputs.

    Example:
        >>> rule, model = Gradient(), tiny("Flatten")
        >>> run_of(rule, plan_of(rule, model), values(model, -1, 1)).reference is None
        True
    """
    tensors = [ops.convert_to_tensor(x) for x in tensors]
    if not isinstance(rule, DifferenceRule):
        return forward(plan, tensors)
    random, edges = np.random.default_rng(11), plan.graph.inputs
    references = [random.uniform(-1, 1, (1, *(size or 1 for size in edge.shape[1:]))) for edge in edges]
    pairs = zip(references, edges, strict=True)
    return compared(plan, tensors, [ops.convert_to_tensor(r.astype(edge.dtype)) for r, edge in pairs])


def sent(rule: Rule, step: Step, relevance: np.ndarray) -> list[np.ndarray | None]:
    """What a rule hands down, as arrays.

    Args:
        rule: the rule.
        step: the node and its values.
        relevance: of the node's output.

    Example:
        >>> rule, model = Gradient(), tiny("Flatten")
        >>> [step] = steps(rule, plan_of(rule, model), values(model, -1, 1))
        >>> sent(rule, step, np.ones((3, 6), "float32"))[0].shape
        (3, 2, 3)
    """
    received = rule.propagate(step, ops.convert_to_tensor(relevance))
    return [None if r is None else backend.to_numpy(r) for r in received]
