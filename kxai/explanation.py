"""The result of an explanation: relevance shaped like the model's inputs, and all that is needed to judge it."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

import numpy as np

from kxai import files, nest, plots
from kxai.adapters import shap
from kxai.errors import ArgumentError, LoadError, NumericalError
from kxai.heatmap import heatmap as reduced
from kxai.nest import Nest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "kxai.explanation"
FORMAT_VERSION = 2
_ARRAYS = ("relevance", "outputs", "target", "score", "layers", "absorbed", "base")


@final
@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Relevance of every input value for one quantity (the target) of every sample of a batch.

    All arrays are read-only copies (arrays that are read-only already are shared), so an explanation never changes.
    Two explanations are equal only if they are the same object; compare their arrays.

    Args:
        relevance: array, or list, tuple or dict of arrays, structured and shaped like the model's inputs,
            ``(batch, ...)``, channels last, floating point, finite. Token ids carry one number per token; maps over
            positions have one channel, ``(batch, *spatial, 1)``.
            bfloat16, which NumPy does not know, becomes float32 without loss.
        outputs: the model's outputs for the batch, structured like them, ``(batch, ...)`` each.
        target: what was explained: integers ``(batch,)``, the classes; or weights ``(batch, units)``; or text; for a
            model of several outputs a dict of these by output name.
        score: ``(batch,)``, the value of the explained quantity.
        layers: relevance kept at inner nodes, by path, ``(batch, ...)`` each; default none.
        absorbed: per node, ``(batch,)``, relevance that was lost there to a bias or a stabiliser; default none.
        base: ``(batch,)``, the value of the explained quantity at the reference of methods that explain the difference
            from one; default 0.
        config: JSON-able facts about how it was made (method, hyperparameters, model name, versions, and ``notes``,
            a list of sentences); default empty. Tuples become lists and NumPy numbers plain numbers.

    Raises:
        ArgumentError: batch sizes or dtypes do not fit, or ``config`` is not JSON-able.
        NumericalError: relevance, score, base, layers or absorbed contain NaN or infinity.

    Example:
        >>> e = Explanation(np.ones((2, 3)), np.zeros((2, 5)), np.array([1, 4]), np.array([3.0, 3.5]))
        >>> e
        Explanation(samples=2, relevance=(2, 3), outputs=(2, 5), max|residual|=0.5)
        >>> e[1].target
        array([4])
    """

    relevance: Nest
    outputs: Nest
    target: Nest | str
    score: np.ndarray
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)
    absorbed: Mapping[str, np.ndarray] = field(default_factory=dict)
    base: np.ndarray = field(default_factory=lambda: np.zeros(()))
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("relevance", "outputs"):
            object.__setattr__(self, name, nest.map_leaves(nest.frozen, getattr(self, name)))
        for name in ("layers", "absorbed"):
            arrays = {path: nest.frozen(array) for path, array in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(arrays))
        object.__setattr__(self, "score", nest.frozen(self.score))
        base = np.broadcast_to(self.base, self.score.shape) if np.ndim(self.base) == 0 else self.base
        object.__setattr__(self, "base", nest.frozen(np.asarray(base, np.result_type(self.score, np.float32))))
        if not isinstance(self.target, str):
            object.__setattr__(self, "target", nest.map_leaves(nest.frozen, self.target))
        object.__setattr__(self, "config", MappingProxyType(files.json_copy(dict(self.config))))
        _check(self)

    @property
    def residual(self) -> np.ndarray:
        """Score minus base minus total relevance, ``(batch,)``, in float64; 0 where a method conserves.

        Example:
            >>> Explanation([np.ones((1, 2)), np.ones((1, 3))], np.zeros((1, 1)), "sum", np.array([6.0])).residual
            array([1.])
        """
        totals = (part.reshape(len(self), -1).sum(axis=1, dtype=np.float64) for part in nest.leaves(self.relevance))
        return self.score.astype(np.float64) - self.base - sum(totals)

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, key: int | slice) -> Explanation:
        """Returns the explanation of one sample (as a batch of one) or of a slice of the batch."""
        if not isinstance(key, slice):
            key = self._one(key)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        picked: dict[str, Any] = {
            name: value if isinstance(value, str) else nest.map_leaves(lambda array: array[key], _plain(value))
            for name, value in arrays.items()
        }
        return Explanation(**picked, config=self.config)

    def _one(self, key: int) -> slice:
        try:
            index = operator.index(key)
        except TypeError:
            raise ArgumentError(
                "An explanation cannot be indexed with this.",
                expected="an integer (one sample) or a slice",
                received=repr(key),
                fix="index the arrays themselves, for example explanation.relevance[mask].",
            ) from None
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} is out of range for an explanation of {len(self)} samples")
        index %= len(self)
        return slice(index, index + 1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Returns the relevance of a model with one input as an array."""
        parts = nest.leaves(self.relevance)
        if len(parts) != 1:
            raise ArgumentError(
                "This explanation is not one array.",
                expected="a model with one input",
                received=f"relevance {nest.describe(self.relevance)}",
                fix="take one of its arrays from explanation.relevance.",
            )
        return np.array(parts[0], dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        parts = [f"method={self.config['method']!r}"] if "method" in self.config else []
        parts += [f"samples={len(self)}", f"relevance={nest.describe(self.relevance)}"]
        parts += [f"outputs={nest.describe(self.outputs)}"]
        if len(self):
            parts += [f"max|residual|={np.abs(self.residual).max():.3g}"]
        return f"Explanation({', '.join(parts)})"

    def __reduce__(self) -> tuple:
        return Explanation, (*(_plain(getattr(self, name)) for name in _ARRAYS), dict(self.config))

    def heatmap(self, input: str | int | None = None, reduce: str = "sum", patch: int = 1) -> np.ndarray:
        """Reduces the channels of the relevance to one number per position; never normalises.

        ``sum`` keeps the total, hence conservation. Channels are the last axis; relevance ``(batch, features)`` has
        one channel, so that ``sum`` leaves it as it is and the others return its magnitude.

        Args:
            input: which input: a key of a dict or an index into a list of inputs; None (default) for the only one.
            reduce: ``"sum"`` (default), ``"abs_max"`` (largest magnitude) or ``"l2"`` (Euclidean norm).
            patch: side of the squares of an image (length of the pieces of a sequence) that become one number each,
                such as 16 for the patches of ViT-B/16; must divide every size. Default 1.

        Returns:
            ``(batch, height, width)`` for images (in patches), ``(batch, steps)`` for sequences, ``(batch, features)``
            for tables; generally the input's shape without its channels. float64 for float64 relevance, else float32.

        Raises:
            ArgumentError: ``input`` is None for several inputs, ``reduce`` is unknown, or ``patch`` does not fit.
            UnknownNameError: there is no such input.

        Example:
            >>> e = Explanation(np.array([[[3.0, -4.0]]]), np.zeros((1, 1)), "sum", np.array([-1.0]))
            >>> e.heatmap(), e.heatmap(reduce="abs_max"), e.heatmap(reduce="l2")
            (array([[-1.]]), array([[4.]]), array([[5.]]))
        """
        return reduced(self.of_input(input), reduce, patch)

    def of_input(self, key: str | int | None = None) -> np.ndarray:
        """The relevance of one input, as an array; ``key`` as ``input`` of :meth:`heatmap`."""
        return nest.pick(self.relevance, key)

    def plot(self, images: np.ndarray | None = None, **options: Any) -> Figure:
        """Draws the explanation; the figure is returned and never shown.

        Args:
            images: ``(batch, height, width[, 1|3])`` for an image column, any range; only for images. Default None.
            **options: of ``kxai.plots.draw``: ``kind`` (``"grid"``, ``"strip"``, ``"logo"``, ``"series"``, ``"bars"``
                or ``"flow"``; default by the data), ``input`` and ``reduce`` of ``heatmap``, and those of the kind.

        Returns:
            A matplotlib ``Figure``; save it with ``figure.savefig(path)``.

        Raises:
            ArgumentError: the relevance cannot be drawn, or an option does not exist or does not apply.
            UnknownNameError: there is no such kind or input.

        Example:
            >>> e = Explanation(np.ones((1, 8, 8, 3)), np.zeros((1, 1)), "sum", np.array([192.0]))
            >>> type(e.plot()).__name__
            'Figure'
        """
        if images is not None:
            options["images"] = images
        return plots.draw(self, **options)

    def to_shap(self, data: Any = None, feature_names: Any = None, output_name: str | None = None) -> Any:
        """As a ``shap.Explanation``, for shap's plots; needs ``pip install "kxai[shap]"``.

        Args:
            data: the inputs as plots show them (arrays, tables or tokens), shaped like the relevance; default nothing.
            feature_names: a text per feature or step; default the columns of ``data``, if it is a table.
            output_name: what text plots call the explained quantity; not for images; default nothing.

        Returns:
            One ``shap.Explanation`` of values, ``base`` and these; for several inputs (where ``data`` and
            ``feature_names`` have the inputs' structure, too) one per input in a list or dict, of which each shows its
            own part of the score.

        Raises:
            MissingDependencyError: shap is not installed. ArgumentError: data or names do not fit.
        """
        sums = (self.base, self.score, self.residual)
        return shap.export(self.relevance, *sums, data=data, feature_names=feature_names, output_name=output_name)

    def save(self, path: str | os.PathLike) -> None:
        """Writes everything into one ``.npz`` file (arrays and JSON text, no pickles), all of it or nothing.

        Args:
            path: the file; its name ends in ``.npz``.

        Raises:
            ArgumentError: the name ends differently, or its folder is not there.

        Example:
            >>> import tempfile
            >>> e = Explanation({"a": np.ones((1, 2))}, [np.zeros((1, 1))], "sum", np.array([2.0]))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     e.save(folder + "/e.npz")
            ...     Explanation.load(folder + "/e.npz")
            Explanation(samples=1, relevance={a: (1, 2)}, outputs=[(1, 1)], max|residual|=0)
        """
        arrays: dict[str, np.ndarray] = {}
        fields = {
            name: {"text": value} if isinstance(value, str) else nest.to_json(_plain(value), arrays, name)
            for name, value in ((name, getattr(self, name)) for name in _ARRAYS)
        }
        text = {"format": FORMAT, "version": FORMAT_VERSION, "fields": fields, "config": dict(self.config)}
        files.write_archive(path, json.dumps(text, allow_nan=False), arrays)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Explanation:
        """Reads what ``save`` wrote; structure and dtypes are restored exactly.

        Args:
            path: the file.

        Returns:
            The explanation.

        Raises:
            LoadError: the file is missing, truncated, or not an explanation of this format.
        """
        text, arrays = files.read_archive(path, "explanation")
        try:
            stored = json.loads(text)
            name, version = stored["format"], stored["version"]
            if name != FORMAT or version not in (1, FORMAT_VERSION):  # version 1 had no base
                raise ValueError(f"format {name!r} version {version!r}")
            fields = {
                name: part["text"] if "text" in part else nest.from_json(part, arrays)
                for name, part in stored["fields"].items()
            }
            return cls(**fields, config=stored["config"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LoadError(
                f"{os.fspath(path)} holds no explanation that this version of kxai can read.",
                expected=f"format {FORMAT!r} version {FORMAT_VERSION}",
                received=f"{type(error).__name__}: {error}",
                fix="write it again with Explanation.save of this version.",
            ) from error

    @staticmethod
    def concatenate(parts: Sequence[Explanation]) -> Explanation:
        """Joins the explanations of several batches into one.

        Args:
            parts: at least one; all made in the same way (``config`` equal but for ``notes``, which are united).

        Returns:
            One explanation of all samples, in order.

        Raises:
            ArgumentError: there are no parts, or they differ in method, structure or shape.

        Example:
            >>> e = Explanation(np.ones((2, 3)), np.zeros((2, 5)), np.array([1, 4]), np.array([3.0, 3.5]))
            >>> len(Explanation.concatenate([e, e[:1]]))
            3
        """
        if not parts:
            raise ArgumentError("There is nothing to concatenate.", expected="at least one explanation")
        joined = {name: _joined(name, [getattr(part, name) for part in parts]) for name in _ARRAYS}
        return Explanation(**joined, config=_joined_config([part.config for part in parts]))


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, MappingProxyType) else value


def _check(explanation: Explanation) -> None:
    if explanation.score.ndim != 1:
        raise ArgumentError("score has the wrong shape.", expected="(batch,)", received=str(explanation.score.shape))
    for name, array in _named_arrays(explanation):
        if array.ndim == 0 or len(array) != len(explanation):
            raise ArgumentError(
                f"{name} does not have one entry per sample.",
                expected=f"({len(explanation)}, ...), as many as score",
                received=str(array.shape),
            )
        if name.startswith(("outputs", "target")):
            continue
        if array.dtype.kind != "f":
            raise ArgumentError(f"{name} has the wrong dtype.", expected="floating point", received=str(array.dtype))
        if name.startswith(("absorbed", "base")) and array.ndim != 1:
            raise ArgumentError(f"{name} has the wrong shape.", expected="(batch,)", received=str(array.shape))
        if not np.isfinite(array).all():
            sample = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
            raise NumericalError(
                f"{name} is not finite.",
                expected="finite numbers",
                received=f"NaN or infinity, first in sample {sample}",
                fix="is model(x) finite? If not, mend the model; if so, a larger epsilon keeps denominators off 0.",
            )


def _named_arrays(explanation: Explanation) -> list[tuple[str, np.ndarray]]:
    named = []
    for name in _ARRAYS:
        value = _plain(getattr(explanation, name))
        if name in ("layers", "absorbed"):
            named += [(f"{name}[{path!r}]", array) for path, array in value.items()]
        elif not isinstance(value, str):
            named += [(name, array) for array in nest.leaves(value)]
    return named


def _joined(name: str, values: list[Any]) -> Any:
    values = [_plain(value) for value in values]
    if not any(isinstance(value, str) for value in values):
        return nest.concatenate(values)
    if any(not isinstance(value, str) or value != values[0] for value in values):
        raise ArgumentError(
            "Explanations of different targets cannot be joined.",
            expected=f"one {name} throughout",
            received=", ".join(sorted({value if isinstance(value, str) else "an array" for value in values})),
        )
    return values[0]


def _joined_config(configs: list[Mapping[str, Any]]) -> dict[str, Any]:
    for config in configs[1:]:
        keys = sorted((configs[0].keys() | config.keys()) - {"notes"})
        differing = [key for key in keys if configs[0].get(key) != config.get(key)]
        if differing:
            raise ArgumentError(
                "Explanations that were made differently cannot be joined.",
                expected=f"the same {', '.join(differing)} throughout",
                received=" and ".join(f"{[c.get(key) for key in differing]}" for c in (configs[0], config)),
            )
    notes = dict.fromkeys(note for config in configs for note in config.get("notes", ()))
    return {**configs[0], **({"notes": list(notes)} if any("notes" in config for config in configs) else {})}
