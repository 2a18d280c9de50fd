"""From analyzers to a SavedModel: ``kxai.export``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

import keras
import numpy as np
from keras import tree

from kxai.analyzers import Analyzer
from kxai.analyzers.analyzer import check_eager
from kxai.arguments import check_flags
from kxai.backend import saved_model
from kxai.backend.saved_model import Concrete, TensorFacts
from kxai.errors import ArgumentError, ExportError
from kxai.exporting.facts import facts_of
from kxai.exporting.folder import new_version, size_of
from kxai.exporting.image import Image
from kxai.exporting.interface import interface
from kxai.exporting.signatures import named, signatures
from kxai.exporting.warmup import warmup as warming
from kxai.graph.trace import input_specs

ASSET = "explanation.json"
WARMUP = Path("assets.extra", "tf_serving_warmup_requests")


@final
@dataclass(frozen=True)
class Signature:
    """A function of an export: shape (None for the batch) and dtype of its tensors, by name.

    Args:
        inputs: what it takes.
        outputs: what it returns.
    """

    inputs: Mapping[str, TensorFacts]
    outputs: Mapping[str, TensorFacts]


@final
@dataclass(frozen=True)
class Exported:
    """What was written. It can be used as a path: that of the version's folder.

    Args:
        path: the version's folder.
        signatures: by name.
        size: bytes of all files.
    """

    path: Path
    signatures: Mapping[str, Signature]
    size: int

    def __fspath__(self) -> str:
        return str(self.path)


def export(
    analyzer: Analyzer | Sequence[Analyzer] | Mapping[str, Analyzer], path: str | os.PathLike, version: int = 1, *,
    target: Any = None, output: str | None = None, example: Any = None, image: Image | None = None,
    warmup: Any = None, overwrite: bool = False,
) -> Exported:  # fmt: skip
    """Write a model with its explanations as a SavedModel, which needs neither Keras nor kxai to run.

    The folder ``path/version`` is what TensorFlow Serving loads: a graph without Python functions and without XLA, for
    any batch size, with these signatures. The model is not changed; the export holds its weights as they are now, and
    once per analyzer the arrays that it compares inputs with.

    - ``serving_default``: the model's inputs -> its outputs, at inference. Grouped convolutions, which Keras compiles
      by XLA, are computed group by group: equal up to rounding.
    - ``explain``: the inputs and ``target``, int32 (batch,), class indices with -1 for the predicted class -> the
      outputs, ``relevance`` (for several inputs ``relevance_<input>`` each), ``target`` (what was explained), ``score``
      and ``residual``, float64 (batch,): score - base - sum of the relevance. All tensors have the batch first.
    - ``explain_<name>``, for several analyzers: one each, "." as "_"; ``explain`` is the first.
    - ``explain_image``, with ``image``: ``image_bytes``, JPEG or PNG files, in place of the input -> the same and
      ``overlay_png_bytes``.

    A target out of range, ids that are in no vocabulary, inputs outside of the bounds of a rule, and inputs or results
    that are not finite fail with InvalidArgument and a message, for the whole batch. Inputs and outputs of 16 bits
    arrive as float32. Outputs called like a tensor of the explanation become ``output_<name>`` in the signatures that
    explain.

    ``assets/explanation.json`` holds methods, hyperparameters, rules, plans, versions and names; it is an asset of the
    SavedModel, so loaders and re-exports keep it. ``assets.extra/tf_serving_warmup_requests`` warms a server up.

    Args:
        analyzer: an analyzer, or several of one model, in a list or by name.
        path: folder of all versions of the model.
        version: its number, 0 to 2^63 - 1, default 1.
        target: explain this and no other: as :meth:`kxai.Analyzer.explain` takes it, the same for all samples. Then
            signatures have no input ``target``, and their output ``target`` is there for classes alone. Default None:
            the class is an input.
        output: which output ``target`` refers to; needed for models of several. Default: the only one.
        example: a batch of inputs that fixes the sizes which a model leaves open, and, of subclassed models, all of
            them. Default None.
        image: how the bytes of images become inputs. Default None: no ``explain_image``.
        warmup: inputs of the requests that warm a server up, at least one sample. Default None: one sample of zeros;
            False: no such requests.
        overwrite: replace a version that is there. Default False.

    Returns:
        Exported: the folder, its signatures and its size.

    Raises:
        ExportError: a method takes steps outside of TensorFlow, sizes are open, names collide, the version is there, or
            the warm-up inputs cannot be explained. Nothing is left behind.
        ArgumentError, InputError, TargetError, ModelError, RuleError, UnknownNameError: see their messages.

    Example:
        >>> import keras, kxai, tempfile
        >>> model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="y")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     done = export(kxai.LRP(model, "epsilon"), folder)
        >>> done.path.name, list(done.signatures)
        ('1', ['serving_default', 'explain'])
        >>> sorted(done.signatures["explain"].outputs)
        ['relevance', 'residual', 'score', 'target', 'y']
    """
    check_eager("exports are written")
    check_flags(overwrite=overwrite)
    if image is not None and not isinstance(image, Image):
        raise ArgumentError("image is no Image.", expected="kxai.exporting.Image(...), or None", received=repr(image))
    analyzers = named(analyzer)
    model = next(iter(analyzers.values())).model
    names = interface(model, _sized(model, image) if example is None else example)
    if image is not None:
        image.check(names)
    with new_version(path, version, overwrite) as folder:
        made = signatures(analyzers, names, target, output, image)
        requests = b"" if warmup is False else warming(made.functions, names, warmup)
        _save(folder, made.functions, facts_of(names, made.functions, made.facts))
        if requests:
            (folder / WARMUP).parent.mkdir()
            (folder / WARMUP).write_bytes(requests)
    place = Path(path) / str(version)
    written = {name: Signature(one.inputs, one.outputs) for name, one in made.functions.items()}
    return Exported(place, MappingProxyType(written), size_of(place))


def _sized(model: Any, image: Image | None) -> Any:
    """An example of an image of the size that ``image`` gives; None: the model says it."""
    declares = isinstance(model, (keras.Sequential, keras.Function))
    if image is None or image.size is None or not declares:
        return None
    specs = tree.flatten(input_specs(model))
    fits = len(specs) == 1 and len(specs[0].shape) == 4 and specs[0].shape[-1] is not None
    return np.zeros((1, *image.size, specs[0].shape[-1]), "float32") if fits else None


def _save(folder: Path, functions: Mapping[str, Concrete], facts: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        asset = Path(temporary, ASSET)
        asset.write_text(facts, encoding="utf-8")
        try:
            saved_model.save(str(folder), functions, [str(asset)])
        except ValueError as error:
            raise ExportError(
                "TensorFlow cannot write this model as a SavedModel.",
                received=str(error).strip().splitlines()[0],
                fix="layers may read variables, but no lookup tables: do such preprocessing before the model.",
            ) from error
