"""LRP-epsilon of recurrent layers by its definition: one sample, one step, one formula after the other, in float64.

A cell is a pair of functions: ``forward(x, states) -> (y, states, memory)`` and
``backward(memory, relevance of y, relevance of states) -> (relevance of x, relevance of the states before)``.
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-6


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def stab(z):
    return np.where(z < 0, z - EPSILON, z + EPSILON)


def linear(x, kernel, z, relevance):
    """``R_i = sum_j x_i w_ij / z_j R_j``; z holds the bias."""
    return x * (kernel @ (relevance / stab(z)))


class SimpleRNN:
    def __init__(self, kernel, recurrent, bias, activation=np.tanh):
        self.kernel, self.bias, self.activation = np.concatenate([kernel, recurrent]), bias, activation

    def forward(self, x, states):
        joined = np.concatenate([x, states[0]])
        z = joined @ self.kernel + self.bias
        h = self.activation(z)
        return h, [h], (joined, z, len(x))

    def backward(self, memory, r_y, r_states):
        joined, z, size = memory
        r = linear(joined, self.kernel, z, r_y + r_states[0])
        return r[:size], [r[size:]]


class LSTM:
    """Arras et al. 2017. The signal of a gated product takes all, or half of it if ``half``."""

    def __init__(self, kernel, recurrent, bias, half=False):
        self.kernel, self.bias = np.concatenate([kernel, recurrent]), bias
        self.units, self.half = recurrent.shape[0], half

    def forward(self, x, states):
        h, c = states
        joined = np.concatenate([x, h])
        z = joined @ self.kernel + self.bias
        z_i, z_f, z_g, z_o = np.split(z, 4)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        new = f * c + i * g
        y = o * np.tanh(new)
        return y, [y, new], (joined, z, len(x), i * g, f * c, new)

    def backward(self, memory, r_y, r_states):
        joined, z, size, input_part, kept_part, c = memory
        signal, gate = (0.5, 0.5) if self.half else (1.0, 0.0)
        r_h = r_y + r_states[0]
        r_c = r_states[1] + signal * r_h
        r_input, r_kept = input_part / stab(c) * r_c, kept_part / stab(c) * r_c
        r_z = np.concatenate([gate * r_input, gate * r_kept, signal * r_input, gate * r_h])
        r = linear(joined, self.kernel, z, r_z)
        return r[:size], [r[size:], signal * r_kept]


class GRU:
    def __init__(self, kernel, recurrent, bias, reset_after=True):
        self.kernel, self.recurrent, self.after = kernel, recurrent, reset_after
        self.bias = bias if reset_after else np.stack([bias, np.zeros_like(bias)])

    def forward(self, x, states):
        (h,) = states
        n = len(h)
        z_x, z_h = x @ self.kernel + self.bias[0], h @ self.recurrent + self.bias[1]
        z, r = sigmoid(z_x[:n] + z_h[:n]), sigmoid(z_x[n : 2 * n] + z_h[n : 2 * n])
        if self.after:
            inner = z_h[2 * n :]
            candidate = z_x[2 * n :] + r * inner
        else:
            inner = (r * h) @ self.recurrent[:, 2 * n :]
            candidate = z_x[2 * n :] + inner
        new = z * h + (1 - z) * np.tanh(candidate)
        return new, [new], (x, h, z_x[2 * n :], z, r, inner, candidate, new)

    def backward(self, memory, r_y, r_states):
        x, h, x_part, z, r, inner, candidate, new = memory
        n, r_new = len(h), r_y + r_states[0]
        kept = z * h / stab(new) * r_new
        r_candidate = (1 - z) * np.tanh(candidate) / stab(new) * r_new
        r_x = linear(x, self.kernel[:, 2 * n :], x_part, x_part / stab(candidate) * r_candidate)
        r_inner = (r * inner if self.after else inner) / stab(candidate) * r_candidate
        return r_x, [kept + linear(h if self.after else r * h, self.recurrent[:, 2 * n :], inner, r_inner)]


def conv_matrix(kernel, height, width, same):
    """A convolution of stride 1 as a matrix, (pixels in * channels in, pixels out * channels out)."""
    rows, columns, channels, filters = kernel.shape
    top, left = ((rows - 1) // 2, (columns - 1) // 2) if same else (0, 0)
    shape = (height, width) if same else (height - rows + 1, width - columns + 1)
    matrix = np.zeros((height, width, channels, *shape, filters))
    for i in range(shape[0]):
        for j in range(shape[1]):
            for a in range(rows):
                for b in range(columns):
                    y, x = i + a - top, j + b - left
                    if 0 <= y < height and 0 <= x < width:
                        matrix[y, x, :, i, j, :] += kernel[a, b]
    return matrix.reshape(height * width * channels, -1), shape


class ConvLSTM2D:
    """The contributions of input and state, each a convolution, are a sum; else as the LSTM."""

    def __init__(self, kernel, recurrent, bias, height, width):
        self.input, shape = conv_matrix(kernel, height, width, same=False)
        self.state, _ = conv_matrix(recurrent, *shape, same=True)
        self.bias, self.pixels, self.filters = np.tile(bias, shape[0] * shape[1]), shape[0] * shape[1], len(bias) // 4

    def split(self, z):
        return np.split(z.reshape(self.pixels, -1), 4, axis=1)

    def forward(self, x, states):
        h, c = states
        z_x, z_h = x.ravel() @ self.input + self.bias, h.ravel() @ self.state
        z_i, z_f, z_g, z_o = self.split(z_x + z_h)
        i, f, g, o = sigmoid(z_i), sigmoid(z_f), np.tanh(z_g), sigmoid(z_o)
        old = c.reshape(self.pixels, -1)
        new = f * old + i * g
        y = (o * np.tanh(new)).reshape(h.shape)
        return y, [y, new.reshape(h.shape)], (x, h, z_x, z_h, i * g, f * old, new)

    def backward(self, memory, r_y, r_states):
        x, h, z_x, z_h, input_part, kept_part, c = memory
        r_c = (r_states[1] + r_y + r_states[0]).reshape(c.shape)
        r_input, r_kept = input_part / stab(c) * r_c, kept_part / stab(c) * r_c
        none = np.zeros_like(r_input)
        r_z = np.concatenate([none, none, r_input, none], axis=1).ravel()
        total = stab(z_x + z_h)
        r_x = linear(x.ravel(), self.input, z_x, z_x / total * r_z)
        r_h = linear(h.ravel(), self.state, z_h, z_h / total * r_z)
        return r_x.reshape(x.shape), [r_h.reshape(h.shape), r_kept.reshape(h.shape)]


def run(cell, x, states, mask=None, backwards=False):
    """All steps: (outputs in the order of computation, states at the end, memories)."""
    outputs, memories = [], []
    for t in order(len(x), backwards):
        if mask is None or mask[t]:
            y, states, memory = cell.forward(x[t], states)
        else:
            y, memory = outputs[-1] if outputs else np.zeros_like(states[0]), None
        outputs.append(y)
        memories.append(memory)
    return np.array(outputs), states, memories


def order(length, backwards):
    return range(length - 1, -1, -1) if backwards else range(length)


def relevance(cell, x, memories, r_outputs, r_states, *, backwards=False, zero_masked=False):
    """Relevance of the sequence and of the first states, from that of each output and of the last states."""
    r_x = np.zeros_like(x)
    pending = np.zeros_like(r_outputs[0])
    for step, t in reversed(list(enumerate(order(len(x), backwards)))):
        r_y = pending + r_outputs[step]
        if memories[step] is None:
            pending = np.zeros_like(r_y) if zero_masked else r_y
        else:
            pending = np.zeros_like(r_y)
            r_x[t], r_states = cell.backward(memories[step], r_y, r_states)
    return r_x, r_states
