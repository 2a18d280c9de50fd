"""From the bytes of an image to its explanation: decoding, preprocessing, and an overlay as PNG."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from keras import ops

from kxai import backend
from kxai.arguments import check_number
from kxai.backend import pictures
from kxai.backend.saved_model import Concrete, TensorFacts
from kxai.errors import ArgumentError, ExportError
from kxai.exporting.explaining import RELEVANCE, TARGET, Explaining
from kxai.exporting.interface import Interface
from kxai.exporting.overlay import overlays
from kxai.preprocessing import PREPROCESS, preprocessing

IMAGE, OVERLAY = "image_bytes", "overlay_png_bytes"


@final
@dataclass(frozen=True)
class Image:
    """How the bytes of an image become a model's input, for the signature ``explain_image``.

    JPEG and PNG files of up to 2^26 pixels are decoded, and resized to the model's input where they differ from it
    (bilinear, smoothed when reduced; the aspect ratio is not kept). Orientation flags of cameras and transparency are
    ignored.

    Args:
        preprocess: from pixels x in 0..255 to what the model was trained on: "raw" (x), "unit" (x / 255), "signed"
            (x / 127.5 - 1), "caffe" or "torch" (as in keras.applications), "MEAN,STD" ((x - MEAN) / STD), a tuple
            (scale, offset) for scale x + offset, or a function of float64 tensors (batch, height, width, channels) made
            of keras.ops.
        size: height and width, for models that leave them open. Default None: the model's own.
        clip: percentile of an overlay's magnitudes, (0, 100], from which on its colours saturate. Default 99.5.
        opacity: how far an overlay's largest magnitudes cover the image, [0, 1]. Default 0.85.

    Raises:
        ArgumentError: an argument is out of range.

    Example:
        >>> Image("signed").size is None
        True
    """

    preprocess: str | tuple[float, float] | Callable[[Any], Any]
    size: tuple[int, int] | None = None
    clip: float = 99.5
    opacity: float = 0.85

    def __post_init__(self) -> None:
        self.function()
        size = self.size
        pair = isinstance(size, (tuple, list)) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
        if size is not None and not pair:
            raise ArgumentError("size is out of range.", expected="(height, width), or None", received=repr(size))
        check_number("clip", self.clip, above=0, most=100, unit="a percentile")
        check_number("opacity", self.opacity, least=0, most=1)

    def check(self, interface: Interface) -> None:
        """Raise ExportError if a model takes no images, or ArgumentError if it takes them in another size."""
        size = image_input(interface).shape[1:3]
        if self.size is not None and tuple(self.size) != size:
            raise ArgumentError("size contradicts the model.", expected=str(size), received=str(self.size))

    def function(self) -> Callable[[Any], Any]:
        """From pixels to the model's input."""
        given = self.preprocess
        if callable(given):
            return given
        if isinstance(given, str):
            try:
                return preprocessing(given)
            except ValueError as error:
                raise ArgumentError("Unknown preprocess.", expected=str(error), received=repr(given)) from None
        numbers = isinstance(given, (tuple, list)) and all(isinstance(n, (int, float)) for n in given)
        if not numbers or len(given) != 2 or not np.isfinite(given).all() or given[0] == 0:
            raise ArgumentError(
                "Unknown preprocess.",
                expected=f"{', '.join(PREPROCESS)}, MEAN,STD, (scale, offset) with scale not 0, or a function",
                received=repr(given),
            )
        scale, offset = given
        return lambda x: x * scale + offset


@final
@dataclass(frozen=True, eq=False)
class ImageExplaining:
    """The function behind an ``explain_image`` signature.

    Attributes:
        image: how bytes become an input.
        explaining: the function of the model's input.
        concrete: the same, traced; it is called, so that the graph holds it once.
    """

    image: Image
    explaining: Explaining
    concrete: Concrete

    @property
    def inputs(self) -> dict[str, TensorFacts]:
        """Shape and dtype of the signature's inputs."""
        others = {TARGET: self.explaining.inputs[TARGET]} if self.explaining.asked else {}
        return {IMAGE: TensorFacts((None,), "string"), **others}

    def run(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """What the function of the model's input returns, and an overlay per image."""
        facts = image_input(self.explaining.interface)
        (name,) = self.explaining.interface.names
        pixels = pictures.decoded(tensors[IMAGE], facts.sizes)
        x = ops.cast(self.image.function()(ops.cast(pixels, "float64")), facts.dtype)
        if tuple(x.shape[1:]) != facts.shape[1:]:
            raise ExportError(
                "The function that preprocesses images changes their shape.",
                expected=f"(batch, {', '.join(map(str, facts.shape[1:]))})",
                received=str(tuple(x.shape)),
            )
        found = self.concrete.within({name: x, **{key: tensors[key] for key in tensors if key != IMAGE}})
        if OVERLAY in found:
            raise ExportError(
                f"An output of the model is called {OVERLAY!r}, as is the overlay.", fix="rename the output."
            )
        drawn = overlays(pixels, found[RELEVANCE], self.image.clip, self.image.opacity)
        return {**found, OVERLAY: pictures.encoded(drawn)}


def blank(interface: Interface) -> np.ndarray:
    """The file of one black image of the model's size."""
    files = pictures.encoded(np.zeros((1, *image_input(interface).sizes), "uint8"))
    return np.asarray(backend.to_numpy(files))


def image_input(interface: Interface) -> TensorFacts:
    """The model's only input, an image.

    Raises:
        ExportError: it takes something else.
    """
    facts = list(interface.inputs.values())
    if len(facts) == 1 and len(facts[0].shape) == 4 and facts[0].shape[-1] in (1, 3):
        return facts[0]
    raise ExportError(
        "The model does not take images, so it has no explain_image.",
        expected="one input (batch, height, width, 1 or 3), channels last",
        received=", ".join(str(fact.shape) for fact in facts),
        fix="leave image= out.",
    )
