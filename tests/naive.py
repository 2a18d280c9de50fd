"""Plain float64 definitions, for tests to compare with: slow, short, and independent of Keras and of kxai.

Every affine layer becomes one dense matrix: unit vectors are pushed through a loop over output positions and kernel
taps. Every rule is then the double sum that the papers print, over the matrix ``c`` of contributions
``c_ij = x_i w_ij`` of one sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

# --- linear maps: (batch, *sizes, channels) -> (batch, *sizes, channels) ------------------------------------------


def dense(x, kernel):
    """``kernel`` (inputs, outputs), applied to the last axis."""
    return np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)


def conv(x, kernel, strides=1, padding="valid", dilation=1, groups=1):
    """``kernel`` (*taps, channels in / groups, channels out)."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    taps, strides, dilation = _window(kernel.shape[:-2], strides, dilation)
    sizes, left = _output(x.shape[1:-1], taps, strides, dilation, padding)
    fan_in, fan_out = kernel.shape[-2], kernel.shape[-1] // groups
    y = np.zeros((len(x), *sizes, kernel.shape[-1]))
    for place, tap, source in _meetings(sizes, taps, strides, dilation, left, x.shape[1:-1]):
        for g in range(groups):
            inside, outside = slice(g * fan_in, (g + 1) * fan_in), slice(g * fan_out, (g + 1) * fan_out)
            y[(slice(None), *place, outside)] += x[(slice(None), *source, inside)] @ kernel[tap][:, outside]
    return y


def depthwise(x, kernel, strides=1, padding="valid", dilation=1):
    """``kernel`` (*taps, channels, multiplier); output channel ``c * multiplier + m``."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    channels, multiplier = kernel.shape[-2:]
    one_by_one = [
        conv(x[..., c : c + 1], kernel[..., c : c + 1, :], strides, padding, dilation) for c in range(channels)
    ]
    y = np.concatenate(one_by_one, axis=-1)
    assert y.shape[-1] == channels * multiplier
    return y


def separable(x, depth_kernel, point_kernel, **window):
    """A depthwise convolution, then a 1x1 convolution."""
    return conv(depthwise(x, depth_kernel, **window), point_kernel)


def conv_transpose(x, kernel, strides=1, padding="valid", dilation=1):
    """``kernel`` (*taps, channels out, channels in): each input is scattered over the window that would read it."""
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    taps, strides, dilation = _window(kernel.shape[:-2], strides, dilation)
    spans = [(t - 1) * d + 1 for t, d in zip(taps, dilation, strict=True)]
    overhang = [max(span - s, 0) for span, s in zip(spans, strides, strict=True)]
    sizes = [n * s for n, s in zip(x.shape[1:-1], strides, strict=True)]
    left = [0] * len(sizes)
    if padding == "valid":
        sizes = [n + over for n, over in zip(sizes, overhang, strict=True)]
    else:
        left = [over // 2 for over in overhang]
    y = np.zeros((len(x), *sizes, kernel.shape[-2]))
    for source, tap, place in _meetings(x.shape[1:-1], taps, strides, dilation, left, sizes):
        y[(slice(None), *place)] += x[(slice(None), *source)] @ kernel[tap].T
    return y


def average_pool(x, size, strides=None, padding="valid"):
    """The mean over the cells of the window that exist: padding does not count."""
    x = np.asarray(x, np.float64)
    window, strides, ones = _window(np.broadcast_to(size, x.ndim - 2), size if strides is None else strides, 1)
    sizes, left = _output(x.shape[1:-1], window, strides, ones, padding)
    total, count = np.zeros((len(x), *sizes, x.shape[-1])), np.zeros((*sizes, 1))
    for place, _, source in _meetings(sizes, window, strides, ones, left, x.shape[1:-1]):
        total[(slice(None), *place)] += x[(slice(None), *source)]
        count[place] += 1
    return total / count


def max_pool_winners(x, size, strides=None, padding="valid"):
    """Per output cell and channel of one sample: flat index of the first largest input cell."""
    window, strides, ones = _window(np.broadcast_to(size, x.ndim - 1), size if strides is None else strides, 1)
    sizes, left = _output(x.shape[:-1], window, strides, ones, padding)
    best = np.full((*sizes, x.shape[-1]), -np.inf)
    winner = np.zeros(best.shape, int)
    index = np.arange(x.size).reshape(x.shape)
    for place, _, source in _meetings(sizes, window, strides, ones, left, x.shape[:-1]):
        better = x[source] > best[place]
        best[place] = np.where(better, x[source], best[place])
        winner[place] = np.where(better, index[source], winner[place])
    return winner


def _window(taps, strides, dilation):
    rank = len(taps)
    return tuple(taps), tuple(np.broadcast_to(strides, rank)), tuple(np.broadcast_to(dilation, rank))


def _output(sizes, taps, strides, dilation, padding):
    """(output sizes, cells of padding before the first)."""
    reach = [(t - 1) * d for t, d in zip(taps, dilation, strict=True)]
    if padding == "valid":
        return [-(-(n - r) // s) for n, r, s in zip(sizes, reach, strides, strict=True)], [0] * len(sizes)
    outputs = [-(-n // s) for n, s in zip(sizes, strides, strict=True)]
    if padding == "causal":
        return outputs, reach
    short = [(o - 1) * s + r + 1 - n for o, s, r, n in zip(outputs, strides, reach, sizes, strict=True)]
    return outputs, [max(cells, 0) // 2 for cells in short]


def _meetings(places, taps, strides, dilation, left, sizes):
    """(place, tap, cell) wherever tap ``tap`` of the window at ``place`` meets an existing cell."""
    for place in itertools.product(*map(range, places)):
        for tap in itertools.product(*map(range, taps)):
            cell = tuple(p * s + t * d - o for p, s, t, d, o in zip(place, strides, tap, dilation, left, strict=True))
            if all(0 <= c < n for c, n in zip(cell, sizes, strict=True)):
                yield place, tap, cell


# --- one dense matrix ------------------------------------------------------------------------------------------------


def matrix(linear: Callable[[Any], Any], shape: tuple[int, ...]) -> np.ndarray:
    """W of the linear map, (inputs, outputs): row i is what the i-th unit vector becomes."""
    size = int(np.prod(shape))
    return np.asarray(linear(np.eye(size).reshape(size, *shape)), np.float64).reshape(size, -1)


@dataclass(frozen=True, eq=False)
class Affine:
    """``z = x W + b`` of one sample, flattened.

    Attributes:
        linear: (x, *kernels) -> z.
        kernels: the weights.
        shape: of the input, without the batch.
        bias: broadcast over the outputs, or None.
    """

    linear: Callable[..., Any]
    kernels: tuple[np.ndarray, ...]
    shape: tuple[int, ...]
    bias: np.ndarray | None = None

    @cached_property
    def W(self) -> np.ndarray:  # noqa: N802 - the papers' name
        return matrix(lambda x: self.linear(x, *self.kernels), self.shape)

    @cached_property
    def connected(self) -> np.ndarray:
        """1 where input i and output j are connected at all."""
        return matrix(lambda x: self.linear(x, *[np.ones_like(k) for k in self.kernels]), self.shape)

    @cached_property
    def b(self) -> np.ndarray:
        output = self.linear(np.zeros((1, *self.shape)), *self.kernels)[0]
        return (output + (0.0 if self.bias is None else np.asarray(self.bias, np.float64))).ravel()


# --- rules for affine layers: (x, map, R) of one flattened sample -> R of the inputs ---------------------------------


def pos(u):
    return np.maximum(u, 0.0)


def neg(u):
    return np.minimum(u, 0.0)


def stab(z, epsilon):
    """``z + epsilon sgn(z)`` with sgn(0) = +1."""
    return z + epsilon * np.where(z < 0, -1.0, 1.0)


def share(c, offset, R, epsilon=0.0):
    """``sum_j c_ij R_j / stab(sum_i c_ij + offset_j)``; a term over 0 sends nothing back."""
    z = stab(c.sum(axis=0) + offset, epsilon)
    received = np.zeros(c.shape[0])
    for j in range(c.shape[1]):
        if z[j] != 0:
            received += c[:, j] * R[j] / z[j]
    return received


def epsilon(x, m, R, epsilon=1e-6, relative=None, clip=False, bias=True):
    c, b = x[:, None] * m.W, m.b * bias
    z = c.sum(axis=0) + b
    amount = epsilon * np.sqrt(np.mean(z**2)) if relative == "rms" else epsilon
    if clip:
        raised = np.where(z < 0, -1.0, 1.0) * np.maximum(np.abs(z), amount)
        return share(c, b + raised - z, R)
    return share(c, b, R, amount)


def gamma(x, m, R, gamma=0.25, epsilon=1e-6, bias=True):
    """The generalised form: by the sign of the true output, bias included."""
    c, b = x[:, None] * m.W, m.b * bias
    output = x @ m.W + m.b
    above = share(c + gamma * pos(c), b + gamma * pos(b), np.where(output > 0, R, 0), epsilon)
    below = share(c + gamma * neg(c), b + gamma * neg(b), np.where(output < 0, R, 0), epsilon)
    return above + below


def gamma_original(x, m, R, gamma=0.25, epsilon=1e-6, bias=True):
    b = m.b * bias
    return share(x[:, None] * (m.W + gamma * pos(m.W)), b + gamma * pos(b), R, epsilon)


def alpha_beta(x, m, R, alpha=2.0, beta=1.0, epsilon=1e-6, bias=True):
    c, b = x[:, None] * m.W, m.b * bias
    return alpha * share(pos(c), pos(b), R, epsilon) - beta * share(neg(c), neg(b), R, epsilon)


def z_plus(x, m, R, epsilon=1e-6, bias=False):
    return share(pos(x[:, None] * m.W), pos(m.b * bias), R, epsilon)


def w_square(x, m, R, epsilon=0.0):
    return share(m.W**2, 0.0, R, epsilon)


def flat(x, m, R, epsilon=0.0):
    return share(m.connected, 0.0, R, epsilon)


def z_box(x, m, R, low, high, epsilon=0.0):
    """``low`` and ``high``: number, per channel, or of the input's shape, in units of the layer's input."""
    low, high = (np.broadcast_to(bound, m.shape).astype(np.float64).ravel() for bound in (low, high))
    c = x[:, None] * m.W - low[:, None] * pos(m.W) - high[:, None] * neg(m.W)
    return share(c, 0.0, R, epsilon)


# --- rules for other nodes -------------------------------------------------------------------------------------------


def proportional(operands, R, epsilon=1e-6):
    """Summands of one tensor (signs and factors included): ``x_i / stab(sum x) R``."""
    total = stab(sum(operands), epsilon)
    return [np.divide(x * R, total, out=np.zeros_like(total), where=total != 0) for x in operands]


def proportional_linear(x, W, R, epsilon=1e-6):
    """The same for sums with constant weights, such as average pooling with its matrix W."""
    return share(x[:, None] * W, 0.0, R, epsilon)


def winner_takes_all(operands, R, best=np.maximum):
    """Whole tensors compared cell by cell; ties share equally."""
    top = best.reduce(operands)
    wins = [np.asarray(x == top, np.float64) for x in operands]
    return [win * R / sum(wins) for win in wins]


def winner_of_windows(x, R, size, strides=None, padding="valid"):
    """Max-pooling of one sample: all of an output's relevance goes to the first largest cell of its window."""
    received = np.zeros(x.size)
    winners = max_pool_winners(x, size, strides, padding)
    np.add.at(received, winners.ravel(), np.asarray(R, np.float64).ravel())
    return received.reshape(x.shape)


# --- comparison ------------------------------------------------------------------------------------------------------


def distance(found, expected):
    """Largest difference, in units of the largest expected value."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.max(np.abs(found - expected)) / max(float(np.max(np.abs(expected))), 1e-30))
