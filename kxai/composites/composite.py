"""A composite: the ordered table that says which node gets which rule."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import keras

from kxai.errors import ArgumentError, RuleError, UnknownNameError
from kxai.graph.black_box import closed, is_black_box
from kxai.graph.facts import Facts
from kxai.graph.graph import Kind, Node
from kxai.graph.registered import registration_of
from kxai.rules import Gradient, Rule

Predicate = Callable[[Node, Facts], bool]
Match = Kind | type | str | Predicate
Row = tuple[Match, Rule]

_LISTED = "print(kxai.plan(model, method)) lists the nodes."


def first(node: Node, facts: Facts) -> bool:
    """Affine nodes that the input meets first, through padding, reshaping, rescaling and normalisation."""
    return facts.is_first(node)


def preprocessing(node: Node, facts: Facts) -> bool:
    """Rescaling and normalisation of the input itself, before any other computation."""
    return node.kind is Kind.SCALE and node.outputs[0] in facts.reached


def shifting(node: Node, facts: Facts) -> bool:
    """Scalings that may add something: all but products and quotients with constants."""
    return node.kind is Kind.SCALE and node.op not in ("multiply", "divide", "true_divide", "divide_no_nan", "negative")


def first_convolution(node: Node, facts: Facts) -> bool:
    """Convolutions that the input meets first."""
    return facts.is_first(node) and convolution(node, facts)


def convolution(node: Node, facts: Facts) -> bool:
    """Convolutions of any kind: plain, depthwise, the two halves of separable ones, transposed."""
    return node.kind is Kind.AFFINE and node.op in ("conv", "depthwise_conv", "conv_transpose")


def gated(node: Node, facts: Facts) -> bool:
    """Elementwise products in which one operand is recognisable as the gate."""
    return node.kind is Kind.PRODUCT and facts.gate(node) is not None


def switched(node: Node, facts: Facts) -> bool:
    """Gated products whose gate is a sigmoid, a softmax, a statistic (of a norm) or broadcast, not just activated."""
    return facts.switch(node) is not None


def attending(node: Node, facts: Facts) -> bool:
    """Matrix products of attention weights and values."""
    return node.kind is Kind.BILINEAR and facts.gate(node) is not None


def anything(node: Node, facts: Facts) -> bool:
    """Every node; recurrent layers are opened, and their nodes matched one by one."""
    return node.loop is None


@final
@dataclass(frozen=True)
class Composite:
    """An ordered table of rows ``(match, rule)``; the first row that matches a node gives its rule.

    Args:
        name: for messages and the configuration.
        rows: a match is a :class:`Kind`, a Keras layer class, a glob over node paths (``"block1/*"``), or a predicate
            ``(node, facts) -> bool``. A glob means those of its nodes whose kind the rule is defined for. A layer whose
            class of your own has a row stays one node.
        merge: whether scalings (batch normalisation) are merged into affine nodes before rules are given. Default True.

    Example:
        >>> from kxai import preset, rules
        >>> composite = preset("epsilon_plus").but(("conv2d", rules.Flat()))
        >>> composite.name
        'epsilon_plus + 1 row'
    """

    name: str
    rows: tuple[Row, ...] = field(repr=False)
    merge: bool = True

    def but(self, *rows: Row) -> Composite:
        """The same table with ``rows`` put before it.

        Raises:
            ArgumentError: a row is not a pair of match and rule.
        """
        if not rows:
            raise ArgumentError("There is nothing to change.", expected="at least one (match, rule)", received="no row")
        for row in rows:
            _check_row(row)
        count = f"{len(rows)} row" + ("s" if len(rows) > 1 else "")
        return replace(self, name=f"{self.name} + {count}", rows=(*rows, *self.rows))

    @property
    def layer_classes(self) -> tuple[type, ...]:
        """Custom layer classes with a row of their own: such a layer is not opened, so that the rule meets it."""
        classes = [match for match, _ in self.rows if isinstance(match, type)]
        return tuple(match for match in classes if match.__module__.split(".")[0] != "keras")

    def rule(self, node: Node, facts: Facts) -> Rule:
        """The rule of a node: of the first row that matches, else the one that its layer's class is registered with.

        Raises:
            RuleError: no row matches, or the rule is not defined for the node.
        """
        for match, rule in self.rows:
            if matches(match, node, facts) and not _passes_by(match, rule, node):
                # A table says of all moves that they hand relevance back; of one node it is the user's word.
                if match is Kind.ROUTE or not isinstance(rule, Gradient):
                    _check_samples(node, facts)
                rule.check(node, facts)
                return rule
        registration = registration_of(node.layer)
        if registration is not None and registration.rule is not None:
            registration.rule.check(node, facts)
            return registration.rule
        raise _no_rule(self, node)

    def closing(self, node: Node, facts: Facts) -> Rule | None:
        """The rule of a recurrent node as a whole, None if it is to be opened.

        Raises:
            RuleError: the rule is not defined for the node.
        """
        for match, rule in self.rows:
            if matches(match, node, facts) and not _passes_by(match, rule, node):
                rule.check(node, facts)
                return rule
        return None

    def check_rows(self, *parts: Facts) -> None:
        """Refuse rows without effect, which are mistakes.

        Args:
            parts: facts of the model's graph, and of the bodies of its loops.

        Raises:
            UnknownNameError: a glob or a layer class matches no node. RuleError: a glob matches only nodes of kinds
            that its rule is not defined for.
        """
        paths = [path for facts in parts for path in facts.graph.paths()]
        nodes = [(node, facts) for facts in parts for node in facts.graph.nodes]
        for match, rule in self.rows:
            if isinstance(match, type) and not any(matches(match, *pair) for pair in nodes):
                known = {type(node.layer).__name__ for node, _ in nodes if node.layer is not None}
                fix = "merged layers (batch normalisation) and layers that were opened are matched by their paths."
                raise UnknownNameError("layer class in this model:", match.__name__, known, fix=fix)
            if isinstance(match, str):
                found = [node for node, facts in nodes if matches(match, node, facts)]
                if not found:
                    raise UnknownNameError("node", match, paths, fix=_LISTED)
                if all(_passes_by(match, rule, node) for node in found):
                    raise _fits_none(match, rule, found)


def matches(match: Match, node: Node, facts: Facts) -> bool:
    """Whether one match of a row applies to a node."""
    if isinstance(match, Kind):
        return node.kind is match
    if isinstance(match, str):
        return any(fnmatch.fnmatchcase(path, match) for path in (node.path, *node.merged))
    if isinstance(match, type):
        # The activation that was split off a layer is not that layer.
        split_off = node.kind in (Kind.ELEMENTWISE, Kind.SOFTMAX) and id(node.layer) in facts.affine_layers
        return isinstance(node.layer, match) and not split_off
    return match(node, facts)


def _passes_by(match: Match, rule: Rule, node: Node) -> bool:
    """Whether a glob, and not the node's own name, matches a node of a kind that the rule is not defined for."""
    return isinstance(match, str) and match not in (node.path, *node.merged) and node.kind not in rule.kinds


def _fits_none(match: str, rule: Rule, nodes: Sequence[Node]) -> RuleError:
    listed = ", ".join(f"{node.path} ({node.kind.value})" for node in nodes[:5])
    return RuleError(
        f"Rule {rule!r} applies to none of the nodes that {match!r} matches.",
        expected=f"a node of kind {', '.join(sorted(kind.value for kind in rule.kinds))}",
        received=listed + ", ..." * (len(nodes) > 5),
        fix=_LISTED,
    )


def _check_samples(node: Node, facts: Facts) -> None:
    """Relevance belongs to one sample; where a value is made of several, there is none."""
    batched = any(edge.batch is not None for edge in node.inputs if edge in facts.graph.active)
    if batched and (node.mixes or node.outputs[0].batch is None):
        raise RuleError(
            f"Node {node.path!r} mixes the samples of a batch, so relevance would leave its sample.",
            expected="operations that keep the batch axis and do nothing along it",
            received=f"{node.op}, of shape {node.outputs[0].shape} from {node.inputs[0].shape}",
            fix="let it work along the other axes; for statistics of the training data use BatchNormalization.",
        )


def _check_row(row: Any) -> None:
    if not (isinstance(row, tuple) and len(row) == 2 and isinstance(row[1], Rule)):
        raise ArgumentError(
            "A row of a composite is a pair.",
            expected='(match, rule), for example ("block1/*", kxai.rules.Flat())',
            received=repr(row),
        )
    match = row[0]
    layer_class = isinstance(match, type) and issubclass(match, keras.Layer)
    if not (isinstance(match, (Kind, str)) or layer_class or (callable(match) and not isinstance(match, type))):
        raise ArgumentError(
            "A row of a composite starts with what it matches.",
            expected="a kxai.Kind, a Keras layer class, a glob over node paths, or a predicate (node, facts) -> bool",
            received=repr(match),
        )


_REASONS = {
    Kind.SOFTMAX: "relevance arrives at a softmax that does not weigh values; only lrp.attn has a rule for it",
    Kind.BILINEAR: (
        "a matrix product of two tensors that both depend on the input has no rule in this composite; lrp.attn and "
        "lrp.cp have one"
    ),
    Kind.LOOKUP: "a table lookup has no rule in this composite",
}


def _is_users(layer: Any) -> bool:
    """Whether what a layer computes was written by its user."""
    shipped = type(layer).__module__.startswith("keras.") and not isinstance(layer, keras.layers.Lambda)
    return layer is not None and not shipped


def _no_rule(composite: Composite, node: Node) -> RuleError:
    if is_black_box(node):
        return closed(node, f"the rules of {composite.name!r}")
    layer = "" if node.layer is None else f" (layer {type(node.layer).__name__})"
    open_size = any(size is None for edge in node.inputs for size in edge.shape[1:])
    example = "pass an example batch (inputs=x), which tells sizes that the model leaves open; or " * open_size
    if node.kind is Kind.OPAQUE and not _is_users(node.layer):
        return RuleError(
            f"Node {node.path!r}{layer} has no rule: {node.reason}.",
            expected="operations that relevance has rules for",
            fix=(
                f'{example}accept the plain gradient there: composite.but(("{node.path}", kxai.rules.Gradient())); or '
                "put it into a layer of its own and kxai.rules.register(layer_class, rule). "
                "Gradient methods work as they are."
            ),
        )
    if node.kind is Kind.OPAQUE:
        return RuleError(
            f"Node {node.path!r}{layer} cannot be opened: {node.reason}.",
            expected="a layer whose call consists of Keras layers and keras.ops",
            fix=(
                f"{example}write its call with keras.ops instead of raw TensorFlow or NumPy, or accept the "
                f'plain gradient there: composite.but(("{node.path}", kxai.rules.Gradient())). '
                "Gradient methods work as they are."
            ),
        )
    return RuleError(
        f"Node {node.path!r}{layer} has no rule: {_REASONS.get(node.kind, f'kind {node.kind.value} is not listed')}.",
        expected=f"a row of composite {composite.name!r} that matches kind {node.kind.value} ({node.op})",
        fix=f'add one: composite.but(("{node.path}", kxai.rules.Gradient())), or use a gradient method.',
    )
