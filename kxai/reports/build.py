"""Methods side by side on some samples, as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import keras
import numpy as np
from keras import tree

from kxai import backend, files
from kxai.analyzers.inputs import as_example, to_arrays
from kxai.arguments import check_number
from kxai.errors import ArgumentError, InputError
from kxai.graph.trace import input_specs
from kxai.reports.columns import Column, Request, Source, columns, named
from kxai.reports.facts import facts_of, store, stored_bytes
from kxai.reports.pack import PRECISIONS, Blobs
from kxai.reports.page import page
from kxai.reports.parts import Part, parts
from kxai.reports.samples import check_labels

DEFAULT_METHODS = ("lrp.epsilon_plus", "gradient_x_input", "integrated_gradients")
MAX_MEGABYTES = 64.0


@final
@dataclass(frozen=True, repr=False)
class Report:
    """A report: one HTML file that needs no other and no network.

    Args:
        html: the file's text.
        precision: "single" (exact, unless the model computes in double precision), "half" (to within 0.05 %) or "maps"
            (half, without channels); the finest with which the file is no larger than it may be.
        errors: the methods that refused, and why.
    """

    html: str
    precision: str
    errors: Mapping[str, str]

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the file, all of it or nothing.

        Args:
            path: the file; one that is there is replaced.

        Returns:
            The path.

        Raises:
            ArgumentError: this is no path of a file in a folder that is there.
        """
        place = files.writable(path, "report")
        files.write_whole(place, lambda stream: stream.write(self.html.encode("utf-8")))
        return place

    def __repr__(self) -> str:
        refused = f", refused by {', '.join(self.errors)}" if self.errors else ""
        return f"Report({len(self.html) / 1e6:.2f} MB, precision={self.precision!r}{refused})"


def report(
    model: Any, inputs: Any, methods: Sequence[Source] | Mapping[str, Source] | str = DEFAULT_METHODS,
    target: Any = None, path: str | os.PathLike | None = None, *,
    settings: Mapping[str, Mapping[str, Any]] | None = None, fit: Any = None, images: Any = None,
    tokens: Any = None, feature_names: Any = None,
    names: Sequence[str] | None = None, labels: Sequence[str] | None = None, title: str | None = None,
    batch_size: int = 32, max_megabytes: float = MAX_MEGABYTES, verbose: bool | None = None,
) -> Report:  # fmt: skip
    """Explains samples with several methods and puts all of it into one HTML file to look at.

    The page shows predictions, a grid of samples and methods that can be sorted, clipping, opacity and channels to
    choose, relevance under the pointer, and per method its plan, residuals and configuration. A method that refuses the
    model gets a column that says why. The same arguments give the same bytes.

    Args:
        model: a built Keras model.
        inputs: the samples, as the model takes them, with a batch axis.
        methods: names, analyzers or composites; or a dict of these by the name to be shown. Default: epsilon-plus LRP,
            gradient times input, integrated gradients.
        target: what is explained, see ``Analyzer.explain``. Default: the predicted class.
        path: where the file is written; default nowhere, see ``Report.save``.
        settings: hyperparameters by the names of the methods, such as ``{"lrp.epsilon": {"epsilon": 0.1}}``.
        fit: data, as the model takes them, for the methods that are fitted to data. Default None.
        images: ``(batch, height, width[, 1|3])``, how images look before the model's preprocessing, uint8 or of a range
            that ``kxai.plots`` takes; of several images a dict by input. Default: made of the inputs' values.
        tokens: the tokens of every sample, for inputs ``(batch, steps[, channels])``; of several a dict by input.
        feature_names: a name per column of a table; of several tables a dict by input.
        names: a name per sample; default their numbers.
        labels: a name per output unit; default their numbers.
        title: of the page; default the model's name.
        batch_size: rows computed at once, >= 1, default 32.
        max_megabytes: what the file may measure, in 10^6 bytes; default 64. Numbers are kept in single precision, if
            they fit in, or else in half precision, or without channels; the page says which.
        verbose: show progress bars; None (default) on a terminal if it takes long.

    Returns:
        The report.

    Raises:
        InputError, TargetError, ArgumentError, UnknownNameError: an argument does not fit, no method explains the
            model, or the file would be too large.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> report(model, np.ones((1, 3)), ["gradient", "lrp.epsilon"]).precision
        'single'
    """
    check_number("max_megabytes", max_megabytes, above=0)
    if path is not None:
        files.writable(path, "report")
    if not isinstance(title, (str, type(None))):
        raise ArgumentError("title is no text.", expected="a str or None", received=repr(title))
    sources = named(methods)
    arrays = _arrays(model, inputs)
    labels = None if labels is None else _texts("labels", labels)
    if labels is not None and isinstance(model, (keras.Sequential, keras.Function)):
        check_labels(labels, [tuple(output.shape) for output in model.outputs])
    shown = parts(arrays, images, tokens, feature_names)
    count = len(shown[0].values)
    called = _sample_names(names, count)
    found = columns(
        sources, {} if settings is None else settings, Request(model, inputs, target, fit, batch_size, verbose)
    )
    heading = model.name if title is None else title
    facts = {"title": heading, "model": model.name, **facts_of(found, shown, called, labels)}
    result = _fitting(facts, found, shown, max_megabytes)
    if path is not None:
        result.save(path)
    return result


def _arrays(model: Any, inputs: Any) -> dict[str, np.ndarray]:
    """The model's inputs by name."""
    if backend.is_dataset(inputs):
        raise InputError(
            "A report shows samples, not a dataset.",
            expected="arrays",
            received="a tf.data.Dataset",
            fix="take the samples out: inputs, labels = next(iter(dataset.batch(8))).",
        )
    declares = isinstance(model, (keras.Sequential, keras.Function))
    specs = input_specs(model, None if declares else as_example(inputs))
    return {spec.name: array for spec, array in zip(tree.flatten(specs), to_arrays(inputs, specs), strict=True)}


def _sample_names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"sample {index}" for index in range(count)]
    texts = _texts("names", names)
    if len(texts) != count:
        raise ArgumentError("names does not fit.", expected=f"{count} names", received=f"{len(texts)} names")
    return texts


def _texts(what: str, given: Any) -> list[str]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ArgumentError(f"{what} is no list.", expected="a sequence of texts", received=repr(given))
    return [str(one) for one in given]


def _fitting(facts: dict[str, Any], found: list[Column], shown: list[Part], megabytes: float) -> Report:
    """The report in the finest precision with which it is small enough."""
    errors = {column.name: column.error for column in found if column.error}
    for precision in PRECISIONS:
        size = stored_bytes(found, shown, precision)
        if size > megabytes * 1e6:
            continue
        blobs = Blobs()
        stored = store(found, shown, precision, blobs)
        html = page(facts["title"], {**facts, **stored}, blobs.texts)
        size = len(html.encode("utf-8"))
        if size <= megabytes * 1e6:
            return Report(html, precision.name, errors)
    raise ArgumentError(
        "The report would be too large.",
        expected=f"at most {megabytes:g} MB (max_megabytes)",
        received=f"{size / 1e6:.3g} MB for {len(shown[0].values)} samples and {len(found)} methods, in half precision",
        fix="fewer samples or methods, or a larger max_megabytes.",
    )
