"""Relevance as shap's Explanation, for its plots."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from kxai.errors import ArgumentError, KxaiWarning, MissingDependencyError

TOLERANCE = 0.01
"""From which share of the score on a residual is worth a warning: plots are read to two digits."""


def export(
    relevance: Any, base: np.ndarray, score: np.ndarray, residual: np.ndarray, *, data: Any, feature_names: Any,
    output_name: str | None,
) -> Any:  # fmt: skip
    """One ``shap.Explanation`` per array of the relevance, structured like it.

    Args:
        relevance: array ``(batch, ...)``, or list, tuple or dict of such.
        base, score, residual: ``(batch,)``.
        data, feature_names, output_name: as of :meth:`kxai.Explanation.to_shap`.

    Raises:
        MissingDependencyError: shap is not installed. ArgumentError: data or names do not fit.

    Warns:
        KxaiWarning: relevance does not add up to score minus base.
    """
    if output_name is not None and not isinstance(output_name, str):
        raise ArgumentError("output_name is one text.", expected="a str or None", received=repr(output_name))
    try:
        shap = importlib.import_module("shap")
    except ImportError as error:
        raise MissingDependencyError(
            "The package shap cannot be imported.", received=str(error), fix='pip install "kxai[shap]"'
        ) from error
    made = _made(shap, relevance, np.array(base), data, feature_names, output_name, "")
    far = np.abs(residual) > TOLERANCE * np.abs(score)
    if far.any():
        worst = int(np.argmax(np.abs(residual)))
        warnings.warn(
            f"shap's plots take the base plus all relevance for f(x); for {far.sum()} of {len(far)} samples this is "
            f"not the score (sample {worst}: {score[worst] - residual[worst]:.4g} instead of {score[worst]:.4g}). "
            "Methods that conserve, such as integrated gradients and DeepLIFT, show it.",
            KxaiWarning,
            stacklevel=3,
        )
    return made


def _made(shap: Any, values: Any, base: np.ndarray, data: Any, names: Any, output_name: str | None, where: str) -> Any:
    if not isinstance(values, (dict, list, tuple)):
        return _one(shap, values, base, data, names, output_name, where)
    keys = list(values) if isinstance(values, dict) else list(range(len(values)))
    parts = {
        key: _made(
            shap,
            values[key],
            base,
            _of("data", data, keys, key),
            _of("feature_names", names, keys, key),
            output_name,
            f"{where}[{key!r}]",
        )
        for key in keys
    }
    return parts if isinstance(values, dict) else type(values)(parts.values())


def _of(name: str, given: Any, keys: list[Any], key: Any) -> Any:
    """What was given for one of several inputs; None stands for nothing, at any place."""
    if given is None:
        return None
    if isinstance(key, str) and isinstance(given, Mapping) and set(given) <= set(keys):
        return given.get(key)
    if not isinstance(key, str) and isinstance(given, (list, tuple)) and len(given) == len(keys):
        return given[key]
    raise ArgumentError(
        f"{name} is not structured like the model's inputs.",
        expected=f"a dict with keys of {keys}" if isinstance(key, str) else f"a list of {len(keys)}",
        received=f"a dict with keys {list(given)}" if isinstance(given, Mapping) else type(given).__name__,
    )


def _one(
    shap: Any, values: np.ndarray, base: np.ndarray, data: Any, names: Any, output_name: str | None, where: str
) -> Any:
    if names is None and data is not None:
        names = getattr(data, "columns", None)  # a table knows its features
    array = None if data is None else np.array(data)
    if array is not None and array.shape != values.shape:
        raise ArgumentError(
            f"data{where} does not fit the relevance.", expected=str(values.shape), received=str(array.shape)
        )
    if names is not None:
        names = [str(name) for name in names]
        if values.ndim not in (2, 3) or len(names) != values.shape[1]:
            raise ArgumentError(
                f"feature_names{where} does not fit the relevance.",
                expected="a name per feature of (batch, features) or per step of (batch, steps, channels)",
                received=f"{len(names)} names for {values.shape}",
            )
    if output_name is not None and values.ndim == 4:
        raise ArgumentError(
            "shap's picture of images takes no output name from an explanation.",
            expected="output_name=None",
            received=repr(output_name),
            fix=f"shap.plots.image(explanation.to_shap(images), labels=[{output_name!r}] * batch).",
        )
    return shap.Explanation(
        values=np.array(values), base_values=base.copy(), data=array, feature_names=names, output_names=output_name
    )
