"""How good an estimate of the signal is: what its residual still says about a unit's output."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from kxai import backend
from kxai.analyzers.pattern.moments import activation_after
from kxai.composites import Plan
from kxai.errors import ArgumentError
from kxai.graph.graph import Kind, Node


def rho(x: np.ndarray, y: np.ndarray, signal: np.ndarray) -> float:
    """``rho(S) = 1 - max_v corr(y, v.(x - S(x)))``, v by least squares: 1 is best, 0 if the residual tells all of y.

    Args:
        x: inputs (samples, features) of a unit.
        y: its outputs (samples,), w.x.
        signal: S(x), shaped like ``x``.

    Example:
        >>> y, e = np.array([1., -1., 1., -1.]), np.array([1., 1., -1., -1.])
        >>> x = np.stack([y + e, e], axis=1)  # w = (1, -1)
        >>> signal, weights = y[:, None] * [1., 0.], y[:, None] * [0.5, -0.5]
        >>> print(f"{rho(x, y, signal):.3f} {rho(x, y, weights):.3f}")  # the second: 1 - 1 / sqrt(5)
        1.000 0.553

    Source: Kindermans et al. 2018, Eq. 1.
    """
    residual, y = x - signal, y - y.mean()
    residual = residual - residual.mean(axis=0)
    total = float(y @ y)
    if total == 0:
        return 1.0
    v = np.linalg.lstsq(residual, y, rcond=None)[0]
    left = y - residual @ v
    return 1.0 - float(np.sqrt(max(0.0, 1.0 - float(left @ left) / total)))


def seen_by(plan: Plan, node: Node, inputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the units of a dense or convolutional node see, their weights, and whether they are active.

    Args:
        plan: the plan.
        node: of the plan.
        inputs: one batch.

    Returns:
        x (samples and positions, features) and w (features, units) in float64, active (samples and positions, units).

    Raises:
        ArgumentError: the node is no such node.
    """
    affine = node.affine
    if affine is None or node.kind is not Kind.AFFINE or (affine.kernel_out or ())[-2:] != (1, -1):
        raise ArgumentError(
            f"The quality of patterns is not defined for node {node.path!r}.",
            expected="Dense or a convolution (not depthwise, not transposed)",
            received=f"{node.kind.value} ({node.op})",
        )

    def rows(tensor: Any) -> np.ndarray:
        array = backend.to_numpy(tensor)
        array = array if affine.axis == -1 else np.moveaxis(array, affine.axis, -1)
        return array.reshape(-1, array.shape[-1])

    values = plan.graph.values([ops.convert_to_tensor(x) for x in inputs])
    rectifier = activation_after(node, plan.facts)
    kernel = backend.to_numpy(affine.kernel()).astype("float64")
    features = kernel[..., 0].size
    # Filters that each return one value of the patch.
    identity = np.eye(features).reshape(*kernel.shape[:-1], features)
    seen = affine.linear(ops.cast(values[node.inputs[0]], "float64"), backend.constant(identity, "float64"))
    active = rows(values[(node if rectifier is None else rectifier).outputs[0]]) > 0
    return rows(seen), kernel.reshape(features, -1), active
