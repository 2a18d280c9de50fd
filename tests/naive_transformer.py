"""AttnLRP and CP-LRP in plain float64 NumPy: every operation returns its value and a function for its relevance.

Independent of Keras and of kxai; each relevance is the sum over contributions that the papers print.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

EPSILON = 1e-9


def stab(z):
    return z + np.where(z < 0, -EPSILON, EPSILON)


@dataclass(eq=False)
class Value:
    """An array, what it was made of, and how its relevance is handed to that."""

    array: np.ndarray
    parents: tuple[Value, ...] = ()
    hand_down: Callable[[np.ndarray], tuple[np.ndarray | None, ...]] = lambda R: ()
    relevance: np.ndarray = field(init=False)

    def __post_init__(self):
        self.relevance = np.zeros_like(self.array)


def explain(output: Value, relevance: np.ndarray) -> None:
    """Set the relevance of everything that ``output`` was made of."""
    order: list[Value] = []

    def visit(value):
        if value not in order:
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(output)
    output.relevance = relevance
    for value in reversed(order):
        for parent, share in zip(value.parents, value.hand_down(value.relevance), strict=False):
            if share is not None:
                parent.relevance = parent.relevance + share


def linear(x, kernel, bias=0.0):
    """``R_i = sum_j x_i w_ij R_j / stab(z_j)``."""
    z = x.array @ kernel + bias

    def hand_down(R):
        contributions = x.array[..., :, None] * kernel
        return ((contributions * (R / stab(z))[..., None, :]).sum(-1),)

    return Value(z, (x,), hand_down)


def add(a, b):
    """Shares in proportion to the summands."""
    z = a.array + b.array
    return Value(z, (a, b), lambda R: (a.array * R / stab(z), b.array * R / stab(z)))


def shift(x, constant):
    """What the constant contributes is lost."""
    z = x.array + constant
    return Value(z, (x,), lambda R: (x.array * R / stab(z),))


def activation(x, function):
    """The identity rule."""
    return Value(function(x.array), (x,), lambda R: (R,))


def product(a, b, gate=None):
    """Halves, or all to the signal if ``b`` counts as the gate."""
    return Value(a.array * b.array, (a, b), lambda R: (R / 2, R / 2) if gate is None else (R, None))


def layer_norm(x, gamma, beta, epsilon):
    """Centring is a linear map, the deviation a constant."""
    size = x.array.shape[-1]
    centred = x.array - x.array.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(x.array.var(-1, keepdims=True) + epsilon) * gamma
    y = scaled + beta

    def hand_down(R):
        R = scaled * R / stab(y)
        contributions = x.array[..., :, None] * (np.eye(size) - 1 / size)
        return ((contributions * (R / stab(centred))[..., None, :]).sum(-1),)

    return Value(y, (x,), hand_down)


def rms_norm(x, gamma, epsilon):
    """The identity rule: the root mean square is a constant."""
    y = x.array / np.sqrt(np.square(x.array).mean(-1, keepdims=True) + epsilon) * gamma
    return Value(y, (x,), lambda R: (y * R / stab(y),))


def attention(q, k, v, mask, method):
    """``q, k, v``: (samples, heads, tokens, size); ``mask``: True where a query may look.

    AttnLRP: products of two tensors halve, the softmax by deep Taylor. CP-LRP: the weights are constants.
    """
    scores = np.einsum("bnth,bnsh->bnts", q.array, k.array)
    scaled = np.where(mask, scores / np.sqrt(q.array.shape[-1]), -np.inf)
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    z = np.einsum("bnts,bnsh->bnth", weights, v.array)

    def hand_down(R):
        parts = np.einsum("bnts,bnsh->bntsh", weights, v.array)
        if method == "cp":
            return None, None, (parts * (R / stab(z))[:, :, :, None]).sum(2)
        shares = parts * (R / stab(2 * z))[:, :, :, None]
        to_weights, to_values = shares.sum(-1), shares.sum(2)
        finite = np.where(mask, scaled, 0.0)
        to_scores = finite * (to_weights - weights * to_weights.sum(-1, keepdims=True))
        pairs = np.einsum("bnth,bnsh->bntsh", q.array, k.array) * (to_scores / stab(2 * scores))[..., None]
        return pairs.sum(3), pairs.sum(2), to_values

    return Value(z, (q, k, v), hand_down)


def heads(x, kernel, bias=0.0):
    """A projection to several heads: kernel (size, heads, head size) -> (samples, heads, tokens, head size)."""
    flat = linear(x, kernel.reshape(kernel.shape[0], -1), np.reshape(bias, -1))
    shape = (*x.array.shape[:2], *kernel.shape[1:])
    back = lambda R: (R.transpose(0, 2, 1, 3).reshape(flat.array.shape),)  # noqa: E731
    return Value(flat.array.reshape(shape).transpose(0, 2, 1, 3), (flat,), back)


def repeated(x, times):
    """Each head several times: its relevance is the sum."""

    def back(R):
        return (R.reshape(R.shape[0], -1, times, *R.shape[2:]).sum(2),)

    return Value(np.repeat(x.array, times, axis=1), (x,), back)


def joined(x, kernel, bias=0.0):
    """The heads' outputs through one projection: kernel (heads, head size, size)."""
    flat = x.array.transpose(0, 2, 1, 3).reshape(*x.array[:, 0].shape[:2], -1)
    side = Value(flat, (x,), lambda R: (R.reshape(len(R), R.shape[1], *kernel.shape[:2]).transpose(0, 2, 1, 3),))
    return linear(side, kernel.reshape(-1, kernel.shape[-1]), bias)


def mean(x, keep):
    """Mean over the tokens that ``keep`` names, proportional."""
    weights = keep[..., None] / keep.sum(1)[:, None, None]
    z = (x.array * weights).sum(1)
    return Value(z, (x,), lambda R: (x.array * weights * (R / stab(z))[:, None],))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def silu(x):
    return x / (1 + np.exp(-x))
