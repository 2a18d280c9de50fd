"""What is said of every sample: its predictions, its target, and whether the methods agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kxai import nest
from kxai.errors import ArgumentError
from kxai.explanation import Explanation
from kxai.metrics import spearman_matrix

TOP = 5


def predictions(outputs: Any, labels: Sequence[str] | None) -> list[list[dict[str, Any]]]:
    """The largest outputs of every sample.

    Args:
        outputs: the model's outputs, ``(batch, ...)`` each.
        labels: a name per unit, for the outputs that have so many units; or None.

    Returns:
        Per sample and output a dict: ``name``, ``units``, ``predicted`` (index of the largest unit, or None), ``top``
        (pairs of name and value), ``full`` (the value that fills a bar) and ``percent``, whether the units share 1.

    Raises:
        ArgumentError: no output has as many units as there are labels.

    Example:
        >>> predictions(np.array([[0.25, 0.75]]), ["cat", "dog"])[0][0]["top"]
        [['dog', 0.75], ['cat', 0.25]]
    """
    arrays = _named(outputs)
    if labels is not None:
        check_labels(labels, [array.shape for array in arrays.values()])
    said = [_output(name, array, labels) for name, array in arrays.items()]
    return [list(row) for row in zip(*said, strict=True)]


def check_labels(labels: Sequence[str], shapes: Sequence[tuple[int | None, ...]]) -> None:
    """Checks that an output has as many units as there are labels.

    Args:
        labels: a name per unit.
        shapes: of the outputs; sizes that are not known are None.

    Raises:
        ArgumentError: there is none.

    Example:
        >>> check_labels(["cat", "dog"], [(None, 2)])
    """
    if not any(len(shape) == 2 and shape[1] in (len(labels), None) for shape in shapes):
        raise ArgumentError(
            "The labels fit no output.",
            expected="one label per output unit",
            received=f"{len(labels)} labels for outputs {', '.join(map(str, shapes))}",
            fix="give the labels that belong to this model.",
        )


def _named(outputs: Any) -> dict[str, np.ndarray]:
    if isinstance(outputs, Mapping):
        return {f"{key}{rest}": array for key in outputs for rest, array in _named(outputs[key]).items()}
    if isinstance(outputs, (list, tuple)):
        return {f"{i}{rest}": array for i, part in enumerate(outputs) for rest, array in _named(part).items()}
    return {"": outputs}


def _output(name: str, array: np.ndarray, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """What is said of one output, per sample. How values are shown is decided for all samples at once."""
    units = int(np.prod(array.shape[1:]))
    facts: dict[str, Any] = {"name": name, "units": units, "shape": list(array.shape[1:])}
    if array.ndim > 2 or array.dtype.kind not in "fiu" or not units:
        return [{**facts, "predicted": None, "top": [], "full": 1.0, "percent": False}] * len(array)
    values = array.reshape(len(array), units).astype(np.float64)
    within = bool(values.min() >= 0 and values.max() <= 1)
    facts["percent"] = within and units > 1 and bool(np.abs(values.sum(axis=1) - 1).max() < 1e-2)  # half precision
    facts["full"] = 1.0 if within else float(np.abs(values).max())
    fits = labels is not None and len(labels) == units
    known = list(labels) if labels is not None and fits else [str(unit) for unit in range(units)] if units > 1 else [""]
    return [{**facts, **_top(row, known)} for row in values]


def _top(values: np.ndarray, known: Sequence[str]) -> dict[str, Any]:
    best = np.argsort(-values, kind="stable")[:TOP].tolist()  # equal values stay in their order
    predicted = best[0] if len(values) > 1 else None
    return {"predicted": predicted, "top": [[known[unit], float(values[unit])] for unit in best]}


def target_names(explanation: Explanation, labels: Sequence[str] | None) -> list[str]:
    """What was explained, per sample, in words.

    Args:
        explanation: the explanation.
        labels: a name per unit, or None.

    Returns:
        One text per sample.

    Example:
        >>> target_names(Explanation(np.ones((1, 2)), np.zeros((1, 2)), np.array([1]), np.ones(1)), ["cat", "dog"])
        ['dog']
    """
    target, outputs = explanation.target, explanation.outputs
    if isinstance(outputs, np.ndarray) and outputs.shape[1:] == (1,) and labels is None:
        labels = ["the output"]
    return [_target(target, row, labels) for row in range(len(explanation))]


def _target(target: Any, row: int, labels: Sequence[str] | None) -> str:
    if isinstance(target, str):
        return target
    if isinstance(target, Mapping):
        return ", ".join(f"{name}: {_target(part, row, None)}" for name, part in target.items())
    if target.ndim > 1:
        return "weights over the outputs"
    index = int(target[row])
    return labels[index] if labels is not None and 0 <= index < len(labels) else str(index)


def agreement(explanations: Sequence[Explanation]) -> list[float | None]:
    """How much the methods agree on every sample: the mean rank correlation (Spearman) of their heatmaps, pair by pair.

    Args:
        explanations: of the same samples. Those whose heatmaps differ in size from the first one's are left out, and
            so are heatmaps that are constant.

    Returns:
        Per sample a number in [-1, 1], or None where there are no two heatmaps to compare.

    Example:
        >>> a = Explanation(np.array([[1.0, 2.0, 3.0]]), np.zeros((1, 1)), "sum", np.array([6.0]))
        >>> b = Explanation(np.array([[3.0, 2.0, 1.0]]), np.zeros((1, 1)), "sum", np.array([6.0]))
        >>> agreement([a, a]), agreement([a, b]), agreement([a])
        ([1.0], [-1.0], [None])
    """
    heatmaps = [_flat(one) for one in explanations]
    alike = [flat for flat in heatmaps if flat.shape == heatmaps[0].shape]
    first, second = np.triu_indices(len(alike), k=1)
    pairs = spearman_matrix(alike)[:, first, second]
    return [float(row[known].mean()) if known.any() else None for row in pairs for known in [np.isfinite(row)]]


def _flat(explanation: Explanation) -> np.ndarray:
    """Sums over channels of all inputs, one row per sample."""
    arrays = nest.leaves(explanation.relevance)
    summed = [array.astype(np.float64).sum(axis=-1) if array.ndim > 2 else array for array in arrays]
    return np.concatenate([part.reshape(len(explanation), -1).astype(np.float64) for part in summed], axis=1)
