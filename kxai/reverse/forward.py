"""The forward run: all edges, and what rules may need of the nodes that have one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import keras
import numpy as np
from keras import ops

from kxai import backend
from kxai.composites.plan import Plan
from kxai.errors import RuleError
from kxai.graph.affine import Affine
from kxai.graph.graph import Edge, Kind, Loop, Node
from kxai.looping import Unrolled, unroll
from kxai.rules import Parts, Step

# Kernel and bias of affine nodes.
Weights = dict[Node, tuple[Any, Any]]
Pullback = Callable[[Sequence[Any]], list[Any]]
CASTS = frozenset({"cast", "saturate_cast"})


@final
@dataclass
class Forward:
    """Values of one forward run.

    Attributes:
        values: of every edge.
        steps: of the nodes that have a rule.
        loops: of the recurrent nodes that were opened.
        weights: kernel and bias of affine nodes, where they were read beforehand.
        reference: the run of the reference that the steps are linked with, None if there is none.
        parts: of edges whose difference from the reference is known in two parts.
    """

    values: dict[Edge, Any]
    steps: dict[Node, Step] = field(default_factory=dict)
    loops: dict[Node, Unrolled] = field(default_factory=dict)
    weights: Weights = field(default_factory=dict)
    reference: Forward | None = None
    parts: dict[Edge, Parts] = field(default_factory=dict)

    def moved(self, edge: Edge) -> Any:
        """The value of an edge, minus that of the reference if there is one."""
        if self.reference is None:
            return self.values[edge]
        return as_float(self.values[edge]) - as_float(self.reference.values[edge])


def forward(
    plan: Plan, inputs: list[Any], weights: Weights | None = None, given: Mapping[Edge, Any] | None = None
) -> Forward:
    """Compute all edges; nodes with a rule keep what the rule may need.

    Args:
        plan: the plan.
        inputs: one tensor per input of the graph.
        weights: kernels and biases that were read already; the others are read now.
        given: values that are not computed but taken as they are.
    """
    given = given or {}
    run = Forward(dict(zip(plan.graph.inputs, inputs, strict=True)), weights=weights or {})
    run.values.update({edge: given[edge] for edge in plan.graph.inputs if edge in given})
    outputs: tuple[Any, ...]
    for node in plan.graph.nodes:
        tensors = tuple(run.values[edge] for edge in node.inputs)
        if node in plan.rules:
            step = _step(plan, node, tensors, run)
            # What is given is not computed: TensorFlow leaves out what nobody reads.
            outputs = tuple(given.get(edge, y) for edge, y in zip(node.outputs, step.outputs, strict=True))
            run.steps[node] = replace(step, outputs=outputs)
        elif all(edge in given for edge in node.outputs) and node not in plan.bodies:
            outputs = tuple(given[edge] for edge in node.outputs)
        elif node.loop is not None and node in plan.bodies:
            run.loops[node] = _unrolled(plan, node, node.loop, tensors, run)
            outputs = run.loops[node].outputs[: len(node.outputs)]
        else:
            outputs = node.run(*tensors)
        run.values.update((edge, given.get(edge, y)) for edge, y in zip(node.outputs, outputs, strict=True))
    return run


def _step(plan: Plan, node: Node, tensors: tuple[Any, ...], run: Forward) -> Step:
    facts = plan.facts
    active = tuple(edge in plan.graph.active and i not in node.held for i, edge in enumerate(node.inputs))
    # Integers on the way of relevance are computed with as floats, so that relevance can come back.
    tensors = tuple(as_float(x) if carries else x for x, carries in zip(tensors, active, strict=True))
    kernel = bias = linear = None
    if node.affine is not None and node.kind is Kind.AFFINE:
        # What makes the kernel is no input to a rule.
        tensors, others = tensors[:1], tensors[1:]
        linear_map = node.affine.linear
        kernel, bias = run.weights[node] if node in run.weights else _weights(node.affine, *others)
        (linear,), pull = backend.vjp(lambda x: linear_map(x, kernel), *tensors)
        outputs: tuple[Any, ...] = (linear if bias is None else ops.add(linear, bias),)
    else:
        # From integers to integers TensorFlow's cast has no derivative.
        stays = node.op in CASTS and not node.outputs[0].is_float
        outputs, pull = backend.vjp((lambda x: x + 0) if stays else node.call, *tensors)
        pairs = zip(outputs, node.outputs, strict=True)
        outputs = tuple(y if edge.is_float else ops.cast(y, edge.dtype) for y, edge in pairs)
    return Step(
        node=node,
        inputs=tensors,
        outputs=outputs,
        pull=_named(node, pull),
        kernel=kernel,
        bias=bias,
        linear_output=linear,
        active=active[: len(tensors)],
        nonnegative=tuple(edge in facts.nonnegative for edge in node.inputs),
        rectified=node in plan.rectified,
        gate=facts.gate(node),
        from_input=lambda value: _from_input(plan, node, value, run),
        present=lambda: _present(plan, node, run),
    )


def _named(node: Node, pull: Pullback) -> Pullback:
    """The pullback; what TensorFlow cannot derive is an error that names the node."""

    def named(cotangents: Sequence[Any]) -> list[Any]:
        try:
            return pull(cotangents)
        except backend.NoDerivative:
            raise RuleError(
                f"Node {node.path!r} has no derivative in TensorFlow, so nothing can be handed through it.",
                expected="operations that TensorFlow can differentiate",
                received=node.op,
                fix="write it with other operations (slice_update: keras.ops.where, keras.ops.pad or concatenate).",
            ) from None

    return named


def _weights(affine: Affine, *others: Any) -> tuple[Any, Any]:
    return affine.kernel(*others), None if affine.bias is None else affine.bias()


def _unrolled(plan: Plan, node: Node, loop: Loop, tensors: tuple[Any, ...], run: Forward) -> Unrolled:
    """Run a recurrent node step by step."""
    body = plan.bodies[node]
    # What makes the kernels is the same at each step: it is computed once.
    alone = [(other, other.affine) for other in body.rules if other.kind is Kind.AFFINE and len(other.inputs) == 1]
    run.weights = {**run.weights, **{other: _weights(affine) for other, affine in alone if affine is not None}}

    def step(*inputs: Any) -> list[Any]:
        values = forward(body, list(inputs), run.weights).values
        return [values[edge] for edge in body.graph.outputs]

    active = [edge in plan.graph.active for edge in node.inputs]
    floats = [as_float(x) if carries else x for x, carries in zip(tensors, active, strict=True)]
    return unroll(loop, step, floats)


def as_float(x: Any) -> Any:
    return x if "float" in keras.backend.standardize_dtype(x.dtype) else ops.cast(x, "float32")


def _from_input(plan: Plan, node: Node, value: Any, run: Forward) -> Any:
    """A value in units of the model's input (number, per channel, or array), in units of the input of ``node``."""
    value = ops.convert_to_tensor(np.asarray(value))
    if node.inputs[0] not in plan.facts.reached:
        return ops.cast(value, node.inputs[0].dtype)
    feeding = plan.inputs_of.get(node, ())
    start = []
    for position, edge in enumerate(plan.graph.inputs):
        zeros = ops.zeros_like(as_float(run.values[edge][:1]))
        start.append(zeros + ops.cast(value, zeros.dtype) if position in feeding else zeros)
    return _pushed(plan, node, start, run, through=(Kind.ROUTE, Kind.SCALE))


def _present(plan: Plan, node: Node, run: Forward) -> Any:
    """1 where the input of ``node`` (of one sample) is a value, 0 where it is padding of the model's input."""
    if node.inputs[0] not in plan.facts.reached:
        return None
    inputs = [as_float(run.values[edge][:1]) for edge in plan.graph.inputs]
    # The difference: whatever a padding fills in is in both.
    ones, zeros = (
        _pushed(plan, node, [fill(x) for x in inputs], run, through=(Kind.ROUTE,))
        for fill in (ops.ones_like, ops.zeros_like)
    )
    return ones - zeros


def _pushed(plan: Plan, node: Node, start: list[Any], run: Forward, through: tuple[Kind, ...]) -> Any:
    """``start`` at the model's inputs, moved to the input of ``node``; kinds not in ``through`` count as identities."""
    graph = plan.graph
    values: dict[Edge, Any] = dict(zip(graph.inputs, start, strict=True))
    for other in graph.nodes:
        if node.inputs[0] in values:
            break
        carried = [edge for edge in other.inputs if edge in graph.active]
        if other.outputs[0] not in plan.facts.reached or not all(edge in values for edge in carried):
            continue
        if other.kind in through:
            outputs = other.run(*(values[edge] if edge in values else run.values[edge] for edge in other.inputs))
        else:
            outputs = tuple(values[carried[0]] + ops.zeros_like(run.values[edge][:1]) for edge in other.outputs)
        values.update(zip(other.outputs, outputs, strict=True))
    return values[node.inputs[0]]
