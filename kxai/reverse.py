"""Run a plan: forward through the graph, then relevance backward, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np
from keras import ops

from kxai import backend
from kxai.composites.plan import Plan
from kxai.errors import RuleError
from kxai.graph.graph import Edge, Kind, Node
from kxai.looping import Unrolled, roll_back, unroll
from kxai.rules import Pass, Step

# Kernel and bias of affine nodes.
Weights = dict[Node, tuple[Any, Any]]
Pullback = Callable[[Sequence[Any]], list[Any]]
_CASTS = frozenset({"cast", "saturate_cast"})
# (value of a model input or embedding, signal that arrived there) -> what is reported.
Finish = Callable[[Any, Any], Any]


@final
@dataclass
class Forward:
    """Values of one forward run.

    Attributes:
        values: of every edge.
        steps: of the nodes that have a rule.
        loops: of the recurrent nodes that were opened.
        weights: kernel and bias of affine nodes, where they were read beforehand.
    """

    values: dict[Edge, Any]
    steps: dict[Node, Step] = field(default_factory=dict)
    loops: dict[Node, Unrolled] = field(default_factory=dict)
    weights: Weights = field(default_factory=dict)


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


def forward(plan: Plan, inputs: list[Any], weights: Weights | None = None) -> Forward:
    """Compute all edges; nodes with a rule keep what the rule may need.

    Args:
        plan: the plan.
        inputs: one tensor per input of the graph.
        weights: kernels and biases that were read already; the others are read now.
    """
    run = Forward(dict(zip(plan.graph.inputs, inputs, strict=True)), weights=weights or {})
    for node in plan.graph.nodes:
        tensors = tuple(run.values[edge] for edge in node.inputs)
        if node in plan.rules:
            run.steps[node] = _step(plan, node, tensors, run)
            outputs: tuple[Any, ...] = run.steps[node].outputs
        elif node in plan.bodies:
            run.loops[node] = _unrolled(plan, node, tensors, run)
            outputs = run.loops[node].outputs[: len(node.outputs)]
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
        linear_map = node.affine.linear
        kernel, bias = run.weights[node] if node in run.weights else _weights(node, *others)
        (linear,), pull = backend.vjp(lambda x: linear_map(x, kernel), *tensors)
        outputs: tuple[Any, ...] = (linear if bias is None else ops.add(linear, bias),)
    else:
        # From integers to integers TensorFlow's cast has no derivative.
        stays = node.op in _CASTS and not node.outputs[0].is_float
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


def _weights(node: Node, *others: Any) -> tuple[Any, Any]:
    affine: Any = node.affine
    return affine.kernel(*others), None if affine.bias is None else affine.bias()


def _unrolled(plan: Plan, node: Node, tensors: tuple[Any, ...], run: Forward) -> Unrolled:
    """Run a recurrent node step by step."""
    body = plan.bodies[node]
    # What makes the kernels is the same at each step: it is computed once.
    ready = [other for other in body.rules if other.kind is Kind.AFFINE and len(other.inputs) == 1]
    run.weights = {**run.weights, **{other: _weights(other) for other in ready}}

    def step(*inputs: Any) -> list[Any]:
        values = forward(body, list(inputs), run.weights).values
        return [values[edge] for edge in body.graph.outputs]

    active = [edge in plan.graph.active for edge in node.inputs]
    floats = [_as_float(x) if carries else x for x, carries in zip(tensors, active, strict=True)]
    return unroll(node.loop, step, floats)  # type: ignore[arg-type]


def _rolled_back(plan: Plan, node: Node, run: Forward, arrived: list[Any]) -> list[Any]:
    """Relevance of the inputs of a recurrent node."""
    body, loop = plan.bodies[node], run.loops[node].loop

    def step_back(inputs: list[Any], arrived: list[Any]) -> list[Any]:
        start: dict[Edge, Any] = {}
        for edge, r in zip(body.graph.outputs, arrived, strict=True):
            _add(start, edge, r)
        return backward(body, forward(body, inputs, run.weights), start).inputs

    sent: dict[int, Any] = {}
    for position, r in zip(loop.sources, roll_back(run.loops[node], step_back, arrived), strict=False):
        if position is not None:
            sent[position] = sent[position] + r if position in sent else r
    return [sent.get(position) for position, _ in enumerate(node.inputs)]


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
        if node not in plan.rules and node not in plan.bodies:
            continue
        for book, came in ((relevance, arrived), (finished, done)):
            if all(r is None for r in came):
                continue
            sent = _sent(plan, node, run, came, final=book is finished)
            receivers = node.inputs[: len(sent)]
            for edge, r in zip(receivers, sent, strict=True):
                if r is not None and edge in active:
                    _add(book, edge, r)
            if audit:
                gone = [(r, edge) for r, edge in zip(sent, receivers, strict=True) if r is not None and edge in active]
                here = [(r, edge) for r, edge in zip(came, node.outputs, strict=True) if r is not None]
                # Some networks compute in several precisions.
                precision = keras.backend.result_type(*(r.dtype for r, _ in (*here, *gone)))
                lost = _total(here, batch, precision) - _total(gone, batch, precision)
                absorbed[node.path] = absorbed[node.path] + lost if node.path in absorbed else lost
    return Backward([_report(edge, run, relevance, finished, finish) for edge in graph.inputs], kept, absorbed)


def _sent(plan: Plan, node: Node, run: Forward, came: list[Any], final: bool) -> Sequence[Any]:
    """What a node hands to its inputs."""
    if node in plan.bodies:
        return _rolled_back(plan, node, run, came)
    if not final and node.op in _CASTS and node.inputs[0].is_float and not node.outputs[0].is_float:
        return [None]  # rounding has no derivative
    # What is in its final form already only moves.
    rule = Pass() if final and node.kind is not Kind.ROUTE else plan.rules[node]
    return rule.propagate(run.steps[node], came[0] if len(came) == 1 else came)


def _add(book: dict[Edge, Any], edge: Edge, relevance: Any) -> None:
    """A tensor used several times receives the sum of what its readers send."""
    book[edge] = book[edge] + relevance if edge in book else relevance


def _total(tensors: Sequence[tuple[Any, Edge]], batch: Any, dtype: str) -> Any:
    sums = [ops.sum(ops.reshape(ops.cast(_batch_first(t, edge), dtype), (batch, -1)), axis=1) for t, edge in tensors]
    return sum(sums[1:], sums[0]) if sums else 0.0


def _batch_first(tensor: Any, edge: Edge) -> Any:
    return tensor if edge.batch is None or edge.batch[0] == 0 else ops.moveaxis(tensor, edge.batch[0], 0)


def _per_sample(tensor: Any, edge: Edge) -> Any:
    """The batch axis first; where time steps (say) had joined it, they get an axis of their own again."""
    tensor = _batch_first(tensor, edge)
    if edge.batch is None or edge.batch[1] == 1:
        return tensor
    return ops.reshape(tensor, (-1, edge.batch[1], *tensor.shape[1:]))


def _first_or_zeros(node: Node, run: Forward, arrived: list[Any], done: list[Any]) -> Any:
    for r in (arrived[0], done[0]):
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
