"""Fitted patterns: arrays per node, what they belong to, and their file."""

from __future__ import annotations

import json
import os
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import keras
import numpy as np

from kxai import backend, files
from kxai.analyzers.pattern.moments import Running
from kxai.composites import Plan
from kxai.errors import ArgumentError, KxaiWarning, LoadError, NumericalError
from kxai.fingerprints import fingerprint
from kxai.rules.pattern import units_of

FORMAT = "kxai.patterns"
FORMAT_VERSION = 1


def described(plan: Plan) -> dict[str, str]:
    """What the nodes of a plan are, by path: their operation, and the shape of the kernel if they have one.

    Args:
        plan: the plan.
    """
    units = {node: units_of(node) for node in plan.rules}
    kernels = {node: "" if u is None else f", kernel {tuple(u.kernel().shape)}" for node, u in units.items()}
    return {node.path: node.op + kernel for node, kernel in kernels.items()}


@final
@dataclass(frozen=True, eq=False, repr=False)
class Patterns:
    """Patterns of the affine nodes of one model with certain weights.

    Attributes:
        estimator: "linear" or "relu".
        samples: how many samples of the model's input they were fitted to.
        weights: :func:`fingerprint` of the model's weights.
        nodes: what the model's nodes are, by path, see :func:`described`.
        arrays: by node path, (positive regime, other regime or None), float64, shaped like the node's kernel.
    """

    estimator: str
    samples: int
    weights: str
    nodes: Mapping[str, str]
    arrays: Mapping[str, tuple[np.ndarray, np.ndarray | None]]
    _tensors: dict[Any, Any] = field(default_factory=dict)
    _suits: weakref.WeakSet[Plan] = field(default_factory=weakref.WeakSet)

    @staticmethod
    def of(running: Running, estimator: str, model: Any, plan: Plan) -> Patterns:
        """The patterns that an estimator makes of moments.

        Raises:
            NumericalError: the model's values are not finite.

        Warns:
            KxaiWarning: all patterns of a node are 0.
        """
        arrays: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
        flat: list[str] = []
        for path, (moments, kernel) in running.moments().items():
            if not np.isfinite(moments.yy).all():
                raise NumericalError(
                    f"The values of node {path!r} are not finite.",
                    expected="finite numbers",
                    received="NaN or infinity",
                    fix="is model(x) finite for all of the data?",
                )
            arrays[path] = moments.regimes(kernel) if estimator == "relu" else (moments.pattern(kernel), None)
            if np.any(kernel) and not any(np.any(array) for array in arrays[path] if array is not None):
                flat.append(path)
        if flat:
            warnings.warn(
                f"All patterns of {', '.join(flat)} are 0, and with them the relevance behind: over the "
                f"{running.samples} samples that were fitted to, its values do not vary. Fit to more data.",
                KxaiWarning,
                stacklevel=3,
            )
        return Patterns(estimator, running.samples, _weights(model), described(plan), arrays)

    def tensor(self, path: str, positive: bool, dtype: Any) -> Any:
        """One pattern as a tensor, made once."""
        key = path, positive, keras.backend.standardize_dtype(dtype)
        if key not in self._tensors:
            array: Any = self.arrays[path][not positive]
            self._tensors[key] = backend.constant(array, key[2])
        return self._tensors[key]

    def check(self, model: Any, plan: Plan | None = None) -> None:
        """Raise ArgumentError unless they were fitted to this model with these weights.

        Args:
            model: the model.
            plan: how it is explained, None: its nodes are not looked at.
        """
        if plan is not None and plan not in self._suits:
            found = described(plan)
            differing = [path for path in {**self.nodes, **found} if self.nodes.get(path) != found.get(path)]
            if differing:
                path = differing[0]
                raise ArgumentError(
                    "The patterns belong to another model.",
                    expected=f"node {path!r}: {self.nodes.get(path, 'none')}",
                    received=f"node {path!r}: {found.get(path, 'none')}",
                    fix="fit(data) with this model.",
                )
            self._suits.add(plan)
        if _weights(model) != self.weights:
            raise ArgumentError(
                "The patterns belong to other weights: the model was trained or changed after they were fitted.",
                expected="the weights that the patterns were fitted with",
                received="others",
                fix="fit(data) again.",
            )

    def save(self, path: str | os.PathLike) -> None:
        """Write them into one ``.npz`` file, all of it or nothing."""
        text = {
            "format": FORMAT, "version": FORMAT_VERSION, "estimator": self.estimator, "samples": self.samples,
            "weights": self.weights, "nodes": dict(self.nodes), "fitted": list(self.arrays),
        }  # fmt: skip
        arrays = {
            f"{index}.{name}": array
            for index, pair in enumerate(self.arrays.values())
            for name, array in zip(("positive", "other"), pair, strict=True)
            if array is not None
        }
        files.write_archive(path, json.dumps(text), arrays)

    @staticmethod
    def load(path: str | os.PathLike) -> Patterns:
        """Read what ``save`` wrote.

        Raises:
            LoadError: the file is missing, damaged, or holds no patterns.
        """
        text, arrays = files.read_archive(path, "file of patterns")
        try:
            stored = json.loads(text)
            name, version = stored["format"], stored["version"]
            if (name, version) != (FORMAT, FORMAT_VERSION):
                raise ValueError(f"format {name!r} version {version!r}")
            pairs = {
                node: (arrays[f"{index}.positive"], arrays.get(f"{index}.other"))
                for index, node in enumerate(stored["fitted"])
            }
            known = dict(stored["nodes"])
            return Patterns(stored["estimator"], stored["samples"], stored["weights"], known, pairs)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LoadError(
                f"{os.fspath(path)} holds no patterns that this version of kxai can read.",
                expected=f"format {FORMAT!r} version {FORMAT_VERSION}",
                received=f"{type(error).__name__}: {error}",
                fix="fit and save them again.",
            ) from error


def _weights(model: Any) -> str:
    return fingerprint(backend.to_numpy(weight.value) for weight in model.weights)
