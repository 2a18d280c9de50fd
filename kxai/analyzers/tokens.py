"""From relevance per token to relevance of a model input: positions of a sequence, patches of an image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

from keras import ops

from kxai.composites import Plan
from kxai.errors import RuleError
from kxai.graph.attention import inputs_of
from kxai.graph.graph import Edge, Node

MAX_EXTRA = 16
"""Tokens that may precede those of the input: class token, distillation token, registers."""


@final
@dataclass(frozen=True)
class TokenMap:
    """How the tokens of attention lie in a model input.

    Tokens run over a grid of equal patches in row-major order, after ``extra`` tokens that belong to no place.

    Attributes:
        position: of the model input.
        patch: side of a patch in values; 1 for sequences, and for tables whose features are the tokens.
        grid: number of patches along each axis of the input.
        extra: tokens before the first patch.

    Example:
        >>> token_map = TokenMap(0, patch=2, grid=(2, 2), extra=1)
        >>> ops.convert_to_numpy(token_map.spread(ops.ones((1, 5)), (1, 4, 4, 1)))[0, :, :, 0].sum()
        np.float32(4.0)
    """

    position: int
    patch: int
    grid: tuple[int, ...]
    extra: int

    def spread(self, relevance: Any, shape: tuple[Any, ...]) -> Any:
        """Each value gets its token's relevance, divided by the number of the token's values: sums are kept.

        Args:
            relevance: (batch, tokens).
            shape: of the input, its batch axis first (free).
        """
        result = ops.reshape(relevance[:, self.extra :], (-1, *self.grid))
        for axis in range(1, len(self.grid) + 1):
            result = ops.repeat(result, self.patch, axis=axis)
        channels = shape[len(self.grid) + 1 :]
        result = result / (self.patch ** len(self.grid) * math.prod(channels))
        for size in channels:
            result = ops.repeat(result[..., None], size, axis=-1)
        return result


def map_tokens(plan: Plan, attention: Node, tokens: int) -> TokenMap | None:
    """Where the tokens come from: the one input among those that attention reads in which they fit, or None.

    Of several (token ids, segment ids, a mask) it is the one that is looked up in the largest table.

    Args:
        plan: the plan.
        attention: the first attention node.
        tokens: their number.
    """
    inputs = plan.graph.inputs
    fits = [fit for i in inputs_of(plan.graph, attention) if (fit := _fit(i, inputs[i], tokens)) is not None]
    if len(fits) > 1:
        sizes = [_vocabulary(plan, inputs[fit.position]) for fit in fits]
        fits = [fit for fit, size in zip(fits, sizes, strict=True) if size == max(sizes) > 0]
    return fits[0] if len(fits) == 1 else None


def unplaced(plan: Plan, attention: Node, tokens: int) -> RuleError:
    """What to say where :func:`map_tokens` finds no place, or more than one.

    Args:
        plan, attention, tokens: as there.
    """
    inputs = plan.graph.inputs
    shapes = ", ".join(f"{inputs[i].name} {inputs[i].shape}" for i in inputs_of(plan.graph, attention))
    return RuleError(
        f"The {tokens} tokens of attention cannot be assigned to places of one input.",
        expected=f"a sequence of so many steps, or equal square patches, after at most {MAX_EXTRA} other tokens",
        received=f"inputs {shapes}",
        fix='ask for the tokens themselves: per="token".',
    )


def _fit(position: int, edge: Edge, tokens: int) -> TokenMap | None:
    """Tokens as the finest patches that are not more than there are tokens."""
    sizes = edge.shape[1:-1] if len(edge.shape) > 2 else edge.shape[1:]
    known = [size for size in sizes if size is not None]
    if not known or len(known) < len(sizes):
        return None
    common = math.gcd(*known)
    for patch in [1] if len(edge.shape) == 2 else [p for p in range(1, common + 1) if common % p == 0]:
        grid = tuple(size // patch for size in known)
        extra = tokens - math.prod(grid)
        if 0 <= extra <= MAX_EXTRA and extra < math.prod(grid):
            return TokenMap(position, patch, grid, extra)
    return None


def _vocabulary(plan: Plan, edge: Edge) -> int:
    """Rows of the largest table in which an input of token ids is looked up; 0 if there is none."""
    return max((node.entries or 0 for node in plan.graph.consumers.get(edge, ())), default=0)
