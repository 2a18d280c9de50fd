"""Fourier transforms, which Keras computes on pairs of real tensors: their real and imaginary part, each a sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kxai.graph.graph import Kind


def _transform(record: Any, operation: Any, x: Any) -> Any:
    """Each part is linear in the parts of ``x`` (a tensor or a pair), with constant weights: sines and cosines."""
    outputs, op = record.spec(operation, x), type(operation).__name__.lower()
    if isinstance(outputs, keras.KerasTensor):
        return record.emit(op, Kind.SUM, operation.call, [x], outputs)

    def part(position: int) -> Callable[..., Any]:
        return lambda parts: operation.call(parts)[position]

    names = enumerate(("real", "imaginary"))
    return tuple(record.emit(op, Kind.SUM, part(i), [x], outputs[i], suffix=name) for i, name in names)


FOURIER_EXPANSIONS: dict[str, Callable[..., Any]] = dict.fromkeys(
    ("FFT", "FFT2", "IFFT2", "RFFT", "IRFFT", "STFT", "ISTFT"), _transform
)
