"""Activation maximisation bound to a model."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from typing import Any, final

import keras
import numpy as np
from keras import tree

from kxai import backend
from kxai.adapters import tf_keras_vis
from kxai.analyzers.backward import remembered
from kxai.analyzers.inputs import as_example, to_arrays
from kxai.arguments import check_integer, check_number
from kxai.errors import ArgumentError, InputError, KxaiWarning, TargetError
from kxai.graph.graph import Graph
from kxai.graph.trace import InputSpec, check_model, input_specs
from kxai.maximization.objective import Objective, explained_graph
from kxai.maximization.result import Maximization
from kxai.progress import track
from kxai.targets import PREDICTED, OutputSpec, Target, resolve
from kxai.version import __version__

NOISE = 0.1
"""Where nothing else is given, the start is the middle of the range, with uniform noise of this share of it."""


@final
class ActivationMaximization:
    """Inputs that excite a class, or a unit of an inner layer, the most.

    ``argmax_x s(x) - total_variation * TV(u) - l2_norm * mean(u^2)``, with s the logit of the class (or the mean of a
    channel over its positions), and u the input in units in which its range is [-1, 1]. Adam climbs for
    ``num_steps``; before every step u is clipped to the range. tf-keras-vis does the climbing:
    ``pip install "kxai[actmax]"``. No input is explained, so that this is no analyzer and no method of
    :func:`kxai.create_analyzer`.

    Args:
        model: a built Keras model with inputs of floating point; of several inputs all are optimised.
        layer: a path, a glob or a Keras layer whose units are maximised; None (default) means the model's outputs, the
            logit where they are a softmax or sigmoid.
        num_steps: an int >= 1, default 200.
        learning_rate: of Adam, as a share of the width of the range, > 0, default 0.02.
        input_range: (low, high), numbers or arrays that broadcast to one input (such as a number per channel), finite,
            low < high; or a dict of such pairs by the names of the inputs. Default (0, 1).
        total_variation: weight >= 0 of TV(u), the sum of absolute differences of neighbouring pixels divided by the
            number of values; for images (height, width, channels) only. Default None: 5 for images, 0 for others; 100
            to 300 suit photographs.
        l2_norm: weight >= 0 of the distance from the middle of the range, default 0.1.
        jitter: at every step s is taken of the input shifted at random by up to so many pixels along all axes but the
            channels; what leaves on one side comes in on the other. An int >= 0, default 0; 16 suits photographs.
        seed: of the start and the shifts, an int >= 0, default 0. Global random numbers are neither used nor
            changed.

    Raises:
        MissingDependencyError: tf-keras-vis is not installed.
        ArgumentError: an argument is out of range. ModelError: not a built Keras model.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
        >>> maximizer = ActivationMaximization(model, num_steps=20)  # doctest: +SKIP
        >>> maximizer.maximize(target=2).images.shape  # doctest: +SKIP
        (1, 4, 4, 1)

    Source: Simonyan et al. 2013, section 2 (their regulariser is the L2 norm).
    """

    def __init__(
        self, model: Any, *, layer: Any = None, num_steps: int = 200, learning_rate: float = 0.02,
        input_range: Any = (0.0, 1.0), total_variation: float | None = None, l2_norm: float = 0.1, jitter: int = 0,
        seed: int = 0,
    ) -> None:  # fmt: skip
        check_model(model)
        tf_keras_vis.require()
        check_integer("num_steps", num_steps)
        check_number("learning_rate", learning_rate, above=0)
        if total_variation is not None:
            check_number("total_variation", total_variation, least=0, also="None")
        check_number("l2_norm", l2_norm, least=0)
        check_integer("jitter", jitter, least=0)
        check_integer("seed", seed, least=0)
        self._model, self._layer = model, layer
        self._num_steps, self._learning_rate, self._input_range = num_steps, learning_rate, input_range
        self._total_variation, self._l2_norm = total_variation, l2_norm
        self._jitter, self._seed = jitter, seed
        self._lock = threading.RLock()
        self._graphs: dict[Any, Graph] = {}
        self._objectives: dict[Any, Objective] = {}
        self._traces = 0

    @property
    def model(self) -> Any:
        """The model."""
        return self._model

    @property
    def traces(self) -> int:
        """How many functions were traced so far."""
        return self._traces

    def hyperparameters(self) -> dict[str, Any]:
        """Arguments other than the model, by name."""
        names = "layer num_steps learning_rate input_range total_variation l2_norm jitter seed".split()
        return {name: getattr(self, f"_{name}") for name in names}

    def __repr__(self) -> str:
        shown = "".join(f", {key}={value!r}" for key, value in self.hyperparameters().items())
        return f"ActivationMaximization({self._model.name!r}{shown})"

    def maximize(
        self, target: Any, num_images: int | None = None, *, start: Any = None, verbose: bool | None = None
    ) -> Maximization:
        """Climb.

        Args:
            target: an int (a class, or a channel of the layer: its mean over all positions), ints (one per image), a
                tuple of ints (one unit at one position), floats (weights), a :class:`Contrast`, a dict {output name:
                target}, or a callable over the outputs that returns one number per image.
            num_images: how many images, an int >= 1; they differ by their start. Default: as many as ``start`` or
                ``target`` has, else 1. All are computed at once.
            start: inputs to start from, structured like the model's, within ``input_range``; default its middle with
                noise. Needed where the model leaves sizes open.
            verbose: show a progress bar; None (default) shows one on a terminal if it takes long.

        Returns:
            Maximization: the images, their scores, and the scores on the way.

        Raises:
            ArgumentError, InputError, TargetError, UnknownNameError, NumericalError: see their messages.

        Warns:
            KxaiWarning: the score of an image never moved.
        """
        if num_images is not None:
            check_integer("num_images", num_images, also="None")
        specs = input_specs(self._model, None if start is None else as_example(start))
        flat: list[InputSpec] = tree.flatten(specs)
        given = None if start is None else to_arrays(start, specs)
        shapes = _sizes(flat, given)
        objective, resolved = self._prepare(specs, shapes, target)
        count = _count(num_images, given, resolved)
        ranges = [self._range(spec, shape) for spec, shape in zip(flat, shapes, strict=True)]
        variables = self._variables(flat, ranges, count, shapes, given)
        data = [part.batch(0, count) for part in resolved.parts]
        middles, halves = [[r[i] for r in ranges] for i in (0, 1)]
        values, history = tf_keras_vis.ascend(
            lambda inputs: objective(inputs, middles, halves, data),
            variables,
            steps=iter(track(range(self._num_steps), self._num_steps, "climbing", verbose)),
            num_steps=self._num_steps,
            learning_rate=2 * self._learning_rate,  # the range is 2 wide
            seed=self._seed,
        )
        score = backend.to_numpy(objective(values, middles, halves, data))
        _warn_unmoved(history, score)
        low, high = [m - h for m, h in ranges], [m + h for m, h in ranges]
        images = [np.clip(m + h * v, m - h, m + h) for v, (m, h) in zip(values, ranges, strict=True)]
        packed = [tree.pack_sequence_as(specs, part) for part in (images, low, high)]
        return Maximization(packed[0], score, history, packed[1], packed[2], self._config(target, objective.notes))

    def _prepare(self, specs: Any, shapes: list[tuple[int, ...]], target: Any) -> tuple[Objective, Target]:
        flat = [InputSpec((None, *shape), spec.dtype, spec.name)
                for spec, shape in zip(tree.flatten(specs), shapes, strict=True)]  # fmt: skip
        key = (frozenset(map(id, self._model.weights)), *shapes)  # other variables are another graph
        with self._lock:
            graph = remembered(
                self._graphs, key, lambda: explained_graph(self._model, tree.pack_sequence_as(specs, flat), self._layer)
            )
            outputs = [OutputSpec(name, e.shape) for name, e in zip(graph.output_names, graph.explained, strict=True)]
            resolved = resolve(target, outputs, None)
            if any(part.form == "index" and (part.data == PREDICTED).any() for part in resolved.parts):
                raise TargetError(
                    "What is maximised must be named: no input is given whose class could be predicted.",
                    expected="for example target=3",
                    received=repr(target),
                )
            form = (key, resolved.form)
            return remembered(self._objectives, form, lambda: Objective(graph, resolved, self._count_trace)), resolved

    def _count_trace(self) -> None:
        self._traces += 1

    def _range(self, spec: InputSpec, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """(middle, half of the width) of one input."""
        pair = self._input_range
        if isinstance(pair, Mapping):
            pair = pair.get(spec.name)
        fine = isinstance(pair, (tuple, list)) and len(pair) == 2
        try:
            low, high = (np.asarray(value, np.float64) for value in pair) if fine else (np.zeros(()),) * 2
            fine = fine and np.broadcast_shapes(low.shape, high.shape, shape) == shape
        except (TypeError, ValueError):
            fine = False
        if not fine or not (np.isfinite(low) & np.isfinite(high)).all() or not np.all(low < high):
            raise ArgumentError(
                f"input_range does not fit input {spec.name!r}.",
                expected=f"(low, high), finite, low < high, numbers or arrays that broadcast to {shape}; "
                "or a dict of such pairs by input name",
                received=repr(self._input_range),
            )
        dtype = "float64" if spec.dtype == "float64" else "float32"
        return ((low + high) / 2).astype(dtype), ((high - low) / 2).astype(dtype)

    def _variables(
        self, flat: list[InputSpec], ranges: list[Any], count: int, shapes: list[tuple[int, ...]], given: Any
    ) -> list[tf_keras_vis.Variable]:
        rng = np.random.default_rng(self._seed)
        images = [len(shape) == 3 for shape in shapes]
        for name, value, fits, needs in (
            ("total_variation", self._total_variation, images, "an input (height, width, channels)"),
            ("jitter", self._jitter, [len(s) > 1 for s in shapes], "an input with axes besides its channels"),
        ):
            if value and not any(fits):
                raise ArgumentError(
                    f"{name} does not apply to this model.",
                    expected=needs,
                    received=f"inputs {shapes}",
                    fix=f"{name}=0",
                )
        found = []
        for i, (spec, (middle, half), shape) in enumerate(zip(flat, ranges, shapes, strict=True)):
            if given is None:
                start = rng.uniform(-NOISE, NOISE, (count, *shape)).astype(middle.dtype)
            else:
                start = (given[i] - middle) / half
                _check_within(spec, given[i], start)
            found.append(
                tf_keras_vis.Variable(
                    f"{i}/{spec.name}",
                    np.clip(start, -1, 1).astype(middle.dtype),
                    (5.0 if self._total_variation is None else self._total_variation) if images[i] else 0.0,
                    self._l2_norm,
                    self._jitter if len(shape) > 1 else 0,
                )
            )
        return found

    def _config(self, target: Any, notes: tuple[str, ...]) -> dict[str, Any]:
        simple = (str, int, float, bool, type(None))
        settings = {k: v if isinstance(v, simple) else repr(v) for k, v in self.hyperparameters().items()}
        return {
            "method": "activation_maximization",
            "hyperparameters": settings,
            "target": target if isinstance(target, simple) else repr(target),
            "model": self._model.name,
            "versions": {"kxai": __version__, "keras": keras.version(), "tf-keras-vis": tf_keras_vis.version()},
            "notes": list(notes),
        }


def _sizes(flat: list[InputSpec], given: list[np.ndarray] | None) -> list[tuple[int, ...]]:
    """Sizes of one sample of every input."""
    shapes = []
    for i, spec in enumerate(flat):
        if "float" not in spec.dtype:
            raise InputError(
                f"Input {spec.name!r} takes {spec.dtype}: between its values there is nothing to climb on.",
                expected="inputs of floating point",
                received=spec.dtype,
                fix="maximise a model that begins behind the embedding.",
            )
        shape = spec.shape[1:] if given is None else given[i].shape[1:]
        if None in shape:
            raise InputError(
                f"Input {spec.name!r} has sizes that the model leaves open.",
                expected="start=, an array to start from, whose sizes count",
                received=f"{spec.shape}",
            )
        shapes.append(tuple(int(size) for size in shape if size is not None))
    return shapes


def _count(num_images: int | None, given: list[np.ndarray] | None, resolved: Target) -> int:
    """How many images; all that say it must agree."""
    said = {"num_images": num_images, "start": None if given is None else len(given[0]), "target": resolved.length}
    counts = {name: count for name, count in said.items() if count is not None}
    if len(set(counts.values())) > 1:
        raise ArgumentError(
            "It is not clear how many images are wanted.",
            expected="one number",
            received=", ".join(f"{name} says {count}" for name, count in counts.items()),
        )
    return next(iter(counts.values()), 1)


def _check_within(spec: InputSpec, values: np.ndarray, scaled: np.ndarray) -> None:
    # What was computed as low or high in another precision is not outside.
    if np.abs(scaled).max() > 1 + 1e-5:
        raise InputError(
            f"The start of input {spec.name!r} is outside of input_range.",
            expected="values in input_range",
            received=f"values from {values.min():.6g} to {values.max():.6g}",
        )


def _warn_unmoved(history: np.ndarray, score: np.ndarray) -> None:
    still = np.flatnonzero((history == score).all(axis=0))
    if len(still):
        warnings.warn(
            f"The score of {len(still)} of {len(score)} images never moved (the first: image {still[0]}, "
            f"{score[still[0]]:.4g}). Behind a ReLU that is off its derivative is zero: try another seed or start, or "
            "the layer's value before its activation.",
            KxaiWarning,
            stacklevel=3,
        )
