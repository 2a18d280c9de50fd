"""DeepLIFT written out: one sample and one reference, float64, each rule with the four cases of its definition.

Every value is a vector that knows its reference, the parts of its difference, and its two multipliers. Softmax and norm
are made of exponentials, sums, roots and products here, so that their closed forms have something to be compared with.
"""

from __future__ import annotations

import numpy as np

THRESHOLD = 1e-7


class Value:
    """A vector ``x``, its reference ``r``, the parts ``p + n = x - r``, and multipliers that ``explain`` fills in."""

    def __init__(self, x, r, p=None, n=None, send=lambda value: None, sources=()):
        self.x, self.r = np.asarray(x, float), np.asarray(r, float)
        self.p = np.maximum(self.d, 0) if p is None else p
        self.n = np.minimum(self.d, 0) if n is None else n
        self.mp, self.mn = np.zeros_like(self.x), np.zeros_like(self.x)
        self.send, self.sources = send, sources

    @property
    def d(self):
        return self.x - self.r

    @property
    def m(self):
        """One multiplier, by the sign of the difference."""
        return np.where(self.d > 0, self.mp, np.where(self.d < 0, self.mn, (self.mp + self.mn) / 2))

    def take(self, m):
        self.mp, self.mn = self.mp + m, self.mn + m


def explain(output, weights):
    """Multipliers of all values that ``output`` was made of."""
    order, seen = [], set()

    def visit(value):
        if id(value) not in seen:
            seen.add(id(value))
            for source in value.sources:
                visit(source)
            order.append(value)

    visit(output)
    output.take(np.asarray(weights, float))
    for value in reversed(order):
        value.send(value)


def linear(v, W, b=0.0):
    """``y = x W + b``, entry by entry."""
    p, n = np.zeros(W.shape[1]), np.zeros(W.shape[1])
    for i, j in np.ndindex(*W.shape):
        c = W[i, j] * v.d[i]
        p[j], n[j] = p[j] + max(c, 0), n[j] + min(c, 0)

    def send(y):
        m = np.zeros(len(W))
        for i, j in np.ndindex(*W.shape):
            w = W[i, j]
            if v.d[i] == 0:
                m[i] += w * (y.mp[j] + y.mn[j]) / 2
            else:
                m[i] += w * (y.mp[j] if w * v.d[i] > 0 else y.mn[j])
        v.take(m)

    return Value(v.x @ W + b, v.r @ W + b, p, n, send, (v,))


def scale(v, s, t=0.0):
    """``y = s x + t`` per entry: a negative factor exchanges the parts."""
    s = np.broadcast_to(s, v.x.shape)

    def send(y):
        v.mp = v.mp + s * np.where(s >= 0, y.mp, y.mn)
        v.mn = v.mn + s * np.where(s >= 0, y.mn, y.mp)

    p, n = np.where(s >= 0, s * v.p, s * v.n), np.where(s >= 0, s * v.n, s * v.p)
    return Value(s * v.x + t, s * v.r + t, p, n, send, (v,))


def move(v, M):
    """A sum with non-negative weights (averages, permutations): parts go through the same map."""

    def send(y):
        v.mp, v.mn = v.mp + M @ y.mp, v.mn + M @ y.mn

    return Value(v.x @ M, v.r @ M, v.p @ M, v.n @ M, send, (v,))


def add(*values):
    def send(y):
        for v in values:
            v.mp, v.mn = v.mp + y.mp, v.mn + y.mn

    sums = (sum(getattr(v, name) for v in values) for name in ("x", "r", "p", "n"))
    return Value(*sums, send, values)


def concatenate(*values):
    def send(y):
        start = 0
        for v in values:
            part = slice(start, start + len(v.x))
            v.mp, v.mn, start = v.mp + y.mp[part], v.mn + y.mn[part], part.stop

    joined = (np.concatenate([getattr(v, name) for v in values]) for name in ("x", "r", "p", "n"))
    return Value(*joined, send, values)


def function(v, f, slope, rule="rescale"):
    """``y = f(x)`` per entry; ``slope`` is its derivative."""
    y, y0 = f(v.x), f(v.r)
    kp, kn = np.zeros_like(y), np.zeros_like(y)
    for j, (x, r, p, n) in enumerate(zip(v.x, v.r, v.p, v.n, strict=True)):
        if rule == "rescale":
            kp[j] = kn[j] = slope(r) if abs(x - r) < THRESHOLD else (f(x) - f(r)) / (x - r)
            continue
        up = ((f(r + p) - f(r)) + (f(r + n + p) - f(r + n))) / 2
        down = ((f(r + n) - f(r)) + (f(r + p + n) - f(r + p))) / 2
        kp[j] = (slope(r) + slope(r + n)) / 2 if abs(p) < THRESHOLD else up / p
        kn[j] = (slope(r) + slope(r + p)) / 2 if abs(n) < THRESHOLD else down / n

    def send(value):
        v.mp, v.mn = v.mp + kp * value.mp, v.mn + kn * value.mn

    return Value(y, y0, kp * v.p, kn * v.n, send, (v,))


def relu(v, rule="rescale"):
    return function(v, lambda x: np.maximum(x, 0.0), lambda x: float(x > 0), rule)


def tanh(v, rule="rescale"):
    return function(v, np.tanh, lambda x: 1 - np.tanh(x) ** 2, rule)


def sigmoid(v, rule="rescale"):
    return function(v, lambda x: 1 / (1 + np.exp(-x)), lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2, rule)


def power(v, exponent):
    return function(v, lambda x: x**exponent, lambda x: exponent * x ** (exponent - 1))


def product(a, b):
    """Two players per entry."""

    def send(y):
        a.take(y.m * (b.x + b.r) / 2)
        b.take(y.m * (a.x + a.r) / 2)

    return Value(a.x * b.x, a.r * b.r, send=send, sources=(a, b))


def windows_max(v, windows):
    """The maximum of each window, through the cross maximum."""
    y, y0 = (np.array([t[w].max() for w in windows]) for t in (v.x, v.r))

    def send(value):
        c = np.zeros_like(v.x)
        for j, w in enumerate(windows):
            cross = max(y[j], y0[j])
            c[w[np.argmax(v.x[w])]] += (cross - y0[j]) * value.m[j]
            c[w[np.argmax(v.r[w])]] += (y[j] - cross) * value.m[j]
        v.take(np.divide(c, v.d, out=np.zeros_like(c), where=np.abs(v.d) >= THRESHOLD))

    return Value(y, y0, send=send, sources=(v,))


def softmax(v):
    """exp(x - log(sum(exp(x)))): Rescale at each function."""
    ones = np.ones((len(v.x), 1))
    exponentials = function(v, np.exp, np.exp)
    logarithm = function(move(exponentials, ones), np.log, lambda x: 1 / x)
    return function(add(v, scale(move(logarithm, ones.T), -1.0)), np.exp, np.exp)


def matmul(a, b, rows, inner, columns):
    """The product of two matrices, flattened: each term has two players."""
    A, B, A0, B0 = a.x.reshape(rows, inner), b.x.reshape(inner, columns), a.r.reshape(rows, -1), b.r.reshape(inner, -1)

    def send(y):
        m = y.m.reshape(rows, columns)
        for i, k, j in np.ndindex(rows, inner, columns):
            a.take(_at(a, i * inner + k, m[i, j] * (B[k, j] + B0[k, j]) / 2))
            b.take(_at(b, k * columns + j, m[i, j] * (A[i, k] + A0[i, k]) / 2))

    return Value((A @ B).ravel(), (A0 @ B0).ravel(), send=send, sources=(a, b))


def _at(value, index, number):
    return np.eye(1, len(value.x), index)[0] * number


def divided(a, length):
    """y = a / length, read as a = y length: y and the length are two players."""

    def send(y):
        lengths = length.x + length.r
        a.take(y.m * 2 / lengths)
        length.take(-y.m * (y.x + y.r) / lengths)

    return Value(a.x / length.x, a.r / length.r, send=send, sources=(a, length))


def layer_norm(v, gamma, beta, epsilon):
    """Centring, squares, mean, root, division by this length."""
    n = len(v.x)
    centred = Value(v.x - v.x.mean(), v.r - v.r.mean(), sources=(v,))
    centred.send = lambda y: v.take(y.m - y.m.mean())
    mean = scale(move(power(centred, 2), np.full((n, 1), 1 / n)), 1.0, epsilon)
    length = move(power(mean, 0.5), np.ones((1, n)))
    return scale(divided(centred, length), gamma, beta)
