"""A run beside that of its reference: what rules of differences read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras import ops

from kxai.composites.plan import Plan
from kxai.graph.graph import Edge, Kind
from kxai.reverse.forward import Forward, Weights, forward
from kxai.rules import DifferenceRule, Parts


def compared(
    plan: Plan, inputs: list[Any], references: list[Any], weights: Weights | None = None, known: Sequence[Any] = ()
) -> Forward:
    """Run forward from the inputs and from a reference, and link both.

    What carries no relevance (masks, positions, what is rounded) has the input's values in both runs: otherwise there
    would be differences that belong to no input. Kernels are read once.

    Args:
        plan: the plan.
        inputs: one tensor per input of the graph.
        references: tensors shaped like them; of one sample if it is the same for all.
        weights: kernels and biases that were read already.
        known: values of the :func:`compared_edges` at the references, if they were computed already.
    """
    run = forward(plan, inputs, weights)
    if not broadcasts(plan):
        references = [r + ops.zeros_like(x) for x, r in zip(inputs, references, strict=True)]
    read = {node: (step.kernel, step.bias) for node, step in run.steps.items() if step.node.kind is Kind.AFFINE}
    given = {edge: value for edge, value in run.values.items() if edge not in plan.graph.active}
    given.update(zip(compared_edges(plan), known, strict=False))
    reference = forward(plan, references, {**run.weights, **read}, given)
    return _linked(plan, run, reference)


def compared_edges(plan: Plan) -> list[Edge]:
    """Edges whose values at a reference are worth being kept: those that are computed and carry relevance."""
    return [edge for node in plan.graph.nodes for edge in node.outputs if edge in plan.graph.active]


def broadcasts(plan: Plan) -> bool:
    """Whether a reference of one sample meets any batch throughout: samples lie along the first axes alone."""
    graph = plan.graph
    edges = {*graph.inputs, *(edge for node in graph.nodes for edge in (*node.inputs, *node.outputs))}
    plain = all(edge.batch == (0, 1) if edge in graph.active else edge.batch is None for edge in edges)
    stateless = all(node.loop is None or node.loop.order.batch is None for node in graph.nodes)
    return plain and stateless and all(broadcasts(body) for body in plan.bodies.values())


def _linked(plan: Plan, run: Forward, reference: Forward) -> Forward:
    """The run whose steps know those of the reference, and the parts of their differences where a rule reads them."""
    loops = {node: replace(unrolled, reference=reference.loops[node]) for node, unrolled in run.loops.items()}
    linked = Forward(run.values, {}, loops, run.weights, reference)
    read = _parted(plan)
    linked.parts.update((edge, Parts.of(linked.moved(edge))) for edge in plan.graph.inputs if edge in read)
    for node in plan.graph.nodes:
        if node in run.steps:
            known = tuple(linked.parts.get(edge) for edge in node.inputs)
            linked.steps[node] = replace(run.steps[node], reference=reference.steps[node], parts=known)
        if read.isdisjoint(node.outputs):
            continue
        rule = plan.rules.get(node)
        made = rule.parts(linked.steps[node]) if isinstance(rule, DifferenceRule) else [None] * len(node.outputs)
        for edge, part in zip(node.outputs, made, strict=True):
            if edge in read:
                linked.parts[edge] = Parts.of(linked.moved(edge)) if part is None else part
    return linked


def _parted(plan: Plan) -> set[Edge]:
    """Edges whose parts some rule reads."""
    read: set[Edge] = set()
    for node in reversed(plan.graph.nodes):
        rule = plan.rules.get(node)
        if not isinstance(rule, DifferenceRule):
            continue
        if rule.reads_parts or (rule.moves_parts(node) and not read.isdisjoint(node.outputs)):
            read.update(edge for edge in node.inputs if edge in plan.graph.active)
    return read
