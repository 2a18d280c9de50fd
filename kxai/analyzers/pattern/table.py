"""The table of rules that read patterns."""

from __future__ import annotations

import weakref
from collections.abc import Callable

from kxai.analyzers.pattern.moments import activation_after
from kxai.composites import Composite
from kxai.composites.composite import Row
from kxai.graph.bottlenecks import bottlenecks
from kxai.graph.facts import RECTIFIERS, Facts
from kxai.graph.graph import Graph, Kind, Node
from kxai.rules import Gradient, Pass, WinnerTakesAll
from kxai.rules.pattern import AveragePattern, Pattern, Read, ScalePattern, Undefined, joins

_AVERAGES = frozenset({"average_pool", "global_average_pool", "mean"})


def masking(node: Node, facts: Facts) -> bool:
    """ReLUs."""
    return node.op in RECTIFIERS


def winning(node: Node, facts: Facts) -> bool:
    """Maxima that have a winner."""
    return node.kind is Kind.MAX and node.op != "logsumexp"


def averaging(node: Node, facts: Facts) -> bool:
    """Averages over windows or over everything."""
    return node.kind is Kind.SUM and node.op in _AVERAGES


def units(node: Node, facts: Facts) -> bool:
    """Affine nodes, and sums of several tensors."""
    return node.kind is Kind.AFFINE or joins(node)


def _narrow() -> Callable[[Node, Facts], bool]:
    """Units that all relevance passes."""
    known: weakref.WeakKeyDictionary[Graph, frozenset[Node]] = weakref.WeakKeyDictionary()

    def narrow(node: Node, facts: Facts) -> bool:
        if facts.graph not in known:
            known[facts.graph] = bottlenecks(facts.graph)
        return units(node, facts) and node in known[facts.graph]

    return narrow


def other(node: Node, facts: Facts) -> bool:
    """Everything else."""
    return True


def pattern_table(
    name: str, title: str, estimator: str, weighted: bool, normalize: bool, read: Read | None
) -> Composite:
    """The rules of PatternNet or PatternAttribution.

    Args:
        name: of the composite.
        title: of the method, for messages.
        estimator, weighted, read: see :class:`kxai.rules.pattern.Pattern`.
        normalize: whether relevance is scaled at nodes that all of it passes.
    """

    def patterns(where: Callable[[Node, Facts], bool], normalize: bool) -> tuple[Row, Row]:
        def active(node: Node, facts: Facts) -> bool:
            return where(node, facts) and activation_after(node, facts) is not None

        one, two = (Pattern(estimator, weighted, a, normalize, read) for a in (True, False))
        return (active, one), (where, two)

    rows: tuple[Row, ...] = (
        (Kind.SCALE, Pass() if weighted else ScalePattern()),
        (masking, Gradient()),
        (winning, WinnerTakesAll()),
        (Kind.ROUTE, Gradient()),
        (averaging, Gradient() if weighted else AveragePattern()),
        *(patterns(_narrow(), normalize=True) if normalize else ()),
        *patterns(units, normalize=False),
        (other, Undefined(title)),
    )
    return Composite(name, rows)
