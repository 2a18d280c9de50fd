"""The reverse run: relevance from the explained outputs to the inputs, node by node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops

from kxai.composites.plan import Plan
from kxai.graph.graph import Edge, Kind, Node
from kxai.graph.layout import batch_first, per_sample
from kxai.looping import roll_back
from kxai.reverse.forward import CASTS, Forward, forward
from kxai.rules import Pass

# (value of a model input or embedding, signal that arrived there) -> what is reported.
Finish = Callable[[Any, Any], Any]


@final
@dataclass
class Backward:
    """Relevance of one backward run.

    Attributes:
        inputs: per model input.
        kept: per requested node path, the relevance of its output.
        absorbed: per node path, relevance that came in and was not handed on, per sample, in its final form.
    """

    inputs: list[Any]
    kept: dict[str, Any]
    absorbed: dict[str, Any]


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
        audit: also account, node by node, for relevance that is not handed on. With ``finish``, what it makes of the
            values and signals around a node counts.
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
            kept[wanted[node]] = per_sample(_first_or_zeros(node, run, arrived, done), node.outputs[0])
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
                if finish is not None and book is relevance:
                    here, gone = (
                        [(_finished(finish, run.values[edge], r), edge) for r, edge in pairs] for pairs in (here, gone)
                    )
                lost = _lost(here, gone, batch)
                absorbed[node.path] = absorbed[node.path] + lost if node.path in absorbed else lost
    return Backward([_report(edge, run, relevance, finished, finish) for edge in graph.inputs], kept, absorbed)


def _sent(plan: Plan, node: Node, run: Forward, came: list[Any], final: bool) -> Sequence[Any]:
    """What a node hands to its inputs."""
    if node in plan.bodies:
        return _rolled_back(plan, node, run, came)
    if not final and node.op in CASTS and node.inputs[0].is_float and not node.outputs[0].is_float:
        return [None]  # rounding has no derivative
    # What is in its final form already only moves.
    rule = Pass() if final and node.kind is not Kind.ROUTE else plan.rules[node]
    return rule.propagate(run.steps[node], came[0] if len(came) == 1 else came)


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


def _add(book: dict[Edge, Any], edge: Edge, relevance: Any) -> None:
    """A tensor used several times receives the sum of what its readers send."""
    book[edge] = book[edge] + relevance if edge in book else relevance


def _finished(finish: Finish, value: Any, signal: Any) -> Any:
    return finish(ops.cast(value, signal.dtype), signal)


def _lost(here: list[tuple[Any, Edge]], gone: list[tuple[Any, Edge]], batch: Any) -> Any:
    # Some networks compute in several precisions.
    precision = keras.backend.result_type(*(r.dtype for r, _ in (*here, *gone)))
    return _total(here, batch, precision) - _total(gone, batch, precision)


def _total(tensors: Sequence[tuple[Any, Edge]], batch: Any, dtype: str) -> Any:
    sums = [ops.sum(ops.reshape(ops.cast(batch_first(t, edge), dtype), (batch, -1)), axis=1) for t, edge in tensors]
    return sum(sums[1:], sums[0]) if sums else 0.0


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
        signal = signal if finish is None else _finished(finish, value, signal)
        result = signal if result is None else result + signal
    if result is None:
        result = ops.zeros_like(value) if edge.is_float else ops.cast(ops.zeros_like(value), "float32")
    return result
