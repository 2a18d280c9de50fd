"""A plan: the graph with a rule for every node, everything that can go wrong already checked."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, final

from keras import ops

from kxai import backend
from kxai.composites.composite import Composite
from kxai.errors import InputError, RuleError, UnknownNameError
from kxai.graph.canonize import Canonizer, canonize, drop_identities, merge_scales, strip_heads, written_softmaxes
from kxai.graph.facts import Facts
from kxai.graph.graph import Edge, Graph, Kind, Loop, Node
from kxai.rules import Gradient, Pass, Rule


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """Which node gets which rule. ``print(plan)`` shows the table.

    Attributes:
        graph: the canonized graph.
        facts: what is known of it.
        rules: the rule of every node that relevance reaches.
        starts_at_zero: whether the relevance of an explained output is 0 where the output is 0.
        bodies: plans of the steps of recurrent nodes; these nodes have no rule of their own.
    """

    graph: Graph
    facts: Facts
    rules: Mapping[Node, Rule]
    starts_at_zero: bool
    bodies: Mapping[Node, Plan] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(path, kind, rule) per node in order of computation; rule is "-" where no relevance arrives."""
        table = []
        for node in self.graph.nodes:
            path = " + ".join((node.path, *node.merged))
            if node in self.rules:
                rule = repr(self.rules[node])
            elif node in self.bodies:
                rule = "step by step"
            else:
                rule = "sum over the vector, per token" if node in self.lookups else "-"
            table.append((path, node.kind.value, rule))
            table += self.bodies[node].rows if node in self.bodies else []
        return table

    @property
    def all_rules(self) -> list[tuple[Node, Rule]]:
        """Every node with its rule, those within loops included."""
        return [*self.rules.items(), *(pair for body in self.bodies.values() for pair in body.all_rules)]

    @cached_property
    def reached(self) -> frozenset[Node]:
        """Nodes that relevance reaches."""
        return frozenset({*self.rules, *self.bodies, *self.lookups})

    def within_loop(self, path: str) -> Node | None:
        """The recurrent node whose steps have a node of that path (a glob)."""
        for node, body in self.bodies.items():
            if fnmatch.filter(body.graph.paths(), path) or body.within_loop(path):
                return node
        return None

    @property
    def notes(self) -> list[str]:
        """What was done to the graph, for people."""
        return list(self.graph.notes)

    def __str__(self) -> str:
        rows = [("node", "kind", "rule"), *self.rows]
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        lines = [f"{path:<{widths[0]}}  {kind:<{widths[1]}}  {rule}".rstrip() for path, kind, rule in rows]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @cached_property
    def lookups(self) -> frozenset[Node]:
        """Embeddings: relevance ends at their output and is summed into one number per token."""
        return frozenset(node for node in self.graph.nodes if node.kind is Kind.LOOKUP)

    @cached_property
    def rectified(self) -> frozenset[Node]:
        """Nodes whose output's relevance is known to be 0 wherever the output is <= 0.

        So it is before a ReLU, if every rule above hands nothing to inputs that are 0.
        """
        found = set()
        for node in self.rules:
            rectifier = self.facts.rectifier_after(node)
            if rectifier is None or not isinstance(self.rules.get(rectifier), Pass):
                continue
            if self._vanishing.get(rectifier.outputs[0], False):
                found.add(node)
        return frozenset(found)

    @cached_property
    def _vanishing(self) -> dict[Edge, bool]:
        """Per edge, whether zero values are sure to have zero relevance."""
        graph, known = self.graph, dict.fromkeys(self.graph.explained, self.starts_at_zero)
        for node in reversed(graph.nodes):
            rule = self.rules.get(node)
            unreached = rule is None and node not in self.bodies
            above = all(known.get(edge, True) for edge in node.outputs)
            moved = rule is not None and rule.moves and above and self.facts.fixes_zero(node)
            vanishes = unreached or moved or (rule is not None and rule.keeps_zeros)
            for edge in node.inputs:
                known[edge] = known.get(edge, True) and vanishes
        return known

    def check_inputs(self, arrays: list[Any]) -> None:
        """Raise InputError if a rule is not defined for these model inputs (NumPy arrays), or they are too many."""
        self.check_values(arrays)
        for node in self.graph.nodes:
            batch = None if node.loop is None else node.loop.order.batch
            if batch not in (None, len(arrays[0])):
                raise _batch_error(node, batch, len(arrays[0]))

    def check_values(self, arrays: list[Any]) -> None:
        """Raise InputError if a rule is not defined for these values of model inputs (NumPy arrays)."""
        lowest = min(float(array.min()) for array in arrays)
        if self.facts.nonnegative_inputs and lowest < 0:
            raise InputError(
                "An input is negative, though the inputs were declared not to be.",
                expected="values >= 0 (low=0 was given)",
                received=f"values down to {lowest:.6g}",
                fix="pass the true bounds of your preprocessed inputs as low= and high=.",
            )
        for node, rule in self.rules.items():
            for position in self.inputs_of.get(node, ()):
                rule.check_inputs(arrays[position])
        for node in self.lookups:
            if node.entries is not None and node.inputs[0] in self.graph.inputs:
                _check_ids(node, node.entries, arrays[self.graph.inputs.index(node.inputs[0])])

    def checked(self, tensors: list[Any]) -> list[Any]:
        """The model inputs, in a graph that fails where :meth:`check_values` raises; it adds nothing where any do."""
        tensors = list(tensors)
        if self.facts.nonnegative_inputs:
            text = "an input is negative, though the inputs were declared not to be"
            tensors = [backend.asserted(x, x >= 0, text) for x in tensors]
        for node, rule in self.rules.items():
            bounds = rule.bounds()
            if bounds is None:
                continue
            low, high = bounds
            for position in self.inputs_of.get(node, ()):
                x = ops.cast(tensors[position], "float32")
                within, text = ops.logical_and(x >= low, x <= high), f"an input lies outside of what {rule!r} allows"
                tensors[position] = backend.asserted(tensors[position], within, text)
        for node in self.lookups:
            if node.entries is not None and node.inputs[0] in self.graph.inputs:
                position = self.graph.inputs.index(node.inputs[0])
                x, size = tensors[position], node.entries
                text = f"an id is not in the vocabulary of {node.path!r}: from 0 to {size - 1}"
                tensors[position] = backend.asserted(x, ops.logical_and(x < size, x >= -size), text)
        return tensors

    @cached_property
    def inputs_of(self) -> dict[Node, tuple[int, ...]]:
        """For first nodes, the positions of the model inputs that they read."""
        sources: dict[Edge, tuple[int, ...]] = {edge: (i,) for i, edge in enumerate(self.graph.inputs)}
        found = {}
        for node in self.graph.nodes:
            reading = tuple(i for edge in node.inputs for i in sources.get(edge, ()))
            if self.facts.is_first(node):
                found[node] = reading
            if node.outputs[0] in self.facts.reached:
                for edge in node.outputs:
                    sources[edge] = reading
        return found

    def node(self, path: str) -> Node:
        """The node of that path; UnknownNameError lists near matches."""
        found = self.graph.find(path)
        if found is None:
            raise UnknownNameError("node", path, self.graph.paths(), fix="print(kxai.plan(model, method)) lists them.")
        return found


def _batch_error(node: Node, batch: int | None, count: int) -> InputError:
    return InputError(
        f"Layer {node.path!r} is stateful: it holds the states of {batch} samples.",
        expected=f"batches of {batch} samples",
        received=f"{count} samples",
        fix=f"explain a multiple of {batch} samples, with batch_size={batch}.",
    )


def _check_ids(node: Node, size: int, ids: Any) -> None:
    lowest, highest = int(ids.min()), int(ids.max())
    if highest >= size or lowest < -size:
        raise InputError(
            f"A token id is not in the vocabulary of {node.path!r}.",
            expected=f"ids from 0 to {size - 1}",
            received=f"ids from {lowest} to {highest}",
            fix="use the tokenizer and the vocabulary that the model was trained with.",
        )


def make_plan(
    graph: Graph,
    composite: Composite,
    *,
    strip: bool = True,
    starts_at_zero: bool = True,
    nonnegative_inputs: bool = False,
) -> Plan:
    """Canonize a graph and give every node its rule.

    Args:
        graph: as traced.
        composite: the table of rules.
        strip: explain the logit where an output is a softmax or sigmoid.
        starts_at_zero: whether relevance starts as a multiple of the output.
        nonnegative_inputs: the caller's word that no model input is negative.

    Raises:
        RuleError: a node has no rule. UnknownNameError: a glob of the composite names no node.
        InputError: no input of the model can carry relevance.
    """
    canonizers = [drop_identities]
    if composite.merge:
        canonizers += [written_softmaxes, merge_scales]
    # The heads of the model are no heads of a step.
    graph = canonize(_with_canonized_steps(graph, canonizers), *canonizers, *([strip_heads] if strip else []))
    facts = Facts(graph, nonnegative_inputs)
    composite.check_rows(*_with_bodies(facts))
    plan, needed = _ruled(facts, composite, starts_at_zero)
    if not needed.intersection(graph.inputs):
        raise InputError(
            "No output of the model depends on its inputs in a way that could be explained.",
            fix="look at print(kxai.plan(model, 'gradient')) for the node where the path ends.",
        )
    return plan


def _with_canonized_steps(graph: Graph, canonizers: Sequence[Canonizer]) -> Graph:
    def canonized(loop: Loop) -> Loop:
        return replace(loop, body=canonize(_with_canonized_steps(loop.body, canonizers), *canonizers))

    nodes = (node if node.loop is None else replace(node, loop=canonized(node.loop)) for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def _ruled(facts: Facts, composite: Composite, starts_at_zero: bool) -> tuple[Plan, set[Edge]]:
    """A rule, or a plan of its steps, for every node that relevance reaches; and the edges that it reaches."""
    graph = facts.graph
    needed: set[Edge] = set(graph.explained)
    rules: dict[Node, Rule] = {}
    bodies: dict[Node, Plan] = {}
    for node in reversed(graph.nodes):
        if not needed.intersection(node.outputs) or not graph.active.intersection(node.outputs):
            continue
        reached: tuple[bool, ...] = (True,) * len(node.inputs)
        if node.loop is not None:
            rule = composite.closing(node, facts) or _opened(node, node.loop, facts, composite, bodies)
            if rule is not None:
                rules[node] = rule
        elif node.kind is not Kind.LOOKUP:
            rules[node] = composite.rule(node, facts)
            reached = rules[node].reaches(node, facts)
        pairs = zip(node.inputs, reached, strict=True)
        needed.update(edge for edge, reach in pairs if reach and edge in graph.active)
    ordered = dict(reversed(rules.items()))
    return Plan(graph, facts, ordered, starts_at_zero, dict(reversed(bodies.items()))), needed


def _with_bodies(facts: Facts) -> list[Facts]:
    """Facts of a graph and of the bodies of its loops, and of theirs."""
    loops = [node.loop for node in facts.graph.nodes if node.loop is not None]
    return [facts, *(inner for loop in loops for inner in _with_bodies(Facts(loop.body)))]


def _opened(node: Node, loop: Loop, facts: Facts, composite: Composite, bodies: dict[Node, Plan]) -> Rule | None:
    """Plan the steps of a recurrent node; if all is derivatives, the derivative of the whole is its rule."""
    body = Facts(loop.body)
    if any(inner.kind is Kind.LOOKUP for inner in body.graph.nodes):
        raise RuleError(
            f"Layer {node.path!r} looks up token ids at each step.",
            expected="an embedding before the recurrent layer",
            fix="embed the whole sequence first: the result is the same.",
        )
    plan, _ = _ruled(body, composite, starts_at_zero=False)
    if not plan.bodies and all(isinstance(rule, Gradient) for rule in plan.rules.values()):
        return Gradient()
    if node.inputs[loop.sources[0] or 0] in facts.reached:
        _check_first(node, plan, composite)
    bodies[node] = plan
    return None


def _check_first(node: Node, plan: Plan, composite: Composite) -> None:
    """Refuse a rule for the layer that the input meets first, if that layer is within a loop."""
    as_first = Facts(replace(plan.graph, inner=False))
    for inner, rule in plan.rules.items():
        wanted = composite.rule(inner, as_first)
        if inner.kind is Kind.AFFINE and wanted != rule:
            raise RuleError(
                f"Composite {composite.name!r} gives the layer that the input meets first the rule {wanted!r}, but "
                f"{inner.path!r} is in the loop of {node.path!r}, which the input meets together with states.",
                expected="a composite without a rule for the first layer, or a first layer that is not recurrent",
                fix=f'name the rule: composite.but(("{inner.path}", kxai.rules.{rule!r})).',
            )
