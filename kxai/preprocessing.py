"""From pixels to what a model was trained on: plain arithmetic, on arrays and on tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_CAFFE_MEAN = np.array([103.939, 116.779, 123.68])
_TORCH_MEAN, _TORCH_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

PREPROCESS: dict[str, Callable[[Any], Any]] = {
    "raw": lambda x: x,
    "unit": lambda x: x / 255.0,
    "signed": lambda x: x / 127.5 - 1.0,
    "caffe": lambda x: x[..., ::-1] - _CAFFE_MEAN,
    "torch": lambda x: (x / 255.0 - _TORCH_MEAN) / _TORCH_STD,
}
"""From RGB in [0, 255] to what the model was trained on; the last two are those of keras.applications."""


def preprocessing(text: str) -> Callable[[Any], Any]:
    """Reads the name of a preprocessing.

    Args:
        text: a key of ``PREPROCESS``, or ``MEAN,STD``, for (x - MEAN) / STD.

    Returns:
        A function from images in [0, 255], an array or a tensor, to the model's input.

    Raises:
        ValueError: it is neither.

    Example:
        >>> preprocessing("127,128")(np.array([255.0]))
        array([1.])
    """
    if text in PREPROCESS:
        return PREPROCESS[text]
    mean, comma, std = text.partition(",")
    try:
        shift, divisor = float(mean), float(std)
    except ValueError:
        comma = ""
    if not comma or not np.isfinite([shift, divisor]).all() or divisor == 0:
        raise ValueError(f"expected one of {', '.join(PREPROCESS)} or MEAN,STD with STD not 0, received {text!r}")
    return lambda x: (x - shift) / divisor
