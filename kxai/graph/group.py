"""Entries of a tensor that share a statistic: those of a softmax, of a norm, of a sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import keras
from keras import ops


@final
@dataclass(frozen=True, eq=False)
class Group:
    """What a rule needs to know of the entries that a node computes with together.

    A norm divides by ``sqrt(max(pool(x^2), least) + epsilon)``, where x is centred already if the norm centres.

    Attributes:
        pool: tensor -> the sum (for a norm: that, or the mean) of each group; broadcasts against the tensor.
        epsilon: of a norm.
        least: of a norm.
    """

    pool: Callable[[Any], Any]
    epsilon: float = 0.0
    least: float = 0.0


def group_of(op: str, attributes: Mapping[str, Any]) -> Group | None:
    """The groups of an operation, by its name and the attributes that Keras (or TensorFlow) gives it."""
    axis = attributes.get("axis")
    if axis is None:
        axis = attributes.get("dim")
    if op in ("softmax", "log_softmax"):
        return Group(_sum(-1 if axis is None else axis))
    if op == "sum":
        return Group(_sum(axis))
    if op == "rms_norm":
        return Group(mean_over(axis), epsilon=small(attributes.get("epsilon")))
    if op == "unit_norm" or (op == "normalize" and attributes.get("order") == 2):
        epsilon = 1e-12 if op == "unit_norm" else small(attributes.get("epsilon"))
        return Group(_sum(axis), least=epsilon**2)
    if op == "l2_normalize":
        return Group(_sum(axis), least=attributes.get("epsilon", 1e-12))
    return None


def mean_over(axis: Any) -> Callable[[Any], Any]:
    """Tensor -> its mean over axes, which stay."""
    return lambda x: ops.mean(x, axis=axis, keepdims=True)


def small(epsilon: Any) -> float:
    """An epsilon, Keras' own where None is given."""
    return float(keras.config.epsilon() if epsilon is None else epsilon)


def _sum(axis: Any) -> Callable[[Any], Any]:
    return lambda x: ops.sum(x, axis=axis, keepdims=True)
