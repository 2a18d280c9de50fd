"""Methods that read attention weights: rollout, and weights times their gradients."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, final

from keras import ops

from kxai.analyzers.backward import BackwardAnalyzer
from kxai.analyzers.program import Readout, Start
from kxai.analyzers.tokens import map_tokens, unplaced
from kxai.arguments import check_choice, check_flags, check_number
from kxai.composites import Composite, Plan
from kxai.composites.presets import gradient
from kxai.errors import ArgumentError, RuleError
from kxai.graph.attention import inputs_of, self_attention
from kxai.graph.canonize import prune
from kxai.graph.graph import Edge, Node
from kxai.reverse import Forward

_FUSE = {"mean": ops.mean, "min": ops.min, "max": ops.max}
_ROWS = ("target", "first", "last", "mean")


class AttentionAnalyzer(BackwardAnalyzer):
    """A method that chains one matrix (tokens, tokens) per attention layer and reads rows of the product.

    Args:
        model: a built Keras model.
        row: which token's row, see :class:`AttentionRollout`.
        per: "input" or "token".
        jit: compile with XLA. Default False.
    """

    def __init__(self, model: Any, *, row: str | int = "target", per: str = "input", jit: bool = False) -> None:
        super().__init__(model, jit=jit)
        if row not in _ROWS and (isinstance(row, bool) or not isinstance(row, int)):
            expected = f"{', '.join(map(repr, _ROWS))}, or a token's position"
            raise ArgumentError("row is no row of attention.", expected=expected, received=repr(row))
        check_choice("per", per, ["input", "token"])
        self._row, self._per = row, per

    @abstractmethod
    def step(self, rows: Any, weights: Any, gradients: Any) -> Any:
        """The rows, times the matrix of one layer.

        Args:
            rows: (batch, tokens), what each token counts after the layer.
            weights: (batch, heads, tokens, tokens), attention of queries to keys.
            gradients: of the explained logit with respect to the weights.

        Returns:
            (batch, tokens), what each token counts before the layer.
        """

    def composite_table(self) -> Composite:
        return gradient()

    def start(self) -> Start:
        return Start.ONE

    def _plan_for(self, specs: Any) -> Plan:
        plan = super()._plan_for(specs)
        self_attention(plan.graph)
        return plan

    def readout(self, plan: Plan, explained: Sequence[Edge]) -> Readout:
        needed = replace(plan.graph, outputs=tuple(explained), explained=tuple(explained))
        nodes = self_attention(prune(needed))

        def read(run: Forward, kept: dict[str, Any], arrived: list[Any]) -> list[Any]:
            weights = [_single_batch(run.values[node.outputs[0]]) for node in nodes]
            gradients = [_single_batch(kept[node.path]) for node in nodes]
            rows = self._first_rows(gradients[-1], _tokens(nodes, weights))
            for a, g in zip(reversed(weights), reversed(gradients), strict=True):
                rows = self.step(rows, a, g)
            return self._placed(rows, plan, nodes[0], run)

        return Readout(tuple(node.path for node in nodes), read)

    def _first_rows(self, gradients: Any, tokens: int) -> Any:
        """What each token counts after the last layer; adds up to 1."""
        if self._row == "target":
            reads = ops.cast(ops.any(gradients != 0, axis=(1, 3)), gradients.dtype)
            return reads / ops.maximum(ops.sum(reads, axis=-1, keepdims=True), 1)
        ones = ops.ones_like(gradients[:, 0, :, 0])
        if self._row == "mean":
            return ones / tokens
        position = self._row if isinstance(self._row, int) else {"first": 0, "last": -1}[self._row]
        if not -tokens <= position < tokens:
            raise ArgumentError(
                "row is not a token's position.", expected=f"{-tokens} to {tokens - 1}", received=f"{position}"
            )
        return ones * ops.one_hot(position % tokens, tokens, dtype=ones.dtype)

    def _placed(self, relevance: Any, plan: Plan, attention: Node, run: Forward) -> list[Any]:
        inputs = plan.graph.inputs
        tokens = relevance.shape[-1]
        found = map_tokens(plan, attention, tokens)
        position = inputs_of(plan.graph, attention)[0] if found is None else found.position
        if self._per == "input":
            if found is None:
                raise unplaced(plan, attention, tokens)
            relevance = found.spread(relevance, inputs[position].shape)
        values = [run.values[edge] for edge in inputs]
        return [relevance if i == position else ops.zeros_like(x, relevance.dtype) for i, x in enumerate(values)]


def _single_batch(weights: Any) -> Any:
    """(batch, heads..., queries, keys) -> (batch, heads, queries, keys), in single precision at least."""
    shape = tuple(weights.shape)
    if "16" in str(weights.dtype):
        weights = ops.cast(weights, "float32")
    return ops.reshape(weights, (ops.shape(weights)[0], -1, *ops.shape(weights)[len(shape) - 2 :]))


def _tokens(nodes: Sequence[Node], weights: Sequence[Any]) -> int:
    """The number of tokens, the same in all layers."""
    sizes = {tuple(a.shape[-2:]): node for node, a in zip(nodes, weights, strict=True)}
    numbers = {size for pair in sizes for size in pair}
    if len(numbers) != 1 or None in numbers:
        listed = "; ".join(f"{node.path} {size}" for size, node in sizes.items())
        raise RuleError(
            "The attention of the model's layers cannot be chained: it is not over the same tokens throughout.",
            expected="as many queries as keys, the same number in every layer",
            received=listed,
            fix="use lrp.attn, lrp.cp or a gradient method.",
        )
    return int(numbers.pop())


@final
class AttentionRollout(AttentionAnalyzer):
    """Attention rollout: ``R = A'_L ... A'_1`` with ``A' = w I + (1 - w) fuse_heads(A)``, rows normalised.

    It reads attention weights only: which class is explained has no influence, and relevance is never negative. It
    says where information comes from, not what speaks for the target; it adds up to 1, not to the logit. The relevance
    of a token is its column in the row of the token that the model reads at the end.

    Relevance is shaped like the model's input. Each value has its token's relevance, divided by the number of values
    that make the token (all pixels of an image's patch): sums are kept. Tokens that precede those of the input, such
    as a class token, have no place there; what they hold is missing from the sum.

    Args:
        model: a built Keras model whose attention is self-attention over one axis of tokens.
        residual: w, the share of the residual connection, [0, 1), default 0.5.
        heads: how heads are fused: "mean" (default), "min" or "max".
        row: whose row is read. "target" (default): the mean over the tokens whose result of the last attention the
            explained logit depends on, that is the class token, all tokens that are pooled, or the position of a
            decoder that is explained. Or "first", "last", "mean" (over all, padding included), or a position.
        per: "input" (default): shaped like the input; "token": (batch, tokens) with all tokens of the attention, in the
            place of that input. Of several inputs it is the one that is looked up in the largest table.
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: an argument is out of its range. RuleError: (at plan time, or at the first batch) the model has
        no attention, cross-attention, or attention in windows.

    Example:
        >>> from kxai.testing.models import encoder
        >>> case = encoder()
        >>> relevance = AttentionRollout(case.model).explain(case.inputs).relevance
        >>> relevance.shape, relevance.sum(axis=1).round(3)
        ((4, 7), array([1., 1., 1., 1.], dtype=float32))

    Source: Abnar & Zuidema 2020, Eq. 1.
    """

    def __init__(
        self, model: Any, residual: float = 0.5, heads: str = "mean", *, row: str | int = "target", per: str = "input",
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, row=row, per=per, jit=jit)
        check_number("residual", residual, least=0, below=1)
        check_choice("heads", heads, _FUSE)
        self._residual, self._heads = residual, heads

    @property
    def name(self) -> str:
        return "attention_rollout"

    def step(self, rows: Any, weights: Any, gradients: Any) -> Any:
        fused = _FUSE[self._heads](weights, axis=1)
        # The rows of A' are divided by their sums; the identity is never materialised.
        sums = self._residual + (1 - self._residual) * ops.sum(fused, axis=-1)
        share = rows / ops.where(sums == 0, ops.ones_like(sums), sums)
        return self._residual * share + (1 - self._residual) * _times(share, fused)


@final
class AttentionRelevance(AttentionAnalyzer):
    """Attention times its gradient: ``R <- R + A* R`` from ``R = I``, ``A* = mean over heads of pos(A dy/dA)``.

    Unlike rollout it depends on the target: only attention that speaks for it counts. Relevance is never negative, and
    its sum has no meaning. The identity stays: the token that is read counts at least 1 itself, and where several are
    read, each of them its share of 1. How tokens become values of the input, see :class:`AttentionRollout`.

    Args:
        model: a built Keras model whose attention is self-attention over one axis of tokens.
        strip_softmax: explain the logit before a final softmax or sigmoid (default), or the output itself.
        row: whose row is read: "target" (default), "first", "last", "mean" or a position, see
            :class:`AttentionRollout`.
        per: "input" (default) or "token".
        jit: compile with XLA. Default False.

    Raises:
        ArgumentError: an argument is out of its range. RuleError: (at plan time, or at the first batch) the model has
        no attention, cross-attention, or attention in windows.

    Example:
        >>> from kxai.testing.models import encoder
        >>> case = encoder()
        >>> relevance = AttentionRelevance(case.model, row="first").explain(case.inputs, target=1).relevance
        >>> relevance.shape, bool((relevance[:, 0] >= 1).all())
        ((4, 7), True)

    Source: Chefer, Gur & Wolf 2021, "Generic Attention-model Explainability", Eqs. 5 and 6, self-attention.
    """

    def __init__(
        self, model: Any, *, strip_softmax: bool = True, row: str | int = "target", per: str = "input",
        jit: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, row=row, per=per, jit=jit)
        check_flags(strip_softmax=strip_softmax)
        self._strip_softmax = strip_softmax

    @property
    def name(self) -> str:
        return "attention_relevance"

    def strips_heads(self) -> bool:
        return self._strip_softmax

    def step(self, rows: Any, weights: Any, gradients: Any) -> Any:
        return rows + _times(rows, ops.mean(ops.relu(weights * gradients), axis=1))


def _times(rows: Any, matrix: Any) -> Any:
    return ops.matmul(rows[:, None], matrix)[:, 0]
