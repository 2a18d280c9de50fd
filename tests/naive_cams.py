"""Class activation maps from the formulas of the papers, one sample at a time, in float64 NumPy.

``a`` and ``g``: activations of a layer and gradients of the score with respect to them, (*sizes, channels).
"""

from __future__ import annotations

import itertools

import numpy as np


def channels(a):
    return [a[..., k] for k in range(a.shape[-1])]


def weighted(a, weights):
    return sum(alpha * channel for alpha, channel in zip(weights, channels(a), strict=True))


def grad_cam(a, g):
    return weighted(a, [channel.mean() for channel in channels(g)])


def grad_cam_plus_plus(a, g, epsilon=1e-6):
    weights = []
    for one, slope in zip(channels(a), channels(g), strict=True):
        alpha = 0.0
        for d in slope.ravel():
            if d > 0:
                alpha += d**2 / (2 * d**2 + one.sum() * d**3 + epsilon) * d
        weights.append(alpha)
    return weighted(a, weights)


def xgrad_cam(a, g, epsilon=1e-7):
    weights = []
    for one, slope in zip(channels(a), channels(g), strict=True):
        total = one.sum()
        weights.append((one * slope).sum() / (total + (epsilon if total >= 0 else -epsilon)))
    return weighted(a, weights)


def hires_cam(a, g):
    return sum(one * slope for one, slope in zip(channels(a), channels(g), strict=True))


def layer_cam(a, g):
    return sum(one * np.maximum(slope, 0) for one, slope in zip(channels(a), channels(g), strict=True))


def eigen_cam(a):
    matrix = a.reshape(-1, a.shape[-1])
    matrix = matrix - matrix.mean(axis=0)
    _, _, v = np.linalg.svd(matrix)
    projected = (matrix @ v[0]).reshape(a.shape[:-1])
    return -projected if abs(projected.min()) > abs(projected.max()) else projected


def resize(values, sizes, align_corners=False):
    """Linear interpolation, position by position."""
    result = np.zeros(sizes)
    for at in itertools.product(*map(range, sizes)):
        corners = []
        for i, size, wanted in zip(at, values.shape, sizes, strict=True):
            place = i * (size - 1) / max(wanted - 1, 1) if align_corners else (i + 0.5) * size / wanted - 0.5
            place = min(max(place, 0), size - 1)
            low = min(int(place), size - 1)
            corners.append([(low, 1 - (place - low)), (min(low + 1, size - 1), place - low)])
        for corner in itertools.product(*corners):
            result[at] += values[tuple(i for i, _ in corner)] * np.prod([share for _, share in corner])
    return result


def softmax(values):
    exponentials = np.exp(np.asarray(values) - max(values))
    return exponentials / exponentials.sum()


def score_cam(a, x, score):
    """``score``: one input -> number."""
    scores = []
    for channel in channels(a):
        up = resize(channel, x.shape[:-1], align_corners=True)
        mask = (up - up.min()) / (up.max() - up.min() + 1e-8)
        scores.append(score(x * mask[..., None]))
    return weighted(a, softmax(scores))


def ablation_cam(a, tail):
    """``tail``: activations of one sample -> score."""
    weights = []
    for k in range(a.shape[-1]):
        without = a.copy()
        without[..., k] = 0
        weights.append((tail(a) - tail(without)) / abs(tail(a)))
    return weighted(a, weights)


def opti_cam(a, x, score, steps=100, rate=0.1):
    """Gradients by central differences."""
    a = np.maximum(a, 0)

    def loss(w):
        up = resize(weighted(a, softmax(w)), x.shape[:-1])
        span = up.max() - up.min()
        return score(x) - score(x * ((up - up.min()) / (span if span > 0 else 1))[..., None])

    w = np.full(a.shape[-1], 0.5)
    mean, square, before = np.zeros_like(w), np.zeros_like(w), np.inf
    for step in range(steps):
        if step % max(1, steps // 10) == 0:
            now = loss(w)
            if now > before:
                break
            before = now
        moves = 1e-5 * np.eye(len(w))
        g = np.array([(loss(w + move) - loss(w - move)) / 2e-5 for move in moves])
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        w = w - rate * mean / (1 - 0.9 ** (step + 1)) / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
    return weighted(a, softmax(w))
