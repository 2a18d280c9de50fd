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
from kxai.rules import Pass, Step

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
            run.steps[node] = _step(plan, node, tensors, run)
            outputs: tuple[Any, ...] = run.steps[node].outputs
        else:
            outputs = node.run(*tensors)
        run.values.update(zip(node.outputs, outputs, strict=True))
    return run


def _step(plan: Plan, node: Node, tensors: tuple[Any, ...], run: Forward) -> Step:
    facts = plan.facts
    active = tuple(edge in plan.graph.active for edge in node.inputs)
    # Integers on the way of relevance are computed with as floats, so that relevance can come back.
    tensors = tuple(_as_float(x) if carries else x for x, carries in zip(tensors, active, strict=True))
    kernel = bias = linear = None
    if node.affine is not None and node.kind is Kind.AFFINE:
        # What makes the kernel is no input to a rule.
        tensors, others = tensors[:1], tensors[1:]
        kernel, linear_map = node.affine.kernel(*others), node.affine.linear
        bias = None if node.affine.bias is None else node.affine.bias()
        (linear,), pull = backend.vjp(lambda x: linear_map(x, kernel), *tensors)
        outputs: tuple[Any, ...] = (linear if bias is None else ops.add(linear, bias),)
    else:
        outputs, pull = backend.vjp(node.call, *tensors)
        pairs = zip(outputs, node.outputs, strict=True)
        outputs = tuple(y if edge.is_float else ops.cast(y, edge.dtype) for y, edge in pairs)
    return Step(
        node=node,
        inputs=tensors,
        outputs=outputs,
        pull=pull,
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


def _as_float(x: Any) -> Any:
    return x if "float" in keras.backend.standardize_dtype(x.dtype) else ops.cast(x, "float32")


def _from_input(plan: Plan, node: Node, value: Any, run: Forward) -> Any:
    """A value in units of the model's input (number, per channel, or array), in units of the input of ``node``."""
    value = ops.convert_to_tensor(np.asarray(value))
    if node.inputs[0] not in plan.facts.reached:
        return ops.cast(value, node.inputs[0].dtype)
    feeding = plan.inputs_of.get(node, ())
    start = []
    for position, edge in enumerate(plan.graph.inputs):
        zeros = ops.zeros_like(_as_float(run.values[edge][:1]))
        start.append(zeros + ops.cast(value, zeros.dtype) if position in feeding else zeros)
    return _pushed(plan, node, start, run, through=(Kind.ROUTE, Kind.SCALE))


def _present(plan: Plan, node: Node, run: Forward) -> Any:
    """1 where the input of ``node`` (of one sample) is a value, 0 where it is padding of the model's input."""
    if node.inputs[0] not in plan.facts.reached:
        return None
    inputs = [_as_float(run.values[edge][:1]) for edge in plan.graph.inputs]
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
    batch = ops.shape(run.values[graph.inputs[0]])[0]
    for node in reversed(graph.nodes):
        arrived = [relevance.pop(edge, None) for edge in node.outputs]
        done = [finished.pop(edge, None) for edge in node.outputs]
        if node in wanted:
            kept[wanted[node]] = _per_sample(_first_or_zeros(node, run, arrived, done), node.outputs[0])
        if node in plan.lookups and arrived[0] is not None:
            signal = arrived[0] if finish is None else finish(run.values[node.outputs[0]], arrived[0])
            _add(finished, node.inputs[0], ops.sum(signal, axis=-1))
            continue
        if node not in plan.rules:
            continue
        for book, came in ((relevance, arrived), (finished, done)):
            if all(r is None for r in came):
                continue
            # What is in its final form already only moves.
            rule = plan.rules[node] if book is relevance or node.kind is Kind.ROUTE else Pass()
            sent = rule.propagate(run.steps[node], came[0] if len(came) == 1 else came)
            receivers = node.inputs[: len(run.steps[node].inputs)]
            for edge, r in zip(receivers, sent, strict=True):
                if r is not None and edge in active:
                    _add(book, edge, r)
            if audit:
                gone = [r for r, edge in zip(sent, receivers, strict=True) if edge in active]
                lost = _total(came, batch) - _total(gone, batch)
                absorbed[node.path] = absorbed[node.path] + lost if node.path in absorbed else lost
    return Backward([_report(edge, run, relevance, finished, finish) for edge in graph.inputs], kept, absorbed)


def _add(book: dict[Edge, Any], edge: Edge, relevance: Any) -> None:
    """A tensor used several times receives the sum of what its readers send."""
    book[edge] = book[edge] + relevance if edge in book else relevance


def _total(tensors: Any, batch: Any) -> Any:
    sums = [ops.sum(ops.reshape(t, (batch, -1)), axis=1) for t in tensors if t is not None]
    return sum(sums[1:], sums[0]) if sums else 0.0


def _per_sample(tensor: Any, edge: Edge) -> Any:
    """Where time steps (say) had joined the batch axis, they get an axis of their own again."""
    if edge.batch is None or edge.batch == (0, 1):
        return tensor
    return ops.reshape(tensor, (-1, edge.batch[1], *tensor.shape[1:]))


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
