"""A plan: the graph with a rule for every node, everything that can go wrong already checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from kxai.composites.composite import Composite
from kxai.errors import InputError, UnknownNameError
from kxai.graph.canonize import canonize, drop_identities, merge_scales, strip_heads
from kxai.graph.facts import Facts
from kxai.graph.graph import Edge, Graph, Kind, Node
from kxai.rules import Pass, Rule


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """Which node gets which rule. ``print(plan)`` shows the table.

    Attributes:
        graph: the canonized graph.
        facts: what is known of it.
        rules: the rule of every node that relevance reaches.
        starts_at_zero: whether the relevance of an explained output is 0 where the output is 0.
    """

    graph: Graph
    facts: Facts
    rules: Mapping[Node, Rule]
    starts_at_zero: bool

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """(path, kind, rule) per node in order of computation; rule is "-" where no relevance arrives."""
        table = []
        for node in self.graph.nodes:
            path = " + ".join((node.path, *node.merged))
            if node in self.rules:
                rule = repr(self.rules[node])
            else:
                rule = "sum over the vector, per token" if node in self.lookups else "-"
            table.append((path, node.kind.value, rule))
        return table

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
            above = all(known.get(edge, True) for edge in node.outputs)
            vanishes = rule is None or rule.keeps_zeros or (rule.moves and above and self.facts.fixes_zero(node))
            for edge in node.inputs:
                known[edge] = known.get(edge, True) and vanishes
        return known

    def check_inputs(self, arrays: list[Any]) -> None:
        """Raise InputError if a rule is not defined for these model inputs (NumPy arrays)."""
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
        canonizers.append(merge_scales)
    if strip:
        canonizers.append(strip_heads)
    graph = canonize(graph, *canonizers)
    facts = Facts(graph, nonnegative_inputs)
    composite.check_rows(facts)
    needed: set[Edge] = set(graph.explained)
    rules: dict[Node, Rule] = {}
    for node in reversed(graph.nodes):
        if not needed.intersection(node.outputs) or not graph.active.intersection(node.outputs):
            continue
        reached: tuple[bool, ...] = (True,) * len(node.inputs)
        if node.kind is not Kind.LOOKUP:
            rules[node] = composite.rule(node, facts)
            reached = rules[node].reaches(node, facts)
        pairs = zip(node.inputs, reached, strict=True)
        needed.update(edge for edge, reach in pairs if reach and edge in graph.active)
    if not needed.intersection(graph.inputs):
        raise InputError(
            "No output of the model depends on its inputs in a way that could be explained.",
            fix="look at print(kxai.plan(model, 'gradient')) for the node where the path ends.",
        )
    return Plan(graph, facts, dict(reversed(rules.items())), starts_at_zero)
