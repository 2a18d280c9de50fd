"""The table of DeepLIFT, whose rules hand down contributions to the difference from a reference."""

from __future__ import annotations

from collections.abc import Sequence

from kxai.arguments import check_choice
from kxai.composites.composite import Composite, Row
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.rules import (
    CrossMax,
    Gradient,
    Linear,
    Rescale,
    RescaleNorm,
    RescaleSoftmax,
    RevealCancel,
    Rule,
    ShapleyMax,
    ShapleyProduct,
)
from kxai.rules.deeplift_products import is_extreme

MIXTURES = ("rescale", "reveal_cancel", "genomics_default")
POOLINGS = ("cross_max", "gradient")
# Functions with no value, or a pole, somewhere: RevealCancel would ask for values far from those of both runs.
_PARTIAL = frozenset(
    "sqrt rsqrt log log2 log10 log1p power reciprocal divide true_divide divide_no_nan arccos arccosh arcsin arctanh "
    "acosh atanh erfinv tan".split()
)


def winning(node: Node, facts: Facts) -> bool:
    """Maxima and minima within one tensor."""
    return node.kind is Kind.MAX and is_extreme(node)


def smooth_maximum(node: Node, facts: Facts) -> bool:
    """The logsumexp."""
    return node.kind is Kind.MAX and node.op == "logsumexp"


def total(node: Node, facts: Facts) -> bool:
    """Functions of one tensor that have a value everywhere."""
    return node.kind is Kind.ELEMENTWISE and node.op not in _PARTIAL


def after_dense(node: Node, facts: Facts) -> bool:
    """Activations of dense layers, moves and scalings between them allowed."""
    if not total(node, facts):
        return False
    below: Node | None = node
    while below is not None and (below is node or below.kind in (Kind.ROUTE, Kind.SCALE)):
        sources = [edge for edge in below.inputs if edge in facts.graph.active]
        below = facts.graph.producer.get(sources[0]) if len(sources) == 1 else None
    return below is not None and below.kind is Kind.AFFINE and below.op in ("dense", "einsum_dense")


def deeplift(
    rule: str | Composite | Sequence[Row] = "rescale", max_pooling: str = "cross_max", threshold: float = 1e-7
) -> Composite:
    """DeepLIFT.

    Args:
        rule: "rescale", "reveal_cancel" (at all functions that have a value everywhere; a root or a logarithm keeps
            Rescale), "genomics_default" (the same after dense layers, else Rescale); or rows (match, rule), or a
            Composite of such, that come before the table of "rescale".
        max_pooling: "cross_max", or "gradient": all to the winner among the inputs.
        threshold: differences smaller than that get the derivative, >= 0.

    Raises:
        ArgumentError: an unknown name, or a negative threshold.
    """
    check_choice("max_pooling", max_pooling, POOLINGS)
    if not isinstance(rule, (Composite, list, tuple)):
        check_choice("rule", rule, MIXTURES, also="a Composite or rows (match, rule)")
    first: dict[str, tuple[Row, ...]] = {
        "reveal_cancel": ((total, RevealCancel(threshold)),),
        "genomics_default": ((after_dense, RevealCancel(threshold)),),
    }
    winner: Rule = CrossMax(threshold) if max_pooling == "cross_max" else Gradient()
    rows: tuple[Row, ...] = (
        (Kind.ELEMENTWISE, Rescale(threshold)),
        *((kind, Linear()) for kind in (Kind.AFFINE, Kind.SCALE, Kind.SUM, Kind.ROUTE)),
        (winning, winner),
        (smooth_maximum, RescaleSoftmax()),
        (Kind.MAX, ShapleyMax(threshold)),
        (Kind.PRODUCT, ShapleyProduct()),
        (Kind.BILINEAR, ShapleyProduct()),
        (Kind.SOFTMAX, RescaleSoftmax()),
        (Kind.NORM, RescaleNorm()),
    )
    name = f"deeplift.{rule}" if isinstance(rule, str) else "deeplift"
    if isinstance(rule, str):
        return Composite(name, (*first.get(rule, ()), *rows))
    table = Composite(name, rows, merge=rule.merge if isinstance(rule, Composite) else True)
    return table.but(*(rule.rows if isinstance(rule, Composite) else rule))
