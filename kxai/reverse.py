"""Run a plan: forward through the graph, then relevance backward, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
from keras import ops

from kxai import backend
from kxai.composites.plan import Plan
from kxai.graph.graph import Edge, Kind, Node
from kxai.rules import Step

# (value of a model input or embedding, signal that arrived there) -> what is reported.
Finish = Callable[[Any, Any], Any]


@final
@dataclass
class Forward:
    """Values of one forward run: every edge's tensor, and the steps of the nodes that have a rule."""

    values: dict[Edge, Any]
    steps: dict[Node, Step] = field(default_factory=dict)


@final
@dataclass
class Backward:
    """Relevance of one backward run.

    Attributes:
        inputs: per model input.
        kept: per requested node path, the relevance of its output.
        absorbed: per node path, relevance that came in and was not handed on, per sample.
    """

    inputs: list[Any]
    kept: dict[str, Any]
    absorbed: dict[str, Any]


def forward(plan: Plan, inputs: list[Any]) -> Forward:
    """Compute all edges; nodes with a rule keep what the rule may need."""
    run = Forward(dict(zip(plan.graph.inputs, inputs, strict=True)))
    for node in plan.graph.nodes:
        tensors = tuple(run.values[edge] for edge in node.inputs)
        if node in plan.rules:
            run.steps[node] = _step(plan, node, tensors, inputs)
            outputs: tuple[Any, ...] = run.steps[node].outputs
        else:
            outputs = node.run(*tensors)
        run.values.update(zip(node.outputs, outputs, strict=True))
    return run


def _step(plan: Plan, node: Node, tensors: tuple[Any, ...], inputs: list[Any]) -> Step:
    facts = plan.facts
    nonnegative = tuple(edge in facts.nonnegative for edge in node.inputs)
    kernel = bias = linear = None
    if node.affine is not None and node.kind is Kind.AFFINE:
        kernel, linear_map = node.affine.kernel(), node.affine.linear
        bias = None if node.affine.bias is None else node.affine.bias()
        (linear,), pull = backend.vjp(lambda x: linear_map(x, kernel), *tensors)
        outputs: tuple[Any, ...] = (linear if bias is None else ops.add(linear, bias),)
    else:
        tensors = tuple(_differentiable(node, x) for x in tensors)
        outputs, pull = backend.vjp(node.call, *tensors)
        outputs = tuple(
            ops.cast(y, edge.dtype) if not edge.is_float else y for y, edge in zip(outputs, node.outputs, strict=True)
        )
    return Step(
        node=node,
        inputs=tensors,
        outputs=outputs,
        pull=pull,
        kernel=kernel,
        bias=bias,
        linear_output=linear,
        nonnegative=nonnegative,
        rectified=node in plan.rectified,
        gate=facts.gate(node),
        from_input=lambda value: _from_input(plan, node, value, inputs),
        present=lambda: _present(plan, node, inputs),
    )


def _differentiable(node: Node, x: Any) -> Any:
    """Integers that are only moved are moved as floats, so that relevance can move back."""
    integer = "int" in keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, "float32") if node.kind is Kind.ROUTE and integer and node.op not in _INDEXED else x


# Their integer operands are positions, not values.
_INDEXED = ("take", "take_along_axis", "where")


def _from_input(plan: Plan, node: Node, value: Any, inputs: list[Any]) -> Any:
    """A value in units of the model's input (number, per channel, or array), in units of the input of ``node``."""
    value = ops.convert_to_tensor(np.asarray(value))
    if node.inputs[0] not in plan.facts.reached:
        return ops.cast(value, node.inputs[0].dtype)
    start = [ops.zeros_like(x[:1]) + ops.cast(value, x.dtype) for x in inputs]
    return _pushed(plan, node, start, through=(Kind.ROUTE, Kind.SCALE))


def _present(plan: Plan, node: Node, inputs: list[Any]) -> Any:
    """1 where the input of ``node`` (of one sample) is an input or activation, 0 where it is padding of the input."""
    edge = node.inputs[0]
    if edge not in plan.facts.reached:
        return None
    return _pushed(plan, node, [ops.ones_like(x[:1]) for x in inputs], through=(Kind.ROUTE,))


def _pushed(plan: Plan, node: Node, start: list[Any], through: tuple[Kind, ...]) -> Any:
    """``start`` at the model's inputs, moved to the input of ``node``; kinds not in ``through`` count as identities."""
    values: dict[Edge, Any] = dict(zip(plan.graph.inputs, start, strict=True))
    for other in plan.graph.nodes:
        if node.inputs[0] in values:
            break
        if other.outputs[0] in plan.facts.reached and all(edge in values for edge in other.inputs):
            tensors = [values[edge] for edge in other.inputs]
            values.update(zip(other.outputs, other.run(*tensors) if other.kind in through else tensors, strict=True))
    return values[node.inputs[0]]


def backward(
    plan: Plan,
    run: Forward,
    start: Mapping[Edge, Any],
    *,
    finish: Finish | None = None,
    keep: Collection[str] = (),
    audit: bool = False,
) -> Backward:
    """Send relevance from the explained outputs to the inputs.

    Args:
        plan: the plan that ``run`` was made with.
        run: the forward run.
        start: relevance of explained outputs.
        finish: applied to (value, signal) at the inputs and at embeddings; None reports the signal itself.
        keep: node paths whose output relevance is wanted.
        audit: also account, node by node, for relevance that is not handed on.
    """
    graph, active = plan.graph, plan.graph.active
    relevance: dict[Edge, Any] = dict(start)
    finished: dict[Edge, Any] = {}  # of integer edges: already in their final form
    kept: dict[str, Any] = {}
    absorbed: dict[str, Any] = {}
    wanted = {graph.find(path): path for path in keep}
    for node in reversed(graph.nodes):
        arrived = [relevance.pop(edge, None) for edge in node.outputs]
        done = [finished.pop(edge, None) for edge in node.outputs]
        if node in wanted:
            kept[wanted[node]] = _first_or_zeros(node, run, arrived, done)
        if node in plan.lookups and arrived[0] is not None:
            signal = arrived[0] if finish is None else finish(run.values[node.outputs[0]], arrived[0])
            _add(finished, node.inputs[0], ops.sum(signal, axis=-1))
            continue
        if node not in plan.rules:
            continue
        for book, came in ((relevance, arrived), (finished, done)):
            if all(r is None for r in came):
                continue
            sent = plan.rules[node].propagate(run.steps[node], came[0] if len(came) == 1 else came)
            for edge, r in zip(node.inputs, sent, strict=True):
                if r is not None and edge in active:
                    _add(book, edge, r)
            if audit:
                gone = [r for r, edge in zip(sent, node.inputs, strict=True) if edge in active]
                absorbed[node.path] = _total(came) - _total(gone)
    return Backward([_report(edge, run, relevance, finished, finish) for edge in graph.inputs], kept, absorbed)


def _add(book: dict[Edge, Any], edge: Edge, relevance: Any) -> None:
    """A tensor used several times receives the sum of what its readers send."""
    book[edge] = book[edge] + relevance if edge in book else relevance


def _total(tensors: Any) -> Any:
    sums = [ops.sum(ops.reshape(t, (ops.shape(t)[0], -1)), axis=1) for t in tensors if t is not None]
    return sum(sums[1:], sums[0]) if sums else 0.0


def _first_or_zeros(node: Node, run: Forward, arrived: list[Any], done: list[Any]) -> Any:
    for r in (*arrived, *done):
        if r is not None:
            return r
    return ops.zeros_like(run.values[node.outputs[0]])


def _report(
    edge: Edge, run: Forward, relevance: dict[Edge, Any], finished: dict[Edge, Any], finish: Finish | None
) -> Any:
    value = run.values[edge]
    result = finished.get(edge)
    if edge in relevance:
        signal = relevance[edge]
        signal = signal if finish is None else finish(ops.cast(value, signal.dtype), signal)
        result = signal if result is None else result + signal
    if result is None:
        result = ops.zeros_like(value) if edge.is_float else ops.cast(ops.zeros_like(value), "float32")
    return result
