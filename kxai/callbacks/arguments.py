"""Arguments of the callback: checked before a training begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kxai import backend, nest, plots
from kxai import metrics as family
from kxai.arguments import check_integer
from kxai.callbacks.methods import word
from kxai.callbacks.samples import Samples
from kxai.errors import ArgumentError, TargetError, UnknownNameError
from kxai.metrics.localisation import checked_masks

FORMATS = ("tensorboard", "png")


def batches(freq: Any) -> int | None:
    """After how many batches explanations are made; None: after each epoch.

    Args:
        freq: "epoch" or an integer >= 1.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(freq, str) and freq == "epoch":
        return None
    return check_integer("freq", freq, also='"epoch"')


def target(given: Any, samples: Samples, output: str | None = None) -> Any:
    """The target for the samples.

    Args:
        given: "label", or as of :meth:`kxai.Analyzer.explain`, with entries for all validation samples.
        samples: the samples.
        output: of the model, to which this belongs; default None, not said.

    Raises:
        TargetError: the labels are no classes, or rows differ in length.
        InputError: class indices are not one per sample.
    """
    if isinstance(given, str) and given == "label":
        return samples.classes(output)
    if isinstance(given, Mapping):
        return {name: target(given[name], samples, name) for name in given}
    given = backend.to_numpy(given) if keras.ops.is_tensor(given) else given
    if not isinstance(given, (np.ndarray, list)):
        return given  # one for all samples
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise TargetError("The target has rows of different lengths.", received=str(error)) from error
    if array.dtype.kind in "iu" and array.ndim == 1:
        return samples.first(array, "target")
    # Rows of weights are one per sample if there are as many, else the weights of one row of outputs.
    rows = array.dtype.kind == "f" and array.ndim > 1 and len(array) == samples.total
    return samples.first(array, "target") if rows else given


def masks(given: Any, samples: Samples) -> np.ndarray | None:
    """Masks of the samples.

    Args:
        given: masks of all validation samples, or None.
        samples: the samples.

    Raises:
        ArgumentError: they are no masks.
        InputError: they are not one per sample.
    """
    return None if given is None else samples.first(checked_masks(given), "masks")


def metrics(given: Any, known_masks: np.ndarray | None) -> tuple[family.Metric, ...]:
    """The metrics, in order.

    Args:
        given: metrics, or None for the usual ones.
        known_masks: masks, if there are any.

    Raises:
        ArgumentError: they are no metrics, two have one name, one needs what is not there, or masks have no use.
    """
    if given is None:
        located = () if known_masks is None else (family.RelevanceMass(),)
        return (family.Residual(), family.Entropy(), family.RankCorrelation(), *located)
    if not isinstance(given, (list, tuple)) or not all(isinstance(metric, family.Metric) for metric in given):
        raise ArgumentError(
            "metrics are not metrics.",
            expected="a list of kxai.metrics.Metric, such as [kxai.metrics.Entropy()]",
            received=repr(given),
        )
    names = [metric.name for metric in given]
    if len(set(names)) < len(names):
        raise ArgumentError("Two metrics have one name.", expected="each once", received=", ".join(names))
    needs = {need for metric in given for need in metric.needs}
    unknown = sorted(needs - {"masks", "other"})
    if unknown:
        raise ArgumentError(
            f"A metric needs {', '.join(unknown)}, which a training does not give.",
            expected="metrics that need nothing, masks or another explanation",
            received=", ".join(names),
        )
    if ("masks" in needs) != (known_masks is not None):
        raise ArgumentError(
            "A metric needs masks." if "masks" in needs else "No metric needs masks.",
            expected="masks= together with metrics of localisation, such as kxai.metrics.RelevanceMass()",
            received=f"metrics {', '.join(names) or 'none'}, {'no ' if known_masks is None else ''}masks",
        )
    return tuple(given)


def folder(log_dir: Any) -> Path | None:
    """Where things are written, whatever becomes of the working directory; None: nowhere.

    Args:
        log_dir: a folder of this machine, or None.

    Raises:
        ArgumentError: it is something else.
    """
    if log_dir is None:
        return None
    if not isinstance(log_dir, (str, os.PathLike)) or "://" in (path := str(os.fspath(log_dir))):
        raise ArgumentError("log_dir is no folder of this machine.", expected="a path, or None", received=repr(log_dir))
    return Path(path).absolute()


def check_pictures(log_dir: Path | None, formats: Any, max_images: int, **options: Any) -> None:
    """Raise ArgumentError if formats are unknown, or something about pictures has no effect.

    Args:
        log_dir: folder or None.
        formats: where things go.
        max_images: samples in a picture.
        options: of the pictures; None where not given.
    """
    if isinstance(formats, str) or not formats or any(one not in FORMATS for one in formats):
        raise ArgumentError(
            "formats is out of range.", expected=f"one or more of {FORMATS}, in a list", received=repr(formats)
        )
    if log_dir is None and set(formats) != set(FORMATS):
        raise ArgumentError("formats has no effect.", expected="log_dir=, a folder", received="log_dir=None")
    if log_dir is not None and "tensorboard" not in formats and not max_images:
        raise ArgumentError(
            "log_dir has no effect: nothing is written.",
            expected="the format tensorboard, or max_images > 0",
            received=f"formats={formats!r}, max_images=0",
        )
    if options.get("clip") is not None and isinstance(options.get("scale"), (int, float)):
        raise ArgumentError(
            "clip has no effect: the scale is given.", expected="one of clip and scale", received=f"{options['clip']!r}"
        )
    useless = [name for name, value in options.items() if value is not None]
    if useless and (log_dir is None or not max_images):
        raise ArgumentError(
            f"{', '.join(useless)} has no effect: there are no pictures.",
            expected="log_dir=, a folder, and max_images > 0",
            received=f"log_dir={log_dir!r}, max_images={max_images}",
        )


def check_name(name: object) -> None:
    """Raise ArgumentError unless this is one word.

    Args:
        name: what names in logs and a folder begin with.
    """
    if not isinstance(name, str) or not name or word(name) != name:
        raise ArgumentError("name is no word.", expected="letters, digits and underscores", received=repr(name))


def check_names(scale: Any, methods: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise UnknownNameError if a scale is for a method that is not there.

    Args:
        scale: None, a number, or a dict by method.
        methods: their names.
    """
    for name in scale if isinstance(scale, Mapping) else ():
        if name not in methods:
            raise UnknownNameError("method in scale", str(name), methods)


def images(given: Any, samples: Samples) -> Any:
    """Images of the samples, or a dict of such; None if none were given.

    Args:
        given: images of all validation samples, or a dict of such.
        samples: the samples.

    Raises:
        ArgumentError: they are no images.
        InputError: they are not one per sample.
    """
    if given is None:
        return None
    if isinstance(given, Mapping):
        return {str(name): images(part, samples) for name, part in given.items()}
    array = np.asarray(given)
    if array.ndim not in (3, 4):
        raise ArgumentError(
            "images are no images.", expected="(samples, height, width[, 1|3])", received=str(array.shape)
        )
    plots.to_rgb(array[..., np.newaxis] if array.ndim == 3 else array)
    return samples.first(nest.frozen(array), "images")


def by_input(given: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Images by the model's inputs.

    Args:
        given: what :func:`images` returned.
        names: of the inputs.

    Raises:
        UnknownNameError: no such input.
        ArgumentError: there are several inputs, and images of one.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(names) > 1:
            raise ArgumentError(
                "images do not say which input they show.",
                expected=f"a dict by {', '.join(names)}",
                received="an array",
            )
        return {names[0]: given}
    for name in given:
        if name not in names:
            raise UnknownNameError("input in images", name, names)
    return dict(given)
